"""Units like a unit: those that the same images excite, in whichever layer they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from milanx.runs import Run

COUNT = 6  # neighbours of a unit
IMAGES = 4096  # on which units are compared at most, spread over all
UNITS_AT_ONCE = 512
LEAST = 0.2  # correlation, or share of exemplars, from which units are alike


@dataclass(frozen=True)
class Neighbour:
    """A unit like another.

    Attributes:
        place: of it in the run's table.
        correlation: of their maxima over all images; None where they are not known of both.
        shared: exemplar images that they have in common.
    """

    place: int
    correlation: float | None
    shared: int


def neighbours(run: Run, count: int = COUNT) -> list[list[Neighbour]]:
    """Find the units like each unit of a run.

    Units are alike as their maxima over the images correlate. Where these are not known (the sign
    ``-``, runs that came from elsewhere), by the share of their exemplars that are the same.

    Returns:
        A list each row of the table, the likest first; dead units have none, and are none.
    """
    rows = run.rows
    exemplars = _exemplars(run)
    values = _standardised(run)
    known = np.abs(values).sum(0) > 0
    sizes = np.maximum(exemplars.sum(1), 1)
    found: list[list[Neighbour]] = []
    for start in range(0, len(rows), UNITS_AT_ONCE):
        here = slice(start, min(start + UNITS_AT_ONCE, len(rows)))
        shared = exemplars[here] @ exemplars.T
        correlated = values[:, here].T @ values
        both = known[here, None] & known[None]
        likeness = np.where(both, correlated, shared / np.minimum(sizes[here, None], sizes[None]))
        likeness[np.arange(len(shared)), np.arange(here.start, here.stop)] = -1
        likeness[:, exemplars.sum(1) == 0] = -1
        for row, line in enumerate(likeness):
            best = np.argsort(-line, kind="stable")[:count]
            found.append([
                Neighbour(int(i), float(correlated[row, i]) if both[row, i] else None,
                          int(shared[row, i]))
                for i in best if line[i] >= LEAST and rows[start + row]["images"]
            ])  # fmt: skip
    return found


def _exemplars(run: Run) -> np.ndarray:
    """Return which images are exemplars of which row, float32 [rows, images that are any]."""
    images = sorted({image for row in run.rows for image in row["images"]})
    column = {image: i for i, image in enumerate(images)}
    held = np.zeros((len(run.rows), len(images)), np.float32)
    for place, row in enumerate(run.rows):
        held[place, [column[image] for image in row["images"]]] = 1
    return held


def _standardised(run: Run) -> np.ndarray:
    """Return every row's maxima with mean 0 and length 1, float32 [images, rows]; 0 if unknown."""
    layers = [layer for layer in run.store.layers if run.store.has_maxima(layer)]
    maxima = {layer: run.store.maxima(layer) for layer in layers}
    total = min((len(values) for values in maxima.values()), default=0)
    shown = np.unique(np.linspace(0, total - 1, min(total, IMAGES)).round().astype(int))
    table = np.zeros((max(len(shown), 1), len(run.rows)), np.float32)
    for layer in layers:
        places = [i for i, row in enumerate(run.rows) if row["layer"] == layer
                  and row["sign"] == "+"]  # fmt: skip
        columns = [run.store.column(layer, run.rows[i]["unit"]) for i in places]
        table[:, places] = np.asarray(maxima[layer][shown], np.float32)[:, columns]
    table -= table.mean(0)
    length = np.sqrt((table**2).sum(0))
    return np.where(length > 0, table / np.maximum(length, 1e-12), 0).astype(np.float32)
