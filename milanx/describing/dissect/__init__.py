"""Describing by the overlap of units with named regions, without any training.

In come a store, its target and images with regions; out go descriptions. ``describe`` is both ways,
``overlap`` runs the target and counts, ``compose`` searches formulas.
"""
