"""Planted units of one meaning, and of two that have nothing to do with each other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from milanx.errors import InputError
from milanx.evaluate.p2.atoms import KIND_OF
from milanx.evaluate.p2.photos import PlantedPhoto
from milanx.evaluate.p2.planted import K, PlantedUnit, SourcePool, build
from milanx.exemplars.planted import Meaning
from milanx.language.compare import Sentences

DISTANT = 0.3  # similarity of two phrases, at most, whose meanings are distant
TOGETHER = 0.1  # share of the photos of the rarer of two meanings, at most, that show both
SHARE = (0.3, 0.5)  # of a unit's exemplars that show the meaning that fewer of them show
ENOUGH = 5  # single meanings that a source must have


def single_units(
    photos: Sequence[PlantedPhoto], count: int, rng: np.random.Generator
) -> list[PlantedUnit]:
    """Plant units of one meaning, kinds of meanings equally often.

    Raises:
        InputError: the photos show too few things.
    """
    found = []
    pools = _able(photos)
    for _ in range(count):
        pool = pools[int(rng.integers(len(pools)))]
        groups: dict[tuple[str, ...], list[Meaning]] = {}
        for meaning in pool.meanings["single"]:
            groups.setdefault(pool.group(meaning), []).append(meaning)
        names = sorted(groups)
        here = groups[names[int(rng.integers(len(names)))]]
        meaning = here[int(rng.integers(len(here)))]
        found.append(build(pool, meaning, len(photos), rng))
    return found


def double_units(
    photos: Sequence[PlantedPhoto], count: int, rng: np.random.Generator
) -> list[PlantedUnit]:
    """Plant units of two distant meanings, whose exemplars are those of a unit of each.

    Raises:
        InputError: the photos show too few things.
    """
    pools = [(pool, pairs) for pool in _able(photos) if (pairs := distant_pairs(pool))]
    found = []
    for _ in range(count if pools else 0):
        pool, pairs = pools[int(rng.integers(len(pools)))]
        found.append(_double(pool, pairs[int(rng.integers(len(pairs)))], len(photos), rng))
    return found


def distant_pairs(pool: SourcePool) -> list[tuple[Meaning, Meaning]]:
    """Return pairs of a source's single meanings that differ in words and share few photos.

    Both are of things: what pixels show by rules (colours, places, lines) is met beside anything.
    """
    singles = [m for m in pool.meanings["single"] if m.atoms[0] not in KIND_OF]
    if len(singles) < 2:
        return []
    rows = Sentences()([m.phrase for m in singles])
    near = rows @ rows.T
    shows = np.stack([pool.activation(m).max((1, 2)) >= 0.5 for m in singles]).astype(np.float32)
    both, own = shows @ shows.T, shows.sum(1)
    return [(singles[i], singles[j]) for i, j in combinations(range(len(singles)), 2)
            if near[i, j] <= DISTANT and both[i, j] <= TOGETHER * min(own[i], own[j])]  # fmt: skip


def _double(
    pool: SourcePool, pair: tuple[Meaning, Meaning], photos: int, rng: np.random.Generator
) -> PlantedUnit:
    """Join units of two meanings: a share of the exemplars of each, in random order."""
    a, b = (build(pool, meaning, photos, rng) for meaning in pair)
    fewer = max(2, round(K * rng.uniform(*SHARE)))
    sizes = (fewer, K - fewer) if rng.random() < 0.5 else (K - fewer, fewer)
    taken: dict[int, np.ndarray] = {}
    for unit, size in zip((a, b), sizes, strict=True):
        own = [p for p in rng.permutation(np.flatnonzero(unit.images >= 0))
               if int(unit.images[p]) not in taken][:size]  # fmt: skip
        taken |= {int(unit.images[p]): unit.maps[p] for p in own}
    images = np.full(K, -1, np.int64)
    maps = np.zeros_like(a.maps)
    for place, image in enumerate(rng.permutation(sorted(taken))):
        images[place], maps[place] = image, taken[int(image)]
    meaning = Meaning((pair[0].atoms[0], pair[1].atoms[0]), "or")
    answers = np.maximum(a.activations, b.activations)
    return PlantedUnit(meaning, (), images, maps, pool.group(meaning), "", answers)


def _able(photos: Sequence[PlantedPhoto]) -> list[SourcePool]:
    """Return the sources with enough meanings.

    Raises:
        InputError: there is none.
    """
    pools = [SourcePool(photos, s, 0) for s in sorted({p.source for p in photos})]
    able = [p for p in pools if len(p.meanings["single"]) >= ENOUGH]
    if not able:
        raise InputError("too few photos to plant units", f"{len(photos)} photos show too few "
                         "things in several photos each", "give more photos")  # fmt: skip
    return able
