"""How long work tells what it does, without knowing who listens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol


class Stage(Protocol):
    """One piece of work that advances."""

    def advance(self, n: int = 1) -> None:
        """Say that ``n`` more steps are done."""

    def at(self, done: int, total: int | None = None) -> None:
        """Say that ``done`` steps, of ``total``, are done."""


class Reporter(Protocol):
    """One who listens: a terminal, a log file, a notebook, or nobody."""

    def say(self, text: str) -> None:
        """Tell one line."""

    def stage(self, name: str, total: int | None = None) -> AbstractContextManager[Stage]:
        """Begin a piece of work of ``total`` steps; it ends with the context."""


class SilentStage:
    """A stage that nobody watches."""

    def advance(self, n: int = 1) -> None:
        """Tell nobody."""

    def at(self, done: int, total: int | None = None) -> None:
        """Tell nobody."""


class Silent:
    """The default reporter: tells nobody."""

    def say(self, text: str) -> None:
        """Tell nobody."""

    def stage(self, name: str, total: int | None = None) -> AbstractContextManager[Stage]:
        """Begin a stage that nobody watches."""
        return nullcontext(SilentStage())


@dataclass
class Timed:
    """A reporter that passes everything on and notes the seconds of each stage."""

    inner: Reporter
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Stage]:
        """Begin a stage."""
        started = time.monotonic()
        with self.inner.stage(name, total) as bar:
            yield bar
        spent = self.seconds.get(name, 0.0) + time.monotonic() - started
        self.seconds[name] = round(spent, 2)

    def say(self, text: str) -> None:
        """Tell one line."""
        self.inner.say(text)
