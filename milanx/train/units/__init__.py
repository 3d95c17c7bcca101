"""Training units and their texts: what a unit may mean, and exemplar sets that show it.

In come encoded photos; out goes a `Corpus` that draws units with their evidence. ``source`` is what
``planted`` and ``annotated`` units have in common, ``division`` says what of the photos is for
what. ``meanings``, ``pixels``, ``joined``, ``grounded`` say what units mean, and where a recipe
asks, ``parts``, ``coloured``, ``facts``, ``ground``, ``hypernyms``; ``phrases`` and ``vocabulary``
in which words, ``table`` pools their exemplars once, ``corpus`` draws units; ``pretraining`` is
text beside them.
"""
