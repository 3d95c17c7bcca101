"""Tables of robustness: of all types, by severity, of decisions, of classes."""

from __future__ import annotations

from typing import Any

from milanx.act.robustness.results import Robustness
from milanx.report.grids import Grid, print_grid
from milanx.report.screen import Screen

Figure = dict[str, Any]
HOW = "In %, with 95 % intervals over photographs; differences are paired."


def print_robustness(found: Robustness, console: Screen | None = None) -> None:
    """Print the figures of an evaluation, and what must be known to read them."""
    console = console or Screen()
    for grid in robustness_grids(found):
        print_grid(grid, console)
    for note in (*found.notes, HOW):
        console.print(note)


def robustness_grids(found: Robustness) -> list[Grid]:
    """Return the tables of an evaluation, the main one first."""
    kinds = {"imagenet-c": _corruptions, "cue-conflict": _cues, "labelled": _tops}
    grids = kinds[found.kind](found)
    photographs = f"{found.images} images of {found.groups} photographs"
    if found.images == found.groups:
        photographs = f"{found.images} photographs"
    grids[0].title = f"{found.kind}: {found.source}, {photographs}"
    return grids


def _grid(first: str, found: Robustness) -> Grid:
    """Return a table with a column a model, and one a difference to the first."""
    between = [f"{name} - {found.models[0]}" for name in found.models[1:]]
    return Grid("", (first, *found.models, *between))


def _corruptions(found: Robustness) -> list[Grid]:
    models, differences = found.figures["models"], found.figures["differences"]
    grid = _grid(f"{found.measure}, %", found)

    def row(name: str, of_model: Any, of_difference: Any) -> None:
        cells = [_text(of_model(models[m])) for m in found.models]
        cells += [_text(of_difference(differences[m]), sign=True) for m in found.models[1:]]
        grid.rows.append((name, *cells))

    row("clean", lambda m: m["clean"], lambda d: d["clean"])
    grid.breaks.add(1)
    for name in found.figures["corruptions"]:
        row(name, lambda m, n=name: m["errors"][n]["mean"], lambda d, n=name: d["errors"][n])
    grid.breaks.add(len(grid.rows))
    row("mean", lambda m: m["mean"], lambda d: d["mean"])
    against = found.figures["normalised_by"]
    mean = "mCE" if found.figures["mce"] else f"mean, {against} = 100"
    relative = "relative mCE" if found.figures["mce"] else f"relative mean, {against} = 100"
    if _tells(found):
        row(mean, lambda m: m["normalised_mean"], lambda d: None)
        row(relative, lambda m: m["relative_mean"], lambda d: None)
    several = len(found.figures["severities"]) > 1  # one alone says what the first table says
    return [grid, *(_severities(found, m) for m in found.models if several)]


def _tells(found: Robustness) -> bool:
    """Whether normalised errors say anything: not of one model in % of itself."""
    return found.figures["mce"] or len(found.models) > 1


def _severities(found: Robustness, model: str) -> Grid:
    """Return the errors of one model by severity, with each type's normalised error."""
    figures, tells = found.figures["models"][model], _tells(found)
    against = "CE" if found.figures["mce"] else f"{found.figures['normalised_by']} = 100"
    severities = [str(s) for s in found.figures["severities"]]
    grid = Grid(f"{model}, by severity",
                (f"{found.measure}, %", *severities, *([against] if tells else [])))  # fmt: skip
    for name in found.figures["corruptions"]:
        row = [f"{e:.1f}" for e in figures["errors"][name]["by_severity"]]
        ratio = figures["normalised"].get(name)
        row += ["" if ratio is None else f"{ratio:.1f}"] if tells else []
        grid.rows.append((name, *row))
    return grid


def _cues(found: Robustness) -> list[Grid]:
    names = {"shape": "shape decisions", "texture": "texture decisions", "neither": "neither",
             "shape_bias": "shape bias"}  # fmt: skip
    return [_flat("decision", names, found)]


def _tops(found: Robustness) -> list[Grid]:
    first = found.figures["models"][found.models[0]]
    names = {k: k.replace("top", "top-") for k in first if k.startswith("top")}
    grid = Grid("", ("class: top-1", *found.models))
    for i, row in enumerate(first["classes"]):
        cells = [_text(found.figures["models"][m]["classes"][i]["top1"]) for m in found.models]
        grid.rows.append((f"{row['name']} ({row['images']})", *cells))
    return [_flat("accuracy", names, found), grid]


def _flat(first: str, names: dict[str, str], found: Robustness) -> Grid:
    grid = _grid(first, found)
    for key, name in names.items():
        cells = [_text(found.figures["models"][m][key]) for m in found.models]
        cells += [_text(found.figures["differences"][m][key], True) for m in found.models[1:]]
        grid.rows.append((name, *cells))
    return grid


def _text(figure: Figure | None, sign: bool = False) -> str:
    """Write a figure with its interval; nothing where there is none."""
    if figure is None or figure["estimate"] is None:
        return ""
    low, high = figure["interval"]
    form = "+.1f" if sign else ".1f"
    return f"{figure['estimate']:{form}} [{low:{form}}, {high:{form}}]"
