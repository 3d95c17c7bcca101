"""P2's own generator: photos with atoms, meanings made of them, and exemplar sets.

Nothing of it is shared with training: its atoms and phrases are its own, its photos were seen by
no training, and the levels of noise are those that the protocol states. Each unit lives among
the photos of one source, so that no source can be told by its units, and what a photo does not
show is known: annotations of one source are complete for its own atoms alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from milanx.errors import InputError
from milanx.evaluate.p2.atoms import TEXT
from milanx.evaluate.p2.photos import PlantedPhoto, kind_of
from milanx.exemplars.planted import MAP, Meaning, combine

K = 15
MIN_IMAGES = 8  # photos that must show a meaning
MIN_OTHERS = 4  # photos that must tell it from the same atoms joined otherwise
MOST = 0.5  # share of the photos that may show a single meaning
PURITY = (0.7, 1.0)
OVERLAP = (0.4, 1.0)  # intersection over union of a noisy mask with the true one
DISPLACEMENT = 0.15  # of the side
PAIRS = 240  # pairs of each connective and source that are drawn from all that exist
JOINED = ("and", "or", "and-not")
TRIES = 60  # draws of five until the true one has the connective whose turn it is
BACKGROUND = 0.1  # the most that a planted unit answers to a photo that does not show it


@dataclass(frozen=True)
class PlantedUnit:
    """A unit that was built.

    Attributes:
        meaning: what it means.
        choices: five mutually similar meanings of the same size, the true one among them.
        images: int64 [k].
        maps: float32 [k, 14, 14], above one half is inside the mask.
        kinds: of the meaning's atoms.
        outside: phrase of the meaning that is most similar to the true one, none of the five.
        activations: float32 [photos], how much each photo excites it.
    """

    meaning: Meaning
    choices: tuple[Meaning, ...]
    images: np.ndarray
    maps: np.ndarray
    kinds: tuple[str, ...]
    outside: str
    activations: np.ndarray


class SourcePool:
    """The photos of one source, and the meanings that enough of them show.

    Attributes:
        places: int64 [n], the photos' numbers among all.
        plain: bool [n], without lettering.
        meanings: by connective.
    """

    def __init__(self, photos: Sequence[PlantedPhoto], source: str, seed: int) -> None:
        self.places = np.array([i for i, p in enumerate(photos) if p.source == source], np.int64)
        self.photos = [photos[i] for i in self.places]
        self.plain = np.array([p.text is None for p in self.photos])
        self.names = sorted({a for p in self.photos for a in p.atoms})
        column = {a: i for i, a in enumerate(self.names)}
        self._shows = np.zeros((len(self.photos), len(self.names)), bool)
        for i, photo in enumerate(self.photos):
            for atom, cells in photo.atoms.items():
                self._shows[i, column[atom]] = cells.max() >= 0.5
        told = {a: kind for p in self.photos for a, kind in p.kinds.items()}
        self.kinds = {a: told.get(a) or kind_of(a, self.photos[0].kind) for a in self.names}
        rng = np.random.default_rng([seed, len(self.places)])
        self.meanings = {"single": self._singles(), **self._pairs(rng)}

    def group(self, meaning: Meaning) -> tuple[str, ...]:
        """Return the kinds of a meaning's atoms; balance is kept over them."""
        return tuple(self.kinds[a] for a in meaning.atoms)

    def _singles(self) -> list[Meaning]:
        counts = self._shows[self.plain].sum(0)
        texts = self._shows.sum(0)
        most = MOST * len(self.photos)
        return [Meaning((a,)) for i, a in enumerate(self.names)
                if MIN_IMAGES <= (texts[i] if a == TEXT else counts[i]) <= most
                and not self._of_one_thing(a)]  # fmt: skip

    def _of_one_thing(self, atom: str) -> bool:
        """Whether a part is that of one thing in all photos: "hood" where all are of cars."""
        own = self._shows[:, self.names.index(atom)]
        return self.kinds[atom] == "part" and any(
            other.endswith(f" {atom}") and bool((self._shows[:, i] == own).all())
            for i, other in enumerate(self.names)
        )

    def _pairs(self, rng: np.random.Generator) -> dict[str, list[Meaning]]:
        """Draw pairs whose atoms occur together and apart often enough, balanced over kinds."""
        shows = self._shows.astype(np.float32)
        both = (shows.T @ shows).astype(int)
        plain = shows[self.plain]
        without = (plain.T @ plain).astype(int)
        found: dict[str, list[Meaning]] = {"and": [], "or": [], "and-not": []}
        for i, a in enumerate(self.names):
            for j in range(i + 1, len(self.names)):
                b = self.names[j]
                counts = both if TEXT in (a, b) else without
                together = int(counts[i, j])
                alone = int(counts[i, i]) - together, int(counts[j, j]) - together
                if self._related(a, b):
                    continue
                if together >= MIN_IMAGES and min(alone) >= MIN_OTHERS:
                    found["and"].append(Meaning((a, b), "and"))
                if min(alone) >= MIN_IMAGES and self._alike(a, b):
                    found["or"].append(Meaning((a, b), "or"))
                for x, y, left in ((a, b, alone[0]), (b, a, alone[1])):
                    if left >= MIN_IMAGES and together >= MIN_OTHERS:
                        found["and-not"].append(Meaning((x, y), "and-not"))
        return {k: self._balanced(pairs, rng) for k, pairs in found.items()}

    def _alike(self, a: str, b: str) -> bool:
        return self.kinds[a] == self.kinds[b] and TEXT not in (a, b)

    def _related(self, a: str, b: str) -> bool:
        """Whether one atom says the other: a class and its kind, brightness and its place, ..."""
        kinds = {self.kinds[a], self.kinds[b]}
        if kinds <= {"brightness", "place"} or kinds == {"lines"}:
            return True
        if kinds & {"brightness", "place"} and {a, b} & {"white", "black", "grey"}:
            return True
        if "part" in kinds:  # a thing and its part, a part and that of one thing
            return f" {a} " in f" {b} " or f" {b} " in f" {a} "
        if "kind above" not in kinds:
            return False
        i, j = self.names.index(a), self.names.index(b)
        together = (self._shows[:, i] & self._shows[:, j]).sum()
        fewer = min(self._shows[:, i].sum(), self._shows[:, j].sum())
        return kinds <= {"kind above", "class"} and bool(together == fewer)

    def _balanced(self, pairs: list[Meaning], rng: np.random.Generator) -> list[Meaning]:
        """Draw at most `PAIRS`, the kinds of atoms in turn."""
        groups: dict[tuple[str, ...], list[Meaning]] = {}
        for place in rng.permutation(len(pairs)):
            groups.setdefault(self.group(pairs[place]), []).append(pairs[place])
        drawn: list[Meaning] = []
        while groups and len(drawn) < PAIRS:
            for key in sorted(groups):
                drawn.append(groups[key].pop())
                if not groups[key]:
                    del groups[key]
        return drawn[:PAIRS]

    def activation(self, meaning: Meaning) -> np.ndarray:
        """Return how a meaning answers to each photo of the source, float32 [n, 14, 14]."""
        empty = np.zeros((MAP, MAP), np.float32)
        maps = {}
        for atom in meaning.atoms:
            shows = self._shows[:, self.names.index(atom)]
            maps[atom] = np.stack([p.atoms[atom] if s else empty
                                   for p, s in zip(self.photos, shows, strict=True)])  # fmt: skip
        return combine(maps, meaning)


def generate(
    photos: Sequence[PlantedPhoto], count: int, seed: int, kinds: Sequence[str] = ()
) -> list[PlantedUnit]:
    """Draw planted units: half single meanings, the rest AND, OR and AND-NOT by turns.

    With ``kinds`` all are single meanings of these.

    Raises:
        InputError: too few photos for any meaning, or for any of ``kinds``.
    """
    rng = np.random.default_rng(seed)
    pools = [SourcePool(photos, s, seed) for s in sorted({p.source for p in photos})]
    if not any(len(p.meanings["single"]) >= 5 for p in pools):
        atoms = max((len(p.meanings["single"]) for p in pools), default=0)
        raise InputError("too few photos to plant units", f"{len(photos)} unseen photos show "
                         f"{atoms} things in {MIN_IMAGES} photos or more",
                         "give more photos, or with more kinds of regions")  # fmt: skip
    pools = _of_kinds(pools, kinds) if kinds else pools
    least = 5 if kinds else 1  # of a kind, so that five that are alike are all of it
    similar = [_Similar([m for kind in p.meanings.values() for m in kind]) for p in pools]
    units = []
    for number in range(count):
        kind = "single" if kinds or number % 2 == 0 else JOINED[number // 2 % 3]
        able = [i for i, p in enumerate(pools) if len(p.meanings[kind]) >= 5]
        if not able:
            kind = "single"
            able = [i for i, p in enumerate(pools) if len(p.meanings[kind]) >= 5]
        group: tuple[str, ...] | None = None
        if kind == "single":  # the kinds of atoms equally often, wherever they come from
            counts = [Counter(map(p.group, p.meanings[kind])) for p in pools]
            groups = sorted({g for i in able for g, n in counts[i].items()
                             if n >= least and (not kinds or g[0] in kinds)})  # fmt: skip
            group = groups[int(rng.integers(len(groups)))]
            able = [i for i in able if counts[i][group] >= least]
        chosen = able[int(rng.integers(len(able)))]
        units.append(_unit(pools[chosen], similar[chosen], kind, group, len(photos), rng))
    return units


def _of_kinds(pools: Sequence[SourcePool], kinds: Sequence[str]) -> list[SourcePool]:
    """Return the pools with single meanings of some kinds.

    Raises:
        InputError: there are none.
    """
    counts = [Counter(map(p.group, p.meanings["single"])) for p in pools]
    able = [p for p, c in zip(pools, counts, strict=True) if any(c[(k,)] >= 5 for k in kinds)]
    if not able:
        raise InputError(f"no photos show {' or '.join(kinds)}",
                         f"no source shows five of a kind in {MIN_IMAGES} photos or more each",
                         "give other photos, or other kinds")  # fmt: skip
    return able


class _Similar:
    """Sentence similarity among the phrases of meanings."""

    def __init__(self, meanings: Sequence[Meaning]) -> None:
        from milanx.language.compare import Sentences

        phrases = sorted({m.phrase for m in meanings})
        self._row = dict(zip(phrases, Sentences()(phrases), strict=True))

    def ranked(self, first: Meaning, others: Sequence[Meaning]) -> list[Meaning]:
        """Return others, the most similar first."""
        mine = self._row[first.phrase]
        return sorted(others, key=lambda m: (-float(mine @ self._row[m.phrase]), m.phrase))


def _unit(
    pool: SourcePool, similar: _Similar, kind: str, group: tuple[str, ...] | None, photos: int,
    rng: np.random.Generator,
) -> PlantedUnit:  # fmt: skip
    """Build one unit: five meanings that are alike, one of them at random, and its exemplars.

    Five are drawn anew until the true one has the connective whose turn it is, so that every
    connective is met equally often although the five mix them.
    """
    for _ in range(TRIES):
        choices = _five(pool, similar, kind, group, rng)
        true = choices[int(rng.integers(5))]
        if true.connective == kind:
            break
    size = ("single",) if kind == "single" else JOINED
    others = [m for k in size for m in pool.meanings[k]]
    outside = similar.ranked(true, [m for m in others if m not in choices])
    return build(pool, true, photos, rng, tuple(choices), outside[0].phrase if outside else "")


def build(
    pool: SourcePool, meaning: Meaning, photos: int, rng: np.random.Generator,
    choices: tuple[Meaning, ...] = (), outside: str = "",
) -> PlantedUnit:  # fmt: skip
    """Build a unit of a meaning: its exemplars, and how much each of all photos excites it."""
    activation = pool.activation(meaning)
    usable = np.ones(len(pool.places), bool) if TEXT in meaning.atoms else pool.plain
    images, maps = _exemplars(activation, usable, rng)
    images = np.where(images >= 0, pool.places[images], -1)
    everywhere = rng.uniform(0, BACKGROUND, photos).astype(np.float32)
    everywhere[pool.places] += activation.max((1, 2)) * (1 - BACKGROUND)
    own = images[images >= 0]  # an impure set's photos excite the unit too: that is why they are in
    everywhere[own] = np.maximum(everywhere[own], 1 - BACKGROUND)
    return PlantedUnit(meaning, choices, images, maps, pool.group(meaning), outside, everywhere)


def _five(
    pool: SourcePool, similar: _Similar, kind: str, group: tuple[str, ...] | None,
    rng: np.random.Generator,
) -> list[Meaning]:  # fmt: skip
    """Draw five mutually similar meanings of one size, in random order.

    Single ones are of one kind of atoms where there are five of it. For pairs the same atoms
    under another connective are among them, where there are such.
    """
    size = ("single",) if kind == "single" else JOINED
    able = [k for k in size if pool.meanings[k]]
    seeds = pool.meanings[able[int(rng.integers(len(able)))]]
    same = [m for m in seeds if group in (None, pool.group(m))]
    first = _draw(pool, same, rng)
    others = [m for k in size for m in pool.meanings[k] if m != first]
    if group is not None and len(same) >= 5:
        others = [m for m in same if m != first]
    ranked = similar.ranked(first, others)
    sibling = [m for m in ranked if set(m.atoms) == set(first.atoms)][:1]
    five = [first, *sibling, *(m for m in ranked if m not in sibling)][:5]
    return [five[i] for i in rng.permutation(5)]


def _draw(pool: SourcePool, meanings: Sequence[Meaning], rng: np.random.Generator) -> Meaning:
    """Draw a meaning, the kinds of its atoms equally likely."""
    groups: dict[tuple[str, ...], list[Meaning]] = {}
    for meaning in meanings:
        groups.setdefault(pool.group(meaning), []).append(meaning)
    names = sorted(groups)
    group = groups[names[int(rng.integers(len(names)))]]
    return group[int(rng.integers(len(group)))]


def _exemplars(
    activation: np.ndarray, usable: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw an impure exemplar set with loose, displaced masks: images [k], maps [k, 14, 14]."""
    peak = activation.max((1, 2))
    showing = np.flatnonzero((peak >= 0.5) & usable)
    others = np.flatnonzero((peak < 0.5) & usable)
    k = min(K, len(showing))
    pure = round(k * rng.uniform(*PURITY)) if len(others) else k
    images = np.concatenate([rng.permutation(showing)[:pure], rng.permutation(others)[: k - pure]])
    images = np.concatenate([images, np.full(K - len(images), -1)]).astype(np.int64)
    overlap = rng.uniform(*OVERLAP)
    maps = np.zeros((K, MAP, MAP), np.float32)
    for place, image in enumerate(images):
        if image < 0:
            continue
        true = activation[image] >= 0.5
        if not true.any():
            true = np.zeros((MAP, MAP), bool)
            y, x = rng.integers(0, MAP - 4, 2)
            true[y : y + 5, x : x + 5] = True
        maps[place] = _loosen(true, overlap, rng)
    return images, maps


def _loosen(mask: np.ndarray, overlap: float, rng: np.random.Generator) -> np.ndarray:
    """Displace a mask and add or remove cells until its overlap with the true one has fallen."""
    reach = round(DISPLACEMENT * MAP)
    moved = np.roll(mask, tuple(rng.integers(-reach, reach + 1, 2)), (0, 1))
    if moved.all() or not (moved & mask).any():
        moved = mask.copy()
    for cell in rng.permutation(mask.size):
        if (moved & mask).sum() / (moved | mask).sum() <= overlap:
            break
        flipped = moved.copy()
        flipped.flat[cell] = ~flipped.flat[cell]
        if flipped.any():
            moved = flipped
    return moved.astype(np.float32)
