"""What the protocols share: rows, intervals, names of classes, comparison of texts.

In come figures a unit and texts; out go `Row`s with intervals. ``rows``, ``names`` and ``text``.
"""
