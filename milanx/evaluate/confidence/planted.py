"""Planted units with images kept aside: what confidence is calibrated and reported on.

They are P2's, with meanings of one side alone; beside them stand sets of photos drawn at random,
which mean nothing, so that every text for them is wrong. Every source of photos is a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from milanx.errors import InputError
from milanx.evaluate.confidence.lists import Side
from milanx.evaluate.confidence.units import RANDOM, Judged
from milanx.evaluate.p2.photos import PlantedPhoto, read_photos
from milanx.evaluate.p2.planted import BACKGROUND, K, PlantedUnit, SourcePool, generate
from milanx.evaluate.p2.protocol import plant_units
from milanx.evaluate.p2.texts import attribute_f1, committed_phrases, has_phrases, phrase_table
from milanx.exemplars.planted import MAP, Meaning, combine
from milanx.progress import Reporter
from milanx.runs import open_run, write_settings, write_units

if TYPE_CHECKING:
    from milanx.describing.describer import Describer

RIGHT = 0.66  # attribute F1 from which a text counts as right: at most one atom too many or too few
ASIDE = 0.2  # share of the photos that are kept aside, as of any run
OF_SOURCE = 0.35  # share of one source's: few photos, of which a score needs 50
FEW = 0.2  # share of the units that show few photos
FEW_PHOTOS = (3, 7)  # how many
NOTHING = Meaning(("nothing",))  # what a set drawn at random means
LEAST_PHOTOS = 75  # of a source that units are planted in
LEAST_MEANINGS = 5  # single ones that its searched photos show often enough, as P2 asks
PER_FILE = 300  # photos of a file that units are planted in


@dataclass(frozen=True)
class Plot:
    """How many units are planted.

    Attributes:
        count: units with a meaning.
        random: sets of photos at random.
        seed: of everything that is drawn.
    """

    count: int
    random: int
    seed: int


def planted_units(
    describer: Describer,
    where: tuple[Side, Sequence[Path]],
    plot: Plot,
    out: Path,
    progress: Reporter,
) -> list[Judged]:
    """Plant units of one side's meanings, describe them, and say which texts are right.

    Args:
        describer: whose confidence it is.
        where: the side, and its files.
        plot: how many.
        out: new folder for the run.
        progress: told about the stages.

    Raises:
        InputError: photos that cannot be used, or a describer that does not tell its training.
    """
    side, images = where
    read = read_photos(images, describer.trained, reported=side.reports, seed=plot.seed)
    photos = of_side(read, side, plot.seed)
    sources = enough([meant_atoms(p, side) for p in photos], plot.seed)
    found: list[Judged] = []
    for number, some in enumerate(sources):
        count, random = (-(-asked // len(sources)) for asked in (plot.count, plot.random))
        own = Plot(count, random, plot.seed)
        found += _of_source(describer, some, own, out / f"source-{number}", progress)
    return found


def _of_source(
    describer: Describer,
    photos: Sequence[PlantedPhoto],
    plot: Plot,
    out: Path,
    progress: Reporter,
) -> list[Judged]:
    """Plant units in the photos of one source, describe and judge them."""
    searched, aside = apart(photos, plot.seed, OF_SOURCE)
    units = generate(searched, plot.count, plot.seed)
    rng = np.random.default_rng([plot.seed, 2])
    units = [_fewer(unit, rng) if rng.random() < FEW else unit for unit in units]
    units += [at_random(searched, units, rng) for _ in range(plot.random)]
    units = [answering(unit, searched, aside, rng) for unit in units]
    every = [*searched, *aside]
    store = plant_units(out, units, every, plot.seed, aside=len(aside))
    described = describer.describe(store, progress=progress)
    write_units(out, described, store)
    write_settings(out, {"target": {"name": "planted units"}})
    table = phrase_table({a for u in units for c in u.choices for a in c.atoms}
                         | committed_phrases().keys())  # fmt: skip
    right = [float(u.meaning != NOTHING and attribute_f1(d.text, u.meaning, table) >= RIGHT)
             for u, d in zip(units, described, strict=True)]  # fmt: skip
    planted = f"planted units, {photos[0].source}"
    kinds = [RANDOM if u.meaning == NOTHING else planted for u in units]
    meanings = ["" if u.meaning == NOTHING else u.meaning.phrase for u in units]
    return Judged.of_rows(open_run(out).rows, right, kinds, store, meanings)


def enough(photos: Sequence[PlantedPhoto], seed: int) -> list[list[PlantedPhoto]]:
    """Divide photos into sources, those with enough photographs and meanings to plant units.

    Each is described by itself, as a target is shown one collection: beside another source's units
    a text that says what the whole source shows would win, and tell units from nothing as little.

    Raises:
        InputError: no source has enough.
    """
    names = sorted({photo.source for photo in photos})
    every = [[p for p in photos if p.source == name] for name in names]
    found = [some for some in every if len({p.group for p in some}) >= LEAST_PHOTOS
             and _meanings(some, seed) >= LEAST_MEANINGS]  # fmt: skip
    if not found:
        raise InputError("too few photos to plant units",
                         f"no source has {LEAST_PHOTOS} unseen ones of this side",
                         "give more photos")  # fmt: skip
    return found


def _meanings(photos: Sequence[PlantedPhoto], seed: int) -> int:
    """Count the single meanings that the searched photos of one source can show."""
    searched, _ = apart(photos, seed, OF_SOURCE)
    return len(SourcePool(searched, photos[0].source, seed).meanings["single"])


def of_side(photos: Sequence[PlantedPhoto], side: Side, seed: int) -> list[PlantedPhoto]:
    """Return the photos of one side: those of classes of its own, and of no class.

    Of each file at most `PER_FILE` photographs are kept, drawn by ``seed``.
    """
    files: dict[str, list[str]] = {}
    for photo in photos:
        file = photo.source.split(":")[0]
        own = photo.kind != "class" or side.meant(next(iter(photo.atoms)))
        if own and photo.group not in files.setdefault(file, []):
            files[file].append(photo.group)
    rng = np.random.default_rng([seed, 4])
    kept = {(file, groups[i]) for file, groups in files.items()
            for i in rng.permutation(len(groups))[:PER_FILE]}  # fmt: skip
    return [p for p in photos if (p.source.split(":")[0], p.group) in kept]


def meant_atoms(photo: PlantedPhoto, side: Side) -> PlantedPhoto:
    """Forget the atoms of a photo that belong to the other side, or have no accepted phrases.

    Without phrases that were written down nobody can tell whether a text is right: "dogs" for the
    ears of dogs.
    """
    kept = {a: m for a, m in photo.atoms.items() if side.meant(a) and has_phrases(a)}
    return replace(photo, atoms=kept)


def apart(
    photos: Sequence[PlantedPhoto], seed: int, share: float = ASIDE
) -> tuple[list[PlantedPhoto], list[PlantedPhoto]]:
    """Keep a share of the photographs aside, with lettering or without."""
    groups = sorted({photo.group for photo in photos})
    drawn = np.random.default_rng([seed, 3]).permutation(len(groups))
    kept = {groups[i] for i in drawn[: round(share * len(groups))]}
    return ([p for p in photos if p.group not in kept], [p for p in photos if p.group in kept])


def _fewer(unit: PlantedUnit, rng: np.random.Generator) -> PlantedUnit:
    """Return a unit that shows its first few photos alone."""
    count = int(rng.integers(FEW_PHOTOS[0], FEW_PHOTOS[1] + 1))
    images = unit.images.copy()
    images[count:] = -1
    return replace(unit, images=images)


def at_random(
    photos: Sequence[PlantedPhoto], units: Sequence[PlantedUnit], rng: np.random.Generator
) -> PlantedUnit:
    """Build a set of photos of one source at random, with the masks of a unit of that source."""
    other = units[int(rng.integers(len(units)))]
    source = photos[int(other.images[0])].source
    able = [i for i, p in enumerate(photos) if p.source == source and p.text is None]
    images = rng.permutation(able)[:K].astype(np.int64)
    images = np.concatenate([images, np.full(K - len(images), -1, np.int64)])
    answers = rng.uniform(0, BACKGROUND, len(photos)).astype(np.float32)
    answers[images[images >= 0]] = 1 - BACKGROUND
    return replace(other, meaning=NOTHING, images=images, activations=answers)


def answering(
    unit: PlantedUnit,
    searched: Sequence[PlantedPhoto],
    aside: Sequence[PlantedPhoto],
    rng: np.random.Generator,
) -> PlantedUnit:
    """Tell how much the photos kept aside excite a unit; those of other sources not at all."""
    source = searched[int(unit.images[0])].source
    answers = rng.uniform(0, BACKGROUND, len(aside)).astype(np.float32)
    here = [i for i, p in enumerate(aside) if p.source == source]
    if here and unit.meaning != NOTHING:
        empty = np.zeros((MAP, MAP), np.float32)
        maps = {a: np.stack([aside[i].atoms.get(a, empty) for i in here])
                for a in unit.meaning.atoms}  # fmt: skip
        maps = {a: np.where(m.max((1, 2), keepdims=True) >= 0.5, m, 0) for a, m in maps.items()}
        answers[here] += combine(maps, unit.meaning).max((1, 2)) * (1 - BACKGROUND)
    elif here:
        answers[here] = rng.permutation(
            np.resize(unit.activations[[i for i, p in enumerate(searched)
                                        if p.source == source]], len(here))
        )  # fmt: skip
    elsewhere = [i for i, p in enumerate(aside) if p.source != source]
    answers[elsewhere] = 0
    return replace(unit, activations=np.concatenate([unit.activations, answers]))
