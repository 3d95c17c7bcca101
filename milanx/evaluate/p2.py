"""P2, planted units: are the atoms of a known meaning found, and is it told from similar ones?"""

from __future__ import annotations

import json
import tempfile
import time
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from milanx.evaluate.planted import PlantedUnit, generate, read_photos
from milanx.evaluate.rows import constant, shuffled
from milanx.evaluate.statistics import bootstrap, paired
from milanx.evaluate.text import Sentences, find_phrase, lemmas
from milanx.language import normalise_text
from milanx.probes import Meaning, plant
from milanx.progress import Reporter, Silent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from milanx.describer import Describer

HELD_OUT = 0.2  # share of the photos that no training of a describer sees, by group
NEGATIONS = frozenset({"without", "no", "not", "but"})


def phrase_table(atoms: set[str]) -> dict[str, list[list[str]]]:
    """Return atom -> lemmatised phrases, from the committed table; else its own name."""
    text = resources.files("milanx.evaluate").joinpath("p2_phrases.json").read_text("utf-8")
    table = json.loads(text)
    return {atom: [lemmas(p) for p in table.get(atom, [atom])] for atom in atoms}


def attribute_f1(text: str, meaning: Meaning, table: dict[str, list[list[str]]]) -> float:
    """F1 of the atoms found in a text with the right polarity, against those of a meaning.

    A word that belongs to an atom of the meaning never counts against it.
    """
    words = lemmas(text)
    negated = next((i for i, w in enumerate(normalise_text(text).split()) if w in NEGATIONS), None)
    found: dict[str, bool] = {}
    for atom, phrases in table.items():
        places = [at for p in phrases if (at := find_phrase(words, p)) >= 0]
        if places:
            found[atom] = negated is not None and min(places) > negated
    wanted = {
        atom: meaning.connective == "and-not" and i == 1 for i, atom in enumerate(meaning.atoms)
    }
    hits = sum(found.get(atom) == negative for atom, negative in wanted.items())
    own = [p for atom in wanted for p in table[atom]]
    false = sum(
        1
        for atom in found
        if found[atom] != wanted.get(atom, not found[atom])
        and not (
            atom not in wanted and any(p in own for p in table[atom] if find_phrase(words, p) >= 0)
        )
    )
    if not hits:
        return 0.0
    precision, recall = hits / (hits + false), hits / len(wanted)
    return 2 * precision * recall / (precision + recall)


def connective_of(text: str) -> str:
    """Read the connective off a text."""
    words = normalise_text(text).split()
    if NEGATIONS & set(words):
        return "and-not"
    return "or" if "or" in words else "and" if "and" in words else "single"


def evaluate(
    describer: Describer,
    images: Sequence[Path],
    *,
    count: int = 200,
    seed: int = 0,
    out: Path | None = None,
    progress: Reporter | None = None,
) -> dict[str, Any]:
    """Plant units on held-out photos, describe them, and score the descriptions.

    Args:
        describer: what is measured.
        images: parquet files with regions or names; the held-out fifth is used.
        count: units.
        seed: of everything that is drawn.
        out: where the planted store is written; a temporary folder when None.
        progress: told about encoding and describing.

    Returns:
        A report with rows, 95 % intervals and notes.

    Raises:
        InputError: photos that cannot be used.
    """
    started = time.monotonic()
    progress = progress or Silent()
    photos = read_photos(images, HELD_OUT)
    units = generate(photos, count, seed)
    shown = sorted({int(i) for u in units for i in u.images if i >= 0})
    records = [{"index": i, "split": "exemplars"} for i in range(len(photos))]
    with tempfile.TemporaryDirectory() as folder:
        store = plant(
            out or Path(folder) / "planted",
            [u.images for u in units],
            [u.maps for u in units],
            ((i, photos[i].view) for i in shown),
            records,
        )
        found = describer.describe(store, progress=progress)
    texts = [d.text for d in found]
    argmax = [
        max(d.candidates, key=lambda c: c.log_p_given_exemplars).text if d.candidates else ""
        for d in found
    ]
    report = _report(units, texts, argmax, seed)
    report |= {
        "describer": describer.name,
        "photos": len(photos),
        "seed": seed,
        "seconds": round(time.monotonic() - started, 1),
        "units": [
            {"meaning": u.meaning.phrase, "description": t}
            for u, t in zip(units, texts, strict=True)
        ],
    }
    return report


def _report(
    units: list[PlantedUnit], texts: list[str], argmax: list[str], seed: int
) -> dict[str, Any]:
    table = phrase_table({a for u in units for c in u.choices for a in c.atoms})
    choose = _Chooser(units, texts + argmax)

    def f1(unit: int, text: str) -> float:
        return attribute_f1(text, units[unit].meaning, table)

    own = np.array([f1(i, t) for i, t in enumerate(texts)])
    likeliest = np.array([f1(i, t) for i, t in enumerate(argmax)])
    upper = np.array([f1(i, u.meaning.phrase) for i, u in enumerate(units)])
    single, at_random = constant(f1, texts, seed), shuffled(f1, texts, seed)
    right = np.array([choose(i, t) for i, t in enumerate(texts)])
    chance = np.array([choose(i, choose.nearest_wrong(i)) for i in range(len(units))])
    rows = {
        "description": {"attribute F1": bootstrap(own), "forced choice": bootstrap(right)},
        "argmax p(d|E)": {"attribute F1": bootstrap(likeliest)},
        "constant": {"attribute F1": bootstrap(single)},
        "shuffled": {
            "attribute F1": bootstrap(at_random),
            "forced choice": bootstrap(shuffled(choose, texts, seed)),
        },
        "most similar wrong phrase": {"forced choice": bootstrap(chance)},
        "canonical phrase": {"attribute F1": bootstrap(upper)},
    }
    notes = []
    for name, other in (("constant", single), ("shuffled", at_random), ("argmax", likeliest)):
        difference = paired(own, other)
        low, high = difference["interval"]
        notes.append(
            f"description - {name}: {difference['estimate']:+.3f} [{low:+.3f}, {high:+.3f}]"
        )
    for kind in ("single", "and", "or", "and-not"):
        inside = np.array([u.meaning.connective == kind for u in units])
        if inside.any():
            joined = np.mean(
                [connective_of(t) == kind for t, i in zip(texts, inside, strict=True) if i]
            )
            rows[f"  {kind} (n = {int(inside.sum())})"] = {
                "attribute F1": bootstrap(own[inside]),
                "forced choice": bootstrap(right[inside]),
            }
            notes.append(f"connective right, {kind}: {joined:.2f}")
    notes.append("and-not: without contrast views absence cannot be known; unidentifiable")
    return {"protocol": "P2 planted units", "n": len(units), "rows": rows, "notes": notes}


class _Chooser:
    """Forced choice among five meanings by sentence similarity; a tie is wrong."""

    def __init__(self, units: list[PlantedUnit], texts: list[str]) -> None:
        self.units = units
        phrases = sorted(
            {c.phrase for u in units for c in u.choices} | {t or "nothing" for t in texts}
        )
        self._rows = dict(zip(phrases, Sentences()(phrases), strict=True))

    def __call__(self, unit: int, text: str) -> float:
        """Whether ``text`` picks the unit's own meaning."""
        mine = self._rows[text or "nothing"]
        scores = [float(mine @ self._rows[c.phrase]) for c in self.units[unit].choices]
        true = self.units[unit].choices.index(self.units[unit].meaning)
        others = scores[:true] + scores[true + 1 :]
        return float(scores[true] > max(others))

    def nearest_wrong(self, unit: int) -> str:
        """Return the phrase of the wrong choice that is most similar to the true one."""
        meaning = self.units[unit].meaning
        mine = self._rows[meaning.phrase]
        wrong = [c for c in self.units[unit].choices if c != meaning]
        return max(wrong, key=lambda c: float(mine @ self._rows[c.phrase])).phrase
