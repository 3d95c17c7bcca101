"""P3, simulation: do texts foretell activations on images that were kept aside?

In come a run and its images; out goes a report. ``protocol`` is P3, ``aside`` reads the images as a
``simulator`` sees them, ``simulate`` scores one layer's units under any texts, by the numbers of
``correlate``.
"""
