"""Where in a map changes of a picture show, with weights by which they stay at their places."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from milanx.targets.capture import Capture
from milanx.targets.units import LayerInfo
from milanx.targets.zoo import Target

PICTURES = 4  # in which parts are changed
PLACES = 4  # quarters of the picture that are changed in turn
SPOTS = 4  # spots of a row and of a column that are changed in turn
TOGETHER = 7  # pictures that run at once
# Shares of the changes at a quarter by which another quarter's must exceed its own to be an error:
# where quarters have changed places, and where one stands alone. Even shares are 1/4.
MARGIN, ALONE = 0.05, 0.25
MOSTLY = 0.5  # share of the changes at a cell from which it shows one of them
CLEARER = 1.1  # times the fit in place that a shifted map's must have
BESIDE = 0.05  # factor of what a kernel sees beside its own place
FINE = 8  # cells a side from which a shift is looked for
ROUNDING = 1e-5  # share of a map's largest value below which it did not move


def pictures(size: tuple[int, int]) -> list[torch.Tensor]:
    """Return pictures, each before the same with stripes in parts of it, uint8 [n, 3, H, W] each.

    The parts are `PLACES` quarters, and of the first picture `SPOTS` x `SPOTS` spots besides, row
    by row. Several pictures let what is chance of one cancel out.
    """
    generator = torch.Generator().manual_seed(7)
    made = []
    for number in range(PICTURES):
        small = torch.rand(1, 3, 12, 12, generator=generator)
        base = torch.nn.functional.interpolate(small, size=size, mode="bilinear")[0] * 80 + 80
        stripes = torch.rand(3, *size, generator=generator).gt(0.5).float() * 255
        shown = [base]
        for cells in (2, SPOTS) if number == 0 else (2,):
            for part in range(cells**2):
                picture, (row, column) = base.clone(), divmod(part, cells)
                rows, columns = _middle(size[0], row, cells), _middle(size[1], column, cells)
                picture[:, rows, columns] = stripes[:, rows, columns]
                shown.append(picture)
        made.append(torch.stack(shown).to(torch.uint8))
    return made


def _middle(length: int, part: int, parts: int) -> slice:
    """Return the middle three fifths of one of some equal parts of a side."""
    start, stop = (part + 0.2) * length / parts, (part + 0.8) * length / parts
    return slice(round(start), max(round(stop), round(start) + 1))


class AtHome(TorchFunctionMode):
    """Attention and kernels by which every place looks at itself: what is shown stays there.

    Random weights look at all places alike, or at any: a change would show everywhere, whatever
    the layout. Which place of a tensor is which does not depend on weights, so that layers may be
    looked at with others than those by which they were found. Where the queries are more or fewer
    than the keys, each looks at the key at its own place of a grid, or of a row where the keys
    were pooled along one; and queries that were pooled from several look at those keys' places.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rows: set[int] = set()  # numbers of keys that were pooled so
        self.pooled: set[tuple[int, int]] = set()  # numbers of queries, and of what each is made of

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "scaled_dot_product_attention":
            given = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
            query, value = given["query"], given["value"]
            look = self._at_home(query.shape[-2], value.shape[-2], value)
            if look is not None:
                if value.ndim == 4 and value.shape[1] not in (1, query.shape[1]):
                    value = value.repeat_interleave(query.shape[1] // value.shape[1], 1)
                return (look @ value).expand(*query.shape[:-1], value.shape[-1])
        if name == "conv2d" and len(args) > 1:
            stride = kwargs.get("stride", args[3] if len(args) > 3 else 1)
            args = (args[0], centred(args[1], stride), *args[2:])
        made = func(*args, **kwargs)
        if name == "softmax" and made.ndim >= 3:
            axis = kwargs.get("dim", args[1] if len(args) > 1 else -1)
            look = self._at_home(made.shape[-2], made.shape[-1], made)
            if axis in (-1, made.ndim - 1) and look is not None:
                return look.expand_as(made).clone()
        if name == "avg_pool1d":
            self.rows.add(made.shape[-1])
        if name in ("amax", "max") and len(args[0].shape) > 3:
            axis = kwargs.get("dim", args[1] if len(args) > 1 else None)
            if axis in (-3, args[0].ndim - 3):  # [..., several, queries, width]
                self.pooled.add((args[0].shape[-2], args[0].shape[-3]))
        return made

    def _at_home(self, queries: int, keys: int, like: torch.Tensor) -> torch.Tensor | None:
        if keys > queries and (queries, keys // queries) in self.pooled:
            several = keys // queries
            return torch.eye(queries, dtype=like.dtype, device=like.device).repeat(1, several) / (
                several
            )
        if keys in self.rows and queries > 1:
            to = torch.arange(queries) * keys // queries
            return torch.eye(keys, dtype=like.dtype, device=like.device)[to]
        return at_home(queries, keys, like)


def at_home(queries: int, keys: int, like: torch.Tensor) -> torch.Tensor | None:
    """Return attention [queries, keys] of each place to itself; None where they are no grids."""
    if queries == keys > 1:
        return torch.eye(queries, dtype=like.dtype, device=like.device)
    for before in (0, 1):  # a class token
        sides = [math.isqrt(max(n - before, 0)) for n in (queries, keys)]
        if min(sides) > 1 and [s**2 + before for s in sides] == [queries, keys]:
            to = (torch.arange(sides[0]) * sides[1] + sides[1] // 2) // sides[0]
            at = to.clamp_max(sides[1] - 1)[:, None] * sides[1] + to.clamp_max(sides[1] - 1)[None]
            chosen = [*range(before), *(at.flatten() + before).tolist()]
            return torch.eye(keys, dtype=like.dtype, device=like.device)[chosen]
    return None


def centred(weight: torch.Tensor, stride: int | Sequence[int]) -> torch.Tensor:
    """Return kernels [o, i, h, w] that are weak beside what one step of them covers.

    Their norms are those of before, so that values grow no smaller with depth.
    """
    steps = (stride, stride) if isinstance(stride, int) else (tuple(stride) * 2)[:2]
    keep = torch.ones((), dtype=weight.dtype, device=weight.device)
    for size, step, shape in zip(weight.shape[2:], steps, ((-1, 1), (1, -1)), strict=True):
        side = torch.full((size,), BESIDE, dtype=weight.dtype, device=weight.device)
        # Of an uneven rest it depends on the padding which side is nearer: both are kept.
        start, rest = divmod(max(size - step, 0), 2)
        side[start : start + step + rest] = 1
        keep = keep * side.view(shape)
    made = weight * keep
    norms = [w.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None] for w in (weight, made)]
    return made * (norms[0] / norms[1])


def moved_places(
    target: Target, infos: Sequence[LayerInfo], shown: Sequence[torch.Tensor]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield how far each place of each map moved by each change.

    Args:
        target: the model.
        infos: the layers.
        shown: as `pictures` gives them.

    Yields:
        By quarters [pictures, 4, h, w] and by spots [spots, h, w].
    """
    moved: dict[str, list[torch.Tensor]] = {info.name: [] for info in infos}
    with AtHome(), Capture(target, infos) as capture:
        for several in shown:
            first: dict[str, torch.Tensor] = {}
            for some in several.split(TOGETHER):
                for name, value in capture.run(target.inputs(some)).items():
                    here = value.float()
                    base = first.setdefault(name, here[:1].clone())
                    apart, noise = (here - base).abs().mean(1), ROUNDING * float(base.abs().amax())
                    moved[name].append(torch.where(apart > noise, apart, 0.0).double())
    starts = [0, *torch.tensor([len(s) for s in shown]).cumsum(0).tolist()]
    for parts in moved.values():
        apart = torch.cat(parts)
        quarters = torch.stack([apart[s + 1 : s + 1 + PLACES] for s in starts[:-1]])
        yield quarters, apart[1 + PLACES : starts[1]]


def _shares(moved: torch.Tensor) -> torch.Tensor:
    """Return which share of what moves a place each change makes up, [..., n, h, w]."""
    even = moved / moved.mean((-2, -1), keepdim=True).clamp_min(1e-30)
    return even / even.sum(-3, keepdim=True).clamp_min(1e-30)


def by_quarters(moved: torch.Tensor) -> bool | None:
    """Whether each quarter of a map is moved most by its own quarter's change.

    Args:
        moved: how far each place moved, by picture and quarter [pictures, 4, h, w].

    Returns:
        True. False where quarters show each other's changes, as in a map that is mirrored or
        turned, by `MARGIN`; where a single one shows another's by `ALONE`; or where the cells show
        one change each, but scattered. None where the changes show everywhere alike.
    """
    share = _shares(moved).mean(0)
    rows, columns = (torch.arange(n) * 2 < n - 1 for n in moved.shape[2:])
    sides = [(rows if part < 2 else rows.flip(0))[:, None]
             & (columns if part % 2 == 0 else columns.flip(0))[None]
             for part in range(PLACES)]  # fmt: skip
    held = torch.stack([share[:, side].mean(1) for side in sides])  # [quarter, change]
    own = held.diagonal()
    others = (held - torch.diag(torch.full_like(own, math.inf))).amax(1)
    if bool((own > others).all()):
        return True
    beyond, best = others - own, held.argmax(1).tolist()
    turned = sorted(best) == list(range(PLACES)) and bool((beyond > MARGIN).sum() > 1)
    scattered = float(share.amax(0).mean()) > MOSTLY
    return False if turned or scattered or bool((beyond > ALONE).any()) else None


def is_shifted(moved: torch.Tensor) -> bool:
    """Whether changes of spots [spots, h, w] fit their places clearly better in a rolled map."""
    share = _shares(moved)
    h, w = moved.shape[1:]
    rows, columns = ((torch.arange(n) + 0.5) / n * SPOTS for n in (h, w))
    spots = [((rows.floor() == part // SPOTS)[:, None] & (columns.floor() == part % SPOTS)[None])
             for part in range(SPOTS**2)]  # fmt: skip
    meant = torch.stack(spots).double()
    a, b = (torch.fft.fft2(x - x.mean(0)) for x in (share, meant))
    fit = torch.fft.ifft2(a * b.conj()).real.sum(0)
    near = [fit[y, x] for y in (-1, 0, 1) for x in (-1, 0, 1)]
    return float(fit.amax()) > CLEARER * float(torch.stack(near).amax())
