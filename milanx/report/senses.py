"""What was found of planted senses, in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from milanx.report.screen import Screen


def print_senses(report: Mapping[str, Any]) -> None:
    """Print counts and shares with their 95 % intervals."""
    table = Table("planted units", "n", "count", "share",
                  title=f"senses, at most {report['most']}", title_justify="left")  # fmt: skip
    for name, row in report["rows"].items():
        ends = " [{:.3f}, {:.3f}]".format(*row["interval"]) if "interval" in row else ""
        share = f"{row['estimate']:.3f}{ends}"
        table.add_row(name, str(row["n"]), str(row.get("count", "")), share)
    Screen(width=max(Screen().width, 100)).print(table)
