"""Sharing: what milanx made, on the Hugging Face Hub.

In comes a describer, a run or a table; out goes a repository that others load, look at and cite.
``push`` sends, ``pull`` fetches; ``run`` makes a data set of a run, with ``sheets`` of exemplars,
and ``cards`` writes what its page says. In ``exchange`` runs are written for other tools, and read.
"""
