"""Pools of development units: planted ones, and those of hidden layers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from milanx.describing.candidates import Candidate
from milanx.evaluate.p2.photos import read_photos
from milanx.evaluate.p2.planted import generate
from milanx.evaluate.p2.protocol import plant_units
from milanx.evaluate.p2.texts import attribute_f1, committed_phrases, find_atoms, phrase_table
from milanx.evaluate.p3.aside import read_probe
from milanx.evaluate.p3.protocol import layer_scores
from milanx.evaluate.weights.lists import DEVELOPMENT, WeightsAsked, for_development
from milanx.evaluate.weights.pools import EVERY, Pool, PoolSet
from milanx.pipeline import describe
from milanx.progress import Reporter

if TYPE_CHECKING:
    from milanx.describing.describer import Describer
    from milanx.runs import Run


def planted(describer: Describer, asked: WeightsAsked, seed: int, progress: Reporter) -> PoolSet:
    """Plant units as P2 does, and say of every text that is found its attribute F1."""
    photos = read_photos(
        asked.images, describer.trained, per_file=asked.per_file, seed=seed,
        apart=lambda group: not for_development(group),
    )  # fmt: skip
    units = generate(photos, asked.count, seed)
    store = plant_units(asked.out / f"planted-{seed}", units, photos, seed)
    how = replace(describer.settings, candidates=EVERY)
    found = describer.describe(store, settings=how, progress=progress)
    table = phrase_table({a for u in units for c in u.choices for a in c.atoms}
                         | committed_phrases().keys())  # fmt: skip
    named = {t: find_atoms(t, table) for t in {c.text for d in found for c in d.candidates}}
    pools = []
    for unit, description in zip(units, found, strict=True):
        worth = {c.text: attribute_f1(c.text, unit.meaning, table, named[c.text])
                 for c in description.candidates}  # fmt: skip
        shown = [photos[i].group for i in unit.images if i >= 0]
        pools.append(Pool.of(description.candidates, worth, shown))
    return PoolSet(f"planted units, seed {seed}: attribute F1", tuple(pools))


def hidden(describer: Describer, asked: WeightsAsked, progress: Reporter) -> list[PoolSet]:
    """Describe layers of real targets, and say of every text what it foretells, as P3 does."""
    sets = []
    for target, layers in DEVELOPMENT.layers.items():
        run = describe(
            target, layers=[f"{layer}:0-{asked.units - 1}" for layer in layers],
            images=[str(path) for path in asked.images], limit=asked.limit, describer=describer,
            search=replace(describer.settings, candidates=EVERY), score=False,
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
        sets.append(PoolSet(f"{target} {layer}: correlation on images kept aside", tuple(pools)))
    return sets
