"""Tables of rows: against their plain versions."""

from __future__ import annotations

import numpy as np

from milanx.evaluate.common.rows import PERMUTATIONS, constant_choice, shuffled_mean
from milanx.measures.folds import FOLDS, folds


def test_folds_are_alike_and_cover_all() -> None:
    fold = folds(23)
    assert sorted(set(fold.tolist())) == list(range(FOLDS))
    assert np.bincount(fold).tolist() == [5, 5, 5, 4, 4]
    assert folds(2).max() == 1
    assert folds(1).tolist() == [0]


def test_constant_is_chosen_without_the_units_that_it_scores() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(0, 1, (17, 6))
    chosen, fold = constant_choice(table, seed=3), folds(17, seed=3)
    for unit in range(17):
        others = [u for u in range(17) if fold[u] != fold[unit]]
        assert chosen[unit] == np.argmax([np.mean([table[u, t] for u in others]) for t in range(6)])


def test_shuffled_is_the_mean_over_the_texts() -> None:
    table = np.random.default_rng(0).normal(0, 1, (40, 3))
    columns = np.arange(40) % 3
    met = np.array([[row[c] for c in columns] for row in table])
    error = met.std(1) / np.sqrt(PERMUTATIONS)
    assert (np.abs(shuffled_mean(table, columns) - met.mean(1)) < 4.5 * error).all()
