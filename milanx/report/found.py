"""Units that were found, in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.table import Table

from milanx.report.cells import add_units, headline, sure_cell
from milanx.report.screen import Screen
from milanx.report.sure import calibrated, ordered, sureness

if TYPE_CHECKING:
    from milanx.runs import Run


def print_found(run: Run, hits: Mapping[int, tuple[float, str]], sort: str) -> None:
    """Print the units that were found, and why.

    Args:
        run: that they are of.
        hits: place in the run's table -> strength and why, as of `milanx.act.find.Finder`.
        sort: of equally strong ones.
    """
    console = Screen()
    sure = sureness(run.rows)
    order = {place: i for i, place in enumerate(ordered(run.rows, sort, sure))}
    places = sorted(hits, key=lambda place: (-round(hits[place][0], 2), order[place]))
    rows = [run.rows[place] for place in places]
    table = Table(title=f"{headline(run)}: {len(hits)} of {len(run)} units", title_justify="left")
    units = add_units(table, run, rows, console)
    for name in ("description", "found by"):
        table.add_column(name)
    told = calibrated(run.rows)
    table.add_column("confidence" if told else "surer than", justify="right", no_wrap=True)
    for unit, place, row in zip(units, places, rows, strict=True):
        table.add_row(unit, row["description"], hits[place][1], sure_cell(sure[place], told))
    console.print(table)
