"""Acting on descriptions: units chosen by words are edited, measured, pruned and written.

In come runs and images; out go chosen units, edits, curves, weights and figures. ``select`` chooses
units, ``places`` says where a unit's value is, ``ablate`` changes it, ``data`` holds the images that
is measured on, ``calls`` and ``tail`` run what comes after it alone, ``graph`` says who reads it,
``weights`` writes it into weights, ``export`` puts it on disk, ``curve`` measures how many, and
``prune`` is all of it. ``corruptions`` makes the corrupted images of ImageNet-C,
``corruption_error`` their mean errors, by those of ``alexnet``.
"""
