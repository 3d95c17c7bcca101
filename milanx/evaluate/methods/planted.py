"""One table of all methods by P2: are the meanings of planted units found?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from milanx.describing.trained import Trained
from milanx.evaluate.common.rows import constant, shuffled
from milanx.evaluate.methods.say import ARGMAX, Said
from milanx.evaluate.methods.tables import Report, Scoring, Tools, weighted
from milanx.evaluate.p2.photos import read_photos
from milanx.evaluate.p2.planted import PlantedUnit, generate
from milanx.evaluate.p2.protocol import Chooser, Planting, plant_units, trained_by
from milanx.evaluate.p2.texts import (
    attribute_f1,
    committed_phrases,
    connective_of,
    find_atoms,
    phrase_table,
)
from milanx.measures.crossing import Crossing


def p2_table(asked: Planting, out: Path, tools: Tools, *, overwrite: bool = False) -> Report:
    """Score every method on planted units.

    Args:
        asked: what is planted; photos that the describer or MILAN was trained on are left out.
        out: where the planted store is written.
        tools: of the methods.
        overwrite: replace a run folder that is there.
    """
    started, seed = time.monotonic(), asked.seed
    photos = read_photos(asked.images, _trained(tools, asked), reported=True, seed=seed)
    planted = generate(photos, asked.count, seed, asked.kinds)
    store = plant_units(out, planted, photos, seed, overwrite=overwrite)
    units = [(layer, unit, sign) for layer in store.layers for unit, sign in store.units(layer)]
    harness = tools.harness(store, units)
    said: dict[str, Said] = {}
    for method in tools.methods:
        said[method] = harness.say(method)
        if method == "describer":
            said[ARGMAX] = harness.likeliest()
    shown = Crossing([[photos[i].group for i in u.images if i >= 0] for u in planted], seed)
    scores = _Scores(planted, [text for one in said.values() for text in one.texts])

    def figures(one: Said, own: np.ndarray) -> dict[str, Any]:
        texts = list(one.texts)
        choices = np.array([scores.choose(i, text) for i, text in enumerate(texts)])
        joined = np.array([scores.joined(i, text) for i, text in enumerate(texts)])
        return {
            "attribute F1": shown.interval(own),
            "forced choice": shown.interval(choices),
            "connective": shown.interval(joined),
            "shuffled": shown.interval(shuffled(scores.f1, texts, seed)),
            "constant": shown.interval(constant(scores.f1, texts, seed)),
        }

    table = Scoring(said, scores.own, figures, weighted(shown.weights))
    return table.report("P2 planted units, all methods", len(units), started) | {
        "photos": len(photos),
        "seed": seed,
        "describer": tools.describer.name,
        "units": [
            {"meaning": u.meaning.phrase,
             **{name: one.texts[i] for name, one in said.items() if one.texts}}
            for i, u in enumerate(planted)
        ],
    }  # fmt: skip


class _Scores:
    """How texts fare on planted units; what a text names is looked for once."""

    def __init__(self, planted: Sequence[PlantedUnit], texts: Sequence[str]) -> None:
        self.planted = planted
        atoms = {a for u in planted for c in u.choices for a in c.atoms}
        self.table = phrase_table(atoms | committed_phrases().keys())
        self.found = {text: find_atoms(text, self.table) for text in set(texts)}
        self.choose = Chooser(list(planted), list(texts))

    def f1(self, unit: int, text: str) -> float:
        """Return the attribute F1 of a text on a unit."""
        return attribute_f1(text, self.planted[unit].meaning, self.table, self.found[text])

    def joined(self, unit: int, text: str) -> float:
        """Whether a text joins what it names as the unit's meaning does."""
        return float(connective_of(text) == self.planted[unit].meaning.connective)

    def own(self, said: Said) -> np.ndarray:
        """Return the attribute F1 of each unit's own text: float [n]."""
        return np.array([self.f1(i, text) for i, text in enumerate(said.texts)])


def _trained(tools: Tools, asked: Planting) -> Trained | None:
    """What any of the methods was trained on; None where nothing is told, as `trained_by` says."""
    trained = trained_by(tools.describer, asked)
    if trained is None or tools.milan is None:
        return trained
    return Trained((*trained.photos, *tools.milan.trained.photos), trained.held_out)
