"""Meanings of two things: in one view together, or one of them in views without the other."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from milanx.features.pixels import SMALL
from milanx.language.words import plural
from milanx.train.data.photos import PhotoFeatures
from milanx.train.units.meanings import MIN_POSITIVES, TEXT_WORDS, Meaning, region_maps
from milanx.train.units.pixels import LARGE, shown_cells

PAIRS = 60  # of two families other than regions, of all that exist
MAX_VIEWS = 60  # of one meaning
# Pixel meanings that say nearly the same, by a word of theirs.
SAME = ({"bright", "white"}, {"dark", "black"}, {"lines"}, {"plain", "busy"})


@dataclass(frozen=True)
class Attribute:
    """Something that views show.

    Attributes:
        texts: ways to say it.
        family: region, text, pixel or kind.
        maps: view -> where, uint8 [g * g].
    """

    texts: tuple[str, ...]
    family: str
    maps: dict[int, np.ndarray]


def attributes(
    photos: PhotoFeatures, keep: np.ndarray, kinds: Sequence[Meaning]
) -> list[Attribute]:
    """Collect what views show: regions, lettering, what pixels show, kinds of things.

    Args:
        photos: all of them.
        keep: bool [n], those that may be trained on.
        kinds: meanings of kinds above classes, which fill their views.
    """
    found = [
        Attribute(TEXT_WORDS if name == "text" else (name,), "text" if name == "text" else "region",
                  maps)
        for name, maps in region_maps(photos, keep).items()
    ]  # fmt: skip
    kept = np.flatnonzero(keep)
    for texts, cells in shown_cells(photos, kept).items():
        share = cells.mean(1)
        shown = np.flatnonzero((share > SMALL) & (share < LARGE))
        maps = {int(kept[i]): (255 * cells[i]).astype(np.uint8) for i in shown}
        found.append(Attribute(texts, "pixel", maps))
    whole = np.full(photos.dense.shape[1], 255, np.uint8)
    for meaning in kinds:
        maps = {int(i): whole for i in meaning.photos}
        found.append(Attribute(meaning.texts, "kind", maps))
    return found


def joined_meanings(known: Sequence[Attribute], seed: int) -> list[Meaning]:
    """Make "A and B" and "A without B" of attributes that occur together and apart often enough.

    Two regions are joined wherever they can be; of other families some pairs are drawn.
    """
    rng = np.random.default_rng([seed, 10])
    pairs: dict[tuple[str, str], list[tuple[Attribute, Attribute]]] = {}
    for a, b in itertools.combinations(known, 2):
        if len(a.maps.keys() & b.maps.keys()) >= MIN_POSITIVES and not _same(a, b):
            pairs.setdefault((a.family, b.family), []).append((a, b))
    found: list[Meaning] = []
    for families in sorted(pairs):
        drawn = pairs[families]
        if families != ("region", "region"):
            drawn = [drawn[i] for i in rng.permutation(len(drawn))[:PAIRS]]
        for a, b in drawn:
            found += _joined(a, b, rng)
    return found


def _same(a: Attribute, b: Attribute) -> bool:
    """Whether two attributes say nearly the same of a view."""
    if a.family != "pixel" or b.family != "pixel":
        return False
    first, second = set(a.texts[0].split()), set(b.texts[0].split())
    return any(first & alike and second & alike for alike in SAME)


def _joined(a: Attribute, b: Attribute, rng: np.random.Generator) -> list[Meaning]:
    both = sorted(a.maps.keys() & b.maps.keys())
    apart = np.array(sorted(a.maps.keys() ^ b.maps.keys()), np.int64)
    first = f"{_say(a, rng)} and {_say(b, rng)}"
    second = f"{_say(b, rng)} and {_say(a, rng)}"
    views = _some(both, rng)
    grids = np.stack([np.maximum(a.maps[i], b.maps[i]) for i in views])
    found = [Meaning((first, second), "both", views, grids, countable=False,
                     contrast=rng.permutation(apart) if len(apart) else None)]  # fmt: skip
    together = np.array(both, np.int64)
    for x, y in ((a, b), (b, a)):
        alone = sorted(x.maps.keys() - both)
        if len(alone) >= MIN_POSITIVES:
            views = _some(alone, rng)
            grids = np.stack([x.maps[i] for i in views])
            texts = tuple(dict.fromkeys(f"{_say(x, rng)} without {_say(y, rng)}" for _ in range(2)))
            found.append(Meaning(texts, "without", views, grids, countable=False,
                                 contrast=rng.permutation(together)))  # fmt: skip
    return found


def _some(views: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    return np.sort(rng.permutation(np.array(views, np.int64))[:MAX_VIEWS])


def _say(attribute: Attribute, rng: np.random.Generator) -> str:
    text = str(rng.choice(attribute.texts[:3]))
    return plural(text) if attribute.family == "region" and rng.random() < 0.5 else text
