"""Trackers by name, and the pace of a training in words."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TextIO

from milanx.environment import join_processes
from milanx.errors import InputError, did_you_mean
from milanx.files import explained, write_text
from milanx.files.jsons import json_text
from milanx.progress import Reporter, Stage

# Each tracker and the packages of which one must be there; jsonl needs none.
PACKAGES = {
    "jsonl": (),
    "tensorboard": ("tensorboard", "tensorboardX"),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
}
STEP = '{"step": '  # how a line of figures begins
SAY_EVERY = 30.0  # seconds between two lines about the pace


class Tracker(Protocol):
    """One who writes down the figures of a training."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Write down the figures after ``step`` steps."""

    def finish(self) -> None:
        """Write what is left, and close."""


class JsonLines:
    """Figures in a file, one json object a line, each with its step.

    A training that goes on from a checkpoint repeats the steps after it: lines of those steps
    are dropped at the first figure, and so is a line that a kill left half-written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO | None = None

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Write down the figures after ``step`` steps."""
        if self._file is None:
            self._file = self._open(step)
        self._file.write(json_text({"step": step, **values}, ascii_only=True) + "\n")

    def finish(self) -> None:
        """Close the file; the next figure opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, step: int) -> TextIO:
        kept = ""
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = "".join(line for line in lines if _before(line, step))
        write_text(self.path, kept)
        with explained(self.path):
            return self.path.open("a", encoding="utf-8", buffering=1)


def _before(line: str, step: int) -> bool:
    try:
        return line.endswith("\n") and json.loads(line)["step"] < step
    except (ValueError, KeyError, TypeError):
        return False


class Accelerated:
    """A tracker of accelerate."""

    def __init__(self, tracker: Any, config: Mapping[str, Any]) -> None:
        self._tracker = tracker
        tracker.start()
        tracker.store_init_configuration(_flat(config))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Write down the figures after ``step`` steps."""
        self._tracker.log(dict(values), step=step)

    def finish(self) -> None:
        """Write what is left, and close."""
        self._tracker.finish()


def check_tracker(name: str, folder: Path | None = None) -> None:
    """Say at once, before any work, whether a tracker can be had.

    Args:
        name: of `PACKAGES`.
        folder: where its files would go.

    Raises:
        InputError: a name not known, its package is not installed, or ``folder`` is a link, a
            file, or holds lines that are no figures and would be lost.
    """
    if name not in PACKAGES:
        raise InputError(
            f"no tracker {name!r}",
            f"there are {', '.join(PACKAGES)}",
            did_you_mean(name, PACKAGES) or "jsonl is always there",
        )
    packages = PACKAGES[name]
    if packages and not any(importlib.util.find_spec(p) for p in packages):
        raise InputError(
            f"the tracker {name} cannot be used",
            f"the package {packages[0]} is not installed",
            (f"pip install {packages[0]}", "the tracker jsonl needs no package"),
        )
    if folder is not None:
        _check_folder(folder)


def _check_folder(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{folder} is no folder", "the figures go into it", "choose another --out")
    for path in sorted(folder.glob("*.jsonl")):
        lines = path.read_bytes().decode("utf-8", "replace").splitlines(keepends=True)
        if path.is_symlink() or not all(map(_is_figure, lines)):
            raise InputError(
                f"{path} would lose lines",
                "they are not figures of a training, which begin with their step",
                ["move it to another place", "choose another --out"],
            )


def _is_figure(line: str) -> bool:
    """Whether a line is one of `JsonLines`, or the beginning of one that a kill cut off."""
    return line.startswith(STEP) or (STEP.startswith(line) and not line.endswith("\n"))


def open_tracker(
    name: str, folder: Path, run: str = "milanx", config: Mapping[str, Any] | None = None
) -> Tracker:
    """Open a tracker by name; with several processes, in the main one alone.

    Args:
        name: ``jsonl`` (``folder/RUN.jsonl``), ``tensorboard`` (under ``folder``), ``trackio`` or
            ``wandb`` (the project ``run``; both keep to their own settings and folders).
        folder: where files go.
        run: name of the run.
        config: settings to note with the run; nested keys become ``a.b``.

    Raises:
        InputError: a name not known, its package is not installed, or it cannot be opened.
    """
    check_tracker(name)
    if name == "jsonl":
        return JsonLines(folder / f"{run}.jsonl")
    from accelerate import tracking

    join_processes()  # accelerate's trackers ask it who the main process is
    try:
        if name == "tensorboard":
            return Accelerated(tracking.TensorBoardTracker(run, folder), config or {})
        kind = {"trackio": tracking.TrackioTracker, "wandb": tracking.WandBTracker}[name]
        return Accelerated(kind(run), config or {})
    except Exception as error:  # each package has its own errors: no network, no login, no disk
        raise InputError(
            f"the tracker {name} cannot be opened",
            f"{type(error).__name__}: {error}",
            f"see the documentation of {name}, or use the tracker jsonl",
        ) from error


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{before}{key}.")
        else:
            plain = isinstance(value, bool | int | float | str)
            flat[f"{before}{key}"] = value if plain else str(value)
    return flat


def clock_text(seconds: float) -> str:
    """Return seconds as ``45 s``, ``3:05 min`` or ``2:07 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"


class Pace:
    """Tells a stage and a reporter how a training goes; an ``advance`` of `fit_model`.

    Args:
        total: steps of the whole training.
        stage: its bar is set to the steps done, also after a resume.
        reporter: told a line with loss, rate and remaining time every `SAY_EVERY` seconds.
        clock: seconds, from anywhere.
    """

    def __init__(
        self,
        total: int,
        stage: Stage,
        reporter: Reporter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total, self._stage, self._reporter, self._clock = total, stage, reporter, clock
        self._since = self._said = clock()
        self._here = 0  # steps done by this process, resumed ones not counted

    def __call__(self, step: int, loss: float) -> None:
        """Take note of step ``step`` (from 0), just done."""
        self._here += 1
        self._stage.at(step + 1, self._total)
        now = self._clock()
        if now - self._said < SAY_EVERY:
            return
        self._said = now
        rate = self._here / (now - self._since)
        left = clock_text((self._total - step - 1) / rate)
        self._reporter.say(
            f"step {step + 1} of {self._total}: loss {loss:.3f}, {rate:.3g} steps/s, {left} left"
        )
