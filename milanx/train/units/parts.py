"""Parts of things: "dog ears" of dogs alone, "ears" of whatever has them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from milanx.language.words import plural
from milanx.train.data.photos import Photo, PhotoFeatures
from milanx.train.units.meanings import MIN_POSITIVES, Meaning
from milanx.train.units.phrases import clean_name

# Parts that are said otherwise than their data sets spell them.
SAID = {"torso": "body", "bodywork": "body", "chain wheel": "gear", "plant": "",
        "face skin": "face"}  # fmt: skip
# Parts that nobody counts, or that come in one form.
UNCOUNTED = frozenset({"hair", "skin", "fur", "lips", "jeans", "pants"})
ANIMALS = frozenset({"dog", "cat", "horse", "sheep", "cow", "bird", "bear", "elephant", "zebra",
                     "giraffe"})  # fmt: skip
PEOPLE = frozenset({"person", "human face", "pedestrian", "bicyclist", "child", "rider"})
VEHICLES = frozenset({"car", "bus", "truck", "train", "motorcycle", "bicycle", "airplane", "boat"})
GROUPS = {"animals": ANIMALS, "vehicles": VEHICLES, "people": PEOPLE}
VAGUE = frozenset({"body"})  # said of its thing alone: everything has one
MIN_OWNERS = 2  # things that must have a part before it is said of all of them
Maps = dict[int, np.ndarray]  # view -> where, uint8 [g * g]


def part_meanings(photos: PhotoFeatures, keep: np.ndarray) -> list[Meaning]:
    """Make meanings of the parts of each thing, and of what several things have alike.

    Evidence of what it is not are views with the same part of other things, and views with the
    thing where the part is not seen.
    """
    maps, things, alone = _collected(photos.photos, np.flatnonzero(keep).tolist())
    by_part: dict[str, dict[str, Maps]] = defaultdict(dict)
    for (owner, part), shown in maps.items():
        by_part[part][owner] = shown
    found = []
    for part, owners in sorted(by_part.items()):
        for owner, shown in sorted(owners.items()):
            elsewhere = {i for other, m in owners.items() if other != owner for i in m}
            others = (elsewhere | things[owner]) - shown.keys()
            found += _meaning(_said_of(owner, part), shown, others)
        for group, members in GROUPS.items():
            of_group = [m for owner, m in owners.items() if owner in members]
            if len(of_group) >= MIN_OWNERS:
                others = {i for owner in members for i in things[owner]}
                texts = (f"{_many(part)} of {group}", f"{group.removesuffix('s')} {_many(part)}")
                found += _meaning(texts, _joined(of_group), others)
        everywhere = _joined([*owners.values(), alone.get(part, {})])
        if len(owners) + (part in alone) >= MIN_OWNERS and part not in VAGUE:
            others = {i for owner in owners for i in things[owner]}
            found += _meaning((_many(part), part), everywhere, others)
    return found


def _collected(
    photos: Sequence[Photo], kept: Iterable[int]
) -> tuple[dict[tuple[str, str], Maps], dict[str, set[int]], dict[str, Maps]]:
    """Return (thing, part) -> maps, thing -> views that show it, and part by itself -> maps."""
    maps: dict[tuple[str, str], Maps] = defaultdict(dict)
    things: dict[str, set[int]] = defaultdict(set)
    alone: dict[str, Maps] = defaultdict(dict)
    kept = list(kept)
    owners = {clean_name(r.part_of) for i in kept for r in photos[i].regions if r.part_of}
    for i in kept:
        for region in photos[i].regions:
            name, owner = clean_name(region.name), clean_name(region.part_of)
            owner = owner or next((o for o in owners if name.startswith(f"{o} ")), "")
            part = name.removeprefix(f"{owner} ") if owner else name
            part = SAID.get(part, part)
            if owner and part and part != owner:
                things[owner].add(i)
                _add(maps[owner, part], i, region.cells)
            elif not owner:
                things[name].add(i)
                _add(alone[part], i, region.cells)
    return maps, things, alone


def _add(maps: Maps, view: int, cells: tuple[int, ...]) -> None:
    maps[view] = np.maximum(maps.get(view, 0), np.array(cells, np.uint8))


def _joined(several: Iterable[Maps]) -> Maps:
    found: Maps = {}
    for maps in several:
        for view, cells in maps.items():
            found[view] = np.maximum(found.get(view, 0), cells)
    return found


def _many(part: str) -> str:
    return part if part in UNCOUNTED else plural(part)


def _said_of(owner: str, part: str) -> tuple[str, ...]:
    """Return the ways to say a part of a thing."""
    many, owners = _many(part), plural(owner)
    if owner == "person":
        return (f"{many} of people", f"a person's {part}", f"human {many}")
    article = "an" if owner[0] in "aeiou" else "a"
    return (f"{owner} {many}", f"{part} of {article} {owner}", f"{many} of {owners}")


def _meaning(texts: tuple[str, ...], maps: Maps, others: set[int]) -> list[Meaning]:
    """Make a meaning where enough views show it."""
    if len(maps) < MIN_POSITIVES:
        return []
    views = np.array(sorted(maps), np.int64)
    contrast = np.array(sorted(others - maps.keys()), np.int64)
    # In an order that has nothing to do with the files: only the first of them are kept.
    contrast = np.random.default_rng(len(views)).permutation(contrast)
    return [Meaning(texts, "part", views, np.stack([maps[i] for i in views.tolist()]),
                    countable=False, contrast=contrast if len(contrast) else None)]  # fmt: skip
