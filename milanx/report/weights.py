"""The weights of a ranking that were chosen, beside those that a describer has, in the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def print_weights(report: dict[str, Any]) -> None:
    """Print what `milanx bench weights` chose."""
    console = Console(width=max(Console().width, 100), highlight=False)
    table = Table("weight", "has", "chosen", title=f"weights of {report['describer']}")
    for name, value in report["has"].items():
        table.add_row(name, f"{value:g}", f"{report['chosen'][name]:g}")
    console.print(table)
    table = Table("development units", "worth", "n", "has", "chosen", "best text",
                  title="mean worth")  # fmt: skip
    for name, row in report["sets"].items():
        figures = (row["has"], row["chosen"], row["best text"])
        table.add_row(name, row["measure"], str(row["n"]), *(f"{value:.3f}" for value in figures))
    console.print(table)
    share, gain = report["share"], report["gain on other units"]
    low, high = gain["interval"]
    console.print(f"share of the best texts' worth: {share['has']:.3f} as it is, "
                  f"{share['chosen']:.3f} chosen on these very units")  # fmt: skip
    joined = report["joined"]
    console.print(f"hidden units whose text joins two things: {joined['has']:.0%} as it is, "
                  f"{joined['chosen']:.0%} chosen")  # fmt: skip
    console.print(f"what choosing gains on units that did not choose: {gain['estimate']:+.3f} "
                  f"[{low:+.3f}, {high:+.3f}]")  # fmt: skip
