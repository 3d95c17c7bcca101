"""Stability: what becomes of descriptions when something else is chosen, one thing at a time.

In come a target, layers and probe images; out go texts of the same units under each setting, and a
report. ``settings`` says what is varied, ``vary`` describes, ``figures`` compares, ``measure`` does
it all.
"""
