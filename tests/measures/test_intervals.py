"""Bootstrap draws: against their plain versions."""

from __future__ import annotations

import numpy as np
import pytest

from milanx.measures.intervals import (
    auroc,
    crossed,
    grouped_auroc,
    p_value,
    resampled_counts,
    shares_apart,
    with_interval,
)


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


def test_auroc_is_the_share_of_pairs() -> None:
    rng = np.random.default_rng(0)
    values, holds = rng.integers(0, 6, 60).astype(float), rng.random(60) < 0.3
    pairs = [(a > b) + 0.5 * (a == b) for a in values[holds] for b in values[~holds]]
    assert auroc(values, holds)[0] == pytest.approx(np.mean(pairs))
    weights = rng.integers(0, 3, (4, 60))
    for row, found in zip(weights, auroc(values, holds, weights), strict=True):
        assert found == pytest.approx(auroc(np.repeat(values, row), np.repeat(holds, row))[0])


def test_groups_widen_the_interval_of_an_auroc() -> None:
    rng = np.random.default_rng(1)
    values, holds = rng.normal(0, 1, 40), np.arange(40) < 20
    alone = grouped_auroc(values, holds, [str(i) for i in range(40)])
    twice = grouped_auroc(np.tile(values, 4), np.tile(holds, 4), [str(i % 40) for i in range(160)])
    assert twice["estimate"] == pytest.approx(alone["estimate"])
    assert twice["interval"] == pytest.approx(alone["interval"], abs=0.03)
    free = grouped_auroc(np.tile(values, 4), np.tile(holds, 4), [str(i) for i in range(160)])
    assert np.diff(free["interval"])[0] < 0.7 * np.diff(twice["interval"])[0]


def test_shares_apart_as_newcombe_published() -> None:
    found = shares_apart((56, 70), (48, 80))  # his table II, example (a), method 10
    assert found["interval"] == pytest.approx([0.0524, 0.3339], abs=1e-4)
    assert found["estimate"] == pytest.approx(0.2)
    assert shares_apart((5, 56), (0, 29))["interval"] == pytest.approx([-0.0381, 0.1926], abs=1e-4)
    assert shares_apart((3, 9), (3, 9))["p"] == pytest.approx(1.0)
    assert shares_apart((0, 0), (3, 9))["p"] == 1.0
