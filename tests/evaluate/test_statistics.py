"""Bootstrap draws, tables of rows: against their plain versions."""

from __future__ import annotations

import numpy as np
import pytest

from milanx.evaluate.common.rows import FOLDS, PERMUTATIONS, constant_choice, folds, shuffled_mean
from milanx.evaluate.common.statistics import crossed, p_value, resampled_counts, with_interval


def test_counts_are_those_of_drawing_with_replacement() -> None:
    counts = resampled_counts(30, 4000, np.random.default_rng(0))
    assert (counts.sum(1) == 30).all()
    assert counts.mean(0) == pytest.approx(np.ones(30), abs=0.1)
    assert counts.var() == pytest.approx(29 / 30, abs=0.03)  # of a binomial(30, 1 / 30)


def test_crossed_equals_drawing_rows_and_columns() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (20, 1)) + rng.normal(0, 1, (1, 30)) + rng.normal(0, 1, (20, 30))
    means = [values[np.ix_(rng.integers(0, 20, 20), rng.integers(0, 30, 30))].mean()
             for _ in range(4000)]  # fmt: skip
    found = crossed(values)
    assert found["estimate"] == pytest.approx(values.mean())
    assert found["interval"] == pytest.approx(np.percentile(means, [2.5, 97.5]).tolist(), abs=0.06)


def test_p_values_and_intervals_of_draws() -> None:
    draws = np.linspace(-1, 3, 1999)  # a quarter lies below zero
    assert p_value(draws) == pytest.approx(0.5, abs=0.01)
    assert p_value(draws + 5) == pytest.approx(2 / 2000)
    assert p_value(np.zeros(100)) == 1.0
    assert with_interval(1, draws)["interval"] == pytest.approx([-0.9, 2.9], abs=0.01)


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
