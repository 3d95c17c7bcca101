"""How far a confidence holds: tables in the terminal, and the reliability diagram."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from milanx.describing.confidence import INPUTS, Calibration
from milanx.files import atomic_path
from milanx.measures.calibration import MEASURES
from milanx.report.plots import COLOURS, DPI
from milanx.report.screen import Screen

SIDE = 4.2  # inches


def print_calibration(found: Calibration) -> None:
    """Print what a calibration weighs, in nats a standard deviation."""
    console = Screen()
    facts = found.facts
    table = Table("input", "mean", "deviation", "weight", title=f"confidence, of {facts['units']} "
                  f"units, {facts['right']:.0%} right", title_justify="left")  # fmt: skip
    for row in zip(INPUTS, found.centre, found.scale, found.weights, strict=True):
        table.add_row(row[0], *(f"{value:.3f}" for value in row[1:]))
    console.print(table)
    console.print(f"unclear below {found.threshold:.2f}, chosen on {facts['controls']} controls",
                  highlight=False)  # fmt: skip


def print_confidence(report: Mapping[str, Any]) -> None:
    """Print figures of all units and of each kind, and the controls."""
    console = Screen()
    table = Table("units", "n", "right", *MEASURES, title="confidence", title_justify="left")
    for name, row in report["rows"].items():
        table.add_row(name, str(row["n"]), *(_cell(row[m]) for m in ("right", *MEASURES)))
    console.print(table)
    print_controls(report["controls"])
    every = report["rows"]["all"]
    console.print(
        f"described (confidence {report['threshold']:.2f} or more): {_cell(every['described'])}, "
        f"of which right: {_cell(every['right where described'])}", highlight=False,
    )  # fmt: skip


def print_controls(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Print how many of each control are unclear."""
    table = Table("control", "n", "unclear", "mean confidence", title_justify="left")
    for name, row in rows.items():
        cell = _cell({"estimate": row["unclear"], "interval": row["interval"]})
        table.add_row(name, str(row["n"]), cell, f"{row['confidence']:.2f}")
    Screen().print(table)


def _cell(figure: Mapping[str, Any]) -> str:
    low, high = figure["interval"]
    return f"{figure['estimate']:.3f} [{low:.3f}, {high:.3f}]"


def draw_reliability(report: Mapping[str, Any], path: Path) -> Path:
    """Draw what share is right against the confidence, in bins of equal mass.

    Raises:
        InputError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SIDE, SIDE), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    sure, right, _ = zip(*report["bins"], strict=True)
    axes.plot([0, 1], [0, 1], color=COLOURS["random"], linewidth=1)
    axes.plot(sure, right, marker="o", color=COLOURS["all"], linewidth=1.4)
    axes.axvline(report["threshold"], color=COLOURS["chosen"], linewidth=1, linestyle="--")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="share that is right")
    every = report["rows"]["all"]
    axes.set_title(f"{every['n']} units, ECE {every['ECE']['estimate']:.3f}; dashed: below it a "
                   "unit is unclear", fontsize=9)  # fmt: skip
    axes.grid(alpha=0.25)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
    return path
