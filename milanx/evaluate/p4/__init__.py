"""P4, blinded reading: which of five sheets does a text belong to?

In come runs and their images; out go sheets and a key, then a report. ``study`` makes questions,
``sheets`` draws them, ``reading`` opens the key and counts.
"""
