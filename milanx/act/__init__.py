"""Acting on descriptions: units chosen by words are edited, measured, pruned, counted and audited.

In come runs and images; out go chosen units, edits, curves, weights, findings and figures.

``select`` chooses units among those that ``find`` finds, ``places`` says where a unit's value is,
``ablate`` changes it, ``calls`` and ``tail`` run what comes after it alone. ``data`` and ``sets``
hold the images to measure on, ``figures`` their intervals, ``curve`` measures how many on what
``rig`` holds together, ``prune`` is all of it, with the report ``pruned`` and the ``tables`` of
robustness. ``graph`` says who reads a value, ``weights`` writes edits into weights, ``export`` puts
them on disk, ``reopen`` loads the target of a run again.

``categories`` says what words name, ``analyze`` counts it over layers, ``importance`` ablates units
of a kind, ``audit`` applies rules. ``corruptions`` makes the corrupted images of ImageNet-C,
``corruption_error`` their mean errors, by those of ``alexnet``, ``robustness`` measures models on
them and on cues in conflict. ``shortcut`` is the experiment of spurious text.
"""
