"""Figures as png, with matplotlib, which is imported when one is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from milanx.files import atomic_path

if TYPE_CHECKING:
    from milanx.act.pruned import PruneReport

SIZE = (7.0, 4.2)  # inches
DPI = 160
# Colours that stay apart for the colour-blind (Okabe and Ito 2008), one a curve.
COLOURS = {"chosen": "#D55E00", "all": "#0072B2", "random": "#777777", "reversed": "#009E73"}
NAMES = {
    "chosen": "chosen by words", "all": "all units, sorted likewise",
    "random": "random, same layers", "reversed": "chosen, reversed",
}  # fmt: skip


def draw_curves(report: PruneReport, path: Path) -> Path:
    """Draw a pruning's curves on the validation images, and mark the number that was chosen.

    Random sets are their mean, with the band that 95 % of them lie in.

    Raises:
        InputError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, curve in report.curves.items():
        mean = curve.values.mean(0)
        axes.plot(curve.sizes, mean, label=NAMES[name], color=COLOURS[name],
                  linewidth=2.2 if name == "chosen" else 1.4)  # fmt: skip
        if len(curve.values) > 1:
            low, high = np.percentile(curve.values, [2.5, 97.5], axis=0)
            axes.fill_between(curve.sizes, low, high, color=COLOURS[name], alpha=0.18, linewidth=0)
    _mark(axes, report)
    axes.set_xlabel("units removed")
    labelled = report.measure == "accuracy"
    axes.set_ylabel("accuracy" if labelled else "agreement with the unedited model")
    what = f"{report.target}: {len(report.order)} units, {report.kind}; "
    axes.set_title(what + f"{report.images['validation']} validation images", fontsize=10)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
    return path


def _mark(axes: Any, report: PruneReport) -> None:
    """Mark the number that was chosen."""
    count = report.count or 0
    height = float(report.curves["chosen"].values[0][count])
    axes.plot([count], [height], "o", color=COLOURS["chosen"], markersize=7, zorder=5)
    axes.axvline(count, color=COLOURS["chosen"], linewidth=0.8, linestyle=":")
    axes.annotate(f"{count} chosen", (count, height), textcoords="offset points", xytext=(6, 8),
                  fontsize=9, color=COLOURS["chosen"])  # fmt: skip
