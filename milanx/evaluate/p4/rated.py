"""Ratings counted: how many texts hold, how far readers agree, and whether confidence told it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from milanx.errors import FormatError, InputError
from milanx.evaluate.p4.rating import GRADES, KEY, VERSION
from milanx.evaluate.p4.study import DESCRIPTION
from milanx.files import fingerprint_file, read_json, reading
from milanx.language.connectives import joins
from milanx.measures.calibration import auroc
from milanx.measures.intervals import bootstrap

HOLDS = ("right", "nearly")
Grades = dict[str, str]  # entry -> grade


def is_rating(study: Path) -> bool:
    """Whether a study asks for ratings."""
    return (study / "key" / "ratings.json").is_file()


def score_ratings(study: Path, files: Sequence[Path]) -> dict[str, Any]:
    """Open the key and count ratings.

    Args:
        study: the folder that `milanx.evaluate.p4.rating.make_ratings` wrote.
        files: json files {entry: grade}, one a reader.

    Returns:
        A report. Rows by list and layer: the share of texts that hold, right or nearly, the mean
        of a unit's readers, bootstrap over units; each grade's share; of the descriptions also by
        status, with the area under the ROC curve of confidence against what a reader says holds.

    Raises:
        InputError: no such study, no file, or a file with an entry or a grade that is not known.
        FormatError: a damaged key or file.
    """
    path = study / "key" / "ratings.json"
    content = read_json(path, KEY, VERSION)
    with reading(path):
        return _report(content, {file: read_grades(file, content["entries"]) for file in files})


def read_grades(path: Path, key: Mapping[str, Any]) -> Grades:
    """Read a reader's grades: json {entry: grade}.

    Raises:
        FormatError: no json object.
        InputError: an entry that the study does not have, or no grade.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(f"{path} cannot be read", str(error), "write {entry: grade}") from error
    if not isinstance(content, dict):
        raise FormatError(f"{path} holds no grades", "it is no object", "write {entry: grade}")
    for entry, grade in content.items():
        if entry not in key:
            raise InputError(f"{path} grades {entry!r}", "this study has no such entry",
                             "give the grades of this study")  # fmt: skip
        if grade not in GRADES:
            raise InputError(
                f"{path} grades {entry} {grade!r}",
                f"the grades are {', '.join(GRADES)}",
                "write one of them",
            )
    return dict(content)


def alpha(grades: Sequence[Sequence[float]]) -> float:
    """Krippendorff's alpha with the interval metric (Krippendorff 2011, "Computing ...").

    Args:
        grades: of each entry the values that readers gave; entries with one reader do not count.

    Returns:
        1 for full agreement, 0 for chance; NaN where nothing was read twice or all is the same.
    """
    pairable = [np.asarray(values, float) for values in grades if len(values) > 1]
    if not pairable:
        return float("nan")
    seen = sum(2 * len(v) * v.var() * len(v) / (len(v) - 1) for v in pairable)
    everything = np.concatenate(pairable)
    n = len(everything)
    expected = 2 * n * everything.var() * n / (n - 1)
    return float(1 - seen / expected) if expected > 0 else float("nan")


def _report(content: dict[str, Any], read: dict[Path, Grades]) -> dict[str, Any]:
    key: dict[str, dict[str, Any]] = content["entries"]
    given: dict[str, list[str]] = {}
    for grades in read.values():
        for entry, grade in grades.items():
            given.setdefault(entry, []).append(grade)
    lists = sorted({key[e]["list"] for e in given}, key=lambda name: (name != DESCRIPTION, name))
    rows: dict[str, dict[str, Any]] = {}
    for name in lists:
        mine = {e: g for e, g in given.items() if key[e]["list"] == name}
        rows[name] = _row(mine)
        layers = content["layers"] if len(content["layers"]) > 1 else []
        parts = {layer: [e for e in mine if key[e]["layer"] == layer] for layer in layers}
        for status in ("described", "unclear"):
            parts[status] = [e for e in mine if key[e].get("status") == status
                             and key[e].get("confidence") is not None]  # fmt: skip
        parts["two things"] = [e for e in mine if joins(key[e]["text"])]
        rows |= {f"  {name}, {part}": _row({e: mine[e] for e in inside})
                 for part, inside in parts.items() if inside}  # fmt: skip
    return {
        "protocol": "ratings beside the exemplars",
        "n": len(given),
        "rows": rows,
        "target": content["target"],
        "describers": content["describers"],
        "readers": {str(file): fingerprint_file(file) for file in read},
        "notes": _notes(key, given, read),
    }


def _row(given: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the share of entries that hold, with its interval, and of each grade."""
    holds = np.array([np.mean([g in HOLDS for g in grades]) for grades in given.values()])
    shares = {grade: float(np.mean([np.mean([g == grade for g in grades])
                                    for grades in given.values()]))
              for grade in GRADES}  # fmt: skip
    return {"right or nearly": bootstrap(holds), **shares, "n": len(given)}


def _notes(
    key: Mapping[str, Mapping[str, Any]], given: Mapping[str, Sequence[str]],
    read: Mapping[Path, Grades],
) -> list[str]:  # fmt: skip
    lines = [f"{len(given)} of {len(key)} entries read by {len(read)} readers"]
    value = {grade: float(number) for number, grade in enumerate(GRADES)}
    agreed = alpha([[value[g] for g in grades] for grades in given.values()])
    if not np.isnan(agreed):
        lines.append(f"readers agree by {agreed:.2f} (Krippendorff's alpha, grades as intervals)")
    for file, grades in read.items():
        sure = {e: key[e]["confidence"] for e in grades if key[e].get("confidence") is not None}
        if not sure:
            continue
        right = np.array([grades[e] in HOLDS for e in sure], float)
        said = np.array(list(sure.values()))
        area = auroc(said, right, np.ones(len(said)))
        lines.append(f"{file}: confidence {said.mean():.2f} on average, {right.mean():.2f} "
                     f"hold; AUROC {area:.2f}")  # fmt: skip
    return lines
