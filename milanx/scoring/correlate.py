"""The numbers of a simulation: predictions from similarities, and how well they agree.

Everything is [rows, images], images of several sources side by side; agreement is measured within
each source and averaged, so that a text that tells the sources apart gains nothing by it. A
bootstrap draw counts how often each image is drawn, and its correlations are then weighted ones:
matrix products throughout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares
from scipy.special import expit, logit

BINS = 256  # of the similarity when a sigmoid is fitted
MIN_SLOPE, MAX_SLOPE = 0.01, 20.0  # of a sigmoid, for a similarity of unit variance
TINY = 1e-9  # a variance below this share of the mean square is none


@dataclass(frozen=True)
class Sigmoid:
    """s = sigmoid(a * similarity + b); a is above zero."""

    a: float
    b: float

    def __call__(self, similarity: np.ndarray) -> np.ndarray:
        """Predict activations in 0..1."""
        return expit(self.a * similarity + self.b)


def normalised(activations: np.ndarray) -> np.ndarray:
    """Bring each unit's activations [u, images] to 0..1 between its lowest and its highest."""
    low = activations.min(1, keepdims=True)
    span = activations.max(1, keepdims=True) - low
    return (activations - low) / np.where(span > 0, span, 1)


def fit_sigmoids(
    similarity: np.ndarray, activations: np.ndarray, fold: np.ndarray
) -> list[Sigmoid]:
    """Fit one sigmoid for each fold of units, on the units of the other folds.

    Least squares on range-normalised activations. The similarity is put into 256 bins of like
    mass: a bin's mean activation is all that the fit depends on.

    Args:
        similarity: [u, images] of each unit's text and each image; rows of NaN have no text.
        activations: [u, images].
        fold: of each unit, int [u].

    Returns:
        A sigmoid for each number of a fold, in order.
    """
    there = np.isfinite(similarity).all(1)
    wanted = normalised(activations)
    values = similarity[there]
    if not values.size or values.std() == 0:
        return [Sigmoid(1.0, 0.0)] * int(fold.max() + 1)
    centre, spread = float(values.mean()), float(values.std())
    z = (np.where(there[:, None], similarity, centre) - centre) / spread
    edges = np.quantile(z[there], np.linspace(0, 1, BINS + 1)[1:-1])
    places = np.searchsorted(edges, z)
    sums = np.zeros((int(fold.max()) + 1, 3, BINS))
    for number in range(len(sums)):
        inside = there & (fold == number)
        for kind, weights in enumerate((None, wanted[inside].ravel(), z[inside].ravel())):
            sums[number, kind] = np.bincount(places[inside].ravel(), weights, BINS)
    found = []
    for number in range(len(sums)):
        others = np.delete(sums, number, axis=0).sum(0)
        # A layer of one unit has no other: its own similarity as it is, nothing fitted.
        pair = _fit(others) if others[0].sum() > 0 else (MIN_SLOPE, 0.0)
        found.append(Sigmoid(pair[0] / spread, pair[1] - pair[0] * centre / spread))
    return found


def _fit(sums: np.ndarray) -> tuple[float, float]:
    """Fit slope and offset to the counts, activations and similarities of bins [3, bins]."""
    counts, total, similarity = sums[:, sums[0] > 0]
    x, y, weight = similarity / counts, total / counts, np.sqrt(counts / counts.sum())

    def residuals(p: np.ndarray) -> np.ndarray:
        return weight * (expit(np.exp(p[0]) * x + p[1]) - y)

    mean = float(np.clip((weight**2 * y).sum(), 1e-3, 1 - 1e-3))
    low, high = np.log(MIN_SLOPE), np.log(MAX_SLOPE)
    best = least_squares(residuals, [np.log(0.5), logit(mean)], bounds=([low, -25], [high, 25]))
    return float(np.exp(best.x[0])), float(best.x[1])


def predict(similarity: np.ndarray, sigmoids: list[Sigmoid], fold: np.ndarray) -> np.ndarray:
    """Predict [u, images] from similarities [u, images]; no text predicts the same everywhere."""
    out = np.zeros(similarity.shape)
    for number, sigmoid in enumerate(sigmoids):
        inside = fold == number
        out[inside] = sigmoid(similarity[inside])
    return np.where(np.isfinite(out), out, 0.0)


def standardised(values: np.ndarray) -> np.ndarray:
    """Centre rows [n, m] and bring them to length 1; rows of one value become zeros."""
    values = np.asarray(values, np.float64)
    centred = values - values.mean(1, keepdims=True)
    length = np.sqrt((centred**2).sum(1, keepdims=True))
    real = length**2 > TINY * (values**2).sum(1, keepdims=True)
    return np.where(real, centred / np.where(real, length, 1), 0.0)


def varying(activations: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """Return on which sources a unit takes more than one value, bool [u, sources]."""
    return np.stack([standardised(activations[:, sources == s]).any(1)
                     for s in np.unique(sources)], 1)  # fmt: skip


def averaged(parts: list[np.ndarray], valid: np.ndarray) -> np.ndarray:
    """Average parts [..., u], one a source, over the sources where a unit varies [u, sources]."""
    weight = valid / np.maximum(valid.sum(1, keepdims=True), 1)
    return np.sum([part * weight[:, i] for i, part in enumerate(parts)], axis=0)


def correlations(
    predictions: np.ndarray, activations: np.ndarray, sources: np.ndarray
) -> np.ndarray:
    """Pearson correlation of each unit's rows [u, images], within sources, averaged: [u].

    A source on which the unit takes one value is left out; a constant prediction counts as 0.
    """
    parts = []
    for source in np.unique(sources):
        here = sources == source
        parts.append((standardised(predictions[:, here])
                      * standardised(activations[:, here])).sum(1))  # fmt: skip
    return averaged(parts, varying(activations, sources))


def weighted_correlations(
    predictions: np.ndarray, activations: np.ndarray, sources: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """`correlations` of each unit in each draw, images counted as ``counts`` [draws, images].

    Returns:
        float32 [draws, u].
    """
    parts = []
    for source in np.unique(sources):
        here = sources == source
        weights = counts[:, here] / counts[:, here].sum(1, keepdims=True)
        x = standardised(predictions[:, here]).astype(np.float32)
        y = standardised(activations[:, here]).astype(np.float32)
        mean_x, mean_y = weights @ x.T, weights @ y.T
        shared = weights @ (x * y).T - mean_x * mean_y
        parts.append(shared * inverse_deviation(weights @ (x**2).T - mean_x**2, x)
                     * inverse_deviation(weights @ (y**2).T - mean_y**2, y))  # fmt: skip
    return averaged(parts, varying(activations, sources))


def inverse_deviation(variance: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """1 / deviation [draws, u] of rows [u, m] of length 1; 0 where a draw leaves no variance."""
    real = variance > 1e-5 / rows.shape[1]
    return np.where(real, 1 / np.sqrt(np.where(real, variance, 1)), 0).astype(np.float32)
