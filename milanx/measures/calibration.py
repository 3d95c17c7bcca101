"""Whether a confidence is what it says: calibration, and whether it tells right from wrong.

All take confidences and 0 or 1 for wrong and right, float [..., n], one draw of units a row; units
may weigh. A figure over bootstrap draws of the units is one call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from milanx.measures.crossing import Crossing
from milanx.measures.intervals import with_interval

BINS = 10  # of equal mass
Weighed = Callable[[np.ndarray, np.ndarray, np.ndarray], float]


def reliability(
    sure: np.ndarray, right: np.ndarray, weights: np.ndarray | None = None, bins: int = BINS
) -> np.ndarray:
    """Divide units into bins of equal mass by confidence.

    Args:
        sure: confidences [n].
        right: 0 or 1, [n].
        weights: of each unit [n]; 1 when None.
        bins: how many.

    Returns:
        [at most bins, 3]: mean confidence, share that is right, and mass of each bin.
    """
    weights = np.ones(len(sure)) if weights is None else weights
    order = np.argsort(sure, kind="stable")
    mass = weights[order]
    middle = np.cumsum(mass) - mass / 2
    which = np.minimum((middle / mass.sum() * bins).astype(int), bins - 1)
    total = np.bincount(which, mass, bins)
    there = total > 0
    parts = [np.bincount(which, mass * values[order], bins)[there] / total[there]
             for values in (sure, right)]  # fmt: skip
    return np.stack([*parts, total[there]], 1)


def calibration_error(sure: np.ndarray, right: np.ndarray, weights: np.ndarray) -> float:
    """Expected calibration error over ten bins of equal mass (Naeini et al. 2015)."""
    bins = reliability(sure, right, weights)
    return float((abs(bins[:, 0] - bins[:, 1]) * bins[:, 2]).sum() / bins[:, 2].sum())


def auroc(sure: np.ndarray, right: np.ndarray, weights: np.ndarray) -> float:
    """Area under the ROC curve of right against wrong; NaN where there is only one of them."""
    from sklearn.metrics import roc_auc_score

    there = weights > 0
    if len(np.unique(right[there])) < 2:
        return float("nan")
    return float(roc_auc_score(right[there], sure[there], sample_weight=weights[there]))


def error_at(coverage: float) -> Weighed:
    """Return what measures the error among the surest share of units, over the error of all."""

    def measure(sure: np.ndarray, right: np.ndarray, weights: np.ndarray) -> float:
        order = np.argsort(-sure, kind="stable")
        mass, wrong = weights[order], 1 - right[order]
        full = (mass * wrong).sum() / mass.sum()
        before = np.concatenate([[0.0], np.cumsum(mass)[:-1]])
        kept = np.clip(coverage * mass.sum() - before, 0, mass)  # a unit at the edge counts in part
        return float((kept * wrong).sum() / kept.sum() / full) if full > 0 else float("nan")

    return measure


MEASURES: dict[str, Weighed] = {
    "ECE": calibration_error,
    "AUROC": auroc,
    "error at 80 % / full": error_at(0.8),
    "error at 50 % / full": error_at(0.5),
}


def figures(sure: np.ndarray, right: np.ndarray, draws: Crossing) -> dict[str, dict[str, Any]]:
    """Measure a confidence, with intervals over units crossed with the photographs they show.

    Args:
        sure: confidences [n].
        right: 0 or 1, [n].
        draws: of these units.
    """
    found = {}
    for name, measure in MEASURES.items():
        values = np.array([measure(sure, right, w.astype(float)) for w in draws.weights if w.any()])
        estimate = measure(sure, right, np.ones(len(sure)))
        found[name] = with_interval(estimate, values[np.isfinite(values)])
    return found
