"""P5 in the terminal and as Markdown: for how many units a measure falls, and how far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from milanx.report.screen import Screen

WIDTH = 150
NOTE = (
    "share of the units for which the measure falls [95 %, Wilson], and its mean change, of what "
    "the true concept scores above one that is dealt out at random"
)


def print_metrics(report: Mapping[str, Any]) -> None:
    """Print a table for each kind of units."""
    console = Screen(width=max(Screen().width, WIDTH))
    for kind, rows in _kinds(report).items():
        columns = _columns(rows)
        table = Table(title=f"{report['protocol']}  {_title(report, kind)}", title_justify="left")
        table.add_column("measure")
        for column in (*columns, "passed"):
            table.add_column(column, justify="right")
        for name, row in rows.items():
            table.add_row(name, *(_cell(row[c], "\n") for c in columns), _verdict(row))
        console.print(table)
    console.print(NOTE, highlight=False)
    for line in report["notes"]:
        console.print(line, highlight=False)


def markdown(report: Mapping[str, Any]) -> str:
    """Return a table for each kind of units, as it stands in docs/metrics.md."""
    parts = []
    for kind, rows in _kinds(report).items():
        columns = _columns(rows)
        lines = [f"{_title(report, kind)}:", "",
                 f"| measure | {' | '.join(columns)} | passed |",
                 f"|---|{'---:|' * (len(columns) + 1)}"]  # fmt: skip
        for name, row in rows.items():
            cells = " | ".join(_cell(row[c], "<br>") for c in columns)
            lines.append(f"| {name} | {cells} | {_verdict(row)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _kinds(report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the rows of each kind of units, by measure."""
    kinds: dict[str, dict[str, Any]] = {}
    for row, cells in report["rows"].items():
        kind, _, name = row.partition(": ")
        kinds.setdefault(kind, {})[name] = cells
    return kinds


def _columns(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [c for c, cell in next(iter(rows.values())).items() if isinstance(cell, Mapping)]


def _title(report: Mapping[str, Any], kind: str) -> str:
    """Say of how many units each column is."""
    counts = [f"{name.removeprefix(f'{kind}, ')}: {n}" for name, n in report["units"].items()
              if name.startswith(f"{kind}, ")]  # fmt: skip
    return f"{kind} (units at {', '.join(counts)})"


def _cell(cell: Mapping[str, Any], between: str) -> str:
    low, high = cell["interval"]
    share = f"{cell['estimate']:.2f} [{low:.2f}, {high:.2f}]"
    return share if cell["fall"] is None else f"{share}{between}{-100 * cell['fall']:+.1f} %"


def _verdict(row: Mapping[str, Any]) -> str:
    return "yes" if row["passed"] else "no"
