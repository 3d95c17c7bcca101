"""Where the units and the places of the image are in what a module gives.

The axis of the units comes from the module's own weights where it has some. What the other axes
hold is measured: a change of one part of the picture must show at that part of the map, and rows
that are copies of another map's rows stand where those stand. What cannot be settled is refused.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from milanx.targets.probing import PARTS, Seen, part_of, unit_axes
from milanx.targets.watch import Watch

MAX_PREFIX = 16  # class, distillation and register tokens that are looked for
ASPECT = 1.6  # most that a map's shape may differ from the image's, as a factor
ROUNDS = 5  # of what follows from what was settled later
BASES = 12  # maps whose rows are looked up for those of windows, latest first
CLEAR = 0.5  # correlation from which a map that is mirrored or turned is taken to be so
WEAK = 1e-9  # share of the largest change below which a place did not move

CHANNELS_FIRST = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm)
# Attributes in which modules say how many units they give.
COUNTS = ("out_channels", "out_features", "num_features", "num_channels")


@dataclass(frozen=True)
class Layout:
    """How what belongs to one image is a map of units.

    Attributes:
        axis: of the units, in `Seen.places`.
        map_size: (h, w).
        prefix: tokens before the patches.
        suffix: tokens behind them.
        order: which place holds each cell; empty for row after row.
        measured: whether a change of the picture showed where it should.
    """

    axis: int
    map_size: tuple[int, int] = (1, 1)
    prefix: int = 0
    suffix: int = 0
    order: tuple[int, ...] = ()
    measured: bool = True


class Layouts:
    """Settles the layout of one module after another, in the order in which they ended.

    Args:
        size: (H, W) of the image.
        watch: what happened in the first pass.
    """

    def __init__(self, size: tuple[int, int], watch: Watch) -> None:
        self.size, self.watch = size, watch
        # By what stands for all tensors that have the same places: their shape, and the layout.
        self.by_places: dict[int, dict[tuple[int, ...], Layout]] = {}
        self.scaled = {watch.places(new): watch.places(old) for old, new in watch.scaled}
        self.by_shape: dict[tuple[tuple[int, ...], int], Layout] = {}
        self.tokens: dict[int, tuple[int, int]] = {}  # how many stand before and behind the patches
        self.grids: dict[int, tuple[int, int]] = {}  # of maps that were measured, by their places
        self.windows: dict[tuple[str, tuple[int, ...]], tuple[tuple[int, ...], tuple[int, int]]] = {}
        self.bases: list[tuple[Seen, Layout]] = []

    def settle_all(self, records: list[Seen]) -> list[Layout | str]:
        """Return the layout of each module, or why it has none that can be told.

        What could not be told at first may follow from what was settled after it.
        """
        found = [self.settle(record) for record in records]
        for _ in range(ROUNDS):
            before = sum(isinstance(layout, str) for layout in found)
            found = [self.settle(record) if isinstance(layout, str) else layout
                     for record, layout in zip(records, found, strict=True)]  # fmt: skip
            if sum(isinstance(layout, str) for layout in found) == before:
                break
        return found

    def settle(self, record: Seen) -> Layout | str:
        """Return a module's layout, or why it has none that can be told."""
        if record.refused:
            return record.refused
        found = self._settle(record)
        if isinstance(found, Layout):
            self._remember(record, found)
        return found

    def _settle(self, record: Seen) -> Layout | str:
        shape = record.places
        axes = unit_axis(record)
        if len(shape) == 1:
            return Layout(0)
        single = [a for a in axes if math.prod(shape) == shape[a]]
        if single:
            return Layout(single[0])
        self._note_tokens(record)
        moved = any(bool(c.any()) for found in record.changes.values() for c in found)
        best: tuple[float, Layout] | None = None
        for axis in axes if moved else ():
            for layout in self._candidates(record, axis):
                fit = self.fit(record.changes[axis], layout)
                if fit is not None and (best is None or fit > best[0] + WEAK):
                    best = (fit, layout)
        if best is not None:
            return best[1]
        for layout in self._inferred(record, axes):
            if not moved or not self._elsewhere(record.changes[layout.axis], layout):
                return dataclasses.replace(layout, measured=False)
        return self._why(record, axes, moved)

    def _inferred(self, record: Seen, axes: tuple[int, ...]) -> Iterator[Layout]:
        """Yield what follows from layouts that are known, where no change shows the places.

        A map has the places of another from which it is computed place by place, and those of a
        convolution's input; what a block gives in rows has the places of what it was given in
        such rows; and what gives the same for all images, those of others of its shape.
        """
        shape, here = record.places, self.watch.places(record.number)
        for axis in axes:
            places = _without(shape, axis)
            for known, layout in self.by_places.get(here, {}).items():
                made = _converted(known, layout, places, axis)
                if made is not None:
                    yield made
        above = self.by_places.get(self.scaled.get(here, -1), {})
        if len(axes) == 1 and axes[0] == 0 and len(shape) == 3 and any(len(k) == 2 for k in above):
            if self._has_shape(shape[1:]):
                yield Layout(0, (shape[1], shape[2]))
        for axis in axes:
            for name in (record.name, record.name.rpartition(".")[0]):
                if (name, _without(shape, axis)) in self.windows:
                    order, grid = self.windows[name, _without(shape, axis)]
                    yield Layout(axis, grid, order=order)
            if record.constant and record.groups == 1 and (shape, axis) in self.by_shape:
                yield self.by_shape[shape, axis]

    def _elsewhere(self, changes: list[torch.Tensor], layout: Layout) -> bool:
        """Whether a map is another one mirrored or turned: its changes show, but elsewhere."""
        turned = ([0, 2, 1, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0], [1, 3, 0, 2],
                  [2, 0, 3, 1], [3, 1, 2, 0])  # fmt: skip
        fits = [self.fit([changes[i] for i in order], layout) for order in turned]
        return any(fit is not None and fit > CLEAR for fit in fits)

    # What may be

    def _candidates(self, record: Seen, axis: int) -> Iterator[Layout]:
        """Yield the layouts that a shape allows when the units are on ``axis``."""
        shape = record.places
        places = tuple(n for a, n in enumerate(shape) if a != axis)
        if record.groups == 1 and len(places) == 2 and self._has_shape(places):
            yield Layout(axis, (places[0], places[1]))
        elif len(places) == 1:
            yield from self._sequences(axis, places[0])
        order = self._order(record, axis, places)
        if order is not None:
            yield Layout(axis, order[1], order=order[0])

    def _sequences(self, axis: int, count: int) -> Iterator[Layout]:
        """Yield how ``count`` tokens may be a grid, with tokens before and behind it."""
        if count in self.tokens:
            prefix, suffix = self.tokens[count]
            for grid in self._grids(count - prefix - suffix):
                yield Layout(axis, grid, prefix, suffix)
            return
        for prefix in range(min(MAX_PREFIX, count - 1) + 1):
            for grid in self._grids(count - prefix):
                yield Layout(axis, grid, prefix)
        for places, grid in self.grids.items():
            for prefix in range(min(2, count - places) + 1):
                if count - places - prefix > 0:
                    yield Layout(axis, grid, prefix, count - places - prefix)

    def _grids(self, places: int) -> Iterator[tuple[int, int]]:
        """Yield the grids of so many places that have the shape of the image."""
        known = self.grids.get(places)
        if known:
            yield known
        ratio = self.size[0] / self.size[1]
        h = round(math.sqrt(max(places, 0) * ratio))
        if h > 0 and places > 1 and places % h == 0 and abs(places // h * ratio - h) < 1:
            if (h, places // h) != known:
                yield h, places // h

    def _has_shape(self, grid: tuple[int, ...]) -> bool:
        """Whether a map has about the shape of the image; a single row of the image has not."""
        ratio = grid[0] / grid[1] * self.size[1] / self.size[0]
        return 1 / ASPECT <= ratio <= ASPECT

    # What was measured

    def fit(self, changes: list[torch.Tensor], layout: Layout) -> float | None:
        """Say how well changes of the picture's parts show at those parts of a map.

        Args:
            changes: how far each place moved, for each part [places].
            layout: where the places would be.

        Returns:
            The correlation of how far the cells moved, beside the other parts, with which of them
            the change covers; None where some part shows most at another part of the map.
        """
        h, w = layout.map_size
        cells = torch.stack([_cells(c, layout) for c in changes])  # [parts, h * w]
        if not bool(torch.isfinite(cells).all()):
            return None
        cells = cells / cells.mean(1, keepdim=True).clamp_min(1e-300)
        share = cells / cells.sum(0).clamp_min(WEAK * float(cells.max()) + 1e-300)
        covered = torch.stack([self._covered(part, (h, w)) for part in range(PARTS)])
        quarters = torch.stack([_quarter(part, (h, w)) for part in range(PARTS)])
        if h == 1 or w == 1:  # one row or column: two parts of four are one
            pairs = [(0, 2), (1, 3)] if h == 1 else [(0, 1), (2, 3)]
            share, covered, quarters = (
                torch.stack([x[a] + x[b] for a, b in pairs]) for x in (share, covered, quarters)
            )
        inside = quarters @ share.T / quarters.sum(1, keepdim=True).clamp_min(1)  # [quarter, part]
        own = inside.diagonal()
        others = inside - torch.diag(torch.full_like(own, math.inf))
        if not bool((own > others.amax(1)).all()):
            return None
        x, y = share - share.mean(0), covered - covered.mean(0)
        return float((x * y).sum() / (x.norm() * y.norm()).clamp_min(1e-300))

    def _covered(self, part: int, grid: tuple[int, int]) -> torch.Tensor:
        """Return the share of each cell that the change of one part covers, [h * w]."""
        top, left, height, width = part_of(self.size, part)
        rows = _overlap(top, height, self.size[0], grid[0])
        columns = _overlap(left, width, self.size[1], grid[1])
        return (rows[:, None] * columns[None]).flatten()

    def _note_tokens(self, record: Seen) -> None:
        """Note which tokens of a sequence do not depend on the image, before they are mixed."""
        shape = record.places
        count = shape[0]
        if len(shape) != 2 or record.groups > 1 or count in self.tokens:
            return
        moved = sum(record.changes.get(1, []), record.apart[1]) > 0
        where = moved.nonzero().flatten()
        if len(where) in (0, count):
            return
        prefix, suffix = int(where[0]), count - 1 - int(where[-1])
        if prefix + suffix + len(where) == count and any(self._grids(len(where))):
            self.tokens[count] = (prefix, suffix)

    # Rows that are copies

    def _order(
        self, record: Seen, axis: int, places: tuple[int, ...]
    ) -> tuple[tuple[int, ...], tuple[int, int]] | None:
        """Find where each cell of a map is among windows, groups or tokens of another order."""
        if record.groups == 1 and len(places) == 2 and self._has_shape(places):
            return None
        source = record.source
        if source is None or source.ndim != record.value.ndim or (
            source.shape[0] != record.value.shape[0]
        ):
            return None
        if places != _without(_places(source, record.groups), axis):
            return None
        rows = _rows(record.of_image(source, 0), axis)
        for base, layout in reversed(self.bases[-BASES:]):
            found = _find_copies(rows, _map_rows(base, layout))
            if found is not None:
                return found, layout.map_size
        return None

    def _remember(self, record: Seen, layout: Layout) -> None:
        """Keep what a settled module tells about those that follow."""
        if layout.map_size == (1, 1):
            return
        places = _without(record.places, layout.axis)
        self.by_places.setdefault(self.watch.places(record.number), {}).setdefault(places, layout)
        self.by_shape[record.places, layout.axis] = layout
        if layout.measured:
            h, w = layout.map_size
            self.grids.setdefault(h * w, (h, w))
            if not layout.order:
                self.bases.append((record, layout))
                del self.bases[: -BASES]
        if layout.order:
            parent = record.name.rpartition(".")[0]
            self.windows[parent, places] = (layout.order, layout.map_size)

    def _why(self, record: Seen, axes: tuple[int, ...], moved: bool) -> str:
        """Say why no layout fits."""
        shape = list(record.places)
        if not moved:
            return "it gives the same whatever the image shows, so that its places cannot be told"
        if record.groups > 1:
            return (f"{record.groups} rows of {shape[1:]} belong to each image, windows or groups "
                    "whose places in the image cannot be told")  # fmt: skip
        places = [n for a, n in enumerate(shape) if a not in axes or len(axes) > 1]
        if len(shape) == 2:
            return f"its {shape[0]} positions follow no grid of the image row by row"
        if len(axes) == 1 and not self._has_shape(tuple(places)):
            return f"its map of {places[0]} x {places[1]} has not the shape of the image"
        return (f"a change of one part of the image does not show at one part of its "
                f"{' x '.join(map(str, shape))} values")  # fmt: skip


def unit_axis(record: Seen) -> tuple[int, ...]:
    """Return the axes of `Seen.places` that may hold the units, by the module's own weights."""
    module, shape = record.module, record.places
    axes = unit_axes(len(shape), record.groups)
    first = len(shape) - 3 if len(axes) == 2 else len(shape) - 1
    if isinstance(module, nn.Linear) or type(module).forward is nn.LayerNorm.forward:
        return (len(shape) - 1,)
    if isinstance(module, CHANNELS_FIRST) and len(axes) == 2:
        return (first,)
    counts = {getattr(module, name, None) for name in COUNTS}
    normalised = getattr(module, "normalized_shape", None)
    if isinstance(normalised, tuple | list | torch.Size) and len(normalised) == 1:
        counts.add(normalised[0])
    own = [p for p in module.parameters(recurse=False) if p.ndim == 1]
    if not list(module.children()):
        counts |= {len(p) for p in own}
    fitting = tuple(a for a in axes if shape[a] in counts - {None, 1})
    return fitting or axes


def _cells(change: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Return how far each cell of a map moved, [h * w]."""
    flat = change.flatten()
    if layout.order:
        return flat[torch.tensor(layout.order, device=flat.device)].cpu()
    return flat[layout.prefix : len(flat) - layout.suffix].cpu()


def _overlap(start: float, length: float, whole: int, cells: int) -> torch.Tensor:
    """Return the share of each of ``cells`` equal parts of ``whole`` that a stretch covers."""
    edges = torch.linspace(0, whole, cells + 1, dtype=torch.float64)
    inside = edges.clamp(start, start + length)
    return (inside[1:] - inside[:-1]) * cells / whole


def _quarter(part: int, grid: tuple[int, int]) -> torch.Tensor:
    """Return which cells lie in one quarter of a map, by their centres, [h * w]."""
    rows, columns = (
        (torch.arange(n, dtype=torch.float64) + 0.5) / n - 0.5 for n in grid
    )
    sides = [torch.ones_like(x) if len(x) == 1 else (x > 0 if far else x < 0).double()
             for x, far in ((rows, part // 2), (columns, part % 2))]  # fmt: skip
    return (sides[0][:, None] * sides[1][None]).flatten()


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return tuple(n for a, n in enumerate(shape) if a != axis)


def _converted(
    known: tuple[int, ...], layout: Layout, places: tuple[int, ...], axis: int
) -> Layout | None:
    """Return a known layout for the same places in another shape: a map as a row of tokens."""
    if known == places:
        return dataclasses.replace(layout, axis=axis)
    plain = not (layout.prefix or layout.suffix or layout.order)
    if plain and {known, places} == {layout.map_size, (math.prod(layout.map_size),)}:
        return dataclasses.replace(layout, axis=axis)
    return None


def _places(value: torch.Tensor, groups: int) -> tuple[int, ...]:
    return (groups, *value.shape[1:]) if groups > 1 else tuple(value.shape[1:])


def _rows(value: torch.Tensor, axis: int) -> torch.Tensor:
    """Return the vectors of units at each place, [places, u]."""
    return value.movedim(axis, -1).reshape(-1, value.shape[axis])


def _map_rows(record: Seen, layout: Layout) -> torch.Tensor:
    """Return the vectors of units at each cell of a settled map, [h * w, u]."""
    rows = _rows(record.of_image(record.value, 0), layout.axis)
    return rows[layout.prefix : len(rows) - layout.suffix]


def _find_copies(rows: torch.Tensor, cells: torch.Tensor) -> tuple[int, ...] | None:
    """Find each cell of a map among rows, to the bit; None where one is missing or is twice."""
    if rows.shape[1] != cells.shape[1] or len(rows) < len(cells):
        return None
    known = {row.numpy().tobytes(): place for place, row in enumerate(_plain(rows))}
    order = tuple(known.get(row.numpy().tobytes(), -1) for row in _plain(cells))
    return order if min(order) >= 0 and len(set(order)) == len(order) else None


def _plain(rows: torch.Tensor) -> torch.Tensor:
    """Return rows as bytes can be read of them."""
    return rows.detach().cpu().contiguous().view(torch.uint8)
