"""Calibration figures against plain versions."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from milanx.measures.calibration import (
    MEASURES,
    auroc,
    calibration_error,
    error_at,
    figures,
    reliability,
)
from milanx.measures.crossing import Crossing

RNG = np.random.default_rng(0)
SURE = RNG.random(200)
RIGHT = (RNG.random(200) < SURE).astype(float)


def test_bins_have_equal_mass_and_the_means_of_their_units() -> None:
    bins = reliability(SURE, RIGHT)
    order = np.argsort(SURE)
    for row, part in zip(bins, np.split(order, 10), strict=True):
        assert row == pytest.approx([SURE[part].mean(), RIGHT[part].mean(), 20])
    expected = np.mean([abs(SURE[p].mean() - RIGHT[p].mean()) for p in np.split(order, 10)])
    assert calibration_error(SURE, RIGHT, np.ones(200)) == pytest.approx(expected)


def test_a_weight_of_two_is_a_unit_twice() -> None:
    """Of AUROC and error at a coverage exactly; the edge of a bin may divide one."""
    counts = RNG.integers(0, 3, 200).astype(float)
    twice = np.repeat(np.arange(200), counts.astype(int))
    for measure in (auroc, error_at(0.8), error_at(0.5)):
        whole = measure(SURE[twice], RIGHT[twice], np.ones(len(twice)))
        assert measure(SURE, RIGHT, counts) == pytest.approx(whole)


def test_auroc_is_that_of_scikit_learn_and_unknown_without_both() -> None:
    assert auroc(SURE, RIGHT, np.ones(200)) == pytest.approx(roc_auc_score(RIGHT, SURE))
    assert np.isnan(auroc(SURE, np.ones(200), np.ones(200)))


def test_error_falls_where_the_sure_are_right() -> None:
    right = np.array([1, 1, 1, 0, 0.0])
    sure = np.array([0.9, 0.8, 0.7, 0.2, 0.1])
    assert error_at(0.6)(sure, right, np.ones(5)) == 0
    assert error_at(0.8)(sure, right, np.ones(5)) == pytest.approx((1 / 4) / (2 / 5))
    assert error_at(0.8)(-sure, right, np.ones(5)) == pytest.approx((2 / 4) / (2 / 5))


def test_figures_have_intervals_around_them() -> None:
    found = figures(SURE, RIGHT, Crossing([[i] for i in range(200)], draws=200))
    assert found.keys() == MEASURES.keys()
    for name in ("AUROC", "error at 80 % / full"):
        low, high = found[name]["interval"]
        assert low < found[name]["estimate"] < high
