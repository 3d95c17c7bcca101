"""Candidates that say two things: what a unit's own phrases join to.

A search word by word seldom comes upon "A or B", where each of the two is likely by itself; the
phrases that were retrieved for a unit are joined to such texts, and the ranking decides.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from milanx.language import stem

FIRST = 4  # phrases of a unit that are joined to one another
ABSENT = 3  # phrases of its contrast that it may lack
JOINING = frozenset({"and", "or", "without", "of", "with", "on", "in", "a", "an", "the"})


def compose(phrases: Sequence[str], absent: Sequence[str] = ()) -> list[str]:
    """Join a unit's best phrases to texts of two things.

    Args:
        phrases: that agree with the unit, best first.
        absent: that its contrast views show, best first.

    Returns:
        "A or B" and "A and B" of the first phrases that share no word, "A without C" of them and
        the first of ``absent``; phrases that join something already are left out.
    """
    plain = _plain(phrases)
    pairs = [(a, b) for a, b in itertools.combinations(plain, 2) if not _share(a, b)]
    found = [f"{a} {word} {b}" for word in ("or", "and") for a, b in pairs]
    for a in plain[:2]:
        others = [c for c in absent if not JOINING & set(c.split()) and not _share(a, c)]
        found += [f"{a} without {c}" for c in others[:ABSENT]]
    return found


def _plain(phrases: Sequence[str]) -> list[str]:
    """The first phrases that join nothing, none the singular or plural of one before it."""
    found: list[str] = []
    for phrase in phrases:
        stems = _stems(phrase)
        if not JOINING & set(phrase.split()) and all(stems != _stems(f) for f in found):
            found.append(phrase)
    return found[:FIRST]


def _share(a: str, b: str) -> bool:
    return bool(_stems(a) & _stems(b))


def _stems(phrase: str) -> frozenset[str]:
    return frozenset(stem(word) for word in phrase.split())
