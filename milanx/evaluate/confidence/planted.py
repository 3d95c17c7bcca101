"""Planted units with images kept aside: what confidence is calibrated and reported on.

They are P2's, with meanings of one side alone; beside them stand sets of photos drawn at random,
which mean nothing, so that every text for them is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from milanx.evaluate.confidence.lists import Side
from milanx.evaluate.confidence.units import Judged
from milanx.evaluate.p2.photos import PlantedPhoto, read_photos
from milanx.evaluate.p2.planted import BACKGROUND, K, PlantedUnit, generate
from milanx.evaluate.p2.protocol import plant_units
from milanx.evaluate.p2.texts import attribute_f1, committed_phrases, has_phrases, phrase_table
from milanx.exemplars.planted import MAP, Meaning, combine
from milanx.progress import Reporter
from milanx.runs import open_run, write_settings, write_units
from milanx.scoring.column import score_stored

if TYPE_CHECKING:
    from milanx.describing.describer import Describer
    from milanx.scoring.simulator import Simulator

RIGHT = 0.66  # attribute F1 from which a text counts as right: at most one atom too many or too few
ASIDE = 0.2  # share of the photos that are kept aside, as of any run
FEW = 0.2  # share of the units that show few photos
FEW_PHOTOS = (3, 7)  # how many
NOTHING = Meaning(("nothing",))  # what a set drawn at random means
PER_FILE = 800  # photos that are read of a file
BATCH = 32
RANDOM = "sets of photos at random"


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
    simulator: Simulator,
    where: tuple[Side, Sequence[Path]],
    plot: Plot,
    out: Path,
    progress: Reporter,
) -> list[Judged]:
    """Plant units of one side's meanings, describe and score them, and say which texts are right.

    Args:
        describer: whose confidence it is.
        simulator: which scores.
        where: the side, and its files.
        plot: how many.
        out: new folder for the run.
        progress: told about the stages.

    Raises:
        InputError: photos that cannot be used, or a describer that does not tell its training.
    """
    side, images = where
    photos = read_photos(
        images, describer.trained, per_file=PER_FILE, reported=False, seed=plot.seed
    )
    searched, aside = apart([meant_atoms(p, side) for p in photos], plot.seed)
    units = generate(searched, plot.count, plot.seed)
    rng = np.random.default_rng([plot.seed, 2])
    units = [_fewer(unit, rng) if rng.random() < FEW else unit for unit in units]
    units += [at_random(searched, units, rng) for _ in range(plot.random)]
    units = [answering(unit, searched, aside, rng) for unit in units]
    every = [*searched, *aside]
    store = plant_units(out, units, every, plot.seed, aside=len(aside))
    found = describer.describe(store, progress=progress)
    texts = {(d.layer, d.unit, d.sign): d.text for d in found}

    def look(indices: np.ndarray) -> np.ndarray:
        parts = []
        for start in range(0, len(indices), BATCH):
            views = np.stack([every[i].view for i in indices[start : start + BATCH]])
            pixels = torch.from_numpy(views).permute(0, 3, 1, 2)
            parts.append(simulator.encode(pixels).numpy().astype(np.float16))
        return np.concatenate(parts)

    with progress.stage("score", None):
        scores = score_stored(texts, store, simulator, look, plot.seed)
    write_units(out, found, store, scores.units)
    write_settings(out, {"target": {"name": "planted units"}})
    table = phrase_table({a for u in units for c in u.choices for a in c.atoms}
                         | committed_phrases().keys())  # fmt: skip
    right = [float(u.meaning != NOTHING and attribute_f1(d.text, u.meaning, table) >= RIGHT)
             for u, d in zip(units, found, strict=True)]  # fmt: skip
    kinds = [RANDOM if u.meaning == NOTHING else "planted units" for u in units]
    return Judged.of_rows(open_run(out).rows, right, kinds, store)


def meant_atoms(photo: PlantedPhoto, side: Side) -> PlantedPhoto:
    """Forget the atoms of a photo that belong to the other side, or have no accepted phrases.

    Without phrases that were written down nobody can tell whether a text is right: "dogs" for the
    ears of dogs.
    """
    kept = {a: m for a, m in photo.atoms.items() if side.meant(a) and has_phrases(a)}
    return replace(photo, atoms=kept)


def apart(
    photos: Sequence[PlantedPhoto], seed: int
) -> tuple[list[PlantedPhoto], list[PlantedPhoto]]:
    """Keep a share of the photographs aside, with lettering or without."""
    groups = sorted({photo.group for photo in photos})
    drawn = np.random.default_rng([seed, 3]).permutation(len(groups))
    kept = {groups[i] for i in drawn[: round(ASIDE * len(groups))]}
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
