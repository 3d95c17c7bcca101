"""Values counted in bins of the float's own bits, and quantiles, mean and deviation of them.

Counts add, so order, shards and resuming change nothing. Of large maps a fixed subset of the
positions is counted.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

# Bins are the ordered bits of a float32: sign, exponent, and the first six bits of the mantissa,
# for magnitudes from 2**-30 to 2**16. Smaller ones count as zero, larger ones as the largest.
MANTISSA_BITS = 6
LOWEST_EXPONENT, HIGHEST_EXPONENT = -30, 16
_SHIFT = 23 - MANTISSA_BITS
UPPER = 1 if sys.byteorder == "little" else 0  # which half of a float32 holds sign and exponent
_BASE = (127 + LOWEST_EXPONENT) << MANTISSA_BITS
HALF = (HIGHEST_EXPONENT - LOWEST_EXPONENT) << MANTISSA_BITS
BINS = 2 * HALF + 1
MAX_POSITIONS = 784  # larger maps are counted at a fixed, seeded subset of this many positions
# A unit whose largest magnitude has an exponent outside of these is counted on a scale of its own,
# on which it stands at the first, or well below the end: float32 has room for both.
ORDINARY = (-14, 12)
LARGE_AT = 6
BLOCK = 4_000_000  # bins that are counted, or summed up, at a time: 32 MB of sums
WAITING = 16_000_000  # keys of int16 that wait to be counted, at most
SHARED = 100_000  # keys from which on several threads count them
ROUNDS = 2  # as many keys wait as there are bins, this often: counting goes over all bins each time


def bin_edges() -> torch.Tensor:
    """Return the edges of all bins in order, float64 [BINS + 1]."""
    keys = torch.arange(HALF + 1, dtype=torch.int32)
    magnitudes = ((keys + _BASE) << _SHIFT).view(torch.float32).double()
    return torch.cat([-magnitudes.flip(0), magnitudes])


def bins(rectified: bool) -> int:
    """Return how many bins a unit has, with that of NaN."""
    return BINS - (HALF if rectified else 0) + 1


def waiting(held: int) -> int:
    """Return how many keys wait before they are counted in so many bins."""
    return min(ROUNDS * held, WAITING)


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
        self._width = bins(rectified)
        self._counts = torch.zeros(units, self._width, dtype=torch.int32, device=device)
        self.largest = torch.full((units,), -torch.inf, device=device)
        self.scale = torch.zeros(units, dtype=torch.int32, device=device)
        self.subset: torch.Tensor | None = None
        if positions > MAX_POSITIONS:
            generator = torch.Generator().manual_seed(positions)
            chosen = torch.randperm(positions, generator=generator)[:MAX_POSITIONS]
            self.subset = chosen.sort().values.to(device)
        self._waiting: list[torch.Tensor] = []

    @property
    def counts(self) -> torch.Tensor:
        """How often each bin was met, int32 [u, bins]; the last one counts NaN."""
        self.settle()
        return self._counts

    @counts.setter
    def counts(self, counts: torch.Tensor) -> None:
        self._waiting, self._counts = [], counts

    def update(
        self, maps: torch.Tensor, largest: torch.Tensor | None = None, finite: bool = False
    ) -> None:
        """Count ``maps`` [b, u, h, w].

        Args:
            maps: NaN among them is counted apart.
            largest: their maximum [u], where it is known.
            finite: whether it is known that they hold no NaN.
        """
        if not len(maps):
            return
        top = maps.amax((0, 2, 3)) if largest is None else largest
        self.largest = torch.maximum(self.largest, top.float())
        rows = maps.permute(0, 2, 3, 1).flatten(1, 2)  # [b, h * w, u]
        if self.subset is not None:
            rows = rows[:, self.subset]
        self._waiting.append(self._keys(rows.flatten(0, 1).float().contiguous(), finite))
        if sum(k.numel() for k in self._waiting) >= waiting(self._counts.numel()):
            self.settle()

    def _keys(self, values: torch.Tensor, finite: bool) -> torch.Tensor:
        """Return the bin of each value [n, u], int16."""
        # What counts stands in the upper half.
        bits = values.flatten().view(torch.int16)[UPPER::2].view(values.shape)
        first = (self.scale * (1 << MANTISSA_BITS) + _BASE - 1).to(torch.int16)
        key = ((bits & 0x7FFF) >> (_SHIFT - 16)).sub_(first).clamp_(0, HALF)
        if not self.rectified:
            key.mul_((bits >> 15).bitwise_or_(1)).add_(self._zero)
        if not finite:
            key[torch.isnan(values)] = self._width - 1
        return key

    def settle(self) -> None:
        """Count the keys that wait; many batches of small maps together cost as much as one."""
        if self._waiting:
            keys, self._waiting = self._waiting, []
            self._count(keys[0] if len(keys) == 1 else torch.cat(keys))

    def _count(self, keys: torch.Tensor) -> None:
        """Count keys int16 [n, u]; torch counts in one thread, so several count some units each."""
        threads = torch.get_num_threads() if keys.device.type == "cpu" else 1
        blocks = list(self._blocks(threads))
        if threads == 1 or keys.numel() < SHARED:
            for units in blocks:
                self._add(units, self._counted(self._places(keys, units)))
            return
        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, len(blocks), threads):
                here = blocks[start : start + threads]
                places = [self._places(keys, units) for units in here]
                for units, counted in zip(here, pool.map(self._counted, places), strict=True):
                    self._add(units, counted)

    def _places(self, keys: torch.Tensor, units: slice) -> tuple[torch.Tensor, int]:
        """Return where among the bins of some units their keys lie, and how many bins these are."""
        some = keys[:, units]
        offset = torch.arange(some.shape[1], device=keys.device, dtype=torch.int32) * self._width
        return (some + offset).flatten(), some.shape[1] * self._width

    def _counted(self, places: tuple[torch.Tensor, int]) -> torch.Tensor:
        return torch.bincount(places[0], minlength=places[1])

    def _add(self, units: slice, counted: torch.Tensor) -> None:
        counts = self._counts[units]
        counts += counted.view_as(counts)

    def _blocks(self, parts: int = 1) -> Iterator[slice]:
        """Yield units a few at a time, so that what is computed of their bins stays small."""
        units = len(self._counts)
        step = max(1, min(BLOCK // self._width, -(-units // parts)))
        for start in range(0, units, step):
            yield slice(start, start + step)

    def merge(self, other: Histogram) -> None:
        """Add another's counts, on the same scales."""
        self.counts = self.counts + other.counts
        self.largest = torch.maximum(self.largest, other.largest)

    def _bins(self, units: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Return counts int32 [n, bins] of some units and the factors of their edges [n, 1]."""
        return self.counts[units, :-1].cpu(), torch.exp2(self.scale[units].cpu().double())[:, None]

    def quantile(self, q: float) -> torch.Tensor:
        """Estimate the q-quantile of each unit, float32 [u]; NaN where nothing was a number.

        Linear inside a bin, and never above the largest value that was seen. On the CPU.

        Raises:
            ValueError: nothing was counted.
        """
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
