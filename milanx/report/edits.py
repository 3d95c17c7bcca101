"""Tables of chosen units, prunings and edits in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from milanx.report.screen import Screen

if TYPE_CHECKING:
    from milanx.act.export import StoredEdit
    from milanx.act.figures import Figure
    from milanx.act.pruned import PruneReport

WIDTH = 110


def print_choice(report: PruneReport) -> None:
    """Print the units that were found, with text, score, reason and exemplars."""
    console = Screen()
    table = Table(title=f"{report.target}: {len(report.choice.units)} units", title_justify="left")
    for name in ("unit", "description", "score", "why"):
        table.add_column(name, justify="right" if name == "score" else "left", overflow="fold")
    for c in report.choice.units:
        score = "" if c.score is None else f"{c.score:.2f}"
        table.add_row(c.address, c.text, score, c.why)
    _wide(console).print(table)
    for note in report.choice.notes:
        console.print(note, highlight=False)
    for folder in dict.fromkeys(c.exemplars for c in report.choice.units):
        console.print(f"exemplars  {folder}", highlight=False, soft_wrap=True, markup=False)
    page = report.run / "page" / "index.html"
    if page.is_file():
        console.print(f"page       {page}", highlight=False, soft_wrap=True)


def print_prune(report: PruneReport) -> None:
    """Print what a pruning found, each figure with its 95 % interval over photographs."""
    console = Screen()
    console.print(f"{report.count} of {len(report.order)} units removed ({report.kind}), chosen on "
                  f"{report.images['validation']} validation images", highlight=False)  # fmt: skip
    gone = set(report.gone)
    for c in report.choice.units:
        if (c.layer, c.unit) in gone:
            console.print(f"  {c.address}  {c.text}", highlight=False)
    table = Table(title=f"{report.measure}, {report.images['test']} test images that took no part",
                  title_justify="left")  # fmt: skip
    for name in ("", "before", "after", "change"):
        table.add_column(name, justify="left" if not name else "right")
    for name in ("target", "clean"):
        row = [_figure(report.figures[f"{name}_{part}"]) for part in ("before", "after")]
        table.add_row(name, *row, _figure(report.figures[f"{name}_change"], signed=True))
    if report.worst:
        worst = report.worst
        table.add_row(f"worst group ({worst.part_before}, {worst.part_after})",
                      _figure(worst.before), _figure(worst.after), "")  # fmt: skip
    _wide(console).print(table)
    gains = Table(title="gain over removing others, test images", title_justify="left")
    gains.add_column("instead of the chosen")
    gains.add_column("gain", justify="right")
    from milanx.act.pruned import CONTROLS

    for name, text in CONTROLS.items():
        gains.add_row(text, _figure(report.figures[f"over_{name}"], signed=True))
    _wide(console).print(gains)
    for line in (*report.notes, *report.weights):
        console.print(line, highlight=False)
    if report.edit:
        console.print(f"edit  {report.edit}", highlight=False, soft_wrap=True)


def print_edit(stored: StoredEdit) -> None:
    """Print what an edit does, and whence it comes."""
    console = Screen()
    content = stored.content
    table = Table(title=f"edit of {content['target']['name']}", title_justify="left")
    for name in ("unit", "edit", "description", "score", "why"):
        table.add_column(name, justify="right" if name == "score" else "left")
    for entry in content["edits"]:
        for unit in entry["units"]:
            how = entry["kind"]
            how += f" {unit['value']:.3g}" if "value" in unit else ""
            how += f" by {entry['factor']:g}" if entry["kind"] == "scale" else ""
            score = unit.get("score")
            table.add_row(f"{entry['layer']}:{unit['unit']}", how,
                          unit.get("text") or "", "" if score is None else f"{score:.2f}",
                          unit.get("why") or "")  # fmt: skip
    _wide(console).print(table)
    why, weights = content["why"], content["weights"]
    lines = [f"run      {why.get('run') or 'none'}", f"command  {why.get('command') or 'none'}"]
    if stored.weights:
        lines.append(f"weights  {stored.weights}: logits within "
                     f"{weights['largest_difference']:.1g} of the edit by hooks")  # fmt: skip
        lines += [f"         {way}" for way in weights["ways"]]
    else:
        lines.append(f"weights  none: {weights.get('reason', 'unknown')}")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def _wide(console: Screen) -> Screen:
    return Screen(width=max(console.width, WIDTH))


def _figure(figure: Figure, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"{figure.estimate:{sign}.3f} [{figure.low:{sign}.3f}, {figure.high:{sign}.3f}]"
