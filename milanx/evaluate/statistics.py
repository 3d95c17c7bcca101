"""Intervals and comparisons: bootstrap over units, crossed with images, Wilson, Holm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

DRAWS = 10_000
CROSSED_DRAWS = 2_000
LEVEL = 0.95


def bootstrap(values: np.ndarray, seed: int = 0, draws: int = DRAWS) -> dict[str, Any]:
    """Mean of ``values`` [n] with its percentile bootstrap interval over units, 95 %."""
    values = np.asarray(values, float)
    if not len(values):
        return {"estimate": math.nan, "interval": [math.nan, math.nan]}
    rng = np.random.default_rng(seed)
    means = np.concatenate([
        values[rng.integers(0, len(values), (min(1000, draws - start), len(values)))].mean(1)
        for start in range(0, draws, 1000)
    ])  # fmt: skip
    return {"estimate": float(values.mean()), "interval": _percentile(means)}


def paired(first: np.ndarray, second: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """Mean difference of two methods on the same units, with its interval."""
    return bootstrap(np.asarray(first, float) - np.asarray(second, float), seed)


def crossed(values: np.ndarray, seed: int = 0, draws: int = CROSSED_DRAWS) -> dict[str, Any]:
    """Mean of ``values`` [units, images], units and images resampled together."""
    rng = np.random.default_rng(seed)
    units, images = values.shape
    means = np.empty(draws)
    for i in range(draws):
        rows = rng.integers(0, units, units)
        columns = rng.integers(0, images, images)
        means[i] = values[np.ix_(rows, columns)].mean()
    return {"estimate": float(values.mean()), "interval": _percentile(means)}


def _percentile(means: np.ndarray) -> list[float]:
    tail = 100 * (1 - LEVEL) / 2
    return [float(v) for v in np.percentile(means, [tail, 100 - tail])]


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    if n == 0:
        return 0.0, 1.0
    z = 1.959963984540054
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p values, in the order given."""
    order = np.argsort(p_values)
    adjusted = np.empty(len(p_values))
    running = 0.0
    for rank, place in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = running
    return adjusted.tolist()
