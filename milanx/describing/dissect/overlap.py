"""Where units are active beside where named regions lie, counted over images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from milanx.exemplars.masks import active_cells
from milanx.targets.capture import Capture

if TYPE_CHECKING:
    from milanx.exemplars.inputs import Inputs
    from milanx.exemplars.store import ExemplarStore
    from milanx.images.regions import Regions

GRID = 28  # cells of a side over the view, on which units and regions are compared
BATCH = 16
UNITS_AT_ONCE = 256


@dataclass
class Overlap:
    """Cells of units and names, counted.

    Attributes:
        both: int64 [rows, names], cells where the unit is active and the region lies.
        units: int64 [rows], cells where the unit is active.
        names: int64 [names], cells where the region lies.
    """

    both: np.ndarray
    units: np.ndarray
    names: np.ndarray

    @property
    def iou(self) -> np.ndarray:
        """Return intersection over union, float64 [rows, names] (Bau et al. 2017, equation 2)."""
        union = self.units[:, None] + self.names[None] - self.both
        return self.both / np.maximum(union, 1)


@dataclass(frozen=True, eq=False)
class Activity:
    """Reads where units of a store are active, in images of the pass that found its exemplars.

    Attributes:
        inputs: the pass's target and images.
        store: its exemplars, whose quantiles are the thresholds.
        images: indices of those that are looked at.
    """

    inputs: Inputs
    store: ExemplarStore
    images: Sequence[int]

    def cells(
        self, layers: Sequence[str], advance: Callable[[int], None]
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Yield the place of a batch's first image, and the active cells of each layer.

        The cells are bool [rows, b, g * g], the rows those of the store.
        """
        inputs, done = self.inputs, 0
        target = inputs.target
        infos = [info for info in inputs.layers if info.name in layers]
        stream = inputs.images.iterate(list(self.images), target.preprocess, BATCH)
        with Capture(target, infos) as capture:
            for views, indices in stream:
                maps = capture.run(target.inputs(views))
                yield done, {name: self._active(name, maps[name].float().cpu()) for name in layers}
                done += len(indices)
                advance(len(indices))

    def _active(self, layer: str, maps: torch.Tensor) -> np.ndarray:
        """Return the active cells of a batch's maps [b, u, h, w]: bool [rows, b, g * g]."""
        units, stats = self.store.units(layer), self.store.stats(layer)
        record = self.store.record(layer)
        made = []
        for start in range(0, len(units), UNITS_AT_ONCE):
            here = units[start : start + UNITS_AT_ONCE]
            part = {n: v[start : start + len(here)] for n, v in stats.items()}
            some = maps[:, [unit for unit, _ in here]].transpose(0, 1)
            signs = [sign for _, sign in here]
            made.append(active_cells(some, part, signs, record, (GRID, GRID)).flatten(2).numpy())
        return np.concatenate(made)


def count_overlap(
    activity: Activity,
    regions: Regions,
    layers: Sequence[str],
    advance: Callable[[int], None] = lambda n: None,
) -> dict[str, Overlap]:
    """Count where the units of layers and the regions of all names overlap, in one pass."""
    names = np.zeros(len(regions.names), np.int64)
    for here, masks in regions.found:
        names[here] += masks.sum(1)
    counts = {
        layer: Overlap(np.zeros((len(activity.store.units(layer)), len(names)), np.int64),
                       np.zeros(len(activity.store.units(layer)), np.int64), names)
        for layer in layers
    }  # fmt: skip
    for first, cells in activity.cells(layers, advance):
        for layer, active in cells.items():
            count = counts[layer]
            count.units += active.sum((1, 2))
            for i in range(active.shape[1]):
                here, masks = regions.found[first + i]
                if len(here):  # float32 is exact: a grid has fewer than 2^24 cells
                    shared = active[:, i].astype(np.float32) @ masks.T.astype(np.float32)
                    count.both[:, here] += shared.astype(np.int64)
    return counts
