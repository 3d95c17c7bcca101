"""Where the units and the places of the image are in what a module gives.

The axis of the units comes from the module's own weights where it has some. What the other axes
hold is measured: a change of one part of the picture must show at that part of the map, and rows
that are copies of another map's rows stand where those stand. What cannot be settled is refused.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import torch
from torch import nn

from milanx.environment import note
from milanx.targets.flow import Flow, Layout
from milanx.targets.probing import PARTS, Seen, part_of, unit_axes
from milanx.targets.watch import Watch

MAX_PREFIX = 16  # class, distillation and register tokens that are looked for
ASPECT = 1.6  # most that a map's shape may differ from the image's, as a factor
SHOWN = 0.05  # excess of shares from which changes show at one part rather than at all alike
CLEAR = 0.5  # correlation from which a map that is mirrored or turned is taken to be so
WEAK = 1e-9  # share of the largest change below which a place did not move
LOCAL = 0.5  # how far tokens beside a map show one part's changes, as a share of the map's cells

CHANNELS_FIRST = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm)
# Attributes in which modules say how many units they give.
COUNTS = ("out_channels", "out_features", "num_features", "num_channels")


class Layouts:
    """Settles the layout of one module after another, in the order in which they ended.

    Args:
        size: (H, W) of the image.
        watch: what happened in the first pass.
        declared: how many tokens stand before and behind the patches, where the model's source
            says so; what is seen in the passes holds where it differs, which is said.
    """

    def __init__(
        self, size: tuple[int, int], watch: Watch, declared: tuple[int, int] | None = None
    ) -> None:
        self.size = size
        self.declared = declared
        self.flow = Flow(watch)
        self.last_round = False
        self.by_shape: dict[tuple[tuple[int, ...], int], Layout] = {}
        self.tokens: dict[int, tuple[int, int]] = {}  # how many stand before and behind the patches
        self.grids: dict[int, tuple[int, int]] = {}  # of maps that were measured, by their places
        self.beside: dict[tuple[str, tuple[int, ...]], Layout] = {}  # by block, and places

    def settle_all(self, records: list[Seen]) -> list[Layout | str]:
        """Return the layout of each module, or why it has none that can be told.

        What could not be told at first may follow from what was settled after it.
        """
        found = [self.settle(record) for record in records]
        self.flow.follow_weak()
        for self.last_round in (False, True):
            found = [self.settle(record) if isinstance(layout, str) else layout
                     for record, layout in zip(records, found, strict=True)]  # fmt: skip
        self._tell_difference(records, found)
        return found

    def _tell_difference(self, records: list[Seen], found: list[Layout | str]) -> None:
        """Say where the tokens beside the patches are not those that the source declares."""
        odd = [(record.name, layout) for record, layout in zip(records, found, strict=True)
               if isinstance(layout, Layout) and len(record.places) == 2 and record.groups == 1
               and layout.prefix + layout.suffix and not layout.order
               and (layout.prefix, layout.suffix) != self.declared]  # fmt: skip
        if self.declared is None or not odd:
            return
        (name, layout), (before, behind) = odd[0], self.declared
        note(f"note: {name} has {layout.prefix} tokens before the patches and {layout.suffix} "
             f"behind them, and its model declares {before} and {behind}: it is read as it was "
             f"seen{f', and so are {len(odd) - 1} others' if len(odd) > 1 else ''}")  # fmt: skip

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
        for layout in self._inferred(record, axes):
            if not moved or not self._elsewhere(record.changes[layout.axis], layout):
                return layout
        best: tuple[float, Layout] | None = None
        # Units of a sequence come last unless the module, or what it was made of, says otherwise.
        measured = axes[-1:] if len(shape) - (record.groups > 1) == 2 else axes
        for axis in measured if moved else ():
            for layout in self._candidates(record, axis):
                changes = record.changes[axis]
                fit = None if _places_beside(changes, layout) else self.fit(changes, layout)
                if fit is not None and (best is None or fit > best[0] + WEAK):
                    best = (fit, layout)
        return best[1] if best else self._why(record, axes, moved)

    def _inferred(self, record: Seen, axes: tuple[int, ...]) -> Iterator[Layout]:
        """Yield what follows from layouts that are known.

        The places of a tensor follow from those that it was computed or moved from. What a block
        gives in rows has the places of what it was given in such rows, if that is all that is
        known; and what gives the same for all images has those of others of its shape.
        """
        shape = record.places
        found = self.flow.layout(record.spot, record.shape)
        if found is not None and found.axis in axes:
            yield found
            return
        if not self.last_round:
            return
        for axis in axes:
            for name in (record.name, record.name.rpartition(".")[0]):
                if (name, _without(shape, axis)) in self.beside:
                    yield dataclasses.replace(self.beside[name, _without(shape, axis)], axis=axis)
            if record.constant and record.groups == 1 and (shape, axis) in self.by_shape:
                yield self.by_shape[shape, axis]

    def _elsewhere(self, changes: list[torch.Tensor], layout: Layout) -> bool:
        """Whether a map is another one mirrored or turned: its changes show, but elsewhere."""
        turned = ([0, 2, 1, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0], [1, 3, 0, 2],
                  [2, 0, 3, 1], [3, 1, 2, 0])  # fmt: skip
        fits = [self.fit([changes[i] for i in order], layout, SHOWN) for order in turned]
        return any(fit is not None and fit > CLEAR for fit in fits)

    # What may be

    def _candidates(self, record: Seen, axis: int) -> Iterator[Layout]:
        """Yield the layouts that a shape allows when the units are on ``axis``."""
        shape = record.places
        places = tuple(n for a, n in enumerate(shape) if a != axis)
        if record.groups == 1 and len(places) == 2 and self._has_shape(places):
            yield Layout(axis, (places[0], places[1]))
        elif len(places) == 1 and record.groups == 1:
            yield from self._sequences(axis, places[0])
        elif len(places) == 1:  # a row each
            for grid in self._grids(places[0]):
                yield Layout(axis, grid, groups=record.groups)

    def _sequences(self, axis: int, count: int) -> Iterator[Layout]:
        """Yield how ``count`` tokens may be a grid, with tokens before and behind it."""
        if count in self.tokens:
            prefix, suffix = self.tokens[count]
            for grid in self._grids(count - prefix - suffix):
                yield Layout(axis, grid, prefix, suffix)
            return
        if self.declared is not None:
            prefix, suffix = self.declared
            for grid in self._grids(count - prefix - suffix):
                yield Layout(axis, grid, prefix, suffix)
        # Several tokens beside a map do not depend on the image at first, and were seen so.
        seen = {0, 1, *(before for before, _ in self.tokens.values())}
        for prefix in sorted(n for n in seen if n < min(count, MAX_PREFIX + 1)):
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
        fits = h > 0 and places > 1 and places % h == 0 and abs(places // h * ratio - h) < 1
        if fits and (h, places // h) != known:
            yield h, places // h

    def _has_shape(self, grid: tuple[int, ...]) -> bool:
        """Whether a map has about the shape of the image; a single row of the image has not."""
        ratio = grid[0] / grid[1] * self.size[1] / self.size[0]
        return 1 / ASPECT <= ratio <= ASPECT

    # What was measured

    def fit(self, changes: list[torch.Tensor], layout: Layout, least: float = 0.0) -> float | None:
        """Say how well changes of the picture's parts show at those parts of a map.

        Args:
            changes: how far each place moved, for each part [places].
            layout: where the places would be.
            least: by which a part's own share of the changes there must exceed every other's.

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
        quarters = torch.stack([quarter(part, (h, w)) for part in range(PARTS)])
        if h == 1 or w == 1:  # one row or column: two parts of four are one
            pairs = [(0, 2), (1, 3)] if h == 1 else [(0, 1), (2, 3)]
            share, covered, quarters = (
                torch.stack([x[a] + x[b] for a, b in pairs]) for x in (share, covered, quarters)
            )
        inside = quarters @ share.T / quarters.sum(1, keepdim=True).clamp_min(1)  # [quarter, part]
        own = inside.diagonal()
        others = inside - torch.diag(torch.full_like(own, math.inf))
        if not bool((own > others.amax(1) + least).all()):
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

    def _remember(self, record: Seen, layout: Layout) -> None:
        """Keep what a settled module tells about others."""
        if layout.map_size == (1, 1):
            return
        self.flow.begin(record.spot, record.shape, layout)
        self.by_shape[record.places, layout.axis] = layout
        h, w = layout.map_size
        self.grids.setdefault(h * w, (h, w))
        if layout.groups > 1 or layout.order:
            block = record.name.rpartition(".")[0]
            self.beside[block, _without(record.places, layout.axis)] = layout

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
    first = axes[0]
    if isinstance(module, nn.Linear) or type(module).forward is nn.LayerNorm.forward:
        return (len(shape) - 1,)
    if isinstance(module, CHANNELS_FIRST) and len(axes) == 2:
        return (first,)
    counts = {n for name in COUNTS if isinstance(n := getattr(module, name, None), int)}
    normalised = getattr(module, "normalized_shape", None)
    if isinstance(normalised, tuple | list | torch.Size) and len(normalised) == 1:
        counts.add(normalised[0])
    own = [p for p in module.parameters(recurse=False) if p.ndim == 1]
    if not list(module.children()):
        counts |= {len(p) for p in own}
    fitting = tuple(a for a in axes if shape[a] in counts - {1})
    return fitting or axes


def _places_beside(changes: list[torch.Tensor], layout: Layout) -> bool:
    """Whether tokens that a layout leaves beside its map are places of the image themselves.

    Class and detection tokens are moved by changes anywhere, places by those of their own part.
    """
    if not layout.prefix + layout.suffix or layout.order:
        return False
    moved = torch.stack([c.flatten() for c in changes]).float()
    moved = moved / moved.mean(1, keepdim=True).clamp_min(1e-300)
    rest = torch.ones(moved.shape[1], dtype=torch.bool)
    rest[layout.prefix : moved.shape[1] - layout.suffix] = False
    reached = moved.sum(0) > WEAK * float(moved.sum(0).max())
    if not bool((reached & rest).any()) or not bool((reached & ~rest).any()):
        return False
    excess = moved.amax(0) / moved.sum(0).clamp_min(1e-300) - 1 / len(changes)  # 0: all alike
    return float(excess[reached & rest].mean()) > LOCAL * float(excess[reached & ~rest].mean())


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


def quarter(part: int, grid: tuple[int, int]) -> torch.Tensor:
    """Return which cells lie in one quarter of a map, by their centres, [h * w]."""
    rows, columns = ((torch.arange(n, dtype=torch.float64) + 0.5) / n - 0.5 for n in grid)
    sides = [torch.ones_like(x) if len(x) == 1 else (x > 0 if far else x < 0).double()
             for x, far in ((rows, part // 2), (columns, part % 2))]  # fmt: skip
    return (sides[0][:, None] * sides[1][None]).flatten()


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return tuple(n for a, n in enumerate(shape) if a != axis)
