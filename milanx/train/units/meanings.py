"""Meanings: what training units mean, which photos show it, and where.

Here: classes and kinds above them, textures and named regions. What pixels show is in
`milanx.train.units.pixels`, two things together or apart in `milanx.train.units.joined`; phrases
and real channels come from `milanx.train.units.grounded`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from milanx.describing.trained import Trained, TrainedPhoto
from milanx.images.splits import held_out
from milanx.train.data.photos import Photo, PhotoFeatures, PhotoSource, list_photos
from milanx.train.data.splits import HELD_OUT_CALTECH, HELD_OUT_TINY
from milanx.train.units.phrases import (
    ALSO_CALLED,
    KINDS,
    clean_name,
    held_out_names,
    mentions,
    whole_words,
)

MIN_POSITIVES = 6
# Kinds of meaning that are made where a recipe gives them a share: parts of things, regions of a
# colour and clothes of a pattern, materials, what lies under things, light, scenes, what is eaten,
# kinds above classes as a dictionary has them, what the encoder's own classifier recognises.
FURTHER = ("part", "attribute", "material", "ground", "light", "scene", "dish", "hypernym",
           "recognised")  # fmt: skip
TEXT_WORDS = ("text", "words", "letters", "writing", "written words", "white text", "lettering")


@dataclass(frozen=True)
class Meaning:
    """One thing that a unit can mean.

    Attributes:
        texts: ways to say it, each a complete phrase.
        kind: class, kind, region, texture, pixel, both, without, phrase, channel or one of
            `FURTHER`.
        photos: int64 [m], views that show it.
        grids: uint8 [m, g * g], where (share of each cell, 0..255); None: wherever the object is.
        countable: whether a plural may be made of it.
        contrast: int64 [c], views that are evidence of what it is not; None: near views that do
            not show it, found later.
    """

    texts: tuple[str, ...]
    kind: str
    photos: np.ndarray
    grids: np.ndarray | None = None
    countable: bool = True
    contrast: np.ndarray | None = None


@dataclass(frozen=True)
class Views:
    """Encoded views and what they are for.

    Attributes:
        photos: n views.
        keep: bool [n], those that are not held out (`training_photos`).
        checked: bool [n], those that trainings are checked on (`checked_photos`).
    """

    photos: PhotoFeatures
    keep: np.ndarray
    checked: np.ndarray

    @property
    def trained(self) -> np.ndarray:
        """Those that anything is fitted to, bool [n]."""
        return self.keep & ~self.checked


def training_photos(
    photos: Sequence[Photo],
    held_out_captions: float,
    held_out_photos: float,
    shares: Mapping[str, float] | None = None,
    words: re.Pattern[str] | None = None,
) -> np.ndarray:
    """Return which views, or photos, may be trained on, bool [n].

    Held out are a share of the captioned photos, a share of the photos with regions or textures,
    all photos of held-out classes, and captioned photos of which a caption names one. Of a source
    with a share of its own that share is held out, whatever is said of its photos, and all photos
    whose name says a held-out class.

    Args:
        photos: n views, or photos.
        held_out_captions: share of the captioned photos.
        held_out_photos: share of the others without a class.
        shares: source -> its own share.
        words: what names held-out classes; those of `held_out_names` when None.
    """
    words = words or whole_words(held_out_names())
    shares = shares or {}
    keep = np.ones(len(photos), bool)
    for i, photo in enumerate(photos):
        share = held_out_captions if photo.source == "captions" else held_out_photos
        said = list(photo.captions)
        if photo.wnid in HELD_OUT_TINY or photo.name in HELD_OUT_CALTECH:
            keep[i] = False
        elif photo.source in shares:
            keep[i] = not held_out(photo.group, shares[photo.source])
            said.append(clean_name(photo.name or ""))
        elif photo.name is None or photo.source == "textures":
            keep[i] = not held_out(photo.group, share)
        if any(mentions(text, words) for text in said):
            keep[i] = False
    held_groups = {photos[i].group for i in np.flatnonzero(~keep).tolist()}
    return np.array([k and p.group not in held_groups
                     for k, p in zip(keep, photos, strict=True)])  # fmt: skip


def near_photos(photos: Sequence[Photo], files: Sequence[Path]) -> np.ndarray:
    """Return which views, or photos, show a photo of some files or a near-duplicate, bool [n].

    Raises:
        InputError: a file that is not there, or in no layout that is known.
    """
    shown = [TrainedPhoto(known.told, known.picture)
             for file in files for known, _ in list_photos(PhotoSource(file))]  # fmt: skip
    if not shown:
        return np.zeros(len(photos), bool)
    return Trained(tuple(shown)).seen([p.told for p in photos], [p.picture for p in photos])


def checked_photos(photos: Sequence[Photo], share: float) -> np.ndarray:
    """Return which views the trainings are checked on, bool [n]: whole groups of photos."""
    return np.array([held_out(f"checked:{p.group}", share) for p in photos])


def trained_photos(
    photos: Sequence[Photo], keep: np.ndarray, checked: np.ndarray
) -> list[TrainedPhoto]:
    """Return the photos that a training reads, as a describer's folder tells them.

    Args:
        photos: n views, or photos.
        keep: bool [n], of `training_photos`.
        checked: bool [n], of `checked_photos`.
    """
    return [
        TrainedPhoto(photos[i].told, photos[i].picture, photos[i].name or "", photos[i].wnid or "",
                     bool(checked[i]))
        for i in np.flatnonzero(keep).tolist()
    ]  # fmt: skip


def halves(photos: PhotoFeatures) -> np.ndarray:
    """Return which views are of the second half, bool [n]: whole groups of photos."""
    return np.array([held_out(f"half:{p.group}", 0.5) for p in photos.photos], bool)


def named_meanings(photos: PhotoFeatures, keep: np.ndarray) -> list[Meaning]:
    """Classes, kinds above classes, textures and regions."""
    by_name: dict[str, list[int]] = {}
    textures = set()
    for i in np.flatnonzero(keep).tolist():
        photo = photos.photos[i]
        if photo.name and not photo.name.lower().startswith("background"):
            by_name.setdefault(photo.name, []).append(i)
            if photo.source == "textures":
                textures.add(photo.name)
    merged: dict[str, list[int]] = {}
    for name, indices in by_name.items():
        merged.setdefault(clean_name(name), []).extend(indices)
    texture_names = {clean_name(t) for t in textures}
    found = [
        Meaning((name, *ALSO_CALLED.get(name, ())),
                "texture" if name in texture_names else "class", np.array(indices),
                countable=name not in texture_names)
        for name, indices in merged.items()
    ]  # fmt: skip
    for kind, members in KINDS.items():
        whole = [i for m in members for i in by_name.get(m, [])[:25]]
        if len(whole) >= MIN_POSITIVES:
            found.append(Meaning((kind,), "kind", np.array(whole), countable=False))
    return found


def region_maps(photos: PhotoFeatures, keep: np.ndarray) -> dict[str, dict[int, np.ndarray]]:
    """Return where each thing or stuff lies that enough views show: name -> view -> uint8 [g * g].

    Parts of things are left out (`milanx.train.units.parts`).
    """
    shown: dict[str, dict[int, np.ndarray]] = {}
    for i in np.flatnonzero(keep).tolist():
        for region in photos.photos[i].regions:
            if region.part_of:
                continue
            maps = shown.setdefault(clean_name(region.name), {})
            maps[i] = np.maximum(maps.get(i, 0), np.array(region.cells, np.uint8))
    return {name: maps for name, maps in shown.items() if len(maps) >= MIN_POSITIVES}


def region_meanings(photos: PhotoFeatures, keep: np.ndarray) -> list[Meaning]:
    """Named regions, and lettering."""
    return [
        Meaning(TEXT_WORDS if name == "text" else (name,), "region", np.array(list(maps)),
                np.stack(list(maps.values())))
        for name, maps in region_maps(photos, keep).items()
    ]  # fmt: skip
