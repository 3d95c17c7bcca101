"""Regions of one colour, told apart from the same regions of other colours: "red shirts"."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from milanx.language.words import plural
from milanx.train.data.photos import PhotoFeatures
from milanx.train.units.meanings import MIN_POSITIVES, Meaning
from milanx.train.units.parts import ANIMALS, PEOPLE
from milanx.train.units.phrases import clean_name

# What nobody counts: "green grass", not "green grasses".
STUFF = frozenset({
    "skin", "hair", "grass", "water", "sky", "sea", "snow", "sand", "dirt", "road", "floor", "wall",
    "ceiling", "pavement", "clothes", "food", "gravel", "fruit", "furniture", "lips", "face skin",
    "wood", "mud", "light", "text",
})  # fmt: skip
# Regions whose colour is no property of theirs, and what is of the colour of skin.
UNSAID = frozenset({
    "text", "accessories", "light", "mirror", "window", "television", "clock", "skin", "face skin",
    "nose", "neck", "ear", "eyebrow", "mouth", "head", "arm", "leg", "hand", "foot", "torso",
    "human face",
})  # fmt: skip
MOST = 0.9  # share of the views with a region up to which a colour of it is worth saying


def coloured_meanings(photos: PhotoFeatures, keep: np.ndarray) -> list[Meaning]:
    """Make a meaning of every region and colour that enough views show (`Region.colour`).

    Evidence of what it is not are views with the region in other colours.
    """
    maps: dict[tuple[str, str], dict[int, np.ndarray]] = defaultdict(dict)
    shows: dict[str, set[int]] = defaultdict(set)
    for i in np.flatnonzero(keep).tolist():
        for region in photos.photos[i].regions:
            name = clean_name(region.name)
            shows[name].add(i)
            if (
                region.colour
                and _has_colours(name, clean_name(region.part_of))
                and (region.colour not in name)
            ):
                shown = maps[region.colour, name]
                shown[i] = np.maximum(shown.get(i, 0), np.array(region.cells, np.uint8))
    found = []
    for (colour, name), shown in sorted(maps.items()):
        if not MIN_POSITIVES <= len(shown) <= MOST * len(shows[name]):
            continue
        views = np.array(sorted(shown), np.int64)
        others = np.array(sorted(shows[name] - shown.keys()), np.int64)
        others = np.random.default_rng(len(views)).permutation(others)
        said = [f"{colour} {name}"]
        if name not in STUFF:
            said = [f"{colour} {plural(name)}", *said]
        grids = np.stack([shown[i] for i in views.tolist()])
        found.append(
            Meaning(tuple(said), "attribute", views, grids, countable=False, contrast=others)
        )
    return found


def _has_colours(name: str, owner: str) -> bool:
    """Whether it is worth saying of which colour a region is.

    It is not of people, nor of parts of people and animals: their masks are several boxes, which
    hold what is behind them.
    """
    living = PEOPLE | ANIMALS
    parts = tuple(f"{one} " for one in living)
    return not (name in UNSAID or name in PEOPLE or owner in living or name.startswith(parts))
