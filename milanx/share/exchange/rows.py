"""Plain tables: csv for people and spreadsheets, jsonl for programs; a row a unit.

Both have the columns of ``units.parquet`` (`milanx.rows.units_schema`), csv flattened: of the
candidates the texts alone, as a json list, and the exemplars as numbers with spaces between. Where
some unit has several senses, they stand in a last column as the terminal shows them, for people: it
is not read.
Numbers are written so that the same float32 is read again.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from milanx.errors import InputError
from milanx.files import reading, write_text
from milanx.files.digests import regular
from milanx.report.cells import sense_line
from milanx.rows import FIGURES, SENSES, SIGNS, STATUSES
from milanx.share.exchange.bundle import Bundle, Text, UnitKey, Units, gathered, whole
from milanx.share.exchange.cells import (
    MOST_BYTES,
    bare,
    guarded,
    need,
    number,
    read_csv,
    read_number,
    write_csv,
)

if TYPE_CHECKING:
    from milanx.runs import Run

TEXTS = ("layer", "sign", "status", "description", "score_reason")
NUMBERS = ("score", "score_low", "score_high", "confidence", *FIGURES)
COLUMNS = ("layer", "unit", "sign", "status", "description", *NUMBERS[:3], "score_reason",
           *NUMBERS[3:], "candidates", "images", "activations")  # fmt: skip
OTHER_NAMES = {"summary": "description"}  # MILANNOTATIONS' tables call it so
CSV_HEAD = ",".join(COLUMNS).encode()
JSONL_HEAD = b'{"layer": '
NO_PICTURES = ("the views and masks of the exemplars: they stand as numbers of images with their "
               "activations")  # fmt: skip
NO_FIGURES = "the figures of the candidates: their texts stand in a cell"


def write_rows_csv(run: Run, path: Path) -> tuple[int, tuple[str, ...]]:
    """Write a csv file; returns how many units it holds and what is left out."""
    rows = []
    several = any(row[SENSES] for row in run.rows)
    columns = (*COLUMNS, SENSES) if several else COLUMNS
    for row in run.rows:
        low, high = row["score_interval"] or (None, None)
        cells = {
            **{name: guarded(row[name] or "") for name in TEXTS},
            **{name: number(row.get(name)) for name in NUMBERS},
            "unit": row["unit"], "score_low": number(low), "score_high": number(high),
            "candidates": json.dumps([c["text"] for c in row["candidates"]], ensure_ascii=False),
            "images": " ".join(map(str, row["images"])),
            "activations": guarded(" ".join(map(number, row["activations"])))
            if len(row["activations"]) > 1 else " ".join(map(number, row["activations"])),
            SENSES: guarded("; ".join(map(sense_line, row[SENSES] or ()))),
        }  # fmt: skip
        rows.append([cells[name] for name in columns])
    write_csv(path, columns, rows)
    return len(rows), (NO_PICTURES, NO_FIGURES)


def write_rows_jsonl(run: Run, path: Path) -> tuple[int, tuple[str, ...]]:
    """Write a json document a line; returns how many units it holds and what is left out."""
    lines = [json.dumps(plain_row(row), ensure_ascii=False, allow_nan=False) for row in run.rows]
    write_text(path, "".join(f"{line}\n" for line in lines))
    return len(lines), (NO_PICTURES,)


def plain_row(value: Any) -> Any:
    """Write infinities as text and NaN as null: json has neither."""
    if isinstance(value, dict):
        return {name: plain_row(part) for name, part in value.items()}
    if isinstance(value, list):
        return [plain_row(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def read_rows_csv(path: Path) -> Bundle:
    """Read a csv file: ``layer``, ``unit`` and ``description`` (or ``summary``), others if there.

    Several rows of one unit are its texts, the first its description.

    Raises:
        InputError: a column is missing, or a cell holds something else.
        FormatError: it is no text.
    """
    header, lines = read_csv(path)
    header = [OTHER_NAMES.get(name, name) for name in header]
    need(path, header, ("layer", "unit", "description"))
    units: list[tuple[UnitKey, Text, list[int], list[float]]] = []
    for line, raw in lines:
        cells = {OTHER_NAMES.get(name, name): cell for name, cell in raw.items()}
        units.append(_of_csv(path, line, cells))
    unknown = sorted(set(header) - set(COLUMNS))
    notes = (f"the columns {', '.join(unknown)}",) if unknown else ()
    return _bundle(path, units, notes)


def _of_csv(
    path: Path, line: int, cells: dict[str, str]
) -> tuple[UnitKey, Text, list[int], list[float]]:
    texts = {name: bare(cells.get(name, "")) for name in TEXTS}
    key = (_layer(path, line, texts["layer"]), whole(cells["unit"], "the unit", path, line),
           texts["sign"] or "+")  # fmt: skip
    figures = {name: read_number(cells.get(name, ""), name, path, line) for name in NUMBERS}
    low, high = figures.pop("score_low"), figures.pop("score_high")
    row: dict[str, Any] = {name: value for name, value in figures.items() if value is not None}
    if low is not None and high is not None:
        row["score_interval"] = [low, high]
    row |= {name: texts[name] for name in ("status", "score_reason") if texts[name]}
    said = _candidates(path, line, cells.get("candidates", ""))
    images = [whole(n, "an image", path, line) for n in cells.get("images", "").split()]
    values = [read_number(a, "an activation", path, line)
              for a in bare(cells.get("activations", "")).split()]  # fmt: skip
    _check(path, line, key, row)
    text = Text(texts["description"], tuple((c, None) for c in said), row)
    return key, text, images, [math.nan if v is None else v for v in values]


def _layer(path: Path, line: int, name: object) -> str:
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"{path}, line {line}: no layer", "every unit is one of a layer",
                         "mend that line")  # fmt: skip
    return name


def _candidates(path: Path, line: int, cell: str) -> list[str]:
    if not cell.strip():
        return []
    try:
        found = json.loads(cell)
        if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
            raise ValueError("no list of texts")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}, line {line}: its candidates cannot be read", str(error),
                         "a json list of texts, or nothing") from None  # fmt: skip
    return found


def _check(path: Path, line: int, key: UnitKey, row: dict[str, Any]) -> None:
    """Refuse a sign or status that there is not."""
    for what, value, known in (("sign", key[2], ("+", "-")),
                               ("status", row.get("status", STATUSES[0]), STATUSES)):  # fmt: skip
        if value not in known:
            raise InputError(f"{path}, line {line}: {what} {value!r}",
                             f"there are {', '.join(known)}", "mend that line")  # fmt: skip


def read_rows_jsonl(path: Path) -> Bundle:
    """Read what `write_rows_jsonl` wrote, or lines with ``layer``, ``unit``, ``description``.

    Raises:
        InputError: a line is no such document.
        FormatError: it is no text.
    """
    regular(path, MOST_BYTES)
    with reading(path):
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    units = []
    for number_, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
            if not isinstance(row, dict):
                raise ValueError(f"it is a {type(row).__name__}, no object")
            units.append(of_row(path, number_, row))
        except InputError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            said = f"{type(error).__name__}: {error}"[:200]
            raise InputError(
                f"{path}, line {number_} is no unit",
                said,
                "a json object with layer, unit and description",
            ) from error
    if not units:
        raise InputError(f"{path} cannot be imported", "it is empty", "give a line a unit")
    return _bundle(path, units, ())


def of_row(
    path: Path, line: int, row: dict[str, Any]
) -> tuple[UnitKey, Text, list[int], list[float]]:
    """Read a row of the table out of json: its unit, its text, images and activations.

    Raises:
        InputError: a sign or status that there is not, or no layer.
        ValueError, TypeError, KeyError: something else is no row.
    """
    unit, sign = row["unit"], row.get("sign", "+")
    if type(unit) is not int or not 0 <= unit < 10**9:
        raise ValueError(f"unit {unit!r}")
    key = (_layer(path, line, row["layer"]), unit, sign)
    description = row["description"] or ""
    kept: dict[str, Any] = {name: _number(row[name])
                            for name in ("score", "confidence", *FIGURES, *SIGNS)
                            if row.get(name) is not None}  # fmt: skip
    if row.get("score_interval") is not None:
        kept["score_interval"] = [_number(end) for end in row["score_interval"]]
    kept |= {n: str(row[n]) for n in ("status", "score_reason", "confidence_reason")
             if row.get(n) is not None}  # fmt: skip
    candidates = row.get("candidates") or []
    if candidates:
        kept["candidates"] = [_candidate(candidate) for candidate in candidates]
    _check(path, line, key, kept)
    if not isinstance(description, str):
        raise ValueError(f"description {description!r}")
    images = [int(i) for i in row.get("images") or []]
    values = [math.nan if a is None else float(a) for a in row.get("activations") or []]
    if any(i < 0 for i in images):
        raise ValueError("an image below 0")
    return key, Text(description, (), kept), images, values


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _candidate(found: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(found["text"], str):
        raise ValueError(f"candidate {found['text']!r}")
    terms = [{"name": str(t["name"]), "value": _number(t["value"]), "added": _number(t["added"])}
             for t in found.get("terms") or []]  # fmt: skip
    return {"text": found["text"], **{n: _number(found.get(n)) for n in FIGURES}, "terms": terms}


def _bundle(
    path: Path,
    found: Sequence[tuple[UnitKey, Text, list[int], list[float]]],
    notes: tuple[str, ...],
) -> Bundle:
    """Bring rows together by unit and layer."""
    texts: dict[UnitKey, Text] = {}
    exemplars: dict[UnitKey, tuple[list[int], list[float]]] = {}
    rows_of = Counter(key for key, *_ in found)
    said = gathered([(key, text.description, text.row.get("rank")) for key, text, *_ in found])
    for key, text, images, values in found:
        if values and len(values) != len(images):
            raise InputError(f"{path}: {key[0]}:{key[1]} has {len(images)} images and "
                             f"{len(values)} activations", "each image has one",
                             "mend that row")  # fmt: skip
        if key not in texts:
            texts[key] = text if rows_of[key] == 1 else said[key]
            exemplars[key] = (images, values or [math.nan] * len(images))
    layers: dict[str, list[UnitKey]] = {}
    for key in texts:
        layers.setdefault(key[0], []).append(key)
    return Bundle("", tuple(_units(name, keys, exemplars) for name, keys in layers.items()), texts,
                  notes=notes)  # fmt: skip


def _units(
    layer: str, keys: Sequence[UnitKey], exemplars: dict[UnitKey, tuple[list[int], list[float]]]
) -> Units:
    """Return a layer's exemplars, padded to one length."""
    k = max(1, *(len(exemplars[key][0]) for key in keys))
    images = np.full((len(keys), k), -1, np.int64)
    values = np.full((len(keys), k), np.nan, np.float32)
    for row, key in enumerate(keys):
        some, theirs = exemplars[key]
        images[row, : len(some)], values[row, : len(some)] = some, theirs
    return Units(layer, tuple((unit, sign) for _, unit, sign in keys), images, values)
