"""Training units and their texts: what a unit may mean, and exemplar sets that show it.

In come encoded photos; out goes a `Corpus` that draws units with their evidence. ``meanings``,
``pixels``, ``joined``, ``grounded`` and ``phrases`` say what units mean, ``table`` pools their
exemplars once, ``corpus`` and ``annotated`` draw units, ``text`` and ``vocabulary`` are the words.
"""
