"""Why a text ranks first: what each term added to its rank and to that of the next best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# How a term is called, and how its own measure is written where that is not what it adds.
TERMS: dict[str, tuple[str, str]] = {
    "pmi": ("weighted PMI", ""),
    "agreement": ("agreement", "{:.2f} nats"),
    "response": ("response", "r {:.2f}"),
    "joined": ("joins two things", ""),
    "without": ("says what is missing", ""),
    "length": ("length", "{:.0f} tokens"),
    "likelihood": ("log p(d|E)", ""),
    "iou": ("overlap with regions (IoU)", ""),
}


@dataclass(frozen=True)
class Reason:
    """One line of the table that says why a text ranks first.

    Attributes:
        term: as it is called; ``rank`` is their sum.
        winner: what it added to the rank of the first text, and what was measured.
        other: the same of the next best; empty where there is none.
        difference: of what it added; empty likewise.
    """

    term: str
    winner: str
    other: str = ""
    difference: str = ""


def reasons(row: Mapping[str, Any]) -> list[Reason]:
    """Return why the first text of a row of the table ranks first, the sum last.

    Terms that add nothing to either of the two are left out.

    Args:
        row: of a run's table.

    Returns:
        Empty for a dead unit, and for a table of an earlier milanx, which holds no terms.
    """
    first, *others = row["candidates"] or [{}]
    if not first.get("terms"):
        return []
    second = others[0] if others else {}
    beside = {term["name"]: term for term in second.get("terms") or ()}
    made = []
    for term in first["terms"]:
        other = beside.get(term["name"])
        if term["added"] or (other and other["added"]):
            made.append(_reason(term["name"], term, other))
    total = {"value": None, "added": first["rank"]}
    return [*made, _reason("rank", total, {"value": None, "added": second["rank"]} if second
                           else None)]  # fmt: skip


def _reason(name: str, own: Mapping[str, Any], other: Mapping[str, Any] | None) -> Reason:
    label, measure = TERMS.get(name, (name, ""))
    if other is None:
        return Reason(label, _cell(own, measure))
    difference = _written(own["added"] - other["added"], "{:+.2f}")
    return Reason(label, _cell(own, measure), _cell(other, measure), difference)


def _cell(term: Mapping[str, Any], measure: str) -> str:
    """Write what a term added, and behind it what was measured."""
    added = _written(term["added"], "{:.2f}")
    if not measure or term["value"] is None:
        return added
    return f"{added} ({_written(term['value'], measure)})"


def _written(value: float, form: str) -> str:
    """Write a number of two decimals, without a sign of nothing."""
    return form.format(round(value, 2) + 0.0)
