"""Texts that join two phrases, where both together foretell a unit better than each does."""

from __future__ import annotations

from collections.abc import Sequence

from milanx.joining import CONNECTIVES
from milanx.language import normalise_text, stem


def joins(text: str) -> bool:
    """Whether a text, folded by `milanx.language.normalise_text`, holds a connective."""
    return any(f" {connective} " in text for connective in CONNECTIVES)


def possible_pairs(parts: Sequence[str]) -> list[tuple[int, str, int]]:
    """Return the pairs of different things that can be joined: (first, connective, second).

    Phrases that share a word say nearly the same.
    """
    words = [{stem(word) for word in normalise_text(part).split()} for part in parts]
    places = range(len(parts))
    apart = [(i, j) for i in places for j in places if i != j and not words[i] & words[j]]
    return [
        (i, connective, j) for i, j in apart for connective in CONNECTIVES
        if i < j or connective == "without"
    ]  # fmt: skip


def best_pairs(
    parts: Sequence[str],
    pairs: Sequence[tuple[int, str, int]],
    alone: Sequence[float],
    together: Sequence[float],
    count: int,
) -> list[str]:
    """Return the joined texts that say more than each of their parts, best first.

    Args:
        parts: phrases.
        pairs: of `possible_pairs`.
        alone: how well each phrase foretells.
        together: how well each pair does.
        count: how many a connective, at most.
    """
    order = sorted(range(len(pairs)), key=lambda p: -together[p])
    found: dict[str, list[str]] = {connective: [] for connective in CONNECTIVES}
    for place in order:
        first, connective, second = pairs[place]
        least = alone[first] if connective == "without" else max(alone[first], alone[second])
        if together[place] <= least or len(found[connective]) == count:
            continue
        if connective != "without" and alone[second] > alone[first]:
            first, second = second, first
        found[connective].append(f"{parts[first]} {connective} {parts[second]}")
    return [text for texts in found.values() for text in texts]
