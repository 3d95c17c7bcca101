"""Streaming, mergeable statistics of every unit: top k, quantiles, mean and deviation.

Top k, spatial maximum and mean of every image, and the largest value are exact, and so is whether a
unit gives one value everywhere. Quantiles, mean, deviation and the lowest value of maps are
estimates: values are counted in bins of the float's own bits, of large maps at a subset of the
positions. Counts add, so order, shards and resuming change nothing of either kind. Layers without
positions have every value on disk, and need no bins.

Maps with NaN count for nothing but their number; infinite values rank first or last, as they are.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

# Bins are the ordered bits of a float32: sign, exponent, and the first six bits of the mantissa,
# for magnitudes from 2**-30 to 2**16. Smaller ones count as zero, larger ones as the largest.
MANTISSA_BITS = 6
LOWEST_EXPONENT, HIGHEST_EXPONENT = -30, 16
_SHIFT = 23 - MANTISSA_BITS
_BASE = (127 + LOWEST_EXPONENT) << MANTISSA_BITS
HALF = (HIGHEST_EXPONENT - LOWEST_EXPONENT) << MANTISSA_BITS
BINS = 2 * HALF + 1
MAX_POSITIONS = 784  # larger maps are counted at a fixed, seeded subset of this many positions
# A unit whose largest magnitude has an exponent outside of these is counted on a scale of its own,
# on which it stands at the first, or well below the end: float32 has room for both.
ORDINARY = (-14, 12)
LARGE_AT = 6
BLOCK = 4_000_000  # bins that are counted, or summed up, at a time: 32 MB of sums
WAITING = 32_000_000  # keys of int16 that wait to be counted, at most


def bin_edges() -> torch.Tensor:
    """Return the edges of all bins in order, float64 [BINS + 1]."""
    keys = torch.arange(HALF + 1, dtype=torch.int32)
    magnitudes = ((keys + _BASE) << _SHIFT).view(torch.float32).double()
    return torch.cat([-magnitudes.flip(0), magnitudes])


def scales(largest: torch.Tensor) -> torch.Tensor:
    """Return the powers of two by which units' bins are moved, int32 [u]; 0 for ordinary ones.

    Args:
        largest: magnitude that was seen of each unit, float32 [u].
    """
    exponent = torch.frexp(largest.float()).exponent - 1
    low, high = ORDINARY
    moved = torch.where(exponent < low, exponent - low, exponent - LARGE_AT)
    ordinary = (exponent >= low) & (exponent <= high)
    seen = torch.isfinite(largest) & (largest > 0)
    return torch.where(ordinary | ~seen, 0, moved).int()


class Histogram:
    """Counts of a layer's values in bins, and what is estimated from them.

    Args:
        units: u.
        positions: h * w of a map.
        device: where it counts, which is where the maps are.
        rectified: whether no value is below zero; half of the bins are left away then.
    """

    def __init__(
        self,
        units: int,
        positions: int,
        device: torch.device | str = "cpu",
        rectified: bool = False,
    ) -> None:
        self.rectified = rectified
        self.first = HALF if rectified else 0  # number of the first bin that is kept
        self._zero = HALF - self.first
        # One bin more than there are, for NaN.
        self._width = BINS - self.first + 1
        self.counts = torch.zeros(units, self._width, dtype=torch.int32, device=device)
        self.largest = torch.full((units,), -torch.inf, device=device)
        self.scale = torch.zeros(units, dtype=torch.int32, device=device)
        self.subset: torch.Tensor | None = None
        if positions > MAX_POSITIONS:
            generator = torch.Generator().manual_seed(positions)
            chosen = torch.randperm(positions, generator=generator)[:MAX_POSITIONS]
            self.subset = chosen.sort().values.to(device)
        self._waiting: list[torch.Tensor] = []

    def update(self, maps: torch.Tensor, largest: torch.Tensor | None = None) -> None:
        """Count ``maps`` [b, u, h, w]; ``largest`` [u], their maximum, where it is known."""
        if not len(maps):
            return
        top = maps.amax((0, 2, 3)) if largest is None else largest
        self.largest = torch.maximum(self.largest, top.float())
        rows = maps.permute(0, 2, 3, 1).flatten(1, 2)  # [b, h * w, u]
        if self.subset is not None:
            rows = rows[:, self.subset]
        keys = self._keys(rows.flatten(0, 1).float().contiguous())
        if keys.numel() >= self.counts.numel() // 2 and not self._waiting:
            self._count(keys)
            return
        self._waiting.append(keys.to(torch.int16))
        if sum(k.numel() for k in self._waiting) >= min(self.counts.numel() // 2, WAITING):
            self.settle()

    def _keys(self, values: torch.Tensor) -> torch.Tensor:
        """Return the bin of each value [n, u], int32."""
        bits = values.view(torch.int32)
        key = ((bits & 0x7FFFFFFF) >> _SHIFT).sub_(self.scale * (1 << MANTISSA_BITS) + _BASE - 1)
        key.clamp_(0, HALF)
        if not self.rectified:
            key.mul_((bits >> 31).bitwise_or_(1)).add_(self._zero)
        if not bool(torch.isfinite(values.sum())):
            key[torch.isnan(values)] = self._width - 1
        return key

    def settle(self) -> None:
        """Count the keys that wait; many batches of small maps together cost as much as one."""
        if self._waiting:
            keys, self._waiting = torch.cat(self._waiting), []
            self._count(keys)

    def _count(self, keys: torch.Tensor) -> None:
        for units in self._blocks():
            counts = self.counts[units]
            offset = torch.arange(len(counts), device=keys.device, dtype=torch.int32) * self._width
            places = (keys[:, units] + offset).flatten()
            counts += torch.bincount(places, minlength=counts.numel()).view_as(counts)

    def _blocks(self) -> Iterator[slice]:
        """Yield units a few at a time, so that what is computed of their bins stays small."""
        step = max(1, BLOCK // self._width)
        for start in range(0, len(self.counts), step):
            yield slice(start, start + step)

    def merge(self, other: Histogram) -> None:
        """Add another's counts, on the same scales."""
        self.settle()
        other.settle()
        self.counts += other.counts
        self.largest = torch.maximum(self.largest, other.largest)

    def _bins(self, units: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Return counts int32 [n, bins] of some units and the factors of their edges [n, 1]."""
        self.settle()
        return self.counts[units, :-1].cpu(), torch.exp2(self.scale[units].cpu().double())[:, None]

    def quantile(self, q: float) -> torch.Tensor:
        """Estimate the q-quantile of each unit, float32 [u]; NaN where nothing was a number.

        Linear inside a bin, and never above the largest value that was seen. On the CPU.

        Raises:
            ValueError: nothing was counted.
        """
        self.settle()
        if not bool((self.counts.sum(1) > 0).all()):
            raise ValueError("no values were counted")
        parts = []
        for units in self._blocks():
            counts, factor = self._bins(units)
            cumulative = counts.double().cumsum(1)
            total = cumulative[:, -1:]
            wanted = q * total
            place = torch.searchsorted(cumulative, wanted).clamp_max(counts.shape[1] - 1)
            inside = counts.gather(1, place).double()
            before = cumulative.gather(1, place) - inside
            share = ((wanted - before) / inside.clamp_min(1)).clamp(0, 1)
            low, high = _bounds(place + self.first)
            found = ((low + share * (high - low)) * factor).squeeze(1).float()
            found = torch.minimum(found, self.largest[units].cpu())
            parts.append(found.masked_fill(total.squeeze(1) == 0, torch.nan))
        return torch.cat(parts)

    def mean_and_deviation(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Estimate mean and standard deviation of each unit, float32 [u], from bins' middles."""
        low, high = _bounds(torch.arange(self.first, BINS))
        middle = (low + high) / 2
        means, deviations = [], []
        for units in self._blocks():
            counts, factor = self._bins(units)
            weights = counts.double()
            total = weights.sum(1).clamp_min(1)
            mean = weights @ middle / total
            square = weights @ middle.square() / total
            factor = factor.squeeze(1)
            means.append((mean * factor).float())
            deviation = (square - mean.square()).clamp_min(0).sqrt()
            deviations.append((deviation * factor).float())
        return torch.cat(means), torch.cat(deviations)

    def lowest(self) -> torch.Tensor:
        """Return the lower edge of each unit's lowest bin that holds anything, float32 [u]."""
        parts = []
        for units in self._blocks():
            counts, factor = self._bins(units)
            edge = _bounds((counts > 0).int().argmax(1) + self.first)[0]
            parts.append((edge * factor.squeeze(1)).float())
        return torch.cat(parts)


def _bounds(place: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return lower and upper edge of bins; bin HALF holds zero alone."""
    edges = bin_edges()
    # Bins of magnitude key m > 0 span edge[m - 1] to edge[m] on their side; 0 is a point.
    positive = place > HALF
    magnitude = (place - HALF).abs()
    inner = edges[HALF + 1 :][(magnitude - 1).clamp_min(0)]
    outer = edges[HALF + 1 :][magnitude.clamp_max(HALF)]
    zero = magnitude == 0
    low = torch.where(positive, inner, -outer)
    high = torch.where(positive, outer, -inner)
    return low.masked_fill(zero, 0.0), high.masked_fill(zero, 0.0)


class TopK:
    """The k images of the largest spatial maximum of each unit, with their maps.

    Ties: larger spatial maximum, then larger spatial mean, then lower image index.

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
        self.images = torch.full((units, k), torch.iinfo(torch.int64).max, device=device)
        self.maps = torch.zeros(units, k, *map_size, dtype=torch.float16, device=device)

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
        rising = (values >= self.values[:, -1]).any(0).nonzero().squeeze(1)
        if not len(rising):
            return
        pool = [
            torch.cat([self.values[rising], values[:, rising].T], 1),
            torch.cat([self.means[rising], means[:, rising].T], 1),
            torch.cat([self.images[rising], images.expand(len(rising), -1)], 1),
        ]
        order = _best(*pool)[:, : self.k]
        kept = order < self.k  # where an entry was in the state before
        old = self.maps[rising[:, None], order.clamp_max(self.k - 1)]
        new_unit, new_place = (~kept).nonzero(as_tuple=True)
        batch_rows = order[new_unit, new_place] - self.k
        old[new_unit, new_place] = maps[batch_rows, rising[new_unit]].to(torch.float16)
        self.maps[rising] = old
        self.values[rising], self.means[rising], self.images[rising] = (
            part.gather(1, order) for part in pool
        )

    def merge(self, other: TopK) -> None:
        """Take another's entries in; the images of the two are distinct."""
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
        self.values, self.means, self.images = (part.gather(1, order) for part in pool)


def _best(values: torch.Tensor, means: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Return the order of entries [u, n]: value down, mean down, image up."""
    order = images.argsort(dim=1, stable=True)
    order = order.gather(1, means.gather(1, order).argsort(dim=1, descending=True, stable=True))
    return order.gather(1, values.gather(1, order).argsort(dim=1, descending=True, stable=True))


class LayerStatistics:
    """All statistics of one layer.

    Args:
        units: u.
        map_size: (h, w).
        k: exemplars a unit.
        signs: ``+``, ``-`` or both.
        device: where it counts; what is counted stays there until `state_dict`.
    """

    def __init__(
        self,
        units: int,
        map_size: tuple[int, int],
        k: int,
        signs: tuple[str, ...],
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.histogram = Histogram(units, map_size[0] * map_size[1], device)
        self.top = {sign: TopK(units, k, map_size, device) for sign in signs}

    def update(
        self, maps: torch.Tensor, images: torch.Tensor, eligible: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take a batch in.

        Args:
            maps: [b, u, h, w].
            images: int64 [b], their indices.
            eligible: bool [b]; the others count for nothing but what is returned.

        Returns:
            Spatial maximum and mean of every image, float32 [b, u] each, on the CPU.
        """
        maps = maps.to(self.device)
        maximum = maps.amax((2, 3)).float()
        mean = maps.float().mean((2, 3))
        if not bool(eligible.any()):
            return maximum.cpu(), mean.cpu()
        every = bool(eligible.all())
        images, eligible = images.to(self.device), eligible.to(self.device)
        chosen = maps if every else maps[eligible]
        self.histogram.update(chosen, maximum[eligible].amax(0))
        rows = images[eligible]
        if "+" in self.top:
            self.top["+"].update(chosen, maximum[eligible], mean[eligible], rows)
        if "-" in self.top:
            lowest = maps.amin((2, 3)).float()
            self.top["-"].update(chosen, -lowest[eligible], -mean[eligible], rows)
        return maximum.cpu(), mean.cpu()

    def merge(self, other: LayerStatistics) -> None:
        """Take the statistics of other images in."""
        self.histogram.merge(other.histogram)
        for sign, top in self.top.items():
            top.merge(other.top[sign])

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return everything that was counted, on the CPU."""
        state = {"counts": self.histogram.counts, "largest": self.histogram.largest}
        for sign, top in self.top.items():
            for name in ("values", "means", "images", "maps"):
                state[f"{sign}.{name}"] = getattr(top, name)
        return {name: value.cpu() for name, value in state.items()}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take over what `state_dict` gave."""
        here = {name: value.to(self.device) for name, value in state.items()}
        self.histogram.counts, self.histogram.largest = here["counts"], here["largest"]
        for sign, top in self.top.items():
            for name in ("values", "means", "images", "maps"):
                setattr(top, name, here[f"{sign}.{name}"])
