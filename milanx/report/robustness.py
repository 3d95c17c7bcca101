"""Tables of robustness in the terminal, with rich."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from milanx.act.robustness.results import Robustness
from milanx.report.screen import Screen

Figure = dict[str, Any]


def print_robustness(found: Robustness, console: Screen | None = None) -> None:
    """Print the figures of an evaluation, and what must be known to read them."""
    console = console or Screen()
    title = f"{found.kind}: {found.source}, {found.images} images of {found.groups} photographs"
    kinds = {"imagenet-c": _corruptions, "cue-conflict": _cues, "labelled": _tops}
    for table in kinds[found.kind](found):
        if title:
            table.title, table.title_justify = title, "left"
        console.print(table)
        title = ""
    for note in found.notes:
        console.print(note, highlight=False)
    console.print("In %, with 95 % intervals over photographs; differences are paired.")


def _table(first: str, found: Robustness) -> Table:
    """Return a table with a column a model, and one a difference to the first."""
    table = Table()
    table.add_column(first)
    for name in found.models:
        table.add_column(name, justify="right")
    for name in found.models[1:]:
        table.add_column(f"{name} - {found.models[0]}", justify="right")
    return table


def _corruptions(found: Robustness) -> list[Table]:
    models, differences = found.figures["models"], found.figures["differences"]
    table = _table(found.measure, found)

    def row(name: str, of_model: Any, of_difference: Any) -> None:
        cells = [_text(of_model(models[m])) for m in found.models]
        cells += [_text(of_difference(differences[m]), sign=True) for m in found.models[1:]]
        table.add_row(name, *cells)

    row("clean", lambda m: m["clean"], lambda d: d["clean"])
    for name in found.figures["corruptions"]:
        row(name, lambda m, n=name: m["errors"][n]["mean"], lambda d, n=name: d["errors"][n])
    row("mean", lambda m: m["mean"], lambda d: d["mean"])
    against = found.figures["normalised_by"]
    mean = "mCE" if found.figures["mce"] else f"mean, {against} = 100"
    relative = "relative mCE" if found.figures["mce"] else f"relative mean, {against} = 100"
    if _tells(found):
        table.add_section()
        row(mean, lambda m: m["normalised_mean"], lambda d: None)
        row(relative, lambda m: m["relative_mean"], lambda d: None)
    return [table, *(_severities(found, m) for m in found.models)]


def _tells(found: Robustness) -> bool:
    """Whether normalised errors say anything: not of one model in % of itself."""
    return found.figures["mce"] or len(found.models) > 1


def _severities(found: Robustness, model: str) -> Table:
    """Return the errors of one model by severity, with each type's normalised error."""
    figures = found.figures["models"][model]
    table = Table(title=model, title_justify="left")
    table.add_column(found.measure)
    for severity in found.figures["severities"]:
        table.add_column(str(severity), justify="right")
    against = found.figures["normalised_by"]
    if _tells(found):
        table.add_column("CE" if found.figures["mce"] else f"{against} = 100", justify="right")
    for name in found.figures["corruptions"]:
        row = [f"{e:.1f}" for e in figures["errors"][name]["by_severity"]]
        ratio = figures["normalised"].get(name)
        if _tells(found):
            row.append("" if ratio is None else f"{ratio:.1f}")
        table.add_row(name, *row)
    return table


def _cues(found: Robustness) -> list[Table]:
    names = {"shape": "shape decisions", "texture": "texture decisions", "neither": "neither",
             "shape_bias": "shape bias"}  # fmt: skip
    return [_flat("decision", names, found)]


def _tops(found: Robustness) -> list[Table]:
    first = found.figures["models"][found.models[0]]
    names = {k: k.replace("top", "top-") for k in first if k.startswith("top")}
    table = _table("class: top-1", found)
    for i, row in enumerate(first["classes"]):
        cells = [_text(found.figures["models"][m]["classes"][i]["top1"]) for m in found.models]
        table.add_row(f"{row['name']} ({row['images']})", *cells)
    return [_flat("accuracy", names, found), table]


def _flat(first: str, names: dict[str, str], found: Robustness) -> Table:
    table = _table(first, found)
    for key, name in names.items():
        cells = [_text(found.figures["models"][m][key]) for m in found.models]
        cells += [_text(found.figures["differences"][m][key], True) for m in found.models[1:]]
        table.add_row(name, *cells)
    return table


def _text(figure: Figure | None, sign: bool = False) -> str:
    """Write a figure with its interval; nothing where there is none."""
    if figure is None or figure["estimate"] is None:
        return ""
    low, high = figure["interval"]
    form = "+.1f" if sign else ".1f"
    return f"{figure['estimate']:{form}} [{low:{form}}, {high:{form}}]".replace("[", r"\[")
