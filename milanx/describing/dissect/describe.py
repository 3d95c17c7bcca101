"""Network Dissection and compositional explanations of a store's units.

Bau et al. 2017, "Network Dissection: Quantifying Interpretability of Deep Visual Representations":
a unit is active where its map, brought to the size of the regions, lies above a quantile of its
values, and is named after what its activity overlaps most. Mu & Andreas 2020 search formulas of
names in the same way. Thresholds are the run's (``--quantile``; both papers take .995), and only
images that may become exemplars are looked at, so that those kept aside stay fresh.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from milanx.describing.candidates import Candidate, Description, Term
from milanx.describing.dissect.compose import Composer
from milanx.describing.dissect.overlap import GRID, Activity, Overlap, count_overlap
from milanx.images.regions import read_regions
from milanx.progress import Reporter, Silent

if TYPE_CHECKING:
    from milanx.exemplars.inputs import Inputs
    from milanx.exemplars.store import ExemplarStore
    from milanx.images.regions import Regions

WAYS = ("netdissect", "compexp")
LEAST = 0.04  # IoU below which a unit detects no concept (Bau et al. 2017, section 3.3)
CANDIDATES = 10
MOST_BITS = 2**29  # bytes of the units' activity that are held at a time


def dissect(
    inputs: Inputs, store: ExemplarStore, way: str, progress: Reporter | None = None
) -> list[Description]:
    """Describe every unit of a store by the regions that its activity overlaps.

    Args:
        inputs: what the store was made of: the target runs over the images again.
        store: the exemplars.
        way: ``netdissect`` for one name, ``compexp`` for a formula of up to three.
        progress: told about the passes.

    Returns:
        A description a unit, in the order of the store; where the best overlap is below `LEAST`,
        its status is ``unclear``. The intersection over union stands in ``pmi`` and in the term
        ``iou``; both log-probabilities are None.

    Raises:
        InputError: nothing says what the images show, or a mask cannot be read.
    """
    progress = progress or Silent()
    split = np.array([row["split"] == "exemplars" for row in store.image_table()])
    searched = np.flatnonzero(split).tolist()
    with progress.stage("read regions", len(searched)) as bar:
        regions = read_regions(inputs.images, searched, inputs.target.preprocess, GRID, bar.advance)
    activity = Activity(inputs, store, searched)
    layers = list(store.layers)
    if way == "compexp":
        return [d for layer in layers for d in _composed(activity, regions, layer, progress)]
    with progress.stage("describe", len(searched)) as bar:
        counts = count_overlap(activity, regions, layers, bar.advance)
    return [d for layer in layers for d in _named(store, layer, counts[layer], regions)]


def _named(store: ExemplarStore, layer: str, count: Overlap, regions: Regions) -> list[Description]:
    """Name the units of a layer after what they overlap most."""
    iou = count.iou

    def best(row: int) -> list[Candidate]:
        order = np.argsort(-iou[row], kind="stable")[:CANDIDATES].tolist()
        return [_candidate(regions.names[i], float(iou[row, i])) for i in order if iou[row, i] > 0]

    return _descriptions(store, layer, best)


def _composed(
    activity: Activity, regions: Regions, layer: str, progress: Reporter
) -> list[Description]:
    """Find the formulas of a layer's units, as many at a time as memory holds."""
    store, composer = activity.store, Composer(regions)
    alive = [row for row, status in enumerate(store.status(layer)) if status != "dead"]
    per_unit = len(activity.images) * GRID**2 // 8
    at_once = max(1, MOST_BITS // per_unit)
    found: dict[int, list[Candidate]] = {}
    for start in range(0, len(alive), at_once):
        rows = alive[start : start + at_once]
        bits = np.zeros((len(rows), len(activity.images), GRID**2 // 8), np.uint8)
        with progress.stage(f"activity of {layer}", len(activity.images)) as bar:
            for first, cells in activity.cells([layer], bar.advance):
                packed = np.packbits(cells[layer][rows], axis=2)
                bits[:, first : first + packed.shape[1]] = packed
        with progress.stage("describe", len(rows)) as bar:
            for row, active in zip(rows, bits, strict=True):
                formulas = composer.search(active)
                found[row] = [_candidate(f.text(regions.names), f.iou) for f in formulas]
                bar.advance()
    return _descriptions(store, layer, lambda row: found[row])


def _candidate(text: str, iou: float) -> Candidate:
    return Candidate(text, iou, None, None, rank=iou, terms=(Term("iou", iou, iou),))


def _descriptions(
    store: ExemplarStore, layer: str, best: Callable[[int], list[Candidate]]
) -> list[Description]:
    made = []
    for row, ((unit, sign), status) in enumerate(
        zip(store.units(layer), store.status(layer), strict=True)
    ):
        candidates = [] if status == "dead" else best(row)
        if status == "dead":
            made.append(Description(layer, unit, sign, "dead"))
        elif not candidates:
            made.append(Description(layer, unit, sign, "unclear"))
        else:
            best_text = Description.of(layer, unit, sign, candidates)
            weak = candidates[0].pmi < LEAST
            made.append(replace(best_text, status="unclear") if weak else best_text)
    return made
