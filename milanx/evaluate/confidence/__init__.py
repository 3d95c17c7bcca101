"""How sure a describer is: calibrated on one half of meanings and targets, reported on the other.

In come a describer and photos of one side; out go ``confidence.json``, or a report of how far it
holds. ``lists`` says what is on which side, ``planted`` and ``named`` make units whose text is
right or wrong (``units``), ``controls`` those that mean nothing; ``fit`` calibrates, ``protocol``
does both.
"""
