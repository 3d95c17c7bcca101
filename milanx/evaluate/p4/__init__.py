"""P4, blinded reading: which of five sheets does a text belong to?

In come runs and their images; out go sheets, lists of questions and a key apart, and, of the
readers' choices, a report. ``study`` makes it, ``questions`` draws the five units of each,
``sheets`` draws their images, ``reading`` opens the key and counts. ``rating`` asks whether
texts hold for their exemplars, ``rated`` counts the grades.
"""
