"""P2, planted units: attribute F1, connectives and forced choice on known meanings.

In come labelled or segmented photos; out goes a report. ``protocol`` is P2, ``photos`` reads what
units are planted in, ``planted`` plants, ``atoms`` says which things a text names.
"""
