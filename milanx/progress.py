"""How long work tells what it does, without knowing who listens."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
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
