"""How places are carried from tensor to tensor: copied, moved about, computed one from another.

Where a tensor's places are known they are numbered, and the operations that only move elements are
applied to the numbers; what windows, groups and tokens hold is then read off, not guessed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from milanx.targets.probing import unit_axes
from milanx.targets.watch import Edge, Watch


@dataclass(frozen=True)
class Layout:
    """How what belongs to one image is a map of units.

    Attributes:
        axis: of the units, in `Seen.places`.
        map_size: (h, w).
        prefix: tokens before the patches.
        suffix: tokens behind them.
        order: which place holds each cell; empty for row after row.
        groups: rows of the first axis that belong to one image.
    """

    axis: int
    map_size: tuple[int, int] = (1, 1)
    prefix: int = 0
    suffix: int = 0
    order: tuple[int, ...] = ()
    groups: int = 1


class Flow:
    """Carries numbers of places through a forward pass.

    The numbers of a tensor for two images: 0 for what is no cell of the map, 1 to h w for the
    cells of the first image, and on for those of the second.

    Args:
        watch: the pass.
    """

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.known: dict[int, tuple[torch.Tensor, tuple[int, int]]] = {}
        self.parts: dict[int, float] = {}  # of a tensor's elements that those numbers tell
        self.shares: dict[int, float] = {}  # of a map's cells that those numbers hold, times that
        self.edges: dict[int, list[tuple[Edge, bool]]] = {}
        for edge in watch.edges:
            self.edges.setdefault(watch.places(edge.source), []).append((edge, True))
            self.edges.setdefault(watch.places(edge.target), []).append((edge, False))

    def layout(self, spot: int, shape: tuple[int, ...]) -> Layout | None:
        """Return the layout of a tensor of that shape, where it is known."""
        found = self.known.get(self.watch.places(spot))
        if found is None or found[0].ndim != len(shape):
            return None
        numbers = _fitted(found[0], shape)
        return interpret(numbers, found[1]) if tuple(numbers.shape) == shape else None

    def begin(self, spot: int, shape: tuple[int, ...], layout: Layout) -> None:
        """Let a tensor's layout be known, and all that follows from it."""
        start = self.watch.places(spot)
        if start in self.known and self.layout(spot, shape) is not None:
            return
        self.known[start] = (_numbered(shape, layout), layout.map_size)
        self.shares[start] = self.parts[start] = 1.0
        self._follow([start], weak=False)

    def follow_weak(self) -> None:
        """Let what is known go on where nothing else told the places."""
        self._follow(list(self.known), weak=True)

    def _follow(self, open_: list[int], *, weak: bool) -> None:
        """Carry numbers on from some tensors, first along edges that are weak or are not."""
        found: list[int] = []
        while open_:
            here = open_.pop()
            for edge, forward in self.edges.get(here, ()):
                there = self.watch.places(edge.target if forward else edge.source)
                if edge.weak != weak or (weak and not forward) or self.shares.get(there) == 1:
                    continue
                made = _carried(edge, forward, *self.known[here])
                if made is None:
                    continue
                part = self.parts.get(here, 1.0)
                if edge.move is not None and not forward:  # what was split off tells a part alone
                    part *= min(1.0, _filled(made[0]) / _filled(self.known[here][0]))
                share = _share(*made) * part
                if share > self.shares.get(there, 0.0):
                    self.known[there], self.shares[there], self.parts[there] = made, share, part
                    (found if weak else open_).append(there)
        if found:
            self._follow(found, weak=False)


def _share(numbers: torch.Tensor, grid: tuple[int, int]) -> float:
    """Return which share of a map's cells some numbers hold; a class token alone holds none."""
    cells = grid[0] * grid[1]
    counts = torch.bincount(_once(numbers).flatten().long(), minlength=2 * cells + 1)
    return float((counts[1 : 2 * cells + 1] > 0).sum()) / (2 * cells)


def _filled(numbers: torch.Tensor) -> float:
    """Return which share of a tensor's elements are cells."""
    return float((_once(numbers) > 0).float().mean())


def _once(numbers: torch.Tensor) -> torch.Tensor:
    """Return numbers without the repetitions along their last axis or their second."""
    for axis in (-1, 1):
        if numbers.ndim > 1 and numbers.stride(axis) == 0:
            return numbers.select(axis, 0)
    return numbers


def _carried(
    edge: Edge, forward: bool, numbers: torch.Tensor, grid: tuple[int, int]
) -> tuple[torch.Tensor, tuple[int, int]] | None:
    """Carry numbers along an operation, or back; None where they do not go through."""
    own, other = (edge.shape, edge.result) if forward else (edge.result, edge.shape)
    if numbers.ndim != len(own):
        return None
    if edge.axis is not None:  # computed place by place, from all units to others
        if not _constant(numbers, edge.axis):
            return None
        here = numbers.select(edge.axis, 0)
        rest = [n for a, n in enumerate(other) if a != edge.axis % len(other)]
        if list(here.shape) == rest:
            return here.unsqueeze(edge.axis).expand(other), grid
        plain = interpret(numbers, grid)
        if not forward or edge.axis != 1 or plain is None or plain.order or plain.groups > 1:
            return None  # the places of a map of another size are that map's own
        sized = (other[2], other[3])
        return _numbered(other, Layout(0, sized)), sized
    numbers = _fitted(numbers, own)
    if tuple(numbers.shape) != own:
        return None
    if edge.pooled is not None:
        return _pooled(numbers, edge.pooled, other, grid) if forward else None
    assert edge.move is not None
    try:
        made = _moved(edge, numbers) if forward else _moved_back(edge, numbers)
    except (RuntimeError, IndexError, TypeError):  # made for other values than numbers
        return None
    if made is None or made.shape != other:
        return None
    thinned = _thinned(made, grid) if forward else None
    return (_compact(made), grid) if thinned is None else thinned


def _pooled(
    numbers: torch.Tensor, axis: int, shape: tuple[int, ...], grid: tuple[int, int]
) -> tuple[torch.Tensor, tuple[int, int]] | None:
    """Number what was made of several places each: blocks of the map are cells of a smaller one.

    None where they are no blocks, or all of the map.
    """
    (h, w), count = grid, numbers.shape[axis]
    held = numbers.narrow(axis, 0, 1)
    for down in range(1, count + 1):
        across = count // down
        if down * across != count or h % down or w % across or (h, w) == (down, across):
            continue
        small = h // down, w // across
        image, cell = (numbers - 1).div(h * w, rounding_mode="floor"), (numbers - 1) % (h * w)
        block = (image * small[0] + cell // w // down) * small[1] + cell % w // across + 1
        block = torch.where(numbers > 0, block, 0)
        ordered = numbers.sort(axis).values.diff(dim=axis)
        if _constant(block, axis) and bool((ordered.ne(0) | held.eq(0)).all()):
            made = block.narrow(axis, 0, 1).to(numbers.dtype)
            return _compact(made.reshape(shape)), small
    return None


def _thinned(
    numbers: torch.Tensor, grid: tuple[int, int]
) -> tuple[torch.Tensor, tuple[int, int]] | None:
    """Number places that are every second, third, ... row and column of a map as one of their own.

    None where they are not: all of the map, a window of it, or not the same of both images.
    """
    h, w = grid
    held = _once(numbers).unique().long()
    held = held[held > 0] - 1
    if len(held) in (0, 2 * h * w) or len(held) % 2:
        return None
    first, second = held[: len(held) // 2], held[len(held) // 2 :]
    if not torch.equal(first + h * w, second):
        return None
    rows, columns = (first // w).unique(), (first % w).unique()
    whole = [len(at) > 1 and len(at.diff().unique()) == 1 and int(at[0]) < int(at[1] - at[0])
             and int(at[-1]) >= size - int(at[1] - at[0])
             for at, size in ((rows, h), (columns, w))]  # fmt: skip
    if len(rows) * len(columns) != len(first) or not all(whole):
        return None
    new = torch.zeros(2 * h * w + 1, dtype=numbers.dtype)
    new[held + 1] = torch.arange(1, len(held) + 1, dtype=numbers.dtype)
    return _compact(new[numbers.long()]), (len(rows), len(columns))


def _moved(edge: Edge, numbers: torch.Tensor) -> torch.Tensor | None:
    assert edge.move is not None
    return edge.move(numbers.contiguous())


def _moved_back(edge: Edge, numbers: torch.Tensor) -> torch.Tensor | None:
    """Give each element the number of the place that it went to."""
    count = 1
    for size in edge.shape:
        count *= size
    went = _moved(edge, torch.arange(1, count + 1, dtype=torch.int32).view(edge.shape))
    if went is None or went.shape != numbers.shape:
        return None
    back = torch.zeros(count + 1, dtype=torch.int32)
    back[went.flatten().long()] = numbers.flatten()
    return back[1:].view(edge.shape)


def _constant(numbers: torch.Tensor, axis: int) -> bool:
    return bool((numbers == numbers.narrow(axis, 0, 1)).all())


def _compact(numbers: torch.Tensor) -> torch.Tensor:
    """Hold numbers that are the same along an axis once."""
    for axis in (-1, 1):
        if numbers.ndim > 1 and numbers.shape[axis] > 1 and _constant(numbers, axis):
            return numbers.narrow(axis, 0, 1).clone().expand(numbers.shape)
    return numbers


def _fitted(numbers: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Give numbers another count of units, where that alone differs."""
    differing = [a for a, (x, y) in enumerate(zip(numbers.shape, shape, strict=True)) if x != y]
    if len(differing) == 1 and _constant(numbers, differing[0]):
        return numbers.narrow(differing[0], 0, 1).expand(shape)
    return numbers


def _numbered(shape: tuple[int, ...], layout: Layout) -> torch.Tensor:
    """Number the places of a tensor for two images, as a layout says."""
    groups = layout.groups
    places = (groups, *shape[1:]) if groups > 1 else tuple(shape[1:])
    rest = tuple(n for a, n in enumerate(places) if a != layout.axis)
    count = 1
    for size in rest:
        count *= size
    cells = layout.map_size[0] * layout.map_size[1]
    flat = torch.zeros(count, dtype=torch.int32)
    where = torch.tensor(layout.order or range(layout.prefix, count - layout.suffix))
    flat[where] = torch.arange(1, cells + 1, dtype=torch.int32)
    first = flat.view(rest).unsqueeze(layout.axis)
    second = torch.where(first > 0, first + cells, 0)
    both = torch.stack([first, second])
    if groups > 1:
        both = both.flatten(0, 1)
    return both.expand(shape)


def interpret(numbers: torch.Tensor, grid: tuple[int, int]) -> Layout | None:
    """Read a layout off the numbers of a tensor's places; None where they are no whole map."""
    cells, count = grid[0] * grid[1], numbers.shape[0]
    if count % 2 or numbers.ndim < 2:
        return None
    first, second = numbers[: count // 2], numbers[count // 2 :]
    expected = torch.where(first > 0, first + cells, 0)
    if int(first.max()) > cells or not torch.equal(second, expected.to(second)):
        return None
    groups = count // 2
    own = first if groups > 1 else first[0]
    for axis in reversed(unit_axes(own.ndim, groups)):
        if _constant(own, axis):
            layout = _read(own.select(axis, 0), axis, grid, groups)
            if layout is not None:
                return layout
    return None


def _read(places: torch.Tensor, axis: int, grid: tuple[int, int], groups: int) -> Layout | None:
    flat = places.flatten().long()
    cells = grid[0] * grid[1]
    order = torch.full((cells + 1,), -1)
    order[flat] = torch.arange(len(flat))
    if int((flat > 0).sum()) != cells or int(order[1:].min()) < 0:
        return None
    found = order[1:]
    start = int(found[0])
    if bool((found == torch.arange(start, start + cells)).all()):
        if groups == 1 and places.ndim == 1:
            return Layout(axis, grid, start, len(flat) - start - cells)
        if groups == 1 and tuple(places.shape) == grid:
            return Layout(axis, grid)
    return Layout(axis, grid, order=tuple(found.tolist()), groups=groups)
