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
DONE = {"zero": "set to zero", "mean": "set to their mean", "resample": "resampled",
        "scale": "scaled"}  # fmt: skip
NAMES = {
    "chosen": "chosen by words", "all": "all units, sorted likewise",
    "random": "random (95 % of sets)", "reversed": "chosen, reversed",
}  # fmt: skip


def draw_curves(report: PruneReport, path: Path) -> Path:
    """Draw a pruning's curves on the validation images, and mark the number that was chosen.

    Random sets are their mean, with the band that 95 % of them lie in.

    Raises:
        InputError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, curve in report.curves.items():
        values = 100 * curve.values
        chosen = name == "chosen"
        axes.plot(curve.sizes, values.mean(0), label=NAMES[name], color=COLOURS[name],
                  linewidth=2.2 if chosen else 1.4, zorder=4 if chosen else 3)  # fmt: skip
        if len(values) > 1:
            low, high = np.percentile(values, [2.5, 97.5], axis=0)
            axes.fill_between(curve.sizes, low, high, color=COLOURS[name], alpha=0.18, linewidth=0)
    _mark(axes, report)
    axes.set_xlabel("units removed")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    labelled = report.measure == "accuracy"
    axes.set_ylabel("accuracy, %" if labelled else "agreement with the unedited model, %")
    axes.set_title(f"{report.target}, up to {len(report.order)} units {DONE[report.kind]}, "
                   f"{report.images['validation']} validation images", fontsize=10)  # fmt: skip
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
    return path


def _mark(axes: Any, report: PruneReport) -> None:
    """Mark the number that is taken."""
    count = report.count or 0
    height = 100 * float(report.curves["chosen"].values[0][count])
    axes.plot([count], [height], "o", color=COLOURS["chosen"], markersize=7, zorder=5,
              linestyle="none", label=f"the number taken: {count}")  # fmt: skip
