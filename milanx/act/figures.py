"""Figures over images with 95 % intervals: photographs are drawn anew, all rows of one together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from milanx.act.data import EvalSet
from milanx.measures.intervals import CROSSED_DRAWS, resampled_counts, with_interval

LEAST = 5  # images of a part that may be called the worst


@dataclass(frozen=True)
class Figure:
    """A figure with its interval.

    Attributes:
        estimate: on the images as they are.
        low: lower end of the interval.
        high: upper end.
    """

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Worst:
    """The part of the test whose accuracy is the lowest."""

    before: Figure
    after: Figure
    part_before: str
    part_after: str


class Resampler:
    """Draws photographs with replacement, the same ones for every figure.

    Args:
        groups: one an image.
        seed: of the draws.
        draws: how many.
    """

    def __init__(self, groups: Sequence[str], seed: int = 0, draws: int = CROSSED_DRAWS) -> None:
        names, place = np.unique(np.array(groups), return_inverse=True)
        self.place, self.count = place, len(names)
        self.rng = np.random.default_rng(seed)
        self.times = resampled_counts(len(names), draws, self.rng)
        self.images = self.times @ np.bincount(place, minlength=len(names)).astype(np.float32)

    def _sums(self, values: np.ndarray) -> np.ndarray:
        """Add the values of each photograph: [..., n] to [..., groups]."""
        flat = values.reshape(-1, values.shape[-1])
        sums = np.stack([np.bincount(self.place, row, self.count) for row in flat])
        return sums.reshape(*values.shape[:-1], self.count).astype(np.float32)

    def mean(self, values: np.ndarray) -> Figure:
        """Mean of ``values`` [n], or of [seeds, n], where seeds are drawn anew too."""
        values = np.asarray(values, np.float64)
        sums = self._sums(values)
        if values.ndim == 1:
            draws = self.times @ sums / self.images
        else:
            which = resampled_counts(len(values), len(self.times), self.rng)
            mixed = which @ sums / len(values)
            draws = (self.times * mixed).sum(1) / self.images
        return _figure(float(values.mean()), draws)

    def worst(self, values: np.ndarray, parts: Sequence[str]) -> tuple[str, Figure] | None:
        """Lowest mean of ``values`` [n] among parts of some images, and which part's it is.

        Returns:
            None where no part has enough images.
        """
        names, place, sizes = np.unique(np.array(parts), return_inverse=True, return_counts=True)
        kept = np.flatnonzero(sizes >= LEAST)
        if not len(kept):
            return None
        inside = np.stack([place == k for k in kept])
        sums, counts = self._sums(inside * values), self._sums(inside.astype(np.float64))
        means = (inside * values).sum(1) / inside.sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            draws = np.nanmin((self.times @ sums.T) / (self.times @ counts.T), axis=1)
        lowest = int(means.argmin())
        return str(names[kept[lowest]]), _figure(float(means[lowest]), draws)


def _figure(estimate: float, draws: np.ndarray) -> Figure:
    found = with_interval(estimate, draws[np.isfinite(draws)])
    return Figure(estimate, *found["interval"])


def changes(
    name: str, sampler: Resampler, before: np.ndarray, after: np.ndarray
) -> dict[str, Figure]:
    """Return accuracy before and after, and the paired difference, of right answers [n]."""
    difference = after.astype(float) - before.astype(float)
    return {f"{name}_before": sampler.mean(before), f"{name}_after": sampler.mean(after),
            f"{name}_change": sampler.mean(difference)}  # fmt: skip


def worst_parts(
    images: EvalSet, sampler: Resampler, before: np.ndarray, after: np.ndarray
) -> Worst | None:
    """Return the worst part before and after, by label where no parts are given."""
    parts = images.parts
    if not parts and images.labels is not None:
        parts = tuple(f"class {label}" for label in images.labels.tolist())
    first = sampler.worst(before.astype(float), parts) if parts else None
    second = sampler.worst(after.astype(float), parts) if parts else None
    if first is None or second is None:
        return None
    return Worst(first[1], second[1], first[0], second[0])
