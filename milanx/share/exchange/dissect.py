"""CLIP-Dissect's table: ``layer,unit,description,similarity``, a row a unit.

Layout: ``describe_neurons.py`` of github.com/Trustworthy-ML-Lab/CLIP-dissect, which writes it with
pandas as ``results/MODEL_DATE/descriptions.csv``. Its similarity is softWPMI by default: what a
text was chosen by. milanx writes and reads the candidate's ``rank`` there, else its PMI.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from milanx.share.exchange.bundle import Bundle, gathered, missing, whole, without_exemplars
from milanx.share.exchange.cells import (
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

COLUMNS = ("layer", "unit", "description", "similarity")
HEAD = ",".join(COLUMNS).encode()
FILE = "descriptions.csv"  # of its results folders
LEFT_OUT = (
    "exemplars: views, masks, images and activations",
    "candidates other than the first, and all figures but the one a text was chosen by",
    "scores and confidence",
)


def write_dissect(run: Run, path: Path) -> tuple[int, tuple[str, ...]]:
    """Write the table; returns how many units it holds and what is left out."""
    rows, notes = [], list(LEFT_OUT)
    for row in run.rows:
        if row["sign"] != "+":
            continue
        chosen = row["rank"] if row["rank"] is not None else row["pmi"]
        rows.append((guarded(row["layer"]), row["unit"], guarded(row["description"] or ""),
                     number(chosen)))  # fmt: skip
    low = len(run) - len(rows)
    notes += [f"{low} units of the sign -: the table knows none"] * bool(low)
    empty = sum(row["status"] == "dead" for row in run.rows if row["sign"] == "+")
    notes += [f"that {empty} units are dead: they stand without a description"] * bool(empty)
    write_csv(path, COLUMNS, rows)
    return len(rows), tuple(notes)


def read_dissect(path: Path) -> Bundle:
    """Read the table, or the results folder that it lies in.

    Raises:
        InputError: a column is missing, or a cell holds something else.
        FormatError: it is no text.
    """
    if path.is_dir():
        if not (path / FILE).is_file():
            raise missing(path, f"there is no {FILE} in it", "name the table itself")
        path = path / FILE
    header, lines = read_csv(path)
    need(path, header, COLUMNS)
    texts = gathered([
        ((bare(row["layer"]), whole(row["unit"], "the unit", path, line), "+"),
         bare(row["description"]), read_number(row["similarity"], "the similarity", path, line))
        for line, row in lines
    ])  # fmt: skip
    unknown = sorted(set(header) - set(COLUMNS))
    notes = (f"the columns {', '.join(unknown)}",) if unknown else ()
    return Bundle("", without_exemplars(texts), texts, notes=notes)
