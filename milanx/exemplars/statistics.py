"""Streaming, mergeable statistics of every unit of a layer: top k, and what a histogram counts.

Top k, spatial maximum and mean of every image, and the largest value are exact, and so is whether a
unit gives one value everywhere. Quantiles, mean, deviation and the lowest value of maps are
estimates (`milanx.exemplars.histogram`). Layers without positions have every value on disk, and
need no bins: theirs are exact.

Maps with NaN count for nothing but their number; infinite values rank first or last, as they are.
An image on which a unit is off all over (`milanx.targets.functions.off_value`) is no exemplar.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from milanx.exemplars.histogram import Histogram, scales
from milanx.exemplars.topk import TOP, TopK

BLOCK_BYTES = 2**25  # of the values of units without positions that are in memory at a time
WATCHED = ("largest", "least", "smallest", "nan", "infinite")


class Overflow(ValueError):
    """A layer in half precision gave what is no finite number."""


class LayerStatistics:
    """All statistics of one layer.

    Args:
        units: u.
        map_size: (h, w).
        k: exemplars a unit.
        signs: ``+``, ``-`` or both.
        device: where it counts; what is counted stays there until `state_dict`.
        rectified: whether no value is below zero.
        off: the value of units that are off; None where there is none.
    """

    def __init__(
        self,
        units: int,
        map_size: tuple[int, int],
        k: int,
        signs: tuple[str, ...],
        device: torch.device | str = "cpu",
        rectified: bool = False,
        off: float | None = None,
    ) -> None:
        self.device, self.off = torch.device(device), off
        positions = map_size[0] * map_size[1]
        # Without positions every value stands in max.npy, and its statistics are exact.
        self.histogram = Histogram(units, positions, device, rectified) if positions > 1 else None
        self.top = {sign: TopK(units, k, map_size, device) for sign in signs}
        # Over the images: the largest and smallest maximum, how many hold NaN, how many others an
        # infinite value.
        self.largest = torch.full((units,), -torch.inf, device=device)
        self.least = torch.full((units,), torch.inf, device=device)
        self.nan = torch.zeros(units, dtype=torch.int64, device=device)
        self.infinite = torch.zeros(units, dtype=torch.int64, device=device)
        # The smallest value, of units all of whose maxima are equal so far: it tells dead ones.
        self.smallest = torch.full((units,), torch.inf, device=device)

    def keep(self, map_size: tuple[int, int]) -> None:
        """Let exemplars keep maps of another size (`update`); before anything is counted."""
        for sign, top in self.top.items():
            self.top[sign] = TopK(len(top.values), top.k, map_size, self.device)

    def calibrate(self, maps: torch.Tensor) -> None:
        """Choose the scale on which each unit is counted, from a few maps [b, u, h, w]."""
        if self.histogram is not None:
            seen = torch.nan_to_num(maps.float(), 0, 0, 0).abs().amax((0, 2, 3))
            self.histogram.scale = scales(seen).to(self.device)

    def update(
        self,
        maps: torch.Tensor,
        images: torch.Tensor,
        eligible: torch.Tensor,
        kept: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take a batch in.

        Args:
            maps: [b, u, h, w].
            images: int64 [b], their indices.
            eligible: bool [b]; the others count for nothing but what is returned.
            kept: [b, u, h, w], the maps that exemplars keep; those when None.

        Returns:
            Spatial maximum and mean of every image, float32 [b, u] each, on the CPU; NaN where a
            map holds NaN.

        Raises:
            Overflow: maps in half precision that hold NaN or an infinity.
        """
        maps = maps.to(self.device)
        maximum = maps.amax((2, 3)).float()
        mean = maps.float().mean((2, 3))
        finite = bool(torch.isfinite(mean).all())
        if not finite and maps.dtype != torch.float32:
            raise Overflow(f"{maps.dtype} holds no such values")
        if not bool(eligible.any()):
            return maximum.cpu(), mean.cpu()
        every = bool(eligible.all())
        images, eligible = images.to(self.device), eligible.to(self.device)
        chosen = maps if every else maps[eligible]
        kept = chosen if kept is None else kept.to(self.device)[eligible]
        self._count(chosen, maximum[eligible], mean[eligible], images[eligible], finite, kept)
        return maximum.cpu(), mean.cpu()

    def _count(
        self,
        maps: torch.Tensor,
        maximum: torch.Tensor,
        mean: torch.Tensor,
        images: torch.Tensor,
        finite: bool,
        kept: torch.Tensor,
    ) -> None:
        """Count maps [b, u, h, w] whose images may become exemplars, and keep others."""
        lowest = maps.amin((2, 3)).float() if "-" in self.top else None
        if finite:
            nan = None
        else:
            nan = torch.isnan(maximum)
            self.nan += nan.sum(0)
            self.infinite += (~torch.isfinite(mean) & ~nan).sum(0)
            maximum = maximum.masked_fill(nan, -torch.inf)
            lowest = None if lowest is None else lowest.masked_fill(nan, torch.inf)
            mean = mean.masked_fill(torch.isnan(mean), 0)  # of infinities of both signs
        if self.histogram is not None:
            self.histogram.update(maps, maximum.amax(0), finite)
        self._watch_constants(maps, maximum, nan)
        if not finite:  # for what is kept of them
            kept = torch.nan_to_num(kept, 0.0)
        if "+" in self.top:
            if self.off is not None:  # as the maps' type holds it
                off = torch.tensor(self.off, dtype=maps.dtype).float().item()
                maximum = maximum.masked_fill(maximum <= off, -torch.inf)
            self.top["+"].update(kept, maximum, mean, images)
        if lowest is not None:
            self.top["-"].update(kept, -lowest, -mean, images)

    def _watch_constants(
        self, maps: torch.Tensor, maximum: torch.Tensor, nan: torch.Tensor | None
    ) -> None:
        """Follow the smallest value of units that have shown no two maxima."""
        self.largest = torch.maximum(self.largest, maximum.amax(0))
        known = maximum if nan is None else maximum.masked_fill(nan, torch.inf)
        self.least = torch.minimum(self.least, known.amin(0))
        same = (self.largest <= self.least).nonzero().squeeze(1)
        if len(same):
            values = maps[:, same].float()
            values = values if nan is None else torch.nan_to_num(values, torch.inf, torch.inf)
            self.smallest[same] = torch.minimum(self.smallest[same], values.amin((0, 2, 3)))
        self._forget_varying()

    def _forget_varying(self) -> None:
        """Forget the smallest value of units of which two maxima are known: it is only a part."""
        self.smallest[self.largest > self.least] = -torch.inf

    def merge(self, other: LayerStatistics) -> None:
        """Take the statistics of other images in."""
        if self.histogram is not None and other.histogram is not None:
            self.histogram.merge(other.histogram)
        self.largest = torch.maximum(self.largest, other.largest)
        self.least = torch.minimum(self.least, other.least)
        self.smallest = torch.minimum(self.smallest, other.smallest)
        self._forget_varying()
        self.nan += other.nan
        self.infinite += other.infinite
        for sign, top in self.top.items():
            top.merge(other.top[sign])

    def constant(self) -> torch.Tensor:
        """Whether a unit gave one value everywhere, or no number at all; bool [u], on the CPU."""
        same = self.largest <= self.least  # also where every image gave NaN
        return (same & (self.smallest >= self.largest)).cpu()

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return everything that was counted, on the CPU."""
        state = {name: getattr(self, name) for name in WATCHED}
        if self.histogram is not None:
            state |= {"counts": self.histogram.counts, "scale": self.histogram.scale}
        for sign, top in self.top.items():
            state |= {f"{sign}.{name}": value for name, value in top.state_dict().items()}
        return {name: value.cpu() for name, value in state.items()}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take over what `state_dict` gave."""
        here = {name: value.to(self.device) for name, value in state.items()}
        for name in WATCHED:
            setattr(self, name, here[name])
        if self.histogram is not None:
            self.histogram.counts, self.histogram.scale = here["counts"], here["scale"]
            self.histogram.largest = here["largest"].clone()
        for sign, top in self.top.items():
            top.load_state_dict({name: here[f"{sign}.{name}"] for name in TOP})


class Columns(Protocol):
    """Values of every image and unit, of which some columns are read at a time."""

    shape: tuple[int, int]

    def columns(self, start: int, stop: int, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Read the units from ``start`` to ``stop`` on some images, float32 [rows, units]."""


def exact_statistics(values: Columns, rows: np.ndarray, quantile: float) -> dict[str, torch.Tensor]:
    """Return the statistics of units without positions, float32 [u] each.

    Args:
        values: of every image [images, u]; NaN is left out.
        rows: int64 [n], the images that count.
        quantile: above which the mask lies.
    """
    parts, units = [], values.shape[1]
    at_once = max(1, BLOCK_BYTES // (8 * max(1, len(rows))))
    for start in range(0, units, at_once):
        block = values.columns(start, min(units, start + at_once), rows)
        found = np.zeros((7, block.shape[1]))
        odd = np.isnan(block).any(0)
        if not odd.all():
            found[:, ~odd] = _of_numbers(block[:, ~odd], quantile)
        if odd.any():
            found[:, odd] = _of_others(block[:, odd], quantile)
        parts.append(found)
    table = np.concatenate(parts, 1).astype(np.float32)
    never = np.isposinf(table[-1])
    table[:, never] = np.nan
    table[-2:, never] = -np.inf  # the largest value of none
    names = ("quantile", "low_quantile", "median", "mean", "deviation", "maximum", "minimum")
    return {name: torch.from_numpy(row.copy()) for name, row in zip(names, table, strict=True)}


def _of_numbers(block: np.ndarray, quantile: float) -> np.ndarray:
    """Return the statistics of columns [n, c] without NaN, float64 [7, c]."""
    shares = [quantile, 1 - quantile, 0.5]
    last = len(block) - 1
    places = [share * last for share in shares]
    below = [int(place) for place in places]
    above = [min(place + 1, last) for place in below]
    parted = np.partition(np.ascontiguousarray(block.T), sorted({*below, *above}), axis=1)
    with np.errstate(invalid="ignore"):  # of infinities
        found = [_between(parted[:, a].astype(np.float64), parted[:, b].astype(np.float64), p - a)
                 for a, b, p in zip(below, above, places, strict=True)]  # fmt: skip
        whole = block.astype(np.float64)
        return np.stack([*found, whole.mean(0), whole.std(0), block.max(0), block.min(0)])


def _between(low: np.ndarray, high: np.ndarray, share: float) -> np.ndarray:
    """Return what lies a share of the way between two values, as NumPy's quantiles have it."""
    step = high - low
    return high - step * (1 - share) if share >= 0.5 else low + step * share


def _of_others(block: np.ndarray, quantile: float) -> np.ndarray:
    """Return the statistics of columns [n, c] with NaN, which is left out, float64 [7, c]."""
    whole = block.astype(np.float64)
    whole = np.where(np.isnan(whole).all(0), np.inf, whole)  # of no number at all
    with np.errstate(invalid="ignore"):  # of infinities
        high, low, middle = np.nanquantile(whole, [quantile, 1 - quantile, 0.5], axis=0)
        return np.stack([high, low, middle, np.nanmean(whole, 0), np.nanstd(whole, 0),
                         np.nanmax(whole, 0), np.nanmin(whole, 0)])  # fmt: skip
