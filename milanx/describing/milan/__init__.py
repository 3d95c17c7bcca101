"""MILAN's own describer (Hernandez et al. 2022): an LSTM that attends to the exemplars, a baseline.

In comes a store; out go `Description`s. ``words`` are its vocabulary, ``network`` p(d|E) and p(d),
``search`` finds and ranks texts, ``describer`` is all of it as one object, ``folder`` keeps it.
"""
