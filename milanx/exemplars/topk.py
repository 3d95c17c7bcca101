"""The k images that excite each unit most, kept while images stream by."""

from __future__ import annotations

import torch

HALF_FLOATS = (-12, 15)  # exponents of maps' largest values that float16 holds well
TOP = ("values", "means", "images", "maps", "scales")
AT_ONCE = 64  # units whose maps are brought into order at a time
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
        # A map stays where it was put; the order of entries is told by their places.
        self._maps = torch.zeros(units, k, *map_size, dtype=torch.float16, device=device)
        self._places = torch.arange(k, device=device).expand(units, -1).contiguous()
        self.scales = torch.zeros(units, k, dtype=torch.int16, device=device)
        self._newest: int | None = -1  # image that was taken in; None where that is not known

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
        # Where all of these come after all that were, as in a pass, ties fall to the latter.
        later = self._later(images)
        keys, last = _key(values, means), _key(self.values[:, -1], self.means[:, -1])
        enters = (keys > last if later else keys >= last) & (values > -torch.inf)
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
        order = _best(pool, in_order=later)[:, : self.k]
        self.values[rising], self.means[rising], self.images[rising] = (
            part.gather(1, order) for part in pool
        )
        self._place(rising, order, maps)

    def _place(self, rising: torch.Tensor, order: torch.Tensor, maps: torch.Tensor) -> None:
        """Put the maps of new entries in the place of those that fell out.

        Args:
            rising: int64 [r], units that changed.
            order: int64 [r, k], of each place where its entry was: in the state, or k and more.
            maps: [b, u, h, w].
        """
        new = order >= self.k
        unit, rank = new.nonzero(as_tuple=True)
        before = order.clamp_max(self.k - 1)
        places, scales = (part[rising].gather(1, before) for part in (self._places, self.scales))
        free = torch.ones_like(new)
        stays = (~new).nonzero(as_tuple=True)
        free[stays[0], places[stays]] = False
        first = free.to(torch.int8).argsort(dim=1, descending=True, stable=True)
        found = first[unit, (new.cumsum(1) - 1)[unit, rank]]
        kept, scale = _halved(maps[order[unit, rank] - self.k, rising[unit]])
        self._maps[rising[unit], found] = kept
        places[unit, rank], scales[unit, rank] = found, scale
        self._places[rising], self.scales[rising] = places, scales

    @property
    def maps(self) -> torch.Tensor:
        """The maps of all entries, float16 [u, k, h, w], in their order."""
        for unit in range(0, len(self._maps), AT_ONCE):
            part = slice(unit, unit + AT_ONCE)
            places = self._places[part]
            rows = torch.arange(len(places), device=places.device)[:, None]
            self._maps[part] = self._maps[part][rows, places]
        self._places = torch.arange(self.k, device=self._places.device).expand(
            len(self._maps), -1).contiguous()  # fmt: skip
        return self._maps

    @maps.setter
    def maps(self, maps: torch.Tensor) -> None:
        self._maps = maps
        self._places = torch.arange(self.k, device=maps.device).expand(len(maps), -1).contiguous()

    def _later(self, images: torch.Tensor) -> bool:
        """Whether ``images`` rise, and come after all that were taken in."""
        if self._newest is None:  # of what was loaded or merged
            known = self.images[self.images != EMPTY]
            self._newest = int(known.max()) if len(known) else -1
        steps = torch.cat([images.new_tensor([self._newest]), images])
        self._newest = max(self._newest, int(images.max()))
        return bool((steps[1:] > steps[:-1]).all())

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
        order = _best(pool)[:, : self.k]
        maps = torch.cat([self.maps, other.maps], 1)
        self.maps = maps[torch.arange(len(maps), device=maps.device)[:, None], order]
        self.scales = torch.cat([self.scales, other.scales], 1).gather(1, order)
        self.values, self.means, self.images = (part.gather(1, order) for part in pool)
        self._newest = None

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return all that it holds."""
        return {name: getattr(self, name) for name in TOP}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take over what `state_dict` gave."""
        for name in TOP:
            setattr(self, name, state[name])
        self._newest = None


def _best(pool: list[torch.Tensor], in_order: bool = False) -> torch.Tensor:
    """Return the order of entries [u, n]: value down, mean down, image up.

    Args:
        pool: values, means and images.
        in_order: whether entries of one value and mean stand in the order of their images already.
    """
    values, means, images = pool
    keys = _key(values, means)
    if in_order:
        return keys.argsort(dim=1, descending=True, stable=True)
    order = images.argsort(dim=1, stable=True)
    return order.gather(1, keys.gather(1, order).argsort(dim=1, descending=True, stable=True))


def _key(values: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
    """Return int64 that are ordered as float32 ``values`` are, and as ``means`` where they tie."""
    return (_ordered(values) << 32) + _ordered(means)


def _ordered(values: torch.Tensor) -> torch.Tensor:
    """Return int64 that are ordered as float32 are, equal ones where these are, -0 and 0 too."""
    bits = (values.float() + 0.0).view(torch.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()


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
