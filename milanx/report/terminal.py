"""Progress and tables in the terminal, with rich."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from milanx.errors import one_line
from milanx.report.screen import Screen, styled
from milanx.report.why import reasons

if TYPE_CHECKING:
    from milanx.runs import Run, UnitView
    from milanx.targets.units import LayerInfo

NAMED = 3  # layers that a reason names
SHOWN = 20  # units of a run that are printed; the page has them all
DEMONSTRATION = (
    "These are the built-in images, a demonstration: some 270 photos hold few concepts, so "
    "descriptions lean to them."
)
SCORE = (
    "score: correlation of what the text foretells with what the unit does on {photos} distinct "
    "images kept aside (95 % interval); it is no probability of being right."
)
CONFIDENCE = (
    "confidence: the probability that the description is right, calibrated on units of known "
    "meaning; below {least:.2f} a unit is unclear and its best guess is grey."
)


class _Bar:
    """A stage on a progress display."""

    def __init__(self, progress: Progress, task: Any) -> None:
        self._progress, self._task = progress, task

    def advance(self, n: int = 1) -> None:
        """Say that ``n`` more steps are done."""
        self._progress.advance(self._task, n)

    def at(self, done: int, total: int | None = None) -> None:
        """Say that ``done`` steps, of ``total``, are done."""
        self._progress.update(self._task, completed=done, total=total)


class TerminalReporter:
    """Shows stages on stderr: bars on a terminal, one line a finished stage elsewhere."""

    def __init__(self) -> None:
        self.console = Screen(stderr=True)

    def say(self, text: str) -> None:
        """Tell one line."""
        self.console.print(one_line(text))

    @contextlib.contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[_Bar]:
        """Begin a stage; its seconds are printed at its end."""
        started = time.monotonic()
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(
            *columns, console=self.console, transient=True, disable=not self.console.is_terminal
        ) as progress:
            yield _Bar(progress, progress.add_task(name, total=total))
        self.console.print(f"{name:14} {time.monotonic() - started:7.1f} s", highlight=False)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def score_cell(score: float | None, interval: Sequence[float] | None) -> str:
    """Return a score with its interval, as tables show it; empty without one."""
    if score is None:
        return ""
    return f"{score:.2f}" + (f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else "")


def print_run(run: Run, page: Path | None) -> None:
    """Print the first units of a run, and where the rest is."""
    console = Screen()
    table = Table(title=f"{run.target}: {len(run)} units", title_justify="left")
    scored = any(row["score"] is not None for row in run.rows)
    known = any(row["confidence"] is not None for row in run.rows)
    columns = ["unit", "description", "next best"] + ["confidence"] * known + ["score"] * scored
    for name in columns:
        figure = name in ("confidence", "score")
        table.add_column(name, justify="right" if figure else "left", no_wrap=figure)
    for row in run.rows[:SHOWN]:
        sign = "-" if row["sign"] == "-" else ""
        others = [c["text"] for c in row["candidates"][1:3]]
        text = row["description"] or f"({row['status']})"
        cells = [f"{row['layer']}:{sign}{row['unit']}", text, ", ".join(others)]
        figures = [_number(row["confidence"])] * known
        figures += [score_cell(row["score"], row["score_interval"])] * scored
        table.add_row(*cells, *figures, style="dim" if row["status"] == "unclear" else None)
    console.print(table)
    counts: dict[str, int] = {}
    for row in run.rows:
        counts[row["status"]] = counts.get(row["status"], 0) + 1
    console.print(", ".join(f"{n} {status}" for status, n in counts.items()), highlight=False)
    if short := sum(0 < len(row["images"]) < (run.k or 0) for row in run.rows):
        console.print(f"{short} with fewer than {run.k} exemplars", highlight=False)
    if known:
        least = (run.settings.get("confidence") or {}).get("threshold", 0.0)
        console.print(CONFIDENCE.format(least=least), highlight=False)
    if scored:
        photos = (run.settings.get("score") or {}).get("photos")
        console.print(SCORE.format(photos=photos), highlight=False)
    elif why := (run.settings.get("score") or {}).get("reason"):
        console.print(f"No scores: {why}.", highlight=False)
    if run.demonstration:
        console.print(DEMONSTRATION)
        console.print(f"They hold: {'; '.join(run.concepts)}.", highlight=False)
    if page is not None:
        console.print(f"run   {run.root}", highlight=False, soft_wrap=True)
        console.print(f"page  {page}", highlight=False, soft_wrap=True)


def print_unit(run: Run, view: UnitView) -> None:
    """Print one unit: its candidates with their figures, and its exemplars."""
    console = Screen()
    sign = "-" if view.sign == "-" else ""
    console.print(
        styled(f"{view.layer}:{sign}{view.unit}", "bold"),
        f"of {run.target}: {view.description or view.status}",
        highlight=False,
    )
    if view.confidence is not None:
        console.print(f"confidence {view.confidence:.2f} ({view.status})", highlight=False)
    elif view.confidence_reason:
        console.print(f"no confidence: {view.confidence_reason}", highlight=False)
    if view.score is not None:
        console.print(f"score {score_cell(view.score, view.score_interval)}", highlight=False)
    elif view.score_reason:
        console.print(f"no score: {view.score_reason}", highlight=False)
    table = Table()
    for name in ("candidate", "rank", "PMI", "log p(d|E)", "log p(d)"):
        table.add_column(name, justify="left" if name == "candidate" else "right")
    for candidate in view.row["candidates"]:
        figures = ("rank", "pmi", "log_p_given_exemplars", "log_p_prior")
        table.add_row(candidate["text"], *(_number(candidate[f]) for f in figures))
    console.print(table)
    _print_why(console, view)
    pairs = zip(view.row["images"], view.row["activations"], strict=True)
    there = ", ".join(f"{i} ({a:.2f})" for i, a in pairs) or "none"
    count, most = len(view.row["images"]), run.k or 0
    short = f" ({count} of {most})" if 0 < count < most else ""
    console.print(f"exemplars{short}: {there}", highlight=False)


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
    names = [candidate["text"] for candidate in view.row["candidates"][:2]]
    table = Table(
        title="why it ranks first: what each term added, in nats (and what was measured)",
        title_justify="left",
    )
    table.add_column("term")
    for name in (*names, "difference")[: 2 * len(names) - 1]:
        table.add_column(name, justify="right")
    for line in lines:
        if line.term == "rank":
            table.add_section()
        cells = (line.winner, line.other, line.difference)[: 2 * len(names) - 1]
        table.add_row(line.term, *cells)
    console.print(table)


def print_layers(name: str, infos: Sequence[LayerInfo]) -> None:
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
                number = isinstance(value, int | float)
                cells.append(f"{value:.3f}" if number else value or "")
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
