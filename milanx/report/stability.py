"""Stability as a table in the terminal, as Markdown, and as one figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from milanx.files import atomic_path
from milanx.report.plots import COLOURS, DPI
from milanx.report.screen import Screen

WIDTH, HEIGHT = 11.0, 4.6  # inches
CHARACTERS = 170  # of a line in the terminal, so that cells keep to one
SHOWN = ("varied", "value", "n", "same text", "within", "between", "within less between",
         "distinct", "score", "score less usual")  # fmt: skip
LAYERS = ("layer", "n", "dead", "unclear", "score", "score surely above 0", "distinct")
NOTES = (
    "within: similarity of a unit's text to its text under the usual settings (all-MiniLM-L6-v2); "
    "between: to those of the layer's other units; 95 % intervals over units.",
    "score: mean over the units that have one under both; with another seed, share or probe images "
    "it is measured on other photos.",
)  # fmt: skip


def print_stability(report: Mapping[str, Any]) -> None:
    """Print a row a setting, and a row a layer."""
    console = Screen(width=max(Screen().width, CHARACTERS))
    for title, columns, rows in _tables(report):
        table = Table(title=title, title_justify="left")
        for i, column in enumerate(columns):
            table.add_column(column, justify="right" if i else "left")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for line in NOTES:
        console.print(line, highlight=False)


def markdown(report: Mapping[str, Any]) -> str:
    """Return both tables with what they were made of, as they stand in docs/questions.md."""
    lines = []
    for title, columns, rows in _tables(report):
        lines += [f"{title}:", "", f"| {' | '.join(columns)} |",
                  f"|---|{'---:|' * (len(columns) - 1)}",
                  *(f"| {' | '.join(row)} |" for row in rows), ""]  # fmt: skip
    images = report["images"]
    lines += [
        *NOTES, "",
        f"Made by `{report['command']}`, on {images['count']} images of "
        f"{', '.join(images['sources'])}, with the describer {report['describer']} "
        f"({report['fingerprint']}).",
    ]  # fmt: skip
    return "\n".join(lines)


def _tables(
    report: Mapping[str, Any],
) -> list[tuple[str, Sequence[str], list[list[str]]]]:
    """Return title, columns and cells of both tables."""
    units = ", ".join(f"{count} of {layer}" for layer, count in report["units"].items())
    return [
        (f"{report['target']}, units: {units}", SHOWN, [_setting(r) for r in report["settings"]]),
        ("Layers under the usual settings", LAYERS, [_layer(r) for r in report["layers"]]),
    ]


def _setting(row: Mapping[str, Any]) -> list[str]:
    base = row["axis"] == "base"
    return [
        "usual settings" if base else row["title"], str(row["value"]), str(row["n"]),
        "" if base else _cell(row["same"]), _figure(row["within"]), _figure(row["between"]),
        _cell(row["stability"]), _figure(row["distinct"]), _cell(row.get("score")),
        "" if base else _cell(row.get("gain"), signed=True),
    ]  # fmt: skip


def _layer(row: Mapping[str, Any]) -> list[str]:
    unclear = "not calibrated" if row["unclear"] is None else _cell(row["unclear"])
    return [row["layer"], str(row["n"]), str(row["dead"]), unclear, _cell(row["score"]),
            _cell(row["above"]), _figure(row["distinct"])]  # fmt: skip


def _figure(value: float | None, signed: bool = False) -> str:
    return "" if value is None else f"{value:{'+' if signed else ''}.3f}".replace("0.", ".", 1)


def _cell(cell: Mapping[str, Any] | None, signed: bool = False) -> str:
    if cell is None:
        return ""
    low, high = (_figure(end, signed) for end in cell["interval"])
    return f"{_figure(cell['estimate'], signed)} [{low}, {high}]"


def draw_stability(report: Mapping[str, Any], path: Path) -> Path:
    """Draw how alike a unit's texts stay under each setting, beside the share of distinct texts.

    Raises:
        InputError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    places, names = _places(report["settings"])
    rows = report["settings"]
    low, high = ([abs(r["stability"]["interval"][end] - r["stability"]["estimate"]) for r in rows]
                 for end in (0, 1))  # fmt: skip
    axes.errorbar(places, [r["stability"]["estimate"] for r in rows], [low, high], fmt="o",
                  color=COLOURS["all"], capsize=2, label="similarity within a unit less between "
                  "units (95 %)")  # fmt: skip
    axes.plot(places, [r["distinct"] for r in rows], "_", markersize=12, color=COLOURS["chosen"],
              markeredgewidth=2.2, label="share of distinct texts")  # fmt: skip
    axes.axhline(0, color="black", linewidth=0.6)
    most = rows[0]["stability"]["estimate"]
    axes.axhline(most, color=COLOURS["random"], linewidth=0.8, linestyle="--",
                 label="like texts for every unit")  # fmt: skip
    axes.set_xticks(places, names, rotation=60, ha="right", fontsize=8)
    axes.set_ylim(min(0.0, *(r["stability"]["interval"][0] for r in rows)) - 0.02, 1.05)
    axes.grid(alpha=0.25, axis="y")
    axes.set_title(
        f"{report['target']}: texts under other settings beside those under the usual ones, "
        f"{rows[0]['n']} units, describer {report['describer']}", fontsize=10,
    )  # fmt: skip
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
    return path


def _places(rows: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[str]]:
    """Return where each setting stands, with a gap before another axis, and what it is called."""
    places: list[float] = []
    for before, row in zip([None, *rows], rows, strict=False):
        last = places[-1] if places else -1.0
        places.append(last + (1.0 if before is None or before["axis"] == row["axis"] else 1.6))
    names = ["usual settings" if r["axis"] == "base" else f"{r['title']} {r['value']}"
             for r in rows]  # fmt: skip
    return places, names
