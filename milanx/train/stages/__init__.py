"""The networks that a describer is made of, one file each, in the order of training.

In come units and what earlier stages made; out go a stage's files and facts. ``stage`` says what a
stage is and keeps what it made, ``desk`` is where it works; ``begin`` and ``encoders`` come before
all. Then ``projection``, ``table``, ``critic``, ``base``, ``decoder`` (p(d|E)), ``prior`` (p(d)),
``conditioned`` for both of the first, ``probe``; ``source_leak`` says how well sources can be told,
``simulator`` is a training of its own, and so is ``milan``, p(d|E) and p(d) of a baseline.
"""
