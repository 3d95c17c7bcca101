"""Progress and tables in the terminal, with rich."""

from __future__ import annotations

import contextlib
import shlex
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from milanx.errors import one_line
from milanx.report.cells import (
    NAMED,
    TEXT,
    add_units,
    address,
    confidence_note,
    headline,
    score_cell,
    score_note,
    sense_line,
    sure_cell,
    units,
)
from milanx.report.screen import Screen
from milanx.report.sure import NUMBER, SCORE, SURE, calibrated, ordered, sureness
from milanx.report.why import others, without_text

if TYPE_CHECKING:
    from milanx.runs import Run
    from milanx.targets.listed import Listed

# Distinct photos below which more than half of a response is taken off (`no_opinion` of
# `milanx.describing.settings.ResponseSettings`).
FEW = 200
EDGE = 3  # columns of a terminal that a table's lines and their spaces take beside a cell
EVERY = 30.0  # seconds after which a long stage says that it goes on
DOES = {  # what the longer stages do
    "load describer": "reads the networks that say what units detect",
    "load target": "reads or fetches the model and finds its layers",
    "open images": "looks through them, for copies too",
    "extract": "shows the images to the model and keeps what excites each unit most",
    "encode": "looks at these images with the describer's own encoder",
    "describe": "searches texts for each unit and ranks them",
    "encode images": "looks at the images kept aside, for scores",
    "score": "compares texts with the images kept aside",
    "page": "writes it",
}
SHOWN = 20  # units of a run that are printed; the page has them all
DEMONSTRATION = (
    "These are the built-in images, a demonstration: some 270 photos hold few concepts, so "
    "descriptions lean to them."
)
SURER = (
    "surer than: the share of the described units whose text fits worse and foretells the unit "
    "worse on its images"
)
FEW_PHOTOS = (
    "With {photos} distinct photos the order says little, and so do texts: give a few hundred."
)
SCORED = ", and has the lower score"


class _Count(MofNCompleteColumn):
    """How many of how many steps are done; nothing where nobody knows."""

    def render(self, task: Task) -> Text:
        """Write it."""
        return Text("") if task.total is None else super().render(task)


class _Bar:
    """A stage on a progress display."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def advance(self, n: int = 1) -> None:
        """Say that ``n`` more steps are done."""
        self._progress.advance(self._task, n)

    def at(self, done: int, total: int | None = None) -> None:
        """Say that ``done`` steps, of ``total``, are done."""
        self._progress.update(self._task, completed=done, total=total)

    @property
    def text(self) -> str:
        """How far it is; empty where nobody knows."""
        task = next(task for task in self._progress.tasks if task.id == self._task)
        return f"{task.completed:.0f} of {task.total:.0f}" if task.total else ""


class TerminalReporter:
    """Shows stages on stderr: bars on a terminal; elsewhere a line when one begins and ends.

    Args:
        every: seconds after which a long stage says that it goes on, where there is no terminal.
    """

    def __init__(self, every: float = EVERY) -> None:
        self.console, self._every = Screen(stderr=True), every

    def say(self, text: str) -> None:
        """Tell one line."""
        self.console.print(one_line(text))

    @contextlib.contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[_Bar]:
        """Begin a stage; its seconds are printed at its end."""
        started, live = time.monotonic(), self.console.is_terminal
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            _Count(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True, disable=not live) as progress:
            bar = _Bar(progress, progress.add_task(name, total=total))
            with contextlib.nullcontext() if live else self._going_on(name, started, bar):
                yield bar
        self.console.print(f"{name:14} {time.monotonic() - started:7.1f} s", highlight=False)

    @contextlib.contextmanager
    def _going_on(self, name: str, started: float, bar: _Bar) -> Iterator[None]:
        """Say that a stage begins, and now and then that it goes on."""
        self.console.print(f"{name:14} ... {DOES.get(name, '')}".rstrip())
        ended = threading.Event()

        def tell() -> None:
            while not ended.wait(self._every):
                seconds = f"{time.monotonic() - started:.0f} s"
                self.console.print(f"{name:14} ... {', '.join(filter(None, (bar.text, seconds)))}")

        teller = threading.Thread(target=tell, daemon=True)
        teller.start()
        try:
            yield
        finally:
            ended.set()
            teller.join()


def print_run(run: Run, page: Path | None, sort: str = SURE, top: int = SHOWN) -> None:
    """Print the first units of a run, and where the rest is.

    Args:
        run: one with descriptions.
        page: of it, where one was written.
        sort: one of `milanx.report.sure.SORTS`.
        top: how many units.
    """
    console = Screen()
    sure = sureness(run.rows)
    scored = any(row["score"] is not None for row in run.rows)
    sort = SURE if sort == SCORE and not scored else sort
    order = ordered(run.rows, sort, sure)[:top]
    ranked = any(value is not None for value in sure) and not calibrated(run.rows)
    photos = run.photos
    if ranked and photos is not None and photos < FEW:
        console.print(FEW_PHOTOS.format(photos=photos))
    console.print(_table(run, order, sure, console, _title(run, sort, len(order))))
    _print_counts(console, run, scored)
    if ranked:
        console.print(SURER + (SCORED if scored else "") + ".", highlight=False)
    if run.demonstration:
        console.print(DEMONSTRATION)
        console.print(f"They hold: {'; '.join(run.concepts)}.", highlight=False)
    if page is not None:
        console.print(f"run   {run.root}", highlight=False, soft_wrap=True)
        console.print(f"page  {page}", highlight=False, soft_wrap=True)
        if order:
            root, unit = shlex.quote(str(run.root)), shlex.quote(address(run.rows[order[0]]))
            console.print(f"next  milanx show {root} --unit {unit}",
                          highlight=False, soft_wrap=True)  # fmt: skip
            console.print(f"      milanx find water {root}", highlight=False, soft_wrap=True)


def _table(
    run: Run, order: Sequence[int], sure: Sequence[float | None], console: Screen, title: str
) -> Table:
    """Make the table of some of a run's units.

    Args:
        run: with descriptions.
        order: places of its rows.
        sure: what `sureness` says of all.
        console: where it is printed.
        title: above it.
    """
    told, rows = calibrated(run.rows), [run.rows[place] for place in order]
    figures = {}
    if any(value is not None for value in sure):
        figures["confidence" if told else "surer than"] = [
            sure_cell(sure[p], told, run.rows[p]["description"] and run.rows[p]["status"])
            for p in order
        ]
    if any(row["score"] is not None for row in run.rows):
        figures["score"] = [score_cell(row["score"], row["score_interval"]) for row in rows]
    table = Table(title=title, title_justify="left")
    named = add_units(table, run, rows, console)
    table.add_column("description")
    taken = [named, *([name, *cells] for name, cells in figures.items())]
    edges = EDGE * (len(taken) + 2) + 1
    beside = console.width - edges - sum(max(map(len, cells), default=0) for cells in taken) >= TEXT
    if beside:
        table.add_column("next best")
    for name in figures:
        table.add_column(name, justify="right", no_wrap=True)
    for i, row in enumerate(rows):
        text = row["description"] or f"({without_text(run, row)})"
        text += "".join(f"\n  {sense_line(sense)}" for sense in row["senses"] or ())
        rest = [", ".join(c["text"] for c in others(row)[:2])] * beside
        table.add_row(named[i], text, *rest, *(cells[i] for cells in figures.values()),
                      style="dim" if row["status"] == "unclear" else None)  # fmt: skip
    return table


def _title(run: Run, sort: str, shown: int) -> str:
    how = {SURE: "surest", SCORE: "best scored"}.get(sort, "first")
    if shown < len(run):
        return f"{headline(run)}: the {shown} {how} of {len(run)} units"
    return f"{headline(run)}: {units(len(run))}" + (f", {how} first" if sort != NUMBER else "")


def _print_counts(console: Screen, run: Run, scored: bool) -> None:
    """Print how many units are what, and what their scores are."""
    counts: dict[str, int] = {}
    for row in run.rows:
        counts[row["status"]] = counts.get(row["status"], 0) + 1
    console.print(", ".join(f"{n} {status}" for status, n in counts.items()), highlight=False)
    if several := sum(bool(row["senses"]) for row in run.rows):
        console.print(f"{several} of several senses", highlight=False)
    if short := sum(0 < len(row["images"]) < (run.k or 0) for row in run.rows):
        console.print(f"{short} with fewer than {run.k} exemplars", highlight=False)
    if calibrated(run.rows):
        console.print(confidence_note(run), highlight=False)
    if scored:
        console.print(score_note(run), highlight=False)
    elif why := (run.settings.get("score") or {}).get("reason"):
        console.print(f"No scores: {why}.", highlight=False)


def print_layers(name: str, infos: Sequence[Listed]) -> None:
    """Print the layers of a model: a table of those that can be described, and why others not."""
    described = [info for info in infos if info.refused is None]
    table = Table(title=f"{name}: {len(described)} layers", title_justify="left")
    for column in ("layer", "kind", "units", "map", "read", "note"):
        table.add_column(
            column,
            justify="right" if column == "units" else "left",
            overflow="fold",
            no_wrap=column == "layer",
        )
    for info in described:
        notes = ["inert"] if info.inert else ["inert?"] if info.inert is None else []
        if info.linear:
            notes.append("linear")
        if info.better and (info.linear or info.inert):
            notes.append(f"better: {info.better}")
        table.add_row(
            info.name,
            info.kind,
            str(info.units),
            f"{info.map_size[0]} x {info.map_size[1]}",
            info.read,
            "; ".join(notes),
        )
    console = Screen()
    if not console.is_terminal:
        console = Screen(width=160)
    console.print(table)
    console.print(
        "inert: nothing of it reaches the output. linear: no nonlinearity of its own, so "
        "units have a second side (--sign -)."
    )
    if any(info.inert is None for info in described):
        console.print("inert?: whether it reaches the output cannot be told without gradients.")
    reasons: dict[str, list[str]] = {}
    for info in infos:
        if info.refused is not None:
            reasons.setdefault(info.refused, []).append(info.name)
    if reasons:
        console.print(f"{len(infos) - len(described)} modules cannot be described:")
    for reason, names in reasons.items():
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        console.print(f"- {', '.join(names[:NAMED])}{more}: {reason}",
                      highlight=False, soft_wrap=True)  # fmt: skip


def print_report(report: dict[str, Any]) -> None:
    """Print a protocol's rows with their 95 % intervals."""
    table = Table(title=f"{report['protocol']}: n = {report['n']}", title_justify="left")
    names = list(report["rows"])
    measures = list(dict.fromkeys(m for row in report["rows"].values() for m in row))
    for column in ("row", *measures):
        table.add_column(column, justify="left" if column == "row" else "right")
    for name in names:
        cells = []
        for measure in measures:
            value = report["rows"][name].get(measure)
            if isinstance(value, dict):
                low, high = value["interval"]
                cells.append(f"{value['estimate']:.3f} [{low:.3f}, {high:.3f}]")
            else:
                cells.append(f"{value:.3f}" if isinstance(value, float) else str(value or ""))
        table.add_row(name, *cells)
    console = Screen(width=max(Screen().width, 120))
    console.print(table)
    for line in report.get("notes", ()):
        console.print(line, highlight=False)


def print_bench(rows: Sequence[dict[str, Any]], title: str) -> None:
    """Print the rows of a measurement of `milanx.bench`."""
    table = Table(title=title, title_justify="left")
    columns = list(rows[0]) if rows else []
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()))
    Screen(width=max(Screen().width, 140)).print(table)
