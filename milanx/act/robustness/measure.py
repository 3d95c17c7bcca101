"""Every picture made once and shown to every model; each finished piece is kept and not repeated.

A piece is one corruption at one severity. For each model the answers to it are one parquet file,
written when the piece is done, under a key that everything in it depends on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as Names
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from milanx.act.data import EvalSet
from milanx.act.robustness.subjects import Subject, evaluating
from milanx.act.robustness.together import Together
from milanx.errors import FormatError
from milanx.files import fingerprint, read_table, write_table
from milanx.progress import Reporter

FORMAT, VERSION = "milanx-robustness-answers", 1

Answers = dict[str, np.ndarray]  # column -> int32 [n]
Reading = Callable[[torch.Tensor, Sequence[int]], Answers]  # logits [b, c], image numbers


@dataclass(frozen=True)
class Piece:
    """Images that are measured in one go.

    Attributes:
        name: of the corruption, or of the images.
        severity: 1 to 5; 0 for images that nothing was done to.
        images: the pictures.
        key: stands for the pictures and for how answers are read.
    """

    name: str
    severity: int
    images: EvalSet
    key: str


def by_label(labels: np.ndarray) -> Reading:
    """Return a reading: ``predicted``, and ``rank`` of the label's logit, 0 for the highest.

    Equal logits count in the order of the classes, as argmax takes them; a logit that is no number
    makes the answer wrong.
    """

    def read(logits: torch.Tensor, numbers: Sequence[int]) -> Answers:
        values = logits.numpy()
        label = labels[list(numbers)]
        own = np.take_along_axis(values, label[:, None], 1)
        earlier = np.arange(values.shape[1]) < label[:, None]
        rank = ((values > own) | ((values == own) & earlier)).sum(1)
        rank[np.isnan(values).any(1)] = values.shape[1]
        return {"predicted": values.argmax(1).astype(np.int32), "rank": rank.astype(np.int32)}

    return read


@dataclass(frozen=True)
class Options:
    """How it is measured; nothing of it changes an answer but for ties within rounding.

    Attributes:
        progress: told about every corruption, with the rate and the time that is left.
        batch_size: images a step.
        workers: threads that make pictures.
    """

    progress: Reporter
    batch_size: int = 64
    workers: int = 2


def measure(
    subjects: Mapping[str, Subject],
    pieces: Sequence[Piece],
    reading: Reading,
    keep: Path,
    options: Options,
) -> dict[str, dict[tuple[str, int], Answers]]:
    """Return the answers of every model to every piece.

    Args:
        subjects: the models.
        pieces: what they are shown, one after another.
        reading: what is kept of their logits.
        keep: folder of answers; those that are there are not measured again.
        options: batch size, workers, who is told.
    """
    found: dict[str, dict[tuple[str, int], Answers]] = {name: {} for name in subjects}
    together = Together(subjects)
    clock = _Clock(sum(len(p.images) for p in pieces), options.progress)
    with (
        evaluating(subjects),
        options.progress.stage("measure", clock.total) as bar,
    ):
        for piece, following in zip_longest(pieces, pieces[1:]):
            paths = {n: keep / piece.key / f"{s.key}.parquet" for n, s in subjects.items()}
            answers = {name: _kept(path, len(piece.images)) for name, path in paths.items()}
            lacking = {name for name, a in answers.items() if a is None}
            clock.begin()
            made = {}
            if lacking:
                made = _answers(together, lacking, piece, reading, options, bar.advance)
            if not lacking:
                bar.advance(len(piece.images))
            for name, columns in made.items():
                write_table(paths[name], pa.table(columns), FORMAT, VERSION)
            clock.end(len(piece.images), bool(lacking))
            if following is None or following.name != piece.name:
                clock.tell(piece.name)
            for name, kept in answers.items():
                found[name][piece.name, piece.severity] = made[name] if kept is None else kept
    return found


def _answers(
    together: Together,
    names: Names[str],
    piece: Piece,
    reading: Reading,
    options: Options,
    advance: Callable[[int], None],
) -> dict[str, Answers]:
    parts: dict[str, list[Answers]] = {name: [] for name in names}
    first = 0
    for views in piece.images.batches(options.batch_size, options.workers):
        numbers = range(first, first + len(views))
        for name, logits in together.logits(views, names).items():
            parts[name].append(reading(logits, numbers))
        first += len(views)
        advance(len(views))
    return {
        name: {column: np.concatenate([p[column] for p in some]) for column in some[0]}
        for name, some in parts.items()
    }


def _kept(path: Path, count: int) -> Answers | None:
    """Read answers that are kept; None where there are none, or not of so many images."""
    if not path.is_file():
        return None
    try:
        table = read_table(path, FORMAT, VERSION)
    except FormatError:
        return None  # damaged, or of another milanx: it is measured again
    if table.num_rows != count:
        return None
    return {name: table[name].to_numpy() for name in table.column_names}


def versions_key() -> str:
    """Stand for the versions of the libraries that make pictures and logits."""
    from importlib.metadata import version

    libraries = ("numpy", "scipy", "scikit-image", "pillow", "torch", "torchvision")
    return fingerprint([(name, version(name)) for name in libraries])


class _Clock:
    """Says how fast pictures are measured and how long it will take."""

    def __init__(self, total: int, progress: Reporter) -> None:
        self.total, self._progress = total, progress
        self._left, self._measured, self._seconds, self._began = total, 0, 0.0, 0.0
        self._news = False

    def begin(self) -> None:
        self._began = time.monotonic()

    def end(self, count: int, worked: bool) -> None:
        self._left -= count
        if worked:
            self._seconds += time.monotonic() - self._began
            self._measured += count
            self._news = True

    def tell(self, name: str) -> None:
        """Tell of all severities of a corruption, where any was measured and not kept."""
        if self._news:
            rate = self._measured / max(self._seconds, 1e-9)
            left = _duration(self._left / rate)
            self._progress.say(f"{name:18} {rate:8.1f} images/s, about {left} left")
        self._news = False


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
