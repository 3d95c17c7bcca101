"""Figures of an analysis, with matplotlib, which is loaded when one is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from milanx.act.analyze import NOTHING, Analysis
from milanx.act.categories import KINDS, PARTS_OF_SPEECH, UNSURE
from milanx.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 130
ACROSS = 4  # panels in a row
INK, SOFT, OTHER = "#b4532a", "#9aa0a6", "#31688e"
FEW = 3  # layers that fit as bars side by side; more are drawn over depth


def draw_kinds(analysis: Analysis, path: Path) -> None:
    """Draw the shares of kinds and parts of speech: bars for few layers, over depth for many."""
    layers = [n for n in analysis.layers if n != "all"]
    _save(_bars(analysis, layers) if len(layers) <= FEW else _depth(analysis, layers), path)


def draw_importance(analysis: Analysis, path: Path) -> None:
    """Draw the difference of each kind from random units, and accuracy as units go.

    Raises:
        ValueError: importance was not measured.
    """
    if analysis.importance is None:
        raise ValueError("importance was not measured")
    from matplotlib.figure import Figure

    kinds = {k: r for k, r in analysis.importance["kinds"].items() if "why" not in r}
    down = -(-len(kinds) // ACROSS)
    figure = Figure(figsize=(12, 3 + 2.2 * max(down, 1)), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(3.2, 2.2 * max(down, 1)))
    top, below = parts
    axes = top.subplots()
    for place, row in enumerate(kinds.values()):
        low, high = row["interval"]
        axes.plot([place] * 2, [100 * low, 100 * high], color=SOFT)
        sure = row["p_holm"] < 0.05
        axes.plot(
            place, 100 * row["difference"], "o", color=INK, fillstyle="full" if sure else "none"
        )
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_xticks(range(len(kinds)), list(kinds), rotation=30, ha="right")
    axes.set_ylabel("accuracy less random, points")
    axes.set_title("below zero: units of the kind matter more than random ones of their layers "
                   "(filled: p < .05 after Holm)", fontsize=9)  # fmt: skip
    if kinds:
        panels = below.subplots(down, ACROSS, sharey=True, squeeze=False).ravel()
        for panel, (kind, row) in zip(panels, kinds.items(), strict=False):
            plain = 100 * analysis.importance["accuracy"]
            for values, colour, name in ((row["accuracy"], INK, "kind"),
                                         (row["random"], SOFT, "random")):  # fmt: skip
                panel.plot([0, *row["sizes"]], [plain, *(100 * v for v in values)], ".-",
                           color=colour, label=name)  # fmt: skip
            panel.set_title(kind, fontsize=9)
        for panel in panels[len(kinds) :]:
            panel.axis("off")
        panels[0].legend(fontsize=8)
        below.supxlabel("units set to zero", fontsize=9)
        below.supylabel("accuracy, %", fontsize=9)
    _save(figure, path)


def _bars(analysis: Analysis, layers: list[str]) -> Figure:
    """Draw one bar a kind and layer, with 95 % intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    for axes, names, title in (
        (left, (*KINDS, UNSURE, NOTHING), "units that name a kind, %"),
        (right, PARTS_OF_SPEECH, "words of a description, %"),
    ):
        for number, layer in enumerate(layers):
            rows = [_cell(analysis, layer, name) for name in names]
            spread = [[max(r[0] - r[1], 0) for r in rows], [max(r[2] - r[0], 0) for r in rows]]
            heights = [i + (number - (len(layers) - 1) / 2) * 0.8 / len(layers)
                       for i in range(len(names))]  # fmt: skip
            axes.barh(heights, [r[0] for r in rows], 0.8 / len(layers), label=layer,
                      color=(INK, OTHER, SOFT)[number],
                      xerr=spread, error_kw={"linewidth": 0.8})  # fmt: skip
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_title(title, fontsize=10)
    left.legend(fontsize=8)
    figure.suptitle(analysis.target, fontsize=10)
    return figure


def _depth(analysis: Analysis, layers: list[str]) -> Figure:
    """Draw a panel a kind and part of speech, over the layers in their order."""
    from matplotlib.figure import Figure

    names = (*KINDS, UNSURE, NOTHING, *PARTS_OF_SPEECH)
    down = -(-len(names) // ACROSS)
    figure = Figure(figsize=(12, 2 * down + 1), layout="constrained")
    panels = figure.subplots(down, ACROSS, sharex=True, squeeze=False).ravel()
    for panel, name in zip(panels, names, strict=False):
        rows = [_cell(analysis, layer, name) for layer in layers]
        panel.plot([r[0] for r in rows], ".-", color=OTHER if name in PARTS_OF_SPEECH else INK)
        panel.fill_between(range(len(layers)), [r[1] for r in rows], [r[2] for r in rows],
                           color=SOFT, alpha=0.35, linewidth=0)  # fmt: skip
        panel.set_title(f"{name}s, % of words" if name in PARTS_OF_SPEECH else name, fontsize=9)
        panel.set_ylim(bottom=0)
        panel.set_xticks(range(len(layers)), layers, rotation=60, ha="right", fontsize=7)
    for panel in panels[len(names) :]:
        panel.axis("off")
    figure.suptitle(f"{analysis.target}: units that name a kind, %, by layer", fontsize=10)
    return figure


def _cell(analysis: Analysis, layer: str, name: str) -> tuple[float, float, float]:
    """Return a share and its interval in per cent."""
    counted = analysis.layers[layer]
    row: dict[str, Any] = (counted["kinds"] | counted["parts_of_speech"])[name]
    value = row["estimate"] if "estimate" in row else row["share"]
    return 100 * value, 100 * row["interval"][0], 100 * row["interval"][1]


def _save(figure: Figure, path: Path) -> None:
    """Write a figure as png, without the time in it."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})
