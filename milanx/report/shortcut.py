"""The experiment of spurious text as a table and a figure."""

from __future__ import annotations

import io
import shlex
from pathlib import Path
from typing import Any

from PIL import Image

from milanx.files import atomic_path, write_text

ENOUGH = 10  # seeds from which an interval over seeds is worth reading
ORDERS = {"lying": "sorted on images whose text lies", "alike": "sorted on images as in training"}
ROWS = (
    ("unedited", "unedited"),
    ("match", "units said to see text"),
    ("all", "all units sorted the same way, as many"),
    ("all, own count", "all units sorted the same way, own count"),
    ("random", "random units of the layer, as many"),
    ("changed", "units that lettering changes the most, own count"),
    ("ceiling", "trained without text"),
)
GAINS = ("over unedited", "over all", "over all, own count", "over random", "over changed",
         "plain")  # fmt: skip
INKS = 64  # colours of the picture
DRAWN = {  # kinds of curves: what they are called, and their ink
    "random": ("random units", "#8a8a8a"),
    "all": ("all units, sorted alike", "#30638e"),
    "changed": ("truly changed by lettering", "#2e8b57"),
    "match": ("said to see text", "#c23b22"),
}


def _figure(found: dict[str, Any]) -> str:
    low, high = found["interval"]
    return f"{found['estimate']:.3f} [{low:.3f}, {high:.3f}]".replace("0.", ".")


def _range(values: list[int]) -> str:
    return f"{min(values)} to {max(values)}" if min(values) < max(values) else str(values[0])


def shortcut_table(results: dict[str, Any]) -> str:
    """Return the figures as Markdown.

    Args:
        results: what ``results.json`` holds.
    """
    parts = [part for share in results["shares"] for part in _share(share)]
    return "\n".join([
        "Accuracy on the test images, mean over seeds; 95 % intervals over seeds and images.", "",
        *parts,
        *_made_by(results),
    ])  # fmt: skip


def _made_by(results: dict[str, Any]) -> list[str]:
    """Return what makes the same again: commands, and what tells that it is the same."""
    images, how = results["images"], results["settings"]
    sources = [source["name"] for source in images["images"]["sources"]]
    test = f" --test {sources[1]}" if len(sources) > 1 else ""
    shares = "".join(f" --share {share}" for share in images["shares"])
    words = "".join(f" --match {shlex.quote(word)}" for word in how["match"])
    options = (f"--epochs {how['fit']['epochs']} --shift {how['fit']['shift']} --in {how['within']}"
               f" --draws {how['draws']}{words}")  # fmt: skip
    first = results["shares"][0]
    one = f"--share {first['share']} --first-seed {first['seeds'][0]} --seeds 1"
    every = f"--first-seed {min(first['seeds'])} --seeds {len(first['seeds'])}"
    return [
        "## Made by",
        "",
        f"    milanx shortcut make {sources[0]}{test}{shares} --side {images['side']}"
        f" --roam {images['style']['roam']} --colours {images['style']['colours']}"
        f" --seed {images['seed']} -o shortcut",
        f"    milanx shortcut run shortcut {every} {options}",
        "",
        "One network again:",
        "",
        f"    milanx shortcut run shortcut -o again {one} {options}",
        "",
        f"Images {results['experiment']}, describer {results['describer']}, {results['threads']} "
        "threads; with another number of threads the last digits of weights differ.",
    ]  # fmt: skip


def _share(share: dict[str, Any]) -> list[str]:
    seeds, few = len(share["seeds"]), ""
    if seeds < ENOUGH:
        few = f" (fewer than {ENOUGH}: intervals over seeds are rough)"
    lines = [
        f"## {share['share']} % of the training images carry their name",
        "",
        f"{seeds} seeds{few}, {share['images']} test images; {_range(share['matched'])} of "
        f"{share['units']} units are said to see text{_tells(share['auroc'])}.",
        "",
    ]
    for order, called in ORDERS.items():
        lines += [
            f"Units {called}; {_range(share['counts'][order])} pruned, a number chosen on "
            "validation images whose text lies:",
            "",
            "| | text lies | no text | as in training |",
            "|---|---|---|---|",
        ]
        lines += [_row(share["rows"], order, *row) for row in ROWS]
        lines += ["", "| pruning by description gains | |", "|---|---|"]
        lines += [f"| {'where no text is' if name == 'plain' else name} | "
                  f"{_figure(share['gains'][order][name])} |" for name in GAINS]  # fmt: skip
        lines += [""]
    return [*lines, *_per_seed(share), ""]


def _tells(found: list[float | None]) -> str:
    """Say how often a unit said to see text is changed more by lettering than one that is not."""
    known = [value for value in found if value is not None]
    if not known:
        return ""
    mean = f"{sum(known) / len(known):.2f}".removeprefix("0")
    return (f"; lettering changes them more than the others with an AUROC of {mean} "
            f"(mean of {len(known)} seeds)")  # fmt: skip


def _row(rows: dict[str, Any], order: str, name: str, called: str) -> str:
    key = name if name in ("unedited", "ceiling") else f"{order}: {name}"
    cells = [rows.get(key if not test else f"{key}, {test}") for test in ("", "plain", "alike")]
    return f"| {called} | {' | '.join(_figure(c) if c else '' for c in cells)} |"


def _per_seed(share: dict[str, Any]) -> list[str]:
    lines = [
        "Each seed, units sorted on images whose text lies:",
        "",
        "| seed | units | pruned | follows the lie | unedited | match | all | random | changed "
        "| ceiling |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for seed in share["per_seed"]:
        cells = [seed["unedited"], seed["lying: match"], seed["lying: all"], seed["lying: random"],
                 seed["lying: changed"], seed["ceiling"]]  # fmt: skip
        figures = " | ".join(f"{v:.3f}".removeprefix("0") for v in (seed["follows"], *cells))
        count = seed["orders"]["lying"]["count"]
        lines.append(f"| {seed['seed']} | {len(seed['matched'])} | {count} | {figures} |")
    return lines


def draw_shortcut(results: dict[str, Any], path: Path) -> None:
    """Draw what is gained where the text lies over the number of units set to zero; a png.

    Args:
        results: what ``results.json`` holds.
        path: of the picture.
    """
    from matplotlib.figure import Figure

    shares = results["shares"]
    figure = Figure(figsize=(9, 3.2 * len(shares) + 0.4), dpi=110, layout="constrained")
    axes = figure.subplots(len(shares), len(ORDERS), squeeze=False, sharey="row")
    for row, share in zip(axes, shares, strict=True):
        for place, (order, called) in zip(row, ORDERS.items(), strict=True):
            _panel(place, share, order)
            place.set_title(f"{share['share']} % written, {called}", fontsize=9)
        row[0].set_ylabel("points gained where the text lies", fontsize=8)
    for place in axes[-1]:
        place.set_xlabel("units set to zero", fontsize=8)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    with atomic_path(path) as temporary:  # few inks: a third of the bytes
        Image.open(drawn).convert("RGB").quantize(INKS).save(temporary, "PNG", optimize=True)


def _panel(place: Any, share: dict[str, Any], order: str) -> None:
    """Draw the mean over seeds on a faint line a seed, and the numbers that were chosen."""
    for kind, (called, ink) in DRAWN.items():
        curves = [_gains(seed, order, kind) for seed in share["per_seed"]]
        longest = max(map(len, curves))
        for curve in curves:
            place.plot(range(len(curve)), curve, color=ink, lw=0.6, alpha=0.25)
        # A seed whose units are all gone stays where it is.
        held = [[*curve, *[curve[-1]] * (longest - len(curve))] for curve in curves]
        means = [sum(values) / len(values) for values in zip(*held, strict=True)]
        place.plot(range(longest), means, color=ink, lw=2, label=called)
    for number, seed in enumerate(share["per_seed"]):
        count, curve = seed["orders"][order]["count"], _gains(seed, order, "match")
        place.plot([count], [curve[count]], "o", ms=3.5, color=DRAWN["match"][1],
                   label="number chosen on validation" if number == 0 else None)  # fmt: skip
    place.axhline(0, color="black", lw=0.6)
    rows = share["rows"]
    missing = 100 * (rows["ceiling"]["estimate"] - rows["unedited"]["estimate"])
    place.text(0.02, 0.97, f"trained without text: {missing:+.1f} points", fontsize=7,
               transform=place.transAxes, va="top")  # fmt: skip
    place.tick_params(labelsize=7)
    place.spines[["top", "right"]].set_visible(False)


def _gains(seed: dict[str, Any], order: str, kind: str) -> list[float]:
    """Return the points gained on the test by each number of units of a seed."""
    curves = seed["orders"][order]["curves"]
    values = seed["random_curve"] if kind == "random" else curves[kind]["test"]
    return [100 * (value - values[0]) for value in values]


def write_shortcut(results: dict[str, Any], folder: Path) -> list[Path]:
    """Write ``table.md`` and ``curves.png``; returns their paths."""
    table, picture = folder / "table.md", folder / "curves.png"
    write_text(table, shortcut_table(results) + "\n")
    draw_shortcut(results, picture)
    return [table, picture]
