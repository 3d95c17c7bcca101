"""P2, planted units: are the atoms of a known meaning found, and is it told from similar ones?"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from milanx.describing.trained import Trained, held_out
from milanx.errors import InputError
from milanx.evaluate.common.names import accepted_names
from milanx.evaluate.common.rows import ahead, constant, shuffled
from milanx.evaluate.p2.photos import PlantedPhoto, read_photos
from milanx.evaluate.p2.planted import PlantedUnit, generate
from milanx.evaluate.p2.texts import (
    attribute_f1,
    committed_phrases,
    connective_of,
    find_atoms,
    phrase_table,
)
from milanx.evaluate.p2.variations import Variation
from milanx.exemplars.planted import plant
from milanx.files.kinds import RUN
from milanx.files.replacing import check_place
from milanx.language.compare import Sentences
from milanx.measures.crossing import Crossing
from milanx.progress import Reporter, Silent

if TYPE_CHECKING:
    from milanx.describing.describer import Describer
    from milanx.exemplars.store import ExemplarStore

FURTHER = 400  # views beside the exemplars, in which contrast can be found
CONNECTIVES = ("single", "and", "or", "and-not")


@dataclass(frozen=True)
class Planting:
    """What is planted, on which photos.

    Attributes:
        images: parquet files with regions or names; photos that the describer's folder tells as
            trained on, and their near-duplicates, are left out.
        whole: those of them of which the user says that no training read any photo; this is needed
            where the folder tells nothing.
        count: units.
        seed: of everything that is drawn.
        kinds: of single meanings, which alone are planted; all meanings when empty.
        vary: settings of the search under which the same units are described once more each.
    """

    images: tuple[Path, ...]
    whole: tuple[Path, ...] = ()
    count: int = 200
    seed: int = 0
    kinds: tuple[str, ...] = ()
    vary: tuple[Variation, ...] = ()


def evaluate(
    describer: Describer,
    asked: Planting,
    *,
    out: Path | None = None,
    overwrite: bool = False,
    progress: Reporter | None = None,
) -> dict[str, Any]:
    """Plant units on photos that no training saw, describe them, and score the descriptions.

    Args:
        describer: what is measured.
        asked: what is planted.
        out: where the planted store is written; a temporary folder when None.
        overwrite: replace a run folder that is there.
        progress: told about encoding and describing.

    Returns:
        A report with rows, 95 % intervals and notes.

    Raises:
        InputError: photos that cannot be used, a describer that does not tell which it was trained
            on, or ``out`` holds what must not be replaced.
    """
    started = time.monotonic()
    if out:
        check_place(out, RUN, overwrite=overwrite)
    varied = {str(v): v.of(describer) for v in asked.vary}
    photos = read_photos(asked.images, trained_by(describer, asked), reported=True, seed=asked.seed)
    units = generate(photos, asked.count, asked.seed, asked.kinds)
    with tempfile.TemporaryDirectory() as folder:
        place = out or Path(folder) / "planted"
        store = plant_units(place, units, photos, asked.seed, overwrite=overwrite)
        progress = progress or Silent()
        found = describer.describe(store, progress=progress)
        others = {name: [d.text for d in describer.describe(store, settings=how, progress=progress)]
                  for name, how in varied.items()}  # fmt: skip
    texts = [d.text for d in found]
    argmax = [d.likeliest for d in found]
    shown = Crossing([[photos[i].group for i in u.images if i >= 0] for u in units], asked.seed)
    never = held_out(describer.training)
    held = {accepted_names()[w][0] for w in never or () if w in accepted_names()}
    report = _report(units, _Said(texts, argmax, others), held, shown, asked.seed)
    if never is None:
        report["notes"].append("classes that training never named: no row, the describer's folder "
                               "does not tell them")  # fmt: skip
    report |= {
        "describer": describer.name,
        "photos": len(photos),
        "seed": asked.seed,
        "seconds": round(time.monotonic() - started, 1),
        "units": [
            {"meaning": u.meaning.phrase, "connective": u.meaning.connective,
             "kinds": list(u.kinds), "description": t}
            for u, t in zip(units, texts, strict=True)
        ],
    }  # fmt: skip
    return report


def trained_by(describer: Describer, asked: Planting) -> Trained | None:
    """What was trained on; None where it is not told, and the user says of all files that none was.

    Raises:
        InputError: it is not told, and the user does not say so.
    """
    try:
        return describer.trained
    except InputError:
        if set(asked.images) <= set(asked.whole):
            return None
        raise


def plant_units(
    out: Path,
    units: Sequence[PlantedUnit],
    photos: Sequence[PlantedPhoto],
    seed: int,
    *,
    aside: int = 0,
    overwrite: bool = False,
) -> ExemplarStore:
    """Write units as a store: exemplars, activations of all photos, and views for contrast.

    The further views are, for each unit, two photos that show a part of its meaning and leave it
    below its median where there are such, and others at random. The last ``aside`` photos are kept
    aside: no unit shows them.
    """
    rng = np.random.default_rng(seed)
    kept = len(photos) - aside
    activations = np.stack([u.activations for u in units], 1)
    shown = {int(i) for u in units for i in u.images if i >= 0}
    low = activations < np.median(activations, 0)
    low[kept:] = False
    further: list[int] = []
    for number, unit in enumerate(units):
        partly = np.array([low[i, number] and any(a in p.atoms for a in unit.meaning.atoms)
                           for i, p in enumerate(photos)])  # fmt: skip
        further += rng.permutation(np.flatnonzero(partly))[:2].tolist()
    rest = rng.permutation(kept).tolist()
    more = [i for i in dict.fromkeys([*further, *rest]) if i not in shown][:FURTHER]
    return plant(
        out,
        [u.images for u in units],
        [u.maps for u in units],
        ((i, photos[i].view) for i in sorted({*shown, *more})),
        [
            {
                "index": i,
                "split": "exemplars" if i < kept else "aside",
                "source": p.source,
                "group": p.group or None,
            }
            for i, p in enumerate(photos)
        ],
        activations=activations,
        overwrite=overwrite,
    )


@dataclass(frozen=True)
class _Said:
    """Texts of the units: the descriptions, the likeliest of p(d|E), those of other settings."""

    texts: list[str]
    argmax: list[str]
    varied: dict[str, list[str]]


def _report(
    units: list[PlantedUnit],
    said: _Said,
    held: set[str],
    shown: Crossing,
    seed: int,
) -> dict[str, Any]:
    """Score descriptions.

    Args:
        units: what is described.
        said: of them.
        held: classes that training never named.
        shown: draws of the units and of the photographs of their exemplars.
        seed: of folds and permutations.
    """
    texts, argmax = said.texts, said.argmax
    bootstrap = shown.interval
    atoms = {a for u in units for c in u.choices for a in c.atoms}
    table = phrase_table(atoms | committed_phrases().keys())
    choose = Chooser(units, texts)
    canonical = [u.meaning.phrase for u in units]
    found = {
        t: find_atoms(t, table)
        for t in {*texts, *argmax, *canonical, *itertools.chain(*said.varied.values())}
    }

    def f1(unit: int, text: str) -> float:
        return attribute_f1(text, units[unit].meaning, table, found[text])

    def joined(unit: int, text: str) -> float:
        return float(connective_of(text) == units[unit].meaning.connective)

    own = np.array([f1(i, t) for i, t in enumerate(texts)])
    right = np.array([choose(i, t) for i, t in enumerate(texts)])
    connective = np.array([joined(i, t) for i, t in enumerate(texts)])
    others = {
        "constant": constant(f1, texts, seed),
        "shuffled": shuffled(f1, texts, seed),
        "argmax": np.array([f1(i, t) for i, t in enumerate(argmax)]),
    }
    chance = np.array([choose(i, u.outside) for i, u in enumerate(units)])
    rows: dict[str, dict[str, Any]] = {
        "description": {
            "attribute F1": bootstrap(own),
            "forced choice": bootstrap(right),
            "connective": bootstrap(connective),
        },
        "argmax p(d|E)": {"attribute F1": bootstrap(others["argmax"])},
        "constant": {"attribute F1": bootstrap(others["constant"])},
        "shuffled": {
            "attribute F1": bootstrap(others["shuffled"]),
            "forced choice": bootstrap(shuffled(choose, texts, seed)),
            "connective": bootstrap(shuffled(joined, texts, seed)),
        },
        "most similar phrase outside the five (chance .2)": {"forced choice": bootstrap(chance)},
        "canonical phrase": {
            "attribute F1": bootstrap(np.array([f1(i, t) for i, t in enumerate(canonical)])),
            "connective": bootstrap(np.array([joined(i, t) for i, t in enumerate(canonical)])),
        },
    }
    for name, other in said.varied.items():
        theirs = np.array([f1(i, t) for i, t in enumerate(other)])
        rows[f"with {name}"] = {"attribute F1": bootstrap(theirs),
                                "description less this": shown.paired(own, theirs)}  # fmt: skip
    for name, inside in _parts(units, held):
        if inside.any():
            rows[f"  {name} (n = {int(inside.sum())})"] = {
                "attribute F1": bootstrap(own, inside),
                "forced choice": bootstrap(right, inside),
                "connective": bootstrap(connective, inside),
            }
    notes = [ahead("description", own, name, other, shown.paired)
             for name, other in others.items()]  # fmt: skip
    notes.append("and-not: a describer that looks at no contrast views cannot know of absence")
    return {"protocol": "P2 planted units", "n": len(units), "rows": rows, "notes": notes}


def _parts(units: list[PlantedUnit], held: set[str]) -> list[tuple[str, np.ndarray]]:
    """Parts of the units that are reported apart: name and which, bool [n]."""
    parts = [(c, np.array([u.meaning.connective == c for u in units])) for c in CONNECTIVES]
    joined = np.array([u.meaning.connective in ("and", "or") for u in units])
    parts.append(("and / or", joined))
    for kind in sorted({k for u in units for k in u.kinds}):
        single = np.array([u.kinds == (kind,) for u in units])
        parts.append((f"single, {kind}", single))
    for kind in sorted({k for u in units for k in u.kinds}):
        several = np.array([len(u.kinds) > 1 and kind in u.kinds for u in units])
        parts.append((f"joined, with {kind}", several))
    never = np.array([bool(held & set(u.meaning.atoms)) for u in units])
    parts.append(("with a class that training never named", never))
    return parts


class Chooser:
    """Forced choice among five meanings by sentence similarity; a tie is wrong."""

    def __init__(self, units: list[PlantedUnit], texts: list[str]) -> None:
        self.units = units
        phrases = {c.phrase for u in units for c in u.choices} | {u.outside for u in units}
        known = sorted({t or "nothing" for t in phrases | set(texts)})
        self._rows = dict(zip(known, Sentences()(known), strict=True))

    def __call__(self, unit: int, text: str) -> float:
        """Whether ``text`` picks the unit's own meaning."""
        mine = self._rows[text or "nothing"]
        scores = [float(mine @ self._rows[c.phrase]) for c in self.units[unit].choices]
        true = self.units[unit].choices.index(self.units[unit].meaning)
        others = scores[:true] + scores[true + 1 :]
        return float(scores[true] > max(others))
