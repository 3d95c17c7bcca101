"""Bootstrap draws: against their plain versions."""

from __future__ import annotations

import numpy as np
import pytest

from milanx.measures.intervals import crossed, p_value, resampled_counts, with_interval


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
