"""P3, simulation: do texts foretell activations on images that were kept aside?

In come a run and its images; out goes a report. ``protocol`` is P3, ``aside`` reads the units
there, ``simulator`` predicts from texts, ``simulate`` and ``correlate`` compare.
"""
