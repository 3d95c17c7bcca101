"""P2, planted units: attribute F1, connectives and forced choice on known meanings.

In come a describer and labelled or segmented photos; out go a run of planted units and a report.
``protocol`` is P2. ``photos`` reads what units are planted in, with the ``atoms`` that rules see in
pixels and the ``facts`` (parts, materials) that some files tell; ``planted`` draws meanings and
exemplar sets; ``texts`` says which atoms a text names. ``variations`` are other settings under
which the same units are described once more.
"""
