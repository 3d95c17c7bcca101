"""The page of a pruning: figure, tables, and the units with texts and pictures, in one file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milanx.files import write_text
from milanx.files.kinds import EDIT_PAGE
from milanx.files.replacing import check_file
from milanx.images.photos import LICENCES
from milanx.report.cells import sure_cell
from milanx.report.edits import prune_grids, verdict
from milanx.report.page import builtin_photos, script_json, thumbnails
from milanx.report.plots import draw_curves
from milanx.report.robustness import HOW, robustness_grids

if TYPE_CHECKING:
    from milanx.act.pruned import PruneReport
    from milanx.runs import Run

PICTURES = 10  # exemplars of a unit on the page
VERSION = 1
CURVE, PAGE = "curve.png", "index.html"


def write_edit_page(report: PruneReport, run: Run, out: Path, command: str = "") -> Path:
    """Write ``curve.png`` and ``index.html`` of a pruning; the page loads nothing from anywhere.

    Args:
        report: the pruning.
        run: whose units it removes, for the pictures.
        out: the folder of the edit.
        command: that made it.

    Returns:
        The page.

    Raises:
        InputError: there is a file of that name that is no such page, or nothing can be written.
    """
    from jinja2 import Environment, PackageLoader, select_autoescape

    check_file(out, PAGE, EDIT_PAGE)
    curve = draw_curves(report, out / CURVE)
    environment = Environment(
        loader=PackageLoader("milanx.report"), autoescape=select_autoescape(default=True)
    )
    units = _units(report, run)
    shown = sorted({image for unit in units for image in unit["pictures"]})
    table = report.robustness
    html = environment.get_template("edit.html").render(
        version=VERSION,
        target=report.target,
        verdict=verdict(report),
        command=command,
        curve=base64.b64encode(curve.read_bytes()).decode(),
        grids=prune_grids(report),
        table=robustness_grids(table) if table else [],
        table_notes=(*table.notes, HOW) if table else (),
        groups=(("removed, in this order", [u for u in units if u["gone"]]),
                ("chosen by words, but kept", [u for u in units if not u["gone"]])),
        how_sure=sure_cell,
        notes=report.notes,
        weights=report.weights,
        credits=builtin_photos(run, shown)[1] if shown else [],
        licences=LICENCES,
        views=script_json(thumbnails(run, shown) if shown else {}),
    )  # fmt: skip
    write_text(out / PAGE, html)
    return out / PAGE


def _units(report: PruneReport, run: Run) -> list[dict[str, Any]]:
    """Return the chosen units in the order in which they go, with the images that excite them."""
    chosen = {(c.layer, c.unit): c for c in report.choice.units}
    rows: dict[tuple[str, int, str], Sequence[int]] = {
        (row["layer"], row["unit"], row["sign"]): row["images"] for row in run.rows
    }
    gone = set(report.gone)
    return [
        {"it": chosen[unit], "gone": unit in gone,
         "pictures": list(rows.get((*unit, chosen[unit].sign)) or ())[:PICTURES]}
        for unit in report.order
    ]  # fmt: skip
