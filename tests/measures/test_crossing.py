"""Crossed draws of units and what they show: against their plain version, and what they widen."""

from __future__ import annotations

import numpy as np
import pytest

from milanx.measures.crossing import Crossing
from milanx.measures.intervals import bootstrap, resampled_counts


def by_hand(
    shown: list[list[str]], values: np.ndarray, draws: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Means of draws, one by one: how often each unit and each photograph comes, multiplied."""
    rng = np.random.default_rng(seed)
    own = resampled_counts(len(shown), draws, rng)
    names = list(dict.fromkeys(name for unit in shown for name in unit))
    photos = resampled_counts(len(names), draws, rng)
    weights = np.zeros((draws, len(shown)))
    for d in range(draws):
        count = dict(zip(names, photos[d].tolist(), strict=True))
        for u, unit in enumerate(shown):
            weights[d, u] = own[d, u] * (sum(count[n] for n in unit) / len(unit) if unit else 1)
    return weights, (weights * values).sum(1) / weights.sum(1)


def width(found: dict) -> float:
    low, high = found["interval"]
    return high - low


def test_weights_are_the_counts_of_units_and_photographs_multiplied() -> None:
    rng = np.random.default_rng(0)
    shown = [[f"p{i}" for i in rng.integers(0, 12, rng.integers(0, 6))] for _ in range(15)]
    values = rng.random(15)
    weights, means = by_hand(shown, values, 400, 3)
    made = Crossing(shown, 3, 400)
    assert made.weights == pytest.approx(weights, abs=1e-5)
    found = made.interval(values)
    assert found["estimate"] == pytest.approx(values.mean())
    assert found["interval"] == pytest.approx(np.percentile(means, [2.5, 97.5]).tolist(), abs=1e-6)
    inside = np.arange(15) < 7
    part = (weights[:, inside] * values[inside]).sum(1) / weights[:, inside].sum(1)
    found = made.interval(values, inside)
    assert found["interval"] == pytest.approx(np.percentile(part, [2.5, 97.5]).tolist(), abs=1e-6)
    assert made.paired(values, values * 0) == made.interval(values)


@pytest.mark.parametrize(("clusters", "each"), [(5, 40), (20, 10), (50, 4)])
def test_units_that_share_photographs_have_the_interval_of_the_photographs(
    clusters: int, each: int
) -> None:
    """200 units, those of a cluster show one photograph and fare alike.

    Then there are but as many witnesses as photographs: the interval is at least that of a
    bootstrap over them, many times that over units, and not much wider.
    """
    rng = np.random.default_rng(1)
    level = rng.normal(size=clusters)
    values = np.repeat(level, each)
    found = Crossing([[i // each] for i in range(len(values))]).interval(values)
    over_photos, over_units = width(bootstrap(level)), width(bootstrap(values))
    assert width(found) > 1.5 * over_units
    assert 0.85 < width(found) / over_photos < 1.3


def test_more_sharing_is_a_wider_interval() -> None:
    rng = np.random.default_rng(2)
    widths = []
    for pool in (3000, 100, 30, 10):
        photos = rng.normal(size=pool)
        shown = [rng.integers(0, pool, 15).tolist() for _ in range(200)]
        values = np.array([photos[unit].mean() for unit in shown])
        values = (values - values.mean()) / values.std()
        widths.append(width(Crossing(shown).interval(values)))
        assert widths[-1] > 0.97 * width(bootstrap(values))
    assert widths == sorted(widths)
    assert widths[-1] > 1.2 * widths[0]


def test_units_with_photographs_of_their_own_are_drawn_as_by_themselves() -> None:
    rng = np.random.default_rng(3)
    values = rng.random(150)
    alone = width(bootstrap(values))
    own = Crossing([[(u, i) for i in range(15)] for u in range(150)]).interval(values)
    assert width(own) == pytest.approx(alone, rel=0.12)
    none = Crossing([[] for _ in values]).interval(values)
    assert width(none) == pytest.approx(alone, rel=0.08)
    assert np.isnan(Crossing([[1]]).interval(np.ones(1), np.zeros(1, bool))["estimate"])
