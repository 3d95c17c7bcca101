"""What tables and pages write of a run and its units: names, addresses, figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from milanx.report.screen import Screen
from milanx.rows import UNCLEAR

if TYPE_CHECKING:
    from milanx.runs import Run

NAMED = 3  # layers or sources of images that are named; of more, their number is told
TEXT = 24  # columns of a terminal that texts beside addresses have at least


def units(count: int) -> str:
    """Return a number of units in words: ``1 unit``, ``3 units``."""
    return "1 unit" if count == 1 else f"{count} units"


def rounded(value: float) -> float:
    """Round a figure as tables and pages show it: once, to two decimals, and never to -0."""
    return round(float(value), 2) + 0.0


def number(value: float | None) -> str:
    """Return a figure of two decimals; empty without one."""
    return "" if value is None else f"{rounded(value):.2f}"


def score_cell(score: float | None, interval: Sequence[float] | None) -> str:
    """Return a score with its interval, as tables show it; empty without one."""
    if score is None:
        return ""
    return number(score) + (f" [{number(interval[0])}, {number(interval[1])}]" if interval else "")


def sense_line(sense: Mapping[str, Any]) -> str:
    """Return one of a unit's senses, with the share of its exemplars' photos that show it."""
    return f"{sense['share']:.0%} {sense['text']}"


def percent(share: float) -> int:
    """Return a share of other units in whole per cent; 100 are all of them."""
    return math.floor(100 * share)


def sure_cell(figure: float | None, told: bool = False, status: str = "") -> str:
    """Return what `milanx.report.sure.sureness` says, as tables show it, also where none is grey.

    Args:
        figure: a share of the other units, or with ``told`` a confidence.
        told: whether it is one.
        status: of the unit; that its text is a best guess is told.
    """
    shown = number(figure)
    if figure is not None and not told:
        shown = "all others" if figure == 1 else f"{percent(figure)} %"
    return f"{shown} {UNCLEAR}".strip() if status == UNCLEAR else shown


def confidence_note(run: Run) -> str:
    """Say what confidence is, with the threshold of ``unclear`` where the run tells it."""
    least = (run.settings.get("confidence") or {}).get("threshold")
    what = (
        "confidence: the probability that the description is right, calibrated on units of known "
        "meaning"
    )
    below = "where it is too low" if least is None else f"below {least:.2f}"
    return f"{what}; {below} a unit is unclear and its best guess is grey."


def score_note(run: Run) -> str:
    """Say what scores are, with the number of images where the run tells it."""
    photos = (run.settings.get("score") or {}).get("photos")
    images = "images" if photos is None else f"{photos} distinct images"
    return (
        "score: correlation of what the text foretells with what the unit does on "
        f"{images} kept aside (95 % interval); it is no probability of being right."
    )


def numbered(row: Mapping[str, Any]) -> str:
    """Return what names a unit in its layer: sign and number."""
    return f"{'-' if row['sign'] == '-' else ''}{row['unit']}"


def address(row: Mapping[str, Any]) -> str:
    """Return what names a unit: layer, sign and number."""
    return f"{row['layer']}:{numbered(row)}"


def layers(run: Run) -> list[str]:
    """Return the layers of a run's table, in its order."""
    return list(dict.fromkeys(row["layer"] for row in run.rows))


def headline(run: Run) -> str:
    """Say which run this is: its model, its layers, its images."""
    named, images = layers(run), run.settings.get("images") or {}
    said = ", ".join(named) if len(named) <= NAMED else f"{len(named)} layers"
    sources = [str(source["name"]) for source in run.sources]
    count = images.get("count")
    of = ", ".join(sources) if len(sources) <= NAMED else f"{len(sources)} sources"
    shown = f"{count} images" if count is not None else ""
    return " · ".join(filter(None, (run.target, said, f"{shown} of {of}" if of else shown)))


def add_units(
    table: Table, run: Run, rows: Sequence[Mapping[str, Any]], console: Screen
) -> list[str]:
    """Add the column of the units to a table, and return its cells.

    An address is what other commands are given, so it is whole: texts give way. In a run of one
    layer, which the title names, the numbers alone are told.

    Args:
        table: without columns yet.
        run: whose units they are.
        rows: of the units.
        console: where it is printed.
    """
    alone = len(layers(run)) == 1
    cells = [numbered(row) if alone else address(row) for row in rows]
    widest = max(map(len, cells), default=0)
    # Beyond what a terminal holds an address goes on in the next line.
    table.add_column("unit", overflow="fold", min_width=min(widest, console.width - TEXT),
                     justify="right" if alone else "left")  # fmt: skip
    return cells
