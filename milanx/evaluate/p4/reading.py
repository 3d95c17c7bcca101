"""P4's second half: reads the choices, opens the key, and reports."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from milanx.errors import FormatError, InputError
from milanx.evaluate.common.rows import ahead
from milanx.evaluate.p4.questions import KINDS
from milanx.evaluate.p4.sheets import LETTERS
from milanx.evaluate.p4.study import DESCRIPTION, EXEMPLARS, KEY, VERSION
from milanx.files import fingerprint_file, read_json, reading
from milanx.measures.intervals import DRAWS, wilson

CHANCE = 0.2
ABSTAINED = ("", "?")
TAILS = (2.5, 97.5)  # percentiles of a 95 % interval
Place = tuple[str, str, int]  # kind, layer, number of a question


def read_choices(path: Path, key: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Read a reader's choices: json {question: letter}; an empty letter abstains.

    Raises:
        FormatError: no json object of that kind.
        InputError: a question that the study does not have, or no letter of A to E.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(
            f"{path} cannot be read", str(error), "write {question: letter}"
        ) from error
    choices = content.get("choices", content) if isinstance(content, dict) else None
    if not isinstance(choices, dict):
        raise FormatError(f"{path} holds no choices", "it is no object", "write {question: letter}")
    for question, letter in choices.items():
        if question not in key:
            raise InputError(f"{path} answers {question!r}", "this study has no such question",
                             "give the choices of this study")  # fmt: skip
        if str(letter).upper() not in tuple(LETTERS) and letter not in ABSTAINED:
            raise InputError(f"{path} answers {question} with {letter!r}", "sheets are A to E",
                             'an empty answer "" abstains')  # fmt: skip
    return {question: str(letter).upper() for question, letter in choices.items()}


def score(study: Path, choices: Sequence[Path]) -> dict[str, Any]:
    """Open the key and score choices.

    A question that several files answer counts as the first of them says; the others are double
    readings. Questions that nobody answered are left out and counted; abstention is wrong.

    Args:
        study: the folder that `make` wrote.
        choices: json files; the readings of any lists.

    Returns:
        A report: rows by list and layer with Wilson intervals, shares of the way, agreement.
    """
    path = study / "key" / "key.json"
    content = read_json(path, KEY, VERSION)
    with reading(path):
        return _score(content, choices)


def _score(content: dict[str, Any], choices: Sequence[Path]) -> dict[str, Any]:
    """Score choices by what a key says."""
    key: dict[str, dict[str, Any]] = content["questions"]
    first: dict[str, str] = {}
    agree: dict[str, list[bool]] = {}
    for path in choices:
        for question, letter in read_choices(path, key).items():
            if question in first:
                agree.setdefault(key[question]["list"], []).append(first[question] == letter)
            first.setdefault(question, letter)
    right: dict[str, dict[Place, float]] = {}
    for question, letter in first.items():
        entry = key[question]
        place = (entry["kind"], entry["layer"], entry["number"])
        right.setdefault(entry["list"], {})[place] = float(letter == entry["answer"])
    names = sorted(right, key=lambda n: (n != DESCRIPTION, n == EXEMPLARS, n))
    rows: dict[str, dict[str, Any]] = {}
    for name in names:
        for layer in (None, *content["layers"]):
            row = {kind: counted for kind in KINDS
                   if (counted := _counted(right[name], kind, layer))["n"]}  # fmt: skip
            if row:
                rows[f"{name}, all" if layer is None else f"  {name}, {layer}"] = row
        for kind in KINDS:
            share = share_of_the_way(right[name], right.get(EXEMPLARS, {}), kind)
            if name != EXEMPLARS and share:
                rows[f"{name}, all"][f"{kind}: share of the way"] = share
    return {
        "protocol": "P4 blinded reading",
        "n": len(first),
        "rows": rows,
        "target": content["target"],
        "describers": content["describers"],
        "agreement": {n: _share(sum(a), len(a)) | {"n": len(a)} for n, a in agree.items()},
        "variety": content["variety"],
        "layers": content["layers"],
        "choices": {p.name: fingerprint_file(p) for p in choices},
        "notes": _notes(content, right, agree, names),
    }


def _share(hits: int, n: int) -> dict[str, Any]:
    return {"estimate": hits / n if n else float("nan"), "interval": list(wilson(hits, n))}


def _counted(right: dict[Place, float], kind: str, layer: str | None) -> dict[str, Any]:
    """Accuracy of one list on a kind and a layer (all layers when None)."""
    values = [v for (k, at, _), v in right.items() if k == kind and layer in (None, at)]
    return _share(int(sum(values)), len(values)) | {"n": len(values)}


def share_of_the_way(
    text: dict[Place, float],
    upper: dict[Place, float],
    kind: str,
    seed: int = 0,
) -> dict[str, Any] | None:
    """(text - .2) / (exemplar sheet - .2), pooled over layers, questions resampled together.

    None where no question was read in both rows.
    """
    both = sorted(p for p in text if p in upper and p[0] == kind)
    if not both:
        return None
    mine = np.array([text[p] for p in both])
    theirs = np.array([upper[p] for p in both])
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(both), (DRAWS, len(both)))
    above = theirs[drawn].mean(1) - CHANCE
    shares = np.where(
        above > 0, (mine[drawn].mean(1) - CHANCE) / np.where(above > 0, above, 1), np.nan
    )
    full = theirs.mean() - CHANCE
    estimate = float((mine.mean() - CHANCE) / full) if full > 0 else float("nan")
    interval = (
        np.percentile(shares[~np.isnan(shares)], TAILS).tolist() if full > 0 else [float("nan")] * 2
    )
    return {"estimate": estimate, "interval": interval, "n": len(both)}


def _notes(
    content: dict[str, Any],
    right: dict[str, dict[Place, float]],
    agree: dict[str, list[bool]],
    names: Sequence[str],
) -> list[str]:
    lines = ["chance is .200; a shuffled description's expectation is exactly that"]
    mine = right.get(DESCRIPTION, {})
    for name in names:
        for kind in KINDS if name not in (DESCRIPTION, EXEMPLARS) else ():
            both = sorted(p for p in mine if p in right[name] and p[0] == kind)
            if both:
                theirs = np.array([right[name][p] for p in both])
                lines.append(ahead("description", np.array([mine[p] for p in both]),
                                   f"{name}, {kind}", theirs))  # fmt: skip
    total: dict[str, int] = {}
    for entry in content["questions"].values():
        total[entry["list"]] = total.get(entry["list"], 0) + 1
    for name, n in total.items():
        lines.append(f"{name}: {len(right.get(name, {}))} of {n} questions read")
    for name, same in agree.items():
        low, high = wilson(sum(same), len(same))
        lines.append(f"{name}: two readers agree on {sum(same)} of {len(same)} "
                     f"[{low:.2f}, {high:.2f}]")  # fmt: skip
    for layer, found in content["variety"].items():
        lines.append(
            f"{layer}: {found['distinct']:.0%} of {found['n']} texts distinct after clustering, "
            f"the most frequent ({found['most frequent']!r}) on {found['most']:.1%}, "
            f"{found['words']:.1f} words; {content['layers'][layer]['dead']} units dead"
        )
    return lines
