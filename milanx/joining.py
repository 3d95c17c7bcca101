"""How a text joins what it names: "A or B", "A and B", "A without B".

Sentence embeddings of the three lie almost on one another, so whoever must tell them apart is told
the connective beside the embedding, and what is said to be missing.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

import torch

CONNECTIVES = ("or", "and", "without")


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
