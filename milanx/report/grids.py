"""Tables as plain words and cells, which the terminal and pages draw each in their way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.table import Table

from milanx.report.screen import Screen

WIDTH = 110  # columns of a terminal that a wide table takes at least


@dataclass
class Grid:
    """A table.

    Attributes:
        title: what it shows; may be empty.
        header: names of the columns; figures stand in all but the first ``words``.
        rows: cells, one a column.
        words: columns of words, from the left.
        breaks: rows before which a line is drawn.
    """

    title: str
    header: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    words: int = 1
    breaks: set[int] = field(default_factory=set)


def print_grid(grid: Grid, console: Screen | None = None) -> None:
    """Print a table in the terminal."""
    console = console or Screen()
    table = Table(title=grid.title or None, title_justify="left")
    for number, name in enumerate(grid.header):
        table.add_column(name, overflow="fold",
                         justify="left" if number < grid.words else "right")  # fmt: skip
    for number, row in enumerate(grid.rows):
        if number in grid.breaks:
            table.add_section()
        table.add_row(*row)
    Screen(width=max(console.width, WIDTH), file=console.file).print(table)
