"""What lies under things: grass under animals, the road under vehicles."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from milanx.train.data.photos import Photo, PhotoFeatures, Region
from milanx.train.units.meanings import MIN_POSITIVES, Meaning
from milanx.train.units.parts import GROUPS
from milanx.train.units.phrases import clean_name

# Regions that things stand, lie or swim on, and how they are said.
GROUNDS = {
    "grass": "grass", "dirt": "dirt", "sand": "sand", "snow": "snow", "road": "road",
    "pavement": "pavement", "sea": "water", "water": "water", "river": "water", "floor": "floor",
    "wooden floor": "floor", "playing field": "grass", "gravel": "gravel", "rug": "carpet",
    "platform": "platform", "railroad": "rails", "bed": "bed", "table": "table",
    "dining table": "table", "counter": "counter",
}  # fmt: skip
TABLEWARE = frozenset({"cup", "bowl", "bottle", "wine glass", "fork", "knife", "spoon", "vase",
                       "cake", "pizza", "sandwich", "donut", "laptop", "keyboard"})  # fmt: skip
UPON = {**GROUPS, "dishes and cups": TABLEWARE,
        "furniture": frozenset({"chair", "couch", "bed", "bench", "dining table"})}  # fmt: skip
FILLED = 128  # of 255, from which on a cell shows a thing
LEAST = 255  # of a ground under a thing: one whole cell


def ground_meanings(photos: PhotoFeatures, keep: np.ndarray) -> list[Meaning]:
    """Make a meaning of each ground under each group of things that enough views show.

    Evidence of what it is not are views with the same ground and nothing of the group on it.
    """
    maps: dict[tuple[str, str], dict[int, np.ndarray]] = defaultdict(dict)
    bare: dict[str, set[int]] = defaultdict(set)
    for i in np.flatnonzero(keep).tolist():
        photo = photos.photos[i]
        for ground, group, cells in _under(photo):
            for said in (ground, "ground"):
                shown = maps[said, group]
                shown[i] = np.maximum(shown.get(i, 0), cells)
        for region in photo.regions:
            if lies := GROUNDS.get(clean_name(region.name)):
                bare[lies].add(i)
                bare["ground"].add(i)
    found = []
    for (ground, group), shown in sorted(maps.items()):
        if len(shown) < MIN_POSITIVES:
            continue
        views = np.array(sorted(shown), np.int64)
        others = np.array(sorted(bare[ground] - shown.keys()), np.int64)
        others = np.random.default_rng(len(views)).permutation(others)
        grids = np.stack([shown[i] for i in views.tolist()])
        found.append(Meaning(_said(ground, group), "ground", views, grids, countable=False,
                             contrast=others if len(others) else None))  # fmt: skip
    return found


def _said(ground: str, group: str) -> tuple[str, ...]:
    if ground == "ground":
        return (f"ground under {group}", f"what lies under {group}", f"the ground below {group}")
    return (f"{ground} under {group}", f"{ground} below {group}")


def _under(photo: Photo) -> list[tuple[str, str, np.ndarray]]:
    """Find the grounds under the things of a view: ground, group of things, where."""
    grounds = [(said, r) for r in photo.regions if (said := GROUNDS.get(clean_name(r.name)))]
    found = []
    for group, names in UPON.items():
        things = [r for r in photo.regions if clean_name(r.name) in names]
        for said, ground in grounds:
            cells = below(things, ground)
            if clean_name(ground.name) not in names and cells.sum() >= LEAST:
                found.append((said, group, cells))
    return found


def below(things: Sequence[Region], ground: Region) -> np.ndarray:
    """Cut a ground to the cells below things' boxes: uint8 [g * g].

    These are the cells of its columns from its lowest row on: feet and what they stand on share
    cells.
    """
    side = round(len(ground.cells) ** 0.5)
    lies = np.array(ground.cells, np.uint8).reshape(side, side)
    inside = np.zeros((side, side), bool)
    for thing in things:
        shown = np.array(thing.cells).reshape(side, side) >= FILLED
        rows, columns = (np.flatnonzero(shown.any(axis)) for axis in (1, 0))
        if len(rows):
            inside[rows[-1] :, columns[0] : columns[-1] + 1] = True
    return np.where(inside, lies, 0).ravel().astype(np.uint8)
