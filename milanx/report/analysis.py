"""What an analysis looks like: tables, and the folder with its json and figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from milanx.act.analyze import FORMAT, NOTHING, VERSION, Analysis
from milanx.act.categories import KINDS, PARTS_OF_SPEECH, UNSURE
from milanx.files import atomic_files, write_json
from milanx.report.cells import units
from milanx.report.plots_analysis import draw_importance, draw_kinds
from milanx.report.screen import Screen

SHOWN = 6  # layers in the terminal; the json and the figure have them all


def write_analysis(analysis: Analysis, out: Path) -> dict[str, Path]:
    """Write ``analysis.json``, ``kinds.png`` and, where it was measured, ``importance.png``.

    Args:
        analysis: what was counted.
        out: the folder; other files in it are left alone.

    Returns:
        The files by what they are.
    """
    files = {"json": out / "analysis.json", "kinds": out / "kinds.png"}
    if analysis.importance is not None:
        files["importance"] = out / "importance.png"
    with atomic_files(*files.values()) as (whole, kinds, *rest):
        write_json(whole, FORMAT, VERSION, analysis.to_dict())
        draw_kinds(analysis, kinds)
        for path in rest:
            draw_importance(analysis, path)
    return files


def print_analysis(analysis: Analysis, files: dict[str, Path]) -> None:
    """Print shares by layer, importance, and where the rest is."""
    console = Screen(width=max(Screen().width, 110))
    names = list(analysis.layers)
    shown = names if len(names) <= SHOWN else [*names[: SHOWN - 1], names[-1]]
    table = Table(title=f"{analysis.target}: units that name ..., %", title_justify="left")
    table.add_column("kind")
    for name in shown:
        table.add_column(f"{name}\n{units(analysis.layers[name]['units'])}", justify="right")
    for kind in (*KINDS, UNSURE, NOTHING):
        table.add_row(kind, *(_percent(analysis.layers[n]["kinds"][kind], "share") for n in shown))
    table.add_section()
    for part in PARTS_OF_SPEECH:
        rows = (analysis.layers[n]["parts_of_speech"][part] for n in shown)
        table.add_row(f"{part}s, of words", *(_percent(row, "estimate") for row in rows))
    console.print(table)
    if analysis.importance is not None:
        console.print(_importance(analysis.importance))
    placed = ", ".join(f"{count} {way}" for way, count in analysis.words.items())
    console.print(f"words placed by: {placed}", highlight=False)
    for note in analysis.notes:
        console.print(note, highlight=False)
    for name, path in files.items():
        console.print(f"{name:10} {path}", highlight=False, soft_wrap=True)


def _percent(row: dict[str, Any], name: str) -> str:
    low, high = row["interval"]
    return f"{100 * row[name]:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _importance(found: dict[str, Any]) -> Table:
    title = (f"accuracy on {found['images']} images, less that with random units ablated, points; "
             f"unedited {100 * found['accuracy']:.1f} %")  # fmt: skip
    table = Table(title=title, title_justify="left")
    for name in ("units that name", "units", "ablated up to", "difference", "p (Holm)"):
        table.add_column(name, justify="left" if name == "units that name" else "right")
    for kind, row in found["kinds"].items():
        if "why" in row:
            table.add_row(kind, str(row["units"]), "", row["why"], "")
            continue
        low, high = row["interval"]
        table.add_row(kind, str(row["units"]), str(row["sizes"][-1]),
                      f"{100 * row['difference']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]",
                      f"{row['p_holm']:.3f}")  # fmt: skip
    return table
