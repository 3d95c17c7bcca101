"""Pools of development units: planted ones, and those of hidden layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from milanx.describing.candidates import Candidate
from milanx.evaluate.common.names import ClassNamer, accepted_names
from milanx.evaluate.p2.photos import PlantedPhoto, read_photos
from milanx.evaluate.p2.planted import PlantedUnit, SourcePool, build, generate
from milanx.evaluate.p2.protocol import plant_units
from milanx.evaluate.p2.texts import attribute_f1, committed_phrases, phrase_table
from milanx.evaluate.p3.aside import read_probe
from milanx.evaluate.p3.protocol import layer_scores
from milanx.evaluate.weights.lists import DEVELOPMENT, WeightsAsked, for_development
from milanx.evaluate.weights.pools import EVERY, FORETELLING, Pool, PoolSet
from milanx.pipeline import describe
from milanx.progress import Reporter

if TYPE_CHECKING:
    from milanx.describing.describer import Describer
    from milanx.describing.settings import SearchSettings
    from milanx.runs import Run

MEASURED = 1e-9  # nats: a weight under which a term is measured and changes nothing


def planted(
    describer: Describer, asked: WeightsAsked, seed: int, progress: Reporter
) -> list[PoolSet]:
    """Plant units as P2 does, and sets of classes as logits have them.

    Returns:
        P2's units, each text worth its attribute F1; and those of classes, each text worth 1 where
        it names the class as P1 counts it.
    """
    photos = read_photos(
        asked.images, describer.trained, per_file=asked.per_file, seed=seed,
        apart=lambda group: not for_development(group), reported=False,
    )  # fmt: skip
    units = generate(photos, asked.count, seed)
    table = phrase_table({a for u in units for c in u.choices for a in c.atoms}
                         | committed_phrases().keys())  # fmt: skip
    place = asked.out / f"planted-{seed}"
    mixed = _described(describer, place, (units, photos), seed, progress,
                       lambda u, text: attribute_f1(text, u.meaning, table))  # fmt: skip
    made = [PoolSet(f"planted units, seed {seed}", "attribute F1", mixed)]
    logits = class_units(photos, asked.sets, seed)
    if logits:
        known = {names[0].lower(): wnid for wnid, names in accepted_names().items()}
        namer = ClassNamer(list(accepted_names()))
        named = _described(
            describer, asked.out / f"classes-{seed}", (logits, photos), seed, progress,
            lambda u, text: float(namer.right(text, known[u.meaning.atoms[0]])),
        )  # fmt: skip
        able = tuple(pool for pool in named if pool.best() > 0)  # others tell no weights apart
        made.append(PoolSet(f"sets of classes, seed {seed}", "class named", able))
    return [one for one in made if one.pools]


def class_units(photos: Sequence[PlantedPhoto], sets: int, seed: int) -> list[PlantedUnit]:
    """Plant ``sets`` units of each class that has photos: impure, their masks whole views."""
    rng = np.random.default_rng([seed, 1])
    made = []
    for source in sorted({photo.source for photo in photos if photo.kind == "class"}):
        pool = SourcePool(photos, source, seed)
        for meaning in pool.meanings["single"]:
            if pool.group(meaning) == ("class",):
                units = [build(pool, meaning, len(photos), rng) for _ in range(sets)]
                made += [replace(unit, maps=np.ones_like(unit.maps)) for unit in units]
    return made


def keeping_all(settings: SearchSettings) -> SearchSettings:
    """Return settings under which every text is kept, and every term is measured.

    One that costs nothing yet is given a weight too small to change a ranking.
    """
    return replace(settings, candidates=EVERY, agreement=settings.agreement or MEASURED,
                   response=settings.response or MEASURED,
                   absent=settings.absent or MEASURED)  # fmt: skip


def _described(
    describer: Describer,
    place: Path,
    made: tuple[Sequence[PlantedUnit], Sequence[PlantedPhoto]],
    seed: int,
    progress: Reporter,
    worth: Callable[[PlantedUnit, str], float],
) -> tuple[Pool, ...]:
    """Describe planted units, keeping every text, and say what each is worth."""
    units, photos = made
    store = plant_units(place, units, photos, seed)
    how = keeping_all(describer.settings)
    found = describer.describe(store, settings=how, progress=progress)
    return tuple(
        Pool.of(d.candidates, {c.text: worth(unit, c.text) for c in d.candidates},
                [photos[i].group for i in unit.images if i >= 0])
        for unit, d in zip(units, found, strict=True)
    )  # fmt: skip


def hidden(describer: Describer, asked: WeightsAsked, progress: Reporter) -> list[PoolSet]:
    """Describe layers of real targets, and say of every text what it foretells, as P3 does."""
    sets = []
    for target, layers in DEVELOPMENT.layers.items():
        run = describe(
            target, layers=[f"{layer}:0-{asked.units - 1}" for layer in layers],
            images=[str(path) for path in asked.images], limit=asked.limit, describer=describer,
            search=keeping_all(describer.settings), score=False,
            out=asked.out / target, progress=progress,
        )  # fmt: skip
        sets += _foretelling(run, target, asked.seed, progress)
    return sets


def _foretelling(run: Run, target: str, seed: int, progress: Reporter) -> list[PoolSet]:
    """Measure all texts of a run's units on the images kept aside, a set a layer."""
    probe = read_probe(run, seed=seed, progress=progress)
    groups = [str(row["group"]) for row in run.store.image_table()]
    sets = []
    for layer in run.store.layers:
        made, places = layer_scores(run, layer, probe, seed)
        rows = [run.rows[place] for place in places]
        found = [[Candidate.from_row(c) for c in row["candidates"]] for row in rows]
        texts = sorted({c.text for candidates in found for c in candidates})
        sigmoids = made.sigmoids([row["description"] for row in rows])
        table = made.table(texts, sigmoids)
        column = {text: i for i, text in enumerate(texts)}
        pools = []
        for row, candidates, scores in zip(rows, found, table.tolist(), strict=True):
            worth = {c.text: scores[column[c.text]] for c in candidates}
            pools.append(Pool.of(candidates, worth, [groups[i] for i in row["images"]]))
        sets.append(PoolSet(f"{target} {layer}", FORETELLING, tuple(pools)))
    return sets
