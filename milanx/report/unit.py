"""One unit in the terminal: its texts with their figures, why the first won, its exemplars."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from rich.table import Table

from milanx.report.cells import (
    address,
    headline,
    number,
    numbered,
    score_cell,
    sense_line,
    sure_cell,
)
from milanx.report.screen import Screen, styled
from milanx.report.sure import calibrated, sureness
from milanx.report.why import LEGEND, SUM, in_words, reasons, rival, whose_units, without_text

if TYPE_CHECKING:
    from milanx.runs import Run, UnitView

BANDS = (
    "met by {rates} of the images kept aside that excite the unit most (1 %), less (to 10 %) and "
    "least (to 50 %); by 10 % of any"
)


def print_unit(run: Run, view: UnitView) -> None:
    """Print one unit: its candidates with their figures, and its exemplars."""
    console = Screen()
    console.print(
        styled(address(view.row), "bold"), f": {view.description or without_text(run, view.row)}",
        sep="",
    )  # fmt: skip
    console.print(f"of {headline(run)}")
    if whose := whose_units(run):
        console.print(whose, highlight=False, soft_wrap=True)
    if view.confidence is not None:
        console.print(f"confidence {view.confidence:.2f} ({view.status})", highlight=False)
    elif view.confidence_reason:
        console.print(f"no confidence: {view.confidence_reason}", highlight=False)
    place = next(i for i, row in enumerate(view.run.rows) if row is view.row)
    share = None if calibrated(view.run.rows) else sureness(view.run.rows)[place]
    if share is not None:
        beside = "" if share == 1 else " of the described units"
        console.print(f"surer than {sure_cell(share)}{beside}", highlight=False)
    if view.score is not None:
        console.print(f"score {score_cell(view.score, view.score_interval)}", highlight=False)
    elif view.score_reason:
        console.print(f"no score: {view.score_reason}", highlight=False)
    for sense in view.senses:
        shown = ", ".join(str(view.row["images"][place]) for place in sense["exemplars"])
        score = score_cell(sense["score"], sense["score_interval"])
        console.print(f"sense: {sense_line(sense)}, score {score}, exemplars {shown}",
                      highlight=False)  # fmt: skip
        if any(rate is not None for rate in sense["bands"] or ()):
            rates = ", ".join("-" if r is None else f"{r:.0%}" for r in reversed(sense["bands"]))
            console.print(f"       {BANDS.format(rates=rates)}", highlight=False)
    table = Table()
    for name in ("candidate", SUM, "PMI", "log p(d|E)", "log p(d)"):
        table.add_column(name, justify="left" if name == "candidate" else "right")
    for candidate in view.row["candidates"]:
        figures = ("rank", "pmi", "log_p_given_exemplars", "log_p_prior")
        table.add_row(candidate["text"], *(number(candidate[f]) for f in figures))
    console.print(table)
    _print_why(console, view)
    _print_exemplars(console, run, view)
    console.print(f"run   {run.root}", soft_wrap=True)
    if (page := run.results / "page" / "index.html").is_file():
        unit = f"{quote(view.layer, safe='')}/{numbered(view.row)}"
        console.print(f"page  {page.resolve().as_uri()}#{unit}", soft_wrap=True)


def _print_exemplars(console: Screen, run: Run, view: UnitView) -> None:
    """Print the exemplars with their activations and files, the strongest first."""
    count, most = len(view.row["images"]), run.k or 0
    short = f" ({count} of {most})" if 0 < count < most else ""
    if not count:
        console.print(f"exemplars{short}: none")
        return
    console.print(f"exemplars{short}: image, activation, file")
    files = run.files(view.row["images"])
    for image, activation in zip(view.row["images"], view.row["activations"], strict=True):
        console.print(f"  {image:>6} {activation:8.2f}  {files.get(image, '')}".rstrip(),
                      soft_wrap=True)  # fmt: skip


def _print_why(console: Screen, view: UnitView) -> None:
    """Print what each term of the ranking added to the first text and to the next best."""
    lines = reasons(view.row)
    if not lines:
        if view.row["candidates"] and not view.run.settings.get("imported"):
            console.print(
                "This run was described by an earlier milanx, which kept no terms of the ranking: "
                "describe it again to see why a text ranks first."
            )
        return
    for sentence in in_words(view.row):
        console.print(sentence, highlight=False)
    second = rival(view.row)
    names = [view.row["candidates"][0]["text"], *([second["text"]] if second else [])]
    table = Table(
        title="why it ranks first: what each term added, in nats (and what was measured)",
        title_justify="left",
    )
    table.add_column("term")
    for name in (*names, "difference")[: 2 * len(names) - 1]:
        table.add_column(name, justify="right")
    for line in lines:
        if line.term == SUM:
            table.add_section()
        cells = (line.winner, line.other, line.difference)[: 2 * len(names) - 1]
        table.add_row(line.term, *cells)
    console.print(table)
    console.print(LEGEND)
