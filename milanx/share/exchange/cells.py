"""Cells of csv files that no spreadsheet takes for a formula.

A text that begins with one of = + - @, a tab or a carriage return is written behind an apostrophe
(OWASP, "CSV Injection"), and one that begins with apostrophes before such a sign gets one more, so
that reading can undo it. Numbers are written as numbers, negative ones too.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from milanx.errors import InputError
from milanx.files import reading, write_text
from milanx.files.digests import regular

FORMULA = tuple("=+-@\t\r")
MOST_BYTES = 2**30  # of a table that is read
MOST_CELL = 2**24  # characters of one cell


def guarded(text: str) -> str:
    """Return a text as a cell holds it."""
    return f"'{text}" if text.lstrip("'").startswith(FORMULA) else text


def bare(cell: str) -> str:
    """Undo `guarded`."""
    risky = cell.startswith("'") and cell.lstrip("'").startswith(FORMULA)
    return cell[1:] if risky else cell


def number(value: float | None) -> str:
    """Write a float32 as text that reads as the same float32; nothing for none."""
    return "" if value is None else f"{value:.9g}"


def read_number(cell: str, what: str, path: Path, line: int) -> float | None:
    """Read what `number` wrote.

    Raises:
        InputError: it is no number.
    """
    if not cell.strip():
        return None
    try:
        return float(cell)
    except ValueError:
        raise InputError(f"{path}, line {line}: {what} is {cell[:40]!r}", "it is no number",
                         "mend that line") from None  # fmt: skip


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str | int]]) -> None:
    """Write a table; texts are guarded already, where they must be."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_csv(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Read a table with a header; returns its columns, and each row with the line it ends on.

    Raises:
        InputError: no header, two columns of one name, or a row of another length.
        FormatError: it is no text.
    """
    regular(path, MOST_BYTES)
    before = csv.field_size_limit(MOST_CELL)
    try:
        with reading(path), path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            try:
                lines = [(reader.line_num, cells) for cells in reader if cells]
            except csv.Error as error:
                raise ValueError(f"line {reader.line_num}: {error}") from error
    finally:
        csv.field_size_limit(before)
    if not lines:
        raise InputError(f"{path} cannot be imported", "it is empty", "give a table with a header")
    header = [name.strip() for name in lines[0][1]]
    twice = {name for name in header if header.count(name) > 1}
    if twice:
        raise InputError(f"{path} cannot be imported",
                         f"it has several columns {sorted(twice)[0]!r}",
                         "name them otherwise")  # fmt: skip
    for line, cells in lines[1:]:
        if len(cells) != len(header):
            raise InputError(f"{path}, line {line}: {len(cells)} cells",
                             f"the header has {len(header)}", "mend that line")  # fmt: skip
    return header, [(line, dict(zip(header, cells, strict=True))) for line, cells in lines[1:]]


def need(path: Path, header: Sequence[str], names: Sequence[str]) -> None:
    """Refuse a table without some columns.

    Raises:
        InputError: which are missing, and which there are.
    """
    lacking = [name for name in names if name not in header]
    if lacking:
        raise InputError(
            f"{path} has no column {', '.join(lacking)}",
            f"its columns are {', '.join(map(repr, header[:20]))}",
            f"it needs {', '.join(names)}",
        )
