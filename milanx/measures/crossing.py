"""Intervals where units share what they show: units and photographs are resampled together.

Two units that show the same photographs are no independent witnesses: whatever is odd about these
photographs is odd in both. Resampling units alone takes them for independent, and its intervals are
too narrow.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from milanx.measures.intervals import CROSSED_DRAWS, resampled_counts, with_interval


class Crossing:
    """Bootstrap draws of units, crossed with draws of the photographs that they show.

    In each draw a unit weighs as often as it is drawn itself times the mean of how often its
    photographs are (Owen 2007, "The pigeonhole bootstrap": the two counts multiply). All figures
    of a table share the draws, so that differences are taken draw by draw.

    Args:
        shown: of each of n units what stands for the photographs that it shows, one that it shows
            twice twice; a unit that shows none is drawn by itself alone.
        seed: of the draws.
        draws: how many.

    Attributes:
        weights: float32 [draws, n], of each unit in each draw.
    """

    def __init__(
        self, shown: Sequence[Sequence[Hashable]], seed: int = 0, draws: int = CROSSED_DRAWS
    ) -> None:
        from scipy.sparse import csr_array

        rng = np.random.default_rng(seed)
        own = resampled_counts(len(shown), draws, rng)
        place = {name: i for i, name in enumerate(dict.fromkeys(n for unit in shown for n in unit))}
        if not place:
            self.weights = own
            return
        counts = resampled_counts(len(place), draws, rng)
        units = np.repeat(np.arange(len(shown)), [len(unit) for unit in shown])
        photos = np.array([place[name] for unit in shown for name in unit])
        share = np.array([1 / len(unit) for unit in shown for _ in unit], np.float32)
        belongs = csr_array((share, (units, photos)), shape=(len(shown), len(place)))
        mean = np.asarray((belongs @ counts.T).T, np.float32)
        mean[:, [not unit for unit in shown]] = 1
        self.weights = own * mean

    def interval(self, values: np.ndarray, inside: np.ndarray | None = None) -> dict[str, Any]:
        """Mean of ``values`` [n] with its 95 % percentile interval.

        Args:
            values: of every unit.
            inside: bool [n], the units that are meant; all when None. Draws without any of them
                are not counted.
        """
        chosen = np.ones(len(values), bool) if inside is None else np.asarray(inside, bool)
        meant = np.asarray(values, float)[chosen]
        if not len(meant):
            return {"estimate": float("nan"), "interval": [float("nan")] * 2}
        weights = self.weights[:, chosen].astype(np.float64)
        total = weights.sum(1)
        there = total > 0
        return with_interval(meant.mean(), weights[there] @ meant / total[there])

    def paired(self, first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
        """Mean difference of two methods on the same units [n], with its interval."""
        return self.interval(np.asarray(first, float) - np.asarray(second, float))
