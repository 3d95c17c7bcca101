"""Bootstrap over photographs: all figures of all models from the same draws, so they are paired."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from milanx.measures.intervals import CROSSED_DRAWS, resampled_counts, with_interval

AT_ONCE = 100  # draws that are held at a time: 20 MB for 50,000 images


def draw_means(
    columns: np.ndarray, groups: Sequence[str], seed: int = 0, draws: int = CROSSED_DRAWS
) -> np.ndarray:
    """Return the means of columns [n, c] in bootstrap draws of whole groups, float64 [draws, c].

    Images of one group are drawn together; a draw's mean is over the images that are in it.
    """
    _, place = np.unique(np.asarray(groups), return_inverse=True)
    count = int(place.max()) + 1
    sums = np.zeros((count, columns.shape[1] + 1))
    np.add.at(sums, place, np.column_stack([columns, np.ones(len(columns))]))
    sums = sums.astype(np.float32)
    rng = np.random.default_rng(seed)
    means = []
    for start in range(0, draws, AT_ONCE):
        here = resampled_counts(count, min(AT_ONCE, draws - start), rng) @ sums
        means.append(here[:, :-1].astype(np.float64) / here[:, -1:])
    return np.concatenate(means)


def figure(estimate: float, draws: np.ndarray) -> dict[str, Any]:
    """Return an estimate with its 95 % interval; draws that are no number are left out."""
    known = draws[np.isfinite(draws)]
    if not len(known) or not np.isfinite(estimate):
        return {"estimate": None, "interval": None}
    return with_interval(estimate, known)
