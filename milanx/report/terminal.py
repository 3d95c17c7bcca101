"""Progress and tables in the terminal, with rich."""

from __future__ import annotations

import contextlib
import math
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from milanx.errors import one_line
from milanx.report.screen import Screen, styled
from milanx.report.sure import NUMBER, SCORE, SURE, calibrated, ordered, sureness
from milanx.report.why import in_words, others, reasons, rival, whose_units, without_text

if TYPE_CHECKING:
    from milanx.runs import Run, UnitView
    from milanx.targets.listed import Listed

NAMED = 3  # layers that a reason names
SHOWN = 20  # units of a run that are printed; the page has them all
DEMONSTRATION = (
    "These are the built-in images, a demonstration: some 270 photos hold few concepts, so "
    "descriptions lean to them."
)
SCORE_NOTE = (
    "score: correlation of what the text foretells with what the unit does on {photos} distinct "
    "images kept aside (95 % interval); it is no probability of being right."
)
CONFIDENCE = (
    "confidence: the probability that the description is right, calibrated on units of known "
    "meaning; below {least:.2f} a unit is unclear and its best guess is grey."
)
SURER = (
    "surer than: the share of the described units whose text fits worse and foretells the unit "
    "worse on its images"
)
SCORED = ", and has the lower score"
BANDS = (
    "met by {rates} of the images kept aside that excite the unit most (1 %), less (to 10 %) and "
    "least (to 50 %); by 10 % of any"
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


def sense_line(sense: Mapping[str, Any]) -> str:
    """Return one of a unit's senses, with the share of its exemplars' photos that show it."""
    return f"{sense['share']:.0%} {sense['text']}"


def sure_cell(figure: float | None, told: bool = False) -> str:
    """Return what `milanx.report.sure.sureness` says, as tables show it.

    Args:
        figure: a share of the other units, or with ``told`` a confidence.
        told: whether it is one.
    """
    if figure is None or told:
        return _number(figure)
    return "all others" if figure == 1 else f"{math.floor(100 * figure)} %"


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
    table = Table(title=_title(run, sort, min(top, len(run))), title_justify="left")
    known, told = any(value is not None for value in sure), calibrated(run.rows)
    sure_column = "confidence" if told else "surer than"
    columns = ["unit", "description", "next best"] + [sure_column] * known + ["score"] * scored
    for name in columns:
        figure = name in (sure_column, "score")
        table.add_column(name, justify="right" if figure else "left", no_wrap=figure)
    order = ordered(run.rows, sort, sure)[:top]
    for place in order:
        row = run.rows[place]
        rest = ", ".join(c["text"] for c in others(row)[:2])
        text = row["description"] or f"({without_text(run, row)})"
        text += "".join(f"\n  {sense_line(sense)}" for sense in row["senses"] or ())
        figures = [sure_cell(sure[place], told)] * known
        figures += [score_cell(row["score"], row["score_interval"])] * scored
        table.add_row(_address(row), text, rest, *figures,
                      style="dim" if row["status"] == "unclear" else None)  # fmt: skip
    console.print(table)
    _print_counts(console, run, scored)
    if known and not told:
        console.print(SURER + (SCORED if scored else "") + ".", highlight=False)
    if run.demonstration:
        console.print(DEMONSTRATION)
        console.print(f"They hold: {'; '.join(run.concepts)}.", highlight=False)
    if page is not None:
        console.print(f"run   {run.root}", highlight=False, soft_wrap=True)
        console.print(f"page  {page}", highlight=False, soft_wrap=True)
        if order:
            root, address = shlex.quote(str(run.root)), _address(run.rows[order[0]])
            console.print(f"next  milanx show {root} --unit {shlex.quote(address)}",
                          highlight=False, soft_wrap=True)  # fmt: skip
            console.print(f"      milanx find water {root}", highlight=False, soft_wrap=True)


def _address(row: Mapping[str, Any]) -> str:
    """Return what names a unit: layer, sign and number."""
    return f"{row['layer']}:{'-' if row['sign'] == '-' else ''}{row['unit']}"


def _title(run: Run, sort: str, shown: int) -> str:
    how = {SURE: "surest", SCORE: "best scored"}.get(sort, "first")
    if shown < len(run):
        return f"{run.target}: the {shown} {how} of {len(run)} units"
    return f"{run.target}: {len(run)} units" + (f", {how} first" if sort != NUMBER else "")


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
        least = (run.settings.get("confidence") or {}).get("threshold", 0.0)
        console.print(CONFIDENCE.format(least=least), highlight=False)
    if scored:
        photos = (run.settings.get("score") or {}).get("photos")
        console.print(SCORE_NOTE.format(photos=photos), highlight=False)
    elif why := (run.settings.get("score") or {}).get("reason"):
        console.print(f"No scores: {why}.", highlight=False)


def print_found(run: Run, hits: Mapping[int, tuple[float, str]], sort: str) -> None:
    """Print the units that were found, and why.

    Args:
        run: that they are of.
        hits: place in the run's table -> strength and why, as of `milanx.act.find.Finder`.
        sort: of equally strong ones.
    """
    console = Screen()
    sure = sureness(run.rows)
    order = {place: i for i, place in enumerate(ordered(run.rows, sort, sure))}
    table = Table(title=f"{run.target}: {len(hits)} of {len(run)} units", title_justify="left")
    for name in ("unit", "description", "found by"):
        table.add_column(name)
    told = calibrated(run.rows)
    table.add_column("confidence" if told else "surer than", justify="right", no_wrap=True)
    for place in sorted(hits, key=lambda place: (-round(hits[place][0], 2), order[place])):
        row = run.rows[place]
        table.add_row(_address(row), row["description"], hits[place][1],
                      sure_cell(sure[place], told))  # fmt: skip
    console.print(table)


def print_unit(run: Run, view: UnitView) -> None:
    """Print one unit: its candidates with their figures, and its exemplars."""
    console = Screen()
    console.print(
        styled(_address(view.row), "bold"),
        f"of {run.target}: {view.description or without_text(run, view.row)}",
        highlight=False,
    )
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
        if line.term == "rank":
            table.add_section()
        cells = (line.winner, line.other, line.difference)[: 2 * len(names) - 1]
        table.add_row(line.term, *cells)
    console.print(table)


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
