"""One layer's units under any texts: predictions, rows of the table, and the rows below."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from milanx.evaluate.common.rows import constant_choice, shuffled_mean
from milanx.evaluate.p3 import resampling as rs
from milanx.measures.folds import folds
from milanx.measures.intervals import with_interval
from milanx.scoring import correlate as co

Similarities = Callable[[Sequence[str]], np.ndarray]


class LayerScores:
    """The units of one layer, ready to be scored under any texts.

    Args:
        aside: activations on the images kept aside [u, n].
        sources: of these images, int [n].
        search: activations on the images searched [u, m].
        similar_aside: texts -> similarity [t, n] to the images kept aside.
        similar_search: texts -> similarity [t, m] to the images searched.
        search_sources: of these, int [m].
        seed: of folds, permutations and draws.
    """

    def __init__(
        self,
        aside: np.ndarray,
        sources: np.ndarray,
        search: np.ndarray,
        search_sources: np.ndarray,
        similar_aside: Similarities,
        similar_search: Similarities,
        seed: int = 0,
    ) -> None:
        self.aside, self.sources = np.asarray(aside, np.float64), sources
        self.search, self.search_sources = np.asarray(search, np.float64), search_sources
        self.similar_aside, self.similar_search = similar_aside, similar_search
        self.fold, self.seed = folds(len(aside), seed), seed
        self.resampling = rs.Resampling(len(aside), sources, seed)

    def sigmoids(self, texts: Sequence[str]) -> list[co.Sigmoid]:
        """Fit the sigmoid of each fold on the other folds' texts, one a unit."""
        distinct, columns = _distinct(texts)
        similarity = self.similar_search(distinct)[columns]
        return co.fit_sigmoids(similarity, self.search, self.fold)

    def predict(self, texts: Sequence[str], sigmoids: list[co.Sigmoid]) -> np.ndarray:
        """Predict [u, n] on the images kept aside from texts, one a unit."""
        distinct, columns = _distinct(texts)
        return co.predict(self.similar_aside(distinct)[columns], sigmoids, self.fold)

    def best_texts(self, vocabulary: Sequence[str], sigmoids: list[co.Sigmoid]) -> list[str]:
        """Find for each unit the text that correlates best on the images searched."""
        table = rs.correlation_table(self.similar_search(vocabulary), self.search,
                                     self.search_sources, sigmoids, self.fold)  # fmt: skip
        return [vocabulary[i] for i in table.argmax(1)]

    def table(self, texts: Sequence[str], sigmoids: list[co.Sigmoid]) -> np.ndarray:
        """Score every unit under every text on the images kept aside: [u, t]."""
        return rs.correlation_table(self.similar_aside(texts), self.aside, self.sources,
                                    sigmoids, self.fold)  # fmt: skip

    def row(self, predictions: np.ndarray) -> Row:
        """Measure predictions [u, n]."""
        sources, draws = self.sources, self.resampling
        own = co.correlations(predictions, self.aside, sources)
        guess, true = rs.ranked(predictions, sources), rs.ranked(self.aside, sources)
        rank = co.correlations(guess, true, sources)
        area = rs.aurocs(predictions, self.aside, sources)
        drawn = draws.correlation(predictions, self.aside)
        figures: dict[str, Any] = {
            "correlation": with_interval(own.mean(), drawn),
            "Spearman": with_interval(rank.mean(), draws.correlation(guess, true)),
            "AUROC top 5 %": with_interval(area.mean(), draws.auroc(predictions, self.aside)),
        }
        if len(np.unique(sources)) > 1:
            figures["pooled"] = self.pooled(predictions)
        return Row(figures, own, drawn)

    def pooled(self, predictions: np.ndarray) -> dict[str, Any]:
        """Correlation over all sources at once: what a text gains by telling them apart."""
        whole = co.correlations(predictions, self.aside, np.zeros_like(self.sources))
        drawn = self.resampling.correlation(predictions, self.aside, pooled=True)
        return with_interval(whole.mean(), drawn)

    def controls(self, texts: Sequence[str], sigmoids: list[co.Sigmoid]) -> dict[str, Row]:
        """Measure the best single text of other units, and the texts dealt out at random."""
        distinct, columns = _distinct(texts)
        similarity = self.similar_aside(distinct)
        table = self.table(distinct, sigmoids)
        single = [distinct[i] for i in constant_choice(table, self.seed)]
        mean = shuffled_mean(table, columns, self.seed)
        everything = [np.nan_to_num(sigmoid(similarity)) for sigmoid in sigmoids]
        drawn = self.resampling.shuffled(everything, columns, self.aside, self.fold)
        at_random = {"correlation": with_interval(mean.mean(), drawn)}
        return {
            "constant": self.row(self.predict(single, sigmoids)),
            "shuffled": Row(at_random, mean, drawn),
        }

    def source_only(self) -> Row:
        """Predict a unit's mean on the image's source: 0 within each source, by construction."""
        means = np.stack([self.search[:, self.search_sources == s].mean(1)
                          for s in np.unique(self.sources)], 1)  # fmt: skip
        codes = np.unique(self.sources, return_inverse=True)[1]
        figures = {"correlation": 0.0, "pooled": self.pooled(means[:, codes])}
        return Row(figures, np.zeros(len(means)), np.zeros(len(self.resampling.units)))


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        figures: measure -> estimate with interval, or a number.
        scores: correlation of each unit [u].
        draws: mean correlation in each bootstrap draw [d].
    """

    figures: dict[str, Any]
    scores: np.ndarray
    draws: np.ndarray


def _distinct(texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Return the distinct texts, sorted, and each text's place among them."""
    distinct = sorted(set(texts))
    place = {text: i for i, text in enumerate(distinct)}
    return distinct, np.array([place[t] for t in texts], int)
