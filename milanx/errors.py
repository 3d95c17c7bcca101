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
import re
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
    near = difflib.get_close_matches(name, list(dict.fromkeys(known)), n=n, cutoff=0.5)
    return f"did you mean {', '.join(near)}?" if near else ""


# What a terminal obeys or a reader cannot see: control characters but line feeds and tabs, marks of
# direction, and halves of characters (bytes of a file's name that are no UTF-8).
OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
                    r"\ud800-\udfff]")  # fmt: skip


def plain(text: str, *, json: bool = False) -> str:
    r"""Return a text with what a terminal would obey as text: an escape character is ``\x1b``.

    Args:
        text: any.
        json: it is a json document, which knows no ``\x``.
    """

    def shown(found: re.Match[str]) -> str:
        code = ord(found[0])
        return f"\\x{code:02x}" if code < 0x100 and not json else f"\\u{code:04x}"

    return OBEYED.sub(shown, text)


def one_line(text: str) -> str:
    """Return a text with its line feeds and tabs as text."""
    return text.replace("\n", "\\n").replace("\t", "\\t")
