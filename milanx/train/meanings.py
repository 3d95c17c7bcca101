"""Meanings: what training units mean, which photos show it, and where.

Here: classes and kinds above them, textures, named regions and two of them together or apart,
and what is computed from pixels. Phrases and real channels come from `milanx.train.grounded`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from milanx.encode import EDGE_CHANNELS, PIXEL_CHANNELS
from milanx.splits import held_out
from milanx.train.photos import PhotoFeatures
from milanx.train.phrases import (
    ALSO_CALLED,
    KINDS,
    clean_name,
    held_out_names,
    mentions,
    whole_words,
)
from milanx.train.splits import HELD_OUT_CALTECH, HELD_OUT_TINY

MIN_POSITIVES = 6
MAX_PIXEL_PHOTOS = 400  # that show one pixel meaning
EDGE_STRENGTH = 0.05  # above which a cell has edges, in brightness a pixel
EDGE_RATIO = 1.5  # of the strongest direction over the one across it
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.75, 0.12, 0.12), "green": (0.2, 0.5, 0.15), "blue": (0.15, 0.3, 0.7),
    "yellow": (0.85, 0.75, 0.15), "orange": (0.9, 0.5, 0.12), "pink": (0.9, 0.55, 0.65),
    "purple": (0.45, 0.2, 0.55), "brown": (0.42, 0.27, 0.15),
}  # fmt: skip


BRIGHT_TEXTS = ("bright areas", "white areas", "light backgrounds", "bright lights")
DARK_TEXTS = ("dark areas", "black areas", "dark backgrounds", "shadows")
ONE_SIDE = 0.8  # share of the bright (dark) cells that lie in one half of the view
TEXT_WORDS = ("text", "words", "letters", "writing", "written words", "white text", "lettering")


@dataclass(frozen=True)
class Meaning:
    """One thing that a unit can mean.

    Attributes:
        texts: ways to say it, each a complete phrase.
        kind: class, kind, region, texture, pixel, both, without, phrase or channel.
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


def training_photos(
    photos: PhotoFeatures, held_out_captions: float, held_out_photos: float
) -> np.ndarray:
    """Return which views may be trained on, bool [n].

    Held out are a share of the captioned photos, a share of the photos with regions or textures,
    all photos of held-out classes, and captioned photos of which every caption names one.
    """
    words = whole_words(held_out_names())
    keep = np.ones(len(photos), bool)
    for i, photo in enumerate(photos.photos):
        share = held_out_captions if photo.source == "captions" else held_out_photos
        if photo.wnid in HELD_OUT_TINY or photo.name in HELD_OUT_CALTECH:
            keep[i] = False
        elif photo.name is None or photo.source == "textures":
            keep[i] = not held_out(photo.group, share)
        if photo.captions and any(mentions(c, words) for c in photo.captions):
            keep[i] = False
    held_groups = {photos.photos[i].group for i in np.flatnonzero(~keep)}
    return np.array([k and p.group not in held_groups
                     for k, p in zip(keep, photos.photos, strict=True)])  # fmt: skip


def checked_photos(photos: PhotoFeatures, share: float) -> np.ndarray:
    """Return which views the trainings are checked on, bool [n]: whole groups of photos."""
    return np.array([held_out(f"checked:{p.group}", share) for p in photos.photos])


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


def region_meanings(photos: PhotoFeatures, keep: np.ndarray) -> list[Meaning]:
    """Named regions; two of them in one photo ("A and B"), and one without the other."""
    shown: dict[str, dict[int, np.ndarray]] = {}
    for i in np.flatnonzero(keep).tolist():
        for name, grid in photos.photos[i].regions:
            maps = shown.setdefault(clean_name(name), {})
            maps[i] = np.maximum(maps.get(i, 0), np.array(grid, np.uint8))
    shown = {name: maps for name, maps in shown.items() if len(maps) >= MIN_POSITIVES}

    def meaning(texts: tuple[str, ...], kind: str, maps: dict[int, np.ndarray],
                contrast: set[int] | None = None) -> Meaning:  # fmt: skip
        return Meaning(
            texts, kind, np.array(list(maps)), np.stack(list(maps.values())),
            countable=len(texts) == 1,
            contrast=None if contrast is None else np.array(sorted(contrast)),
        )  # fmt: skip

    found = [
        meaning(TEXT_WORDS if name == "text" else (name,), "region", maps)
        for name, maps in shown.items()
    ]
    for a, b in itertools.combinations(sorted(shown), 2):
        both = shown[a].keys() & shown[b].keys()
        if len(both) < MIN_POSITIVES:
            continue
        texts = tuple(f"{x} and {y}" for x, y in ((a, b), (b, a)))
        joined = {i: np.maximum(shown[a][i], shown[b][i]) for i in both}
        apart = (shown[a].keys() ^ shown[b].keys()) - both
        found.append(meaning(texts, "both", joined, apart or None))
        for x, y in ((a, b), (b, a)):
            alone = {i: shown[x][i] for i in shown[x].keys() - both}
            if len(alone) >= MIN_POSITIVES:
                found.append(meaning((f"{x} without {y}",), "without", alone, set(both)))
    return found


def pixel_cells(photos: PhotoFeatures, kept: np.ndarray) -> dict[tuple[str, ...], np.ndarray]:
    """Find colours, brightness, plainness and lines in each cell's colours and edges.

    Returns:
        Ways to say it -> bool [len(kept), g * g], the cells that show it.
    """
    channels = PIXEL_CHANNELS + EDGE_CHANNELS
    pixels = np.stack([photos.dense[i][:, -channels:] for i in kept]).astype(np.float32)
    mean, deviation = pixels[..., :3], pixels[..., 3:6].mean(-1)
    brightness = mean.mean(-1)
    right, down, falling, rising = np.moveaxis(pixels[..., 6:], -1, 0)
    strength = np.maximum(right, down)

    def lines(along: np.ndarray, across: np.ndarray) -> np.ndarray:
        """Above zero where edges are strong and run one way."""
        return np.minimum(along - EDGE_STRENGTH, along - EDGE_RATIO * across)

    diagonal = lines(np.maximum(falling, rising), np.minimum(falling, rising))
    maps: dict[tuple[str, ...], np.ndarray] = {
        BRIGHT_TEXTS: brightness - 0.8,
        DARK_TEXTS: 0.15 - brightness,
        ("plain smooth surfaces", "smooth backgrounds", "empty areas"): 0.025 - deviation,
        ("busy textures", "fine detail", "cluttered textures"): strength - 0.13,
        ("high contrast areas", "black and white areas"): deviation - 0.27,
        ("vertical lines", "vertical edges", "upright lines"): lines(right, down),
        ("horizontal lines", "horizontal edges", "level lines"): lines(down, right),
        ("diagonal lines", "diagonal edges", "slanted lines"): diagonal,
    }
    for name, colour in COLOURS.items():
        distance = np.abs(mean - np.array(colour, np.float32)).max(-1)
        colour_texts = (f"{name} areas", f"{name} things", f"the color {name}", f"{name} objects")
        maps[colour_texts] = 0.16 - distance
    return {texts: values > 0 for texts, values in maps.items()}


def place_meanings(photos: PhotoFeatures, keep: np.ndarray, seed: int) -> list[Meaning]:
    """Parts of the view, whatever they show, and bright or dark cells that lie in one of them."""
    kept = np.flatnonzero(keep)
    side = round(photos.dense.shape[1] ** 0.5)
    along = (np.arange(side) + 0.5) / side
    row, column = (g.ravel() for g in np.meshgrid(along, along, indexing="ij"))
    away = np.maximum(np.abs(row - 0.5), np.abs(column - 0.5))
    corners = np.minimum(np.abs(row - 0.5), np.abs(column - 0.5))
    halves = {"at the top": 0.5 - row, "at the bottom": row - 0.5, "on the left": 0.5 - column,
              "on the right": column - 0.5}  # fmt: skip
    parts = {
        ("top of the image", "upper edge of the image", "things at the top"): 0.3 - row,
        ("bottom of the image", "lower edge of the image", "things at the bottom"): row - 0.7,
        ("left side of the image", "left edge of the image", "things on the left"): 0.3 - column,
        ("right side of the image", "right edge of the image", "things on the right"): column - 0.7,
        ("center of the image", "middle of the image"): 0.25 - away,
        ("borders of the image", "edges of the image"): away - 0.4,
        ("corners of the image", "image corners"): corners - 0.3,
    }
    rng = np.random.default_rng([seed, 8])
    found = []
    for texts, inside in parts.items():
        if not (inside > 0).any():  # on a coarse grid
            continue
        shown = rng.choice(kept, min(len(kept), MAX_PIXEL_PHOTOS), replace=False)
        grids = np.tile((255 * (inside > 0)).astype(np.uint8), (len(shown), 1))
        found.append(Meaning(texts, "pixel", shown, grids, countable=False))
    cells = pixel_cells(photos, kept)
    tones = {"bright": BRIGHT_TEXTS, "dark": DARK_TEXTS}
    for tone, known in tones.items():
        shows = cells[known]
        total = shows.sum(1)
        for place, inside in halves.items():
            there = (shows & (inside > 0)).sum(1)
            shown = np.flatnonzero((there >= ONE_SIDE * total) & (there > 0.06 * side**2))
            if len(shown) < MIN_POSITIVES:
                continue
            shown = shown[np.argsort(-there[shown])][:MAX_PIXEL_PHOTOS]
            texts = (f"{tone} areas {place}", f"{tone} parts {place}")
            grids = (255 * (shows[shown] & (inside > 0))).astype(np.uint8)
            found.append(Meaning(texts, "pixel", kept[shown], grids, countable=False))
    return found


def pixel_meanings(photos: PhotoFeatures, keep: np.ndarray) -> list[Meaning]:
    """Colours, brightness, plainness and lines as meanings."""
    kept = np.flatnonzero(keep)
    found = []
    for texts, cells in pixel_cells(photos, kept).items():
        share = cells.mean(1)
        shown = np.flatnonzero((share > 0.06) & (share < 0.9))
        if len(shown) >= MIN_POSITIVES:
            shown = shown[np.argsort(-share[shown])][:MAX_PIXEL_PHOTOS]
            grids = (cells[shown] * 255).astype(np.uint8)
            found.append(Meaning(texts, "pixel", kept[shown], grids, countable=False))
    return found
