"""Intervals and comparisons: bootstrap over units, crossed with images, Wilson, Holm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

DRAWS = 10_000
CROSSED_DRAWS = 2_000
AUROC_DRAWS = 5_000
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


def resampled_counts(n: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of ``n`` things is drawn in each bootstrap draw, float32 [draws, n]."""
    return rng.multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float32)


def crossed(values: np.ndarray, seed: int = 0, draws: int = CROSSED_DRAWS) -> dict[str, Any]:
    """Mean of ``values`` [units, images], units and images resampled together."""
    values = np.asarray(values, np.float64)
    rng = np.random.default_rng(seed)
    units, images = values.shape
    rows, columns = resampled_counts(units, draws, rng), resampled_counts(images, draws, rng)
    means = ((rows @ values) * columns).sum(1) / values.size
    return {"estimate": float(values.mean()), "interval": _percentile(means)}


def with_interval(estimate: float, draws: np.ndarray) -> dict[str, Any]:
    """An estimate with the percentile interval of its bootstrap draws [d]."""
    return {"estimate": float(estimate), "interval": _percentile(draws)}


def p_value(draws: np.ndarray) -> float:
    """Two-sided p value of "not zero" from bootstrap draws [d] of a difference.

    Twice the smaller share of draws on either side of zero, never below 2 / (d + 1).
    """
    n = len(draws)
    below, above = int((draws <= 0).sum()), int((draws >= 0).sum())
    return min(1.0, 2 * (1 + min(below, above)) / (n + 1))


def _percentile(means: np.ndarray) -> list[float]:
    tail = 100 * (1 - LEVEL) / 2
    return [float(v) for v in np.percentile(means, [tail, 100 - tail])]


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    from scipy.stats import binomtest

    if n == 0:
        return 0.0, 1.0
    found = binomtest(successes, n).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p values, in the order given."""
    order = np.argsort(p_values)
    adjusted = np.empty(len(p_values))
    running = 0.0
    for rank, place in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = running
    return adjusted.tolist()


def shares_apart(first: tuple[int, int], second: tuple[int, int]) -> dict[str, Any]:
    """Difference of two shares with its 95 % interval and p value.

    The interval is Newcombe's (1998, method 10), made of the two Wilson intervals; the p value is
    Fisher's exact one, two-sided.

    Args:
        first: successes and trials.
        second: of the other, independent of the first.

    Returns:
        ``estimate`` (first less second), ``interval`` and ``p``.
    """
    from scipy.stats import fisher_exact

    (a, m), (b, n) = first, second
    if not m or not n:
        return {"estimate": math.nan, "interval": [-1.0, 1.0], "p": 1.0}
    p, q = a / m, b / n
    (low_p, high_p), (low_q, high_q) = wilson(a, m), wilson(b, n)
    below = math.hypot(p - low_p, high_q - q)
    above = math.hypot(high_p - p, q - low_q)
    exact = float(fisher_exact([[a, m - a], [b, n - b]]).pvalue)
    return {"estimate": p - q, "interval": [p - q - below, p - q + above], "p": exact}


def auroc(values: np.ndarray, holds: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Chance that a thing that holds has the larger value; ties count one half.

    Args:
        values: [n].
        holds: bool [n].
        weights: how often each is counted, [d, n]; once when None.

    Returns:
        [d], or [1] without weights; NaN where one side is empty.
    """
    values, holds = np.asarray(values, float), np.asarray(holds, bool)
    counted = np.ones((1, len(values))) if weights is None else np.asarray(weights, float)
    _, place = np.unique(values, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))
    yes = np.add.reduceat(counted[:, order] * holds[order], starts, axis=1)
    no = np.add.reduceat(counted[:, order] * ~holds[order], starts, axis=1)
    below = np.cumsum(no, 1) - no
    with np.errstate(invalid="ignore"):
        found: np.ndarray = (yes * (below + no / 2)).sum(1) / (yes.sum(1) * no.sum(1))
    return found


def grouped_auroc(
    values: np.ndarray, holds: np.ndarray, groups: Sequence[str], seed: int = 0
) -> dict[str, Any]:
    """`auroc` with its interval; groups are resampled whole (images that are one photograph).

    Draws that leave one side empty are not counted.

    Returns:
        ``estimate``, ``interval``, and ``p`` of "not one half".
    """
    names, codes = np.unique(np.asarray(groups, str), return_inverse=True)
    counts = resampled_counts(len(names), AUROC_DRAWS, np.random.default_rng(seed))
    draws = auroc(values, holds, counts[:, codes])
    counted = draws[np.isfinite(draws)]
    return {**with_interval(float(auroc(values, holds)[0]), counted), "p": p_value(counted - 0.5)}
