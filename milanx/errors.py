"""Errors that a user can meet.

MilanxError
├── InputError       an argument, a file or a folder that cannot be used
├── MissingWeights   weights that cannot be had here
├── FormatError      a file of ours that is damaged or of an unknown version
└── Interrupted      stopped on request; says how to resume

Each says what happened, why, and what to do. The command line prints it in three lines and
exits with 2 (130 for ``Interrupted``).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class MilanxError(Exception):
    """What happened, why, and the ways out.

    Args:
        what: one sentence: what could not be done, with the offending value.
        why: one sentence: the reason.
        ways_out: what the user can do, one entry a way.
    """

    exit_code = 2

    def __init__(self, what: str, why: str = "", ways_out: Sequence[str] | str = ()) -> None:
        self.what = what
        self.why = why
        self.ways_out = (ways_out,) if isinstance(ways_out, str) else tuple(ways_out)
        super().__init__(str(self))

    def __str__(self) -> str:
        return "\n".join(part for part in (self.what, self.why, "; ".join(self.ways_out)) if part)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.what, self.why, self.ways_out)


class InputError(MilanxError):
    """An argument, a file or a folder that cannot be used as it is."""


class MissingWeights(MilanxError):
    """Weights that cannot be had on this machine."""


class FormatError(MilanxError):
    """A file of milanx's own that is damaged, or of a version this milanx does not know."""


class Interrupted(MilanxError):
    """Stopped on request; the ways out say how to go on."""

    exit_code = 130


def did_you_mean(name: str, known: Iterable[str], n: int = 3) -> str:
    """Return ``"did you mean a, b?"`` for the names nearest to ``name``, or an empty string."""
    near = difflib.get_close_matches(name, list(known), n=n, cutoff=0.5)
    return f"did you mean {', '.join(near)}?" if near else ""
