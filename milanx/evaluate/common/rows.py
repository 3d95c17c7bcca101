"""The rows that stand beside every method: constant, shuffled; how far it is ahead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from milanx.measures.folds import folds
from milanx.measures.intervals import paired

PERMUTATIONS = 100


def shuffled_mean(table: np.ndarray, columns: np.ndarray, seed: int = 0) -> np.ndarray:
    """Score of each unit [n] with the texts permuted, mean of 100 permutations.

    Args:
        table: scores [n, t] of every unit under every distinct text.
        columns: each unit's own text, int [n].
        seed: of the permutations.
    """
    rng = np.random.default_rng(seed)
    n = len(table)
    total = np.zeros(n)
    for _ in range(PERMUTATIONS):
        total += table[np.arange(n), columns[rng.permutation(n)]]
    return total / PERMUTATIONS


def constant_choice(table: np.ndarray, seed: int = 0) -> np.ndarray:
    """For each unit the text that is best on the units of the other folds, int [n].

    Args:
        table: scores [n, t] of every unit under every distinct text.
        seed: of the folds.
    """
    fold = folds(len(table), seed)
    out = np.zeros(len(table), int)
    for number in set(fold.tolist()):
        inside = fold == number
        if (~inside).any():
            out[inside] = int(table[~inside].mean(0).argmax())
    return out


def _table(
    score: Callable[[int, str], float], texts: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores [n, t] under the distinct texts, and each unit's own, int [n]."""
    distinct = sorted(set(texts))
    place = {text: i for i, text in enumerate(distinct)}
    table = np.array([[score(unit, text) for text in distinct] for unit in range(len(texts))])
    return table.reshape(len(texts), len(distinct)), np.array([place[t] for t in texts], int)


def shuffled(score: Callable[[int, str], float], texts: Sequence[str], seed: int = 0) -> np.ndarray:
    """Score of each unit [n] with the texts permuted, mean of 100 permutations.

    Args:
        score: the score of a unit's number and a text.
        texts: the method's own, one a unit.
        seed: of the permutations.
    """
    return shuffled_mean(*_table(score, texts), seed)


def constant(score: Callable[[int, str], float], texts: Sequence[str], seed: int = 0) -> np.ndarray:
    """Score of each unit [n] under the one text that is best on the units of other folds."""
    table, _ = _table(score, texts)
    return table[np.arange(len(texts)), constant_choice(table, seed)]


def signed(found: dict[str, Any]) -> str:
    """Write a difference with its interval: ``+0.120 [-0.010, +0.250]``."""
    low, high = found["interval"]
    return f"{found['estimate']:+.3f} [{low:+.3f}, {high:+.3f}]"


Paired = Callable[[np.ndarray, np.ndarray], dict[str, Any]]  # a difference with its interval


def ahead(
    name: str, mine: np.ndarray, other: str, theirs: np.ndarray, differ: Paired = paired
) -> str:
    """Say how far one method is ahead of another on the same units, float [n] each."""
    return f"{name} - {other}: {signed(differ(mine, theirs))}"
