"""How long work tells that it goes on: a protocol, and a silent one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol


class Bar(Protocol):
    """The progress of one stage."""

    def advance(self, n: int = 1) -> None:
        """Say that ``n`` more are done."""


class Reporter(Protocol):
    """Told about stages and notes."""

    def stage(self, name: str, total: int | None) -> contextlib.AbstractContextManager[Bar]:
        """Begin a stage of ``total`` steps (None: not known); it ends with the context."""

    def say(self, text: str) -> None:
        """Tell one line."""


class _SilentBar:
    def advance(self, n: int = 1) -> None:
        pass


class Silent:
    """A reporter that tells nothing."""

    @contextlib.contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Bar]:
        """Begin a stage."""
        yield _SilentBar()

    def say(self, text: str) -> None:
        """Tell one line."""
