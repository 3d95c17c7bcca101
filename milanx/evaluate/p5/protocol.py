"""P5, is the score itself sane? A measure must fall when a concept's labels are made worse.

The two tests of Oikarinen, Yan and Weng (2025, "Evaluating Neuron Explanations: A Unified Framework
with Sanity Checks"): half of the labels are missing, or as many wrong ones are added. A measure
that stays where it is cannot tell a text that is too narrow, or too wide, from the right one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from milanx.errors import InputError
from milanx.evaluate.p5 import known, worse
from milanx.evaluate.p5.measures import MEASURES, Concept
from milanx.measures.intervals import wilson
from milanx.progress import Reporter, Silent
from milanx.runs import Run
from milanx.scoring.simulator import BUILTIN, Simulating, Simulator

DRAWS = 10  # versions of a concept that a score is the mean of
PASSED = 0.9  # share of the units for which a measure must fall, in each test
# Of the range that a measure's values take: a fall of less is none (Oikarinen et al. 2025, in
# their code).
LEAST_FALL = 1e-3
FREQUENCIES = (0.1, 0.01)  # shares of the images that show a concept: frequent and rare
BESIDE = 0.001  # rarer than the protocol asks, for units that are built; no part of the verdict
BUILT = 50  # units that are built at each frequency
IMAGES = 5000  # that they are shown, and as many as make `POSITIVES` positives
TESTS = ("missing", "extra")
SIGNAL = "signal"
Rows = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Found:
    """What a measure says of ``u`` units.

    Attributes:
        true: with the concept as it is, float [u].
        shuffled: with the concept dealt out at random, mean of the draws.
        worse: by test, mean of the draws.
        span: from the lowest to the highest value of all draws.
    """

    true: np.ndarray
    shuffled: np.ndarray
    worse: dict[str, np.ndarray]
    span: float

    def cell(self, test: str) -> dict[str, Any]:
        """Say for how many units it falls, with the Wilson interval, and how far on average.

        ``fall`` is a share of what the true concept scores above one dealt out at random.
        """
        lost = self.true - self.worse[test]
        falls, n = int((lost > LEAST_FALL * self.span).sum()), len(lost)
        above = float((self.true - self.shuffled).mean())
        return {"estimate": falls / n, "interval": list(wilson(falls, n)), "n": n,
                "fall": float(lost.mean()) / above if above > 0 else None}  # fmt: skip


def check(
    cases: Iterable[known.Case], how: dict[str, worse.Worse], rng: np.random.Generator
) -> dict[str, Found]:
    """Ask every measure about units with their concepts as they are, worse, and shuffled.

    Args:
        cases: the units.
        how: what is done to a concept: `worse.LABELS` or `worse.SIGNALS`.
        rng: whatever is drawn is drawn from it.
    """
    parts: dict[str, list[list[np.ndarray]]] = {name: [] for name in MEASURES}
    for case in cases:
        whole = case.signal if how is worse.SIGNALS else case.signal >= case.least
        drawn = [worse.shuffled(whole, DRAWS, rng), *(make(whole, DRAWS, rng)
                                                      for make in how.values())]  # fmt: skip
        signal = np.concatenate([whole[None], *drawn]).astype(np.float64)
        concept = Concept(signal, signal >= case.least)
        for name, measure in MEASURES.items():
            values = measure(case.unit, concept)
            parts[name].append(np.split(values, range(1, len(values), DRAWS)))
    made = {}
    for name, units in parts.items():
        means = np.array([[part.mean() for part in unit] for unit in units])
        every = np.concatenate([part for unit in units for part in unit])
        columns = dict(zip(how, means[:, 2:].T, strict=True))
        made[name] = Found(means[:, 0], means[:, 1], columns, float(np.ptp(every)))
    return made


def evaluate(
    run: Run,
    *,
    simulator: Simulating | Simulator | str | Path = BUILTIN,
    images: Sequence[str] = (),
    seed: int = 0,
    progress: Reporter | None = None,
) -> dict[str, Any]:
    """Check the measures on a run's logits and on units that are built.

    Args:
        run: the run, described or not; without labelled logits the built units are checked alone.
        simulator: what foretells logits from the names of their classes.
        images: where the run's sources lie now.
        seed: of all that is drawn.
        progress: told about encoding and checking.

    Returns:
        A report: a row a measure and kind of units; in each column the share of the units for which
        the measure falls, with its interval, their number and the mean fall; ``passed``.

    Raises:
        InputError: images that are not found again, or a simulator that is the target.
    """
    started, progress = time.monotonic(), progress or Silent()
    notes: list[str] = []
    rows: Rows = {}
    try:
        logits = known.known_logits(run)
    except InputError as error:
        notes.append(f"logits: no rows, {error.what}: {error.why}")
    else:
        rows |= _rows("logits", _logits(run, logits, (simulator, images), seed, progress))
    rows |= _rows("planted", _planted(seed, progress))
    counts = _counts(rows)
    return {
        "protocol": "P5 is the score itself sane?",
        "n": max(counts.values()),
        "rows": rows,
        "units": counts,
        "seed": seed,
        "draws": DRAWS,
        "least_fall": LEAST_FALL,
        "images": run.settings["images"]["fingerprint"],
        "versions": run.settings.get("versions"),
        "seconds": round(time.monotonic() - started, 1),
        "notes": notes,
    }


def _logits(
    run: Run,
    logits: known.Logits,
    how: tuple[Simulating | Simulator | str | Path, Sequence[str]],
    seed: int,
    progress: Reporter,
) -> Iterator[tuple[str, dict[str, Found]]]:
    """Check a run's logits: by column."""
    rng = np.random.default_rng(seed)
    with progress.stage("check logits", len(FREQUENCIES)) as bar:
        for frequency in FREQUENCIES:
            cases = list(known.labelled(logits, frequency, rng))
            if cases:
                yield _percent(frequency), check(cases, worse.LABELS, rng)
            bar.advance(1)
    with Simulating.of(how[0]).opened() as judge:
        if judge.tower is not None and judge.tower == run.target:
            raise InputError(f"{judge.name} cannot simulate {run.target}",
                             "its image tower is the target itself",
                             "name another with --simulator")  # fmt: skip
        cases = list(known.foretold(run, logits, judge, how[1], seed, progress))
    yield SIGNAL, check(cases, worse.SIGNALS, rng)


def _planted(seed: int, progress: Reporter) -> Iterator[tuple[str, dict[str, Found]]]:
    """Check units that are built: by column."""
    rng = np.random.default_rng(seed)
    with progress.stage("check planted", len(FREQUENCIES) + 2) as bar:
        for frequency in (*FREQUENCIES, BESIDE):
            images = max(IMAGES, round(known.POSITIVES / frequency))
            cases = known.planted(frequency, BUILT, images, rng)
            yield _percent(frequency), check(cases, worse.LABELS, rng)
            bar.advance(1)
        cases = known.planted_signals(BUILT, known.LOOKED_AT, rng)
        yield SIGNAL, check(cases, worse.SIGNALS, rng)
        bar.advance(1)


def _percent(frequency: float) -> str:
    return f"{100 * frequency:g} %"


def _rows(kind: str, parts: Iterable[tuple[str, dict[str, Found]]]) -> Rows:
    """Return a row a measure, and whether it passed what the protocol asks."""
    found = dict(parts)
    rows: Rows = {}
    for name in MEASURES:
        cells = {f"{column} {test}": made[name].cell(test)
                 for column, made in found.items() for test in TESTS}  # fmt: skip
        asked = [f"{column} {test}" for column in (*map(_percent, FREQUENCIES), SIGNAL)
                 for test in TESTS]  # fmt: skip
        failed = [column for column in asked
                  if column in cells and cells[column]["estimate"] < PASSED]  # fmt: skip
        rows[f"{kind}: {name}"] = {**cells, "passed": not failed, "failed": failed}
    return rows


def _counts(rows: Rows) -> dict[str, int]:
    """Return how many units stand in each column of each kind."""
    return {f"{row.partition(':')[0]}, {column.rpartition(' ')[0]}": cell["n"]
            for row, cells in rows.items()
            for column, cell in cells.items() if isinstance(cell, dict)}  # fmt: skip
