"""How good descriptions are: protocols, the rows beside them, and their reports.

In come runs with their images, or a describer and photos to plant units on; out go reports: rows
with 95 % intervals, comparisons and notes, as json in the run. ``protocols`` runs them by name.
``p1`` names classes, ``p2`` plants units, ``p3`` simulates, ``p4`` makes and scores blinded
readings, ``p5`` asks whether scores are sane; ``methods`` asks all methods the same, ``common`` is
what they share. ``confidence`` calibrates how sure a describer is, ``weights`` what ranks;
``stability`` says what other settings change, ``senses`` asks whether one meaning stays one.
"""
