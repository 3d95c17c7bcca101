"""The rows that stand beside every method: constant and shuffled."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

PERMUTATIONS = 100
FOLDS = 5


def shuffled(score: Callable[[int, str], float], texts: Sequence[str], seed: int = 0) -> np.ndarray:
    """Score of each unit [n] with the texts permuted, mean of 100 permutations.

    Args:
        score: the score of a unit's number and a text.
        texts: the method's own, one a unit.
        seed: of the permutations.
    """
    rng = np.random.default_rng(seed)
    n = len(texts)
    distinct = sorted(set(texts))
    place = {text: i for i, text in enumerate(distinct)}
    table = np.array([[score(unit, text) for text in distinct] for unit in range(n)])
    columns = np.array([place[text] for text in texts])
    total = np.zeros(n)
    for _ in range(PERMUTATIONS):
        total += table[np.arange(n), columns[rng.permutation(n)]]
    return total / PERMUTATIONS


def constant(score: Callable[[int, str], float], texts: Sequence[str], seed: int = 0) -> np.ndarray:
    """Score of each unit [n] under the one text that is best on the units of other folds."""
    rng = np.random.default_rng(seed)
    n = len(texts)
    fold = rng.permutation(n) % min(FOLDS, max(n, 1))
    distinct = sorted(set(texts))
    table = np.array([[score(unit, text) for text in distinct] for unit in range(n)])
    out = np.zeros(n)
    for number in set(fold.tolist()):
        inside = fold == number
        chosen = int(table[~inside].mean(0).argmax()) if (~inside).any() else 0
        out[inside] = table[inside, chosen]
    return out
