"""Streaming, mergeable statistics of every unit of a layer: top k, and what a histogram counts.

Top k, spatial maximum and mean of every image, and the largest value are exact, and so is whether a
unit gives one value everywhere. Quantiles, mean, deviation and the lowest value of maps are
estimates (`milanx.exemplars.histogram`). Layers without positions have every value on disk, and
need no bins: theirs are exact.

Maps with NaN count for nothing but their number; infinite values rank first or last, as they are.
An image on which a unit is off all over (`milanx.targets.functions.off_value`) is no exemplar.
"""

from __future__ import annotations

import numpy as np
import torch

from milanx.exemplars.histogram import Histogram, scales

HALF_FLOATS = (-12, 15)  # exponents of maps' largest values that float16 holds well
COLUMNS = 1024  # units without positions whose values are in memory at a time
WATCHED = ("largest", "least", "smallest", "nan", "infinite")
TOP = ("values", "means", "images", "maps", "scales")
EMPTY = torch.iinfo(torch.int64).max  # image of an empty place, behind all others


class TopK:
    """The k images of the largest spatial maximum of each unit, with their maps.

    Ties: larger spatial maximum, then larger spatial mean, then lower image index. An image whose
    value is -inf never enters: the places of a unit that has too few others stay empty, with the
    value -inf. Maps are kept as float16; one that it cannot hold, or only coarsely, is
    divided by a power of two, ``scales``.

    Args:
        units: u.
        k: how many.
        map_size: (h, w).
        device: where the maps are.
    """

    def __init__(
        self, units: int, k: int, map_size: tuple[int, int], device: torch.device | str = "cpu"
    ) -> None:
        self.k = k
        self.values = torch.full((units, k), -torch.inf, device=device)
        self.means = torch.full((units, k), -torch.inf, device=device)
        self.images = torch.full((units, k), EMPTY, dtype=torch.int64, device=device)
        self.maps = torch.zeros(units, k, *map_size, dtype=torch.float16, device=device)
        self.scales = torch.zeros(units, k, dtype=torch.int16, device=device)

    def update(
        self, maps: torch.Tensor, values: torch.Tensor, means: torch.Tensor, images: torch.Tensor
    ) -> None:
        """Take a batch in.

        Args:
            maps: [b, u, h, w], stored as they are.
            values: float32 [b, u], what is ranked by.
            means: float32 [b, u], for ties.
            images: int64 [b].
        """
        if not len(images):
            return
        enters = (values >= self.values[:, -1]) & (values > -torch.inf)
        rising = enters.any(0).nonzero().squeeze(1)
        if not len(rising):
            return
        new_values = values[:, rising].T
        none = new_values == -torch.inf
        pool = [
            torch.cat([self.values[rising], new_values], 1),
            torch.cat([self.means[rising], means[:, rising].T.masked_fill(none, -torch.inf)], 1),
            torch.cat([self.images[rising],
                       images.expand(len(rising), -1).masked_fill(none, EMPTY)], 1),
        ]  # fmt: skip
        order = _best(*pool)[:, : self.k]
        kept = order < self.k  # where an entry was in the state before
        places = rising[:, None], order.clamp_max(self.k - 1)
        old, scales = self.maps[places], self.scales[places]
        new_unit, new_place = (~kept).nonzero(as_tuple=True)
        batch_rows = order[new_unit, new_place] - self.k
        new, scale = _halved(maps[batch_rows, rising[new_unit]])
        old[new_unit, new_place], scales[new_unit, new_place] = new, scale
        self.maps[rising], self.scales[rising] = old, scales
        self.values[rising], self.means[rising], self.images[rising] = (
            part.gather(1, order) for part in pool
        )

    def merge(self, other: TopK) -> None:
        """Take another's entries in; the images of the two are distinct but for empty places."""
        pool = [
            torch.cat([a, b], 1)
            for a, b in (
                (self.values, other.values),
                (self.means, other.means),
                (self.images, other.images),
            )
        ]
        order = _best(*pool)[:, : self.k]
        maps = torch.cat([self.maps, other.maps], 1)
        self.maps = maps[torch.arange(len(maps), device=maps.device)[:, None], order]
        self.scales = torch.cat([self.scales, other.scales], 1).gather(1, order)
        self.values, self.means, self.images = (part.gather(1, order) for part in pool)


def _best(values: torch.Tensor, means: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Return the order of entries [u, n]: value down, mean down, image up."""
    order = images.argsort(dim=1, stable=True)
    order = order.gather(1, means.gather(1, order).argsort(dim=1, descending=True, stable=True))
    return order.gather(1, values.gather(1, order).argsort(dim=1, descending=True, stable=True))


def _halved(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return maps [n, h, w] as float16, and the power of two each was divided by, int16 [n]."""
    exponent = torch.frexp(maps.float().abs().amax((1, 2))).exponent - 1
    low, high = HALF_FLOATS
    scale = torch.where((exponent < low) | (exponent > high), exponent, 0).to(torch.int16)
    if bool(scale.any()):
        # In two steps: the power itself may lie outside of float32.
        half = torch.div(scale, 2, rounding_mode="floor").float()[:, None, None]
        rest = scale.float()[:, None, None] - half
        maps = maps.float() * torch.exp2(-half) * torch.exp2(-rest)
    return maps.to(torch.float16), scale


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

    def calibrate(self, maps: torch.Tensor) -> None:
        """Choose the scale on which each unit is counted, from a few maps [b, u, h, w]."""
        if self.histogram is not None:
            seen = torch.nan_to_num(maps.float(), 0, 0, 0).abs().amax((0, 2, 3))
            self.histogram.scale = scales(seen).to(self.device)

    def update(
        self, maps: torch.Tensor, images: torch.Tensor, eligible: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take a batch in.

        Args:
            maps: [b, u, h, w].
            images: int64 [b], their indices.
            eligible: bool [b]; the others count for nothing but what is returned.

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
        self._count(chosen, maximum[eligible], mean[eligible], images[eligible], finite)
        return maximum.cpu(), mean.cpu()

    def _count(
        self,
        maps: torch.Tensor,
        maximum: torch.Tensor,
        mean: torch.Tensor,
        images: torch.Tensor,
        finite: bool,
    ) -> None:
        """Count maps [b, u, h, w] whose images may become exemplars."""
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
            maps = torch.nan_to_num(maps, 0.0)
        if "+" in self.top:
            if self.off is not None:  # as the maps' type holds it
                off = torch.tensor(self.off, dtype=maps.dtype).float().item()
                maximum = maximum.masked_fill(maximum <= off, -torch.inf)
            self.top["+"].update(maps, maximum, mean, images)
        if lowest is not None:
            self.top["-"].update(maps, -lowest, -mean, images)

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
            for name in TOP:
                state[f"{sign}.{name}"] = getattr(top, name)
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
            for name in TOP:
                setattr(top, name, here[f"{sign}.{name}"])


def exact_statistics(
    values: np.ndarray, eligible: np.ndarray, quantile: float
) -> dict[str, torch.Tensor]:
    """Return the statistics of units without positions, float32 [u] each.

    Args:
        values: of every image [images, u]; NaN is left out.
        eligible: bool [images], which count.
        quantile: above which the mask lies.
    """
    rows = np.flatnonzero(eligible)
    parts = []
    for start in range(0, values.shape[1], COLUMNS):
        block = np.asarray(values[:, start : start + COLUMNS], np.float64)[rows]
        block = np.where(np.isnan(block).all(0), np.inf, block)  # of no number at all: see below
        with np.errstate(invalid="ignore"):  # of infinities
            low, median, high = np.nanquantile(block, [1 - quantile, 0.5, quantile], axis=0)
            mean, deviation = np.nanmean(block, 0), np.nanstd(block, 0)
        parts.append(np.stack([high, low, median, mean, deviation,
                               np.nanmax(block, 0), np.nanmin(block, 0)]))  # fmt: skip
    table = np.concatenate(parts, 1).astype(np.float32)
    never = np.isposinf(table[-1])
    table[:, never] = np.nan
    table[-2:, never] = -np.inf  # the largest value of none
    names = ("quantile", "low_quantile", "median", "mean", "deviation", "maximum", "minimum")
    return {name: torch.from_numpy(row.copy()) for name, row in zip(names, table, strict=True)}
