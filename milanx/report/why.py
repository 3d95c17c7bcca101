"""Why a text ranks first, in figures and in words; why a unit has none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from milanx.errors import MilanxError

if TYPE_CHECKING:
    from milanx.runs import Run

# How a term is called, and how its own measure is written where that is not what it adds.
TERMS: dict[str, tuple[str, str]] = {
    "pmi": ("weighted PMI", ""),
    "agreement": ("agreement", "{:.2f} nats"),
    "response": ("response", "r {:.2f}"),
    "cells": ("told by cells, p(d|E) being sure", "r {:.2f}"),
    "place": ("says a place alone", ""),
    "joined": ("joins two things", ""),
    "without": ("says what is missing", ""),
    "absent": ("joins what is not seen", "{:.2f}"),
    "length": ("length", "{:.0f} tokens"),
    "likelihood": ("log p(d|E)", ""),
    "iou": ("overlap with regions (IoU)", ""),
}

# What is said of a text whose term added more than the other text's, and whether what was measured
# of both is told beside it.
WORDS: dict[str, tuple[str, bool]] = {
    "pmi": ("is more what the describer says of these exemplars and not of any others", False),
    "agreement": ("fits the exemplars better, says the critic", False),
    "response": ("foretells better what the unit does on all stored views", True),
    "joined": ("names one thing; two joined cost", False),
    "cells": ("is not told by colour, light or place alone, where the describer is sure", False),
    "place": ("says more than a part of the view, which costs", False),
    "absent": ("joins nothing that the exemplars do not show", False),
    "without": ("does not say what is missing, which costs", False),
    "length": ("is shorter", False),
    "likelihood": ("is likelier, given the exemplars", False),
    "iou": ("overlaps more with where the unit is active", True),
}
SUM = "sum"  # of what all terms added, by which candidates are ordered
LEGEND = (
    "E: the exemplars. sum: of weighted PMI, what the critic and the response added, and the rest; "
    "candidates stand in its order. nats: logarithms to base e, one makes a text 2.7 times as "
    "likely. critic: the network that says how much likelier these exemplars are with a text than "
    "without."
)
LEAST = 0.005  # nats; what would be written as 0.00 is not told


@dataclass(frozen=True)
class Reason:
    """One line of the table that says why a text ranks first.

    Attributes:
        term: as it is called; `SUM` is their sum.
        winner: what it added to the rank of the first text, and what was measured.
        other: the same of its rival; empty where there is none.
        difference: of what it added; empty likewise.
    """

    term: str
    winner: str
    other: str = ""
    difference: str = ""


def others(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the candidates behind the first that say something else, best first.

    None of their words stands in the text before them: after "dogs" comes "grass", not "dog".
    """
    # Loads transformers: what prints tables of layers alone does without.
    from milanx.language.connectives import named
    from milanx.language.words import normalise_text

    found: list[dict[str, Any]] = []
    said: set[str] = set()
    for candidate in row["candidates"] or ():
        words = set(named(normalise_text(candidate["text"])))
        if not words & said:
            found.append(candidate)
            said |= words
    return found[1:]


def rival(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the best candidate that says something else; else the second, or None."""
    return next(iter([*others(row), *(row["candidates"] or [])[1:]]), None)


def reasons(row: Mapping[str, Any]) -> list[Reason]:
    """Return why the first text of a row of the table ranks before its `rival`, the sum last.

    Terms that add nothing to either of the two are left out.

    Args:
        row: of a run's table.

    Returns:
        Empty for a dead unit, and for a table of an earlier milanx, which holds no terms.
    """
    first = (row["candidates"] or [{}])[0]
    if not first.get("terms"):
        return []
    second = rival(row) or {}
    beside = {term["name"]: term for term in second.get("terms") or ()}
    made = []
    for term in first["terms"]:
        other = beside.get(term["name"])
        if term["added"] or (other and other["added"]):
            made.append(_reason(term["name"], term, other))
    total = {"value": None, "added": first["rank"]}
    return [*made, _reason(SUM, total, {"value": None, "added": second["rank"]} if second
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


def in_words(row: Mapping[str, Any]) -> list[str]:
    """Say why the first text of a row ranks before its `rival`, the weightiest reason first.

    Returns:
        The outcome, then a sentence a term in which the two differ; empty where `reasons` is.
    """
    if not reasons(row):
        return []
    first, second = row["candidates"][0], rival(row)
    name = f"“{first['text']}”"
    if second is None:
        return [f"{name} is the only candidate."]
    margin = first["rank"] - second["rank"]
    which = ", the best that says something else," if second in others(row) else ""
    said = [f"{name} ranks before “{second['text']}”{which} by {margin:.2f} nats."]
    beside = {term["name"]: term for term in second["terms"] or ()}
    pairs = [(term, beside[term["name"]]) for term in first["terms"] if term["name"] in beside]
    pairs.sort(key=lambda pair: -abs(pair[0]["added"] - pair[1]["added"]))
    return said + [_sentence(a, b, second["text"]) for a, b in pairs
                   if abs(a["added"] - b["added"]) >= LEAST]  # fmt: skip


def _sentence(own: Mapping[str, Any], other: Mapping[str, Any], against: str) -> str:
    """Say of one term which of two texts it speaks for, and by how much."""
    difference = own["added"] - other["added"]
    words, measured = WORDS.get(own["name"], (f"has more of {own['name']}", False))
    who = "It" if difference > 0 else f"But “{against}”"
    figures = f"{difference:+.2f}"
    if measured and own["value"] is not None and other["value"] is not None:
        high, low = (own, other) if difference > 0 else (other, own)
        told = [f"{term['value']:.2f}" for term in (high, low)]
        figures = f"{' against '.join(told)}: {figures}" if told[0] != told[1] else figures
    return f"{who} {words} ({figures})."


def without_text(run: Run, row: Mapping[str, Any]) -> str:
    """Say in words why a unit has no text; empty for one that has."""
    if row["description"]:
        return ""
    if row["status"] != "dead":
        return f"{row['status']}: no text was found for it"
    try:
        stats = run.store.stats(row["layer"])
        place = run.store.units(row["layer"]).index((row["unit"], row["sign"]))
        low, high = float(stats["minimum"][place]), float(stats["maximum"][place])
    except (MilanxError, KeyError, ValueError):  # of an imported run little is known
        return "dead: no image excites it"
    if low == high:
        return f"dead: {low:g} on every image"
    return "dead: no image excites it"


def whose_units(run: Run) -> str:
    """Say what the units are where they are not a layer's own, in one line; empty for those."""
    lens = run.settings.get("lens")
    if not isinstance(lens, Mapping):
        return ""
    if lens.get("kind") == "sae":
        made_by = f" ({lens['format']})" if lens.get("format") else ""
        return f"units are latents of the sparse autoencoder {lens.get('path', '')}{made_by}"
    return f"units are projections on the directions of {lens.get('path', '')}"
