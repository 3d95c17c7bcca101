"""How a text joins what it names ("A or B", "A and B", "A without B"), and which to join.

Sentence embeddings of the three lie almost on one another, so whoever must tell them apart is told
the connective beside the embedding, and what is said to be missing.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

import torch

from milanx.language.words import normalise_text, stem

CONNECTIVES = ("or", "and", "without")
BETWEEN = frozenset({*CONNECTIVES, "of", "with", "on", "in", "a", "an", "the"})  # name nothing


def split(text: str, whole: Container[str] = ()) -> tuple[str, str, str] | None:
    """Divide a text at its connective: first part, connective, second part.

    Args:
        text: one that holds ``or`` is divided there, else at ``without``, else at ``and``.
        whole: phrases that are one thing though they hold a connective ("snails and slugs").

    Returns:
        None for a text of one part.
    """
    if text in whole:
        return None
    for connective in ("or", "without", "and"):
        first, found, second = text.partition(f" {connective} ")
        if found and first and second:
            return first, connective, second
    return None


def joins(text: str) -> bool:
    """Whether a text, folded by `normalise_text`, joins two things: whether `split` divides it."""
    return split(text) is not None


def says_missing(text: str) -> bool:
    """Whether a text, folded by `normalise_text`, says anywhere what is missing."""
    return " without " in text


def whole_of(text: str) -> str | None:
    """Return what stands behind "of" in a folded text: "cats" of "heads of cats".

    That is mostly the thing that it names a part of. None without one, or where it joins things.
    """
    part, found, whole = text.partition(" of ")
    if not (part and found and whole) or joins(text):
        return None
    return whole.removeprefix("the ").removeprefix("an ").removeprefix("a ")


def named(text: str) -> list[str]:
    """Return the stems of the words of a folded text that name something, in their order."""
    return [stem(word) for word in text.split() if word not in BETWEEN]


def join_features(
    texts: Sequence[str], embed: Callable[[Sequence[str]], torch.Tensor], whole: Container[str]
) -> torch.Tensor:
    """Say how texts join what they name: [t, 3 + j].

    Args:
        texts: t of them.
        embed: texts to [n, j].
        whole: as of `split`.

    Returns:
        Which of `CONNECTIVES` they hold, one or none, and the embedding of what ``without``
        names, else zeros.
    """
    parts = [split(text, whole) for text in texts]
    missing = sorted({p[2] for p in parts if p and p[1] == "without"})
    vectors = embed(missing if missing else [""])
    found = vectors.new_zeros(len(texts), len(CONNECTIVES) + vectors.shape[1])
    place = {text: i for i, text in enumerate(missing)}
    for row, part in enumerate(parts):
        if part:
            found[row, CONNECTIVES.index(part[1])] = 1
            if part[1] == "without":
                found[row, len(CONNECTIVES) :] = vectors[place[part[2]]]
    return found


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
