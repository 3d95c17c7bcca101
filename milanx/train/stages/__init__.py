"""The networks that a describer is made of, one file each, in the order of training.

In come corpus and what earlier stages made; out go a stage's files and facts. ``encoders`` builds
what is frozen, then ``projection``, ``critic``, ``language`` (base, p(d|E), p(d)), ``probe``,
``simulator``; ``source_leak`` says how well sources can be told.
"""
