"""How sure a figure is: intervals of shares, means and differences, and corrected tests.

In come plain arrays of figures; out go estimates with 95 % intervals and p values. ``intervals``;
``crossing`` for units that share what they show; ``folds`` of units; ``calibration`` of
confidences.
"""
