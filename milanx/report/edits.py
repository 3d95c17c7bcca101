"""Chosen units, prunings and edits, in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from milanx.report.cells import number, sure_cell, units
from milanx.report.grids import Grid, print_grid
from milanx.report.screen import Screen

if TYPE_CHECKING:
    from milanx.act.export import StoredEdit
    from milanx.act.figures import Figure
    from milanx.act.pruned import PruneReport

UNIT_COLUMNS = ("unit", "description", "why", "confidence", "score")


def print_choice(report: PruneReport) -> None:
    """Print the units that were found, with text, score, reason and exemplars."""
    console = Screen()
    print_grid(choice_grid(report), console)
    for note in report.choice.notes:
        console.print(note)
    for folder in dict.fromkeys(c.exemplars for c in report.choice.units):
        console.print(f"exemplars  {folder}", soft_wrap=True)
    page = report.run / "page" / "index.html"
    if page.is_file():
        console.print(f"page       {page}", soft_wrap=True)


def choice_grid(report: PruneReport) -> Grid:
    """Return the units that were found."""
    grid = Grid(f"{report.target}: {units(len(report.choice.units))}", UNIT_COLUMNS, words=3)
    for c in report.choice.units:
        sure = sure_cell(c.confidence, True, c.status)
        grid.rows.append((c.address, c.text, c.why, sure, number(c.score)))
    return grid


def print_prune(report: PruneReport) -> None:
    """Print what a pruning found, each figure with its 95 % interval over photographs."""
    console = Screen()
    console.print(verdict(report))
    gone = set(report.gone)
    for c in report.choice.units:
        if (c.layer, c.unit) in gone:
            sure = sure_cell(c.confidence, True, c.status)
            console.print(f"  {c.address}  {c.text}" + (f"  ({sure})" if sure else ""))
    for grid in prune_grids(report):
        print_grid(grid, console)
    for line in (*report.notes, *report.weights):
        console.print(line)
    if report.edit:
        console.print(f"edit  {report.edit}", soft_wrap=True)


def verdict(report: PruneReport) -> str:
    """Say how many units go, in one line."""
    many = f"{report.count} of {len(report.order)} units removed ({report.kind})"
    return f"{many}; the number was chosen on {report.images['validation']} validation images"


def prune_grids(report: PruneReport) -> list[Grid]:
    """Return what a pruning did to test images, and its gain over controls, in %."""
    from milanx.act.pruned import CONTROLS

    test = Grid(f"{report.measure}, %: {report.images['test']} test images that took no part",
                ("", "before", "after", "change"))  # fmt: skip
    of = {"target": "what the edit is for", "clean": f"clean ({report.images['clean']} images)"}
    for name, text in of.items():
        before, after = (report.figures[f"{name}_{part}"] for part in ("before", "after"))
        change = _figure(report.figures[f"{name}_change"], signed=True)
        test.rows.append((text, _figure(before), _figure(after), change))
    if worst := report.worst:
        parts = dict.fromkeys((worst.part_before, worst.part_after))
        test.rows.append((f"worst group: {', then '.join(parts)}", _figure(worst.before),
                          _figure(worst.after), ""))  # fmt: skip
    gains = Grid("gain over removing others instead, points of test images", ("instead", "gain"))
    for name, text in CONTROLS.items():
        if report.count or name == "all_best":  # no units instead of none say nothing
            gains.rows.append((text, _figure(report.figures[f"over_{name}"], signed=True)))
    return [test, gains]


def print_edit(stored: StoredEdit) -> None:
    """Print what an edit does, and whence it comes."""
    console = Screen()
    content = stored.content
    columns = ("unit", "edit", "description", "score", "why")
    grid = Grid(f"edit of {content['target']['name']}", columns, words=5)
    for entry in content["edits"]:
        for unit in entry["units"]:
            how = entry["kind"]
            how += f" {unit['value']:.3g}" if "value" in unit else ""
            how += f" by {entry['factor']:g}" if entry["kind"] == "scale" else ""
            score = unit.get("score")
            grid.rows.append((f"{entry['layer']}:{unit['unit']}", how, unit.get("text") or "",
                              "" if score is None else f"{score:.2f}",
                              unit.get("why") or ""))  # fmt: skip
    print_grid(grid, console)
    why, weights = content["why"], content["weights"]
    lines = [f"run      {why.get('run') or 'none'}", f"command  {why.get('command') or 'none'}"]
    if stored.weights:
        lines.append(f"weights  {stored.weights}: logits within "
                     f"{weights['largest_difference']:.1g} of the edit by hooks")  # fmt: skip
        lines += [f"         {way}" for way in weights["ways"]]
    else:
        lines.append(f"weights  none: {weights.get('reason', 'unknown')}")
    for line in lines:
        console.print(line, soft_wrap=True)


def _figure(figure: Figure, signed: bool = False) -> str:
    """Write a share in %, or a difference of two in points, with its interval."""
    form = "+.1f" if signed else ".1f"
    low, high = (f"{100 * end:{form}}" for end in (figure.low, figure.high))
    return f"{100 * figure.estimate:{form}} [{low}, {high}]"
