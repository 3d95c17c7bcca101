"""Folds: what is fitted for a unit is fitted on others."""

from __future__ import annotations

import numpy as np

FOLDS = 5


def folds(n: int, seed: int = 0) -> np.ndarray:
    """Assign ``n`` units to at most five folds of like size, int [n]."""
    return np.random.default_rng(seed).permutation(n) % min(FOLDS, max(n, 1))
