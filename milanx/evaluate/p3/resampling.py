"""Tables, ranks and AUROCs of a simulation, and crossed resampling of units and images.

Crossed resampling (Owen 2007, "The pigeonhole bootstrap") counts how often each unit and each image
is drawn; a draw's figures are then weighted ones.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from milanx.measures.intervals import CROSSED_DRAWS, resampled_counts
from milanx.scoring.correlate import (
    Sigmoid,
    averaged,
    inverse_deviation,
    standardised,
    varying,
    weighted_correlations,
)

TOP = 0.05  # share of a source's images that count as the unit's own, for the AUROC
UNITS_AT_ONCE = 64  # whose AUROCs are in memory at a time


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
        table[inside] = averaged(parts, valid[inside]).T
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
    return averaged(parts, varying(activations, sources))


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
        return self._mean(weighted_correlations(predictions, activations, sources, self.images))

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
                scale = share * inverse_deviation(weights @ (x**2).T - mean**2, x)
                dealt = scale @ x - (scale * mean).sum(1, keepdims=True)  # [draws, images]
                part[:, inside] = (weights * dealt) @ y[inside].T
            part *= inverse_deviation(weights @ (y**2).T - (weights @ y.T) ** 2, y)
            parts.append(part)
        return self._mean(averaged(parts, varying(activations, self.sources)))
