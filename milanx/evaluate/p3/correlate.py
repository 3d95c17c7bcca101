"""The numbers of a simulation: predictions from similarities, and how well they agree.

Everything is [rows, images], images of several sources side by side; agreement is measured within
each source and averaged, so that a text that tells the sources apart gains nothing by it.
Crossed resampling of units and images (Owen 2007, "The pigeonhole bootstrap") counts how often
each image is drawn, and a draw's correlations are then weighted ones: matrix products throughout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares
from scipy.special import expit, logit
from scipy.stats import rankdata

from milanx.measures.intervals import CROSSED_DRAWS, resampled_counts

BINS = 256  # of the similarity when a sigmoid is fitted
MIN_SLOPE, MAX_SLOPE = 0.01, 20.0  # of a sigmoid, for a similarity of unit variance
TOP = 0.05  # share of a source's images that count as the unit's own, for the AUROC
UNITS_AT_ONCE = 64  # whose AUROCs are in memory at a time
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


def _averaged(parts: list[np.ndarray], valid: np.ndarray) -> np.ndarray:
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
    return _averaged(parts, varying(activations, sources))


def correlation_table(
    similarity: np.ndarray,
    activations: np.ndarray,
    sources: np.ndarray,
    sigmoids: list[Sigmoid],
    fold: np.ndarray,
) -> np.ndarray:
    """Correlation of every unit with every text, as `correlations` has it.

    Args:
        similarity: [t, images] of every text and every image.
        activations: [u, images].
        sources: of each image, int [images].
        sigmoids: of each fold.
        fold: of each unit, int [u].

    Returns:
        [u, t].
    """
    table = np.zeros((len(activations), len(similarity)))
    valid = varying(activations, sources)
    for number, sigmoid in enumerate(sigmoids):
        inside = fold == number
        predictions = np.nan_to_num(sigmoid(similarity))
        parts = []
        for source in np.unique(sources):
            here = sources == source
            parts.append(standardised(predictions[:, here])
                         @ standardised(activations[inside][:, here]).T)  # fmt: skip
        table[inside] = _averaged(parts, valid[inside]).T
    return table


def ranked(values: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """Return the ranks of rows [n, images] within each source; ties share their mean rank."""
    out = np.zeros(values.shape)
    for source in np.unique(sources):
        out[:, sources == source] = rankdata(values[:, sources == source], axis=1)
    return out


def top_images(activations: np.ndarray) -> np.ndarray:
    """Mark the top 5 % of the images of each unit, bool [u, images].

    Where the last of them ties with images outside, the tied ones are left out, unless nothing
    would be left: then all that reach the maximum are marked.
    """
    count = max(1, round(TOP * activations.shape[1]))
    if activations.shape[1] <= count:
        return np.zeros(activations.shape, bool)
    following = -np.partition(-activations, count, axis=1)[:, count : count + 1]
    above = activations > following
    highest = activations >= activations.max(1, keepdims=True)
    return np.where(above.any(1, keepdims=True), above, highest)


def aurocs(predictions: np.ndarray, activations: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """AUROC of the prediction for the top 5 % of the images, within sources, averaged: [u]."""
    ones = np.ones((1, len(sources)), np.float32)
    return _weighted_aurocs(predictions, activations, sources, ones)[0]


def _weighted_aurocs(
    predictions: np.ndarray, activations: np.ndarray, sources: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """AUROC of each unit in each draw, images counted as ``counts`` [draws, images]: [draws, u]."""
    parts = []
    for source in np.unique(sources):
        here = sources == source
        marked = top_images(activations[:, here])
        part = np.full((len(counts), len(marked)), 0.5, np.float32)
        # Units with like numbers of marked images together, so that little is padded.
        order = np.argsort(marked.sum(1), kind="stable")
        for start in range(0, len(order), UNITS_AT_ONCE):
            units = order[start : start + UNITS_AT_ONCE]
            part[:, units] = _areas(predictions[units][:, here], marked[units], counts[:, here])
        parts.append(part)
    return _averaged(parts, varying(activations, sources))


def _areas(guess: np.ndarray, marked: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """AUROC of guesses [u, n] for marked images [u, n] under counts [draws, n]: [draws, u].

    The share of pairs of a marked and an unmarked image in which the marked one's guess is
    higher, ties counting half; .5 where a draw leaves no pair.
    """
    most = max(int(marked.sum(1).max()), 1)
    places = np.argsort(~marked, axis=1, kind="stable")[:, :most]  # [u, most], padded at the end
    there = np.take_along_axis(marked, places, 1)
    mine = np.take_along_axis(guess, places, 1)[:, :, None]
    wins = (mine > guess[:, None]) + 0.5 * (mine == guess[:, None])
    wins = np.where(marked[:, None] | ~there[:, :, None], 0, wins).astype(np.float32)
    ahead = counts @ wins.reshape(-1, counts.shape[1]).T * counts[:, places.ravel()]
    ahead = ahead.reshape(len(counts), *places.shape).sum(2)
    positive = counts @ marked.T.astype(np.float32)
    pairs = positive * (counts.sum(1, keepdims=True) - positive)
    return np.where(pairs > 0, ahead / np.where(pairs > 0, pairs, 1), 0.5).astype(np.float32)


class Resampling:
    """Crossed bootstrap draws of one layer: units, and images within each source.

    Two rows of one table use the same draws, so their difference is taken draw by draw.

    Args:
        units: how many.
        sources: of each image, int [images].
        seed: of the draws.
        draws: how many.
    """

    def __init__(
        self, units: int, sources: np.ndarray, seed: int = 0, draws: int = CROSSED_DRAWS
    ) -> None:
        rng = np.random.default_rng(seed)
        self.sources = sources
        self.units = resampled_counts(units, draws, rng)
        self.images = np.zeros((draws, len(sources)), np.float32)
        for source in np.unique(sources):
            here = np.flatnonzero(sources == source)
            self.images[:, here] = resampled_counts(len(here), draws, rng)

    def _mean(self, values: np.ndarray) -> np.ndarray:
        """Mean over the drawn units of ``values`` [draws, u]."""
        return (self.units * values).sum(1) / self.units.sum(1)

    def correlation(
        self, predictions: np.ndarray, activations: np.ndarray, pooled: bool = False
    ) -> np.ndarray:
        """Mean correlation in each draw [draws]; ``pooled``: over all sources at once."""
        sources = np.zeros_like(self.sources) if pooled else self.sources
        parts = []
        for source in np.unique(sources):
            here = sources == source
            weights = self.images[:, here] / self.images[:, here].sum(1, keepdims=True)
            x = standardised(predictions[:, here]).astype(np.float32)
            y = standardised(activations[:, here]).astype(np.float32)
            mean_x, mean_y = weights @ x.T, weights @ y.T
            shared = weights @ (x * y).T - mean_x * mean_y
            parts.append(shared * _inverse(weights @ (x**2).T - mean_x**2, x)
                         * _inverse(weights @ (y**2).T - mean_y**2, y))  # fmt: skip
        return self._mean(_averaged(parts, varying(activations, sources)))

    def auroc(self, predictions: np.ndarray, activations: np.ndarray) -> np.ndarray:
        """Mean AUROC of the top 5 % of the images in each draw [draws]."""
        return self._mean(_weighted_aurocs(predictions, activations, self.sources, self.images))

    def shuffled(
        self,
        predictions: list[np.ndarray],
        columns: np.ndarray,
        activations: np.ndarray,
        fold: np.ndarray,
    ) -> np.ndarray:
        """Mean correlation in each draw when the layer's texts are dealt out at random.

        The expectation over all ways to deal: a unit meets the mean of the standardised
        predictions of all texts.

        Args:
            predictions: of every text [t, images], for each fold's sigmoid.
            columns: each unit's own text, int [u].
            activations: [u, images].
            fold: of each unit, int [u].

        Returns:
            [draws].
        """
        # The texts stay as they are: drawing them with the units would deal each drawn unit its
        # own text twice as often.
        owned = np.bincount(columns, minlength=len(predictions[0])).astype(np.float32)
        share = owned / len(columns)  # [t]
        parts = []
        for source in np.unique(self.sources):
            here = self.sources == source
            weights = self.images[:, here] / self.images[:, here].sum(1, keepdims=True)
            y = standardised(activations[:, here]).astype(np.float32)
            part = np.zeros((len(weights), len(y)), np.float32)
            for number, prediction in enumerate(predictions):
                inside = fold == number
                x = standardised(prediction[:, here]).astype(np.float32)
                mean = weights @ x.T
                scale = share * _inverse(weights @ (x**2).T - mean**2, x)
                dealt = scale @ x - (scale * mean).sum(1, keepdims=True)  # [draws, images]
                part[:, inside] = (weights * dealt) @ y[inside].T
            part *= _inverse(weights @ (y**2).T - (weights @ y.T) ** 2, y)
            parts.append(part)
        return self._mean(_averaged(parts, varying(activations, self.sources)))


def _inverse(variance: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """1 / deviation [draws, u] of rows [u, m] of length 1; 0 where a draw leaves no variance."""
    real = variance > 1e-5 / rows.shape[1]
    return np.where(real, 1 / np.sqrt(np.where(real, variance, 1)), 0).astype(np.float32)
