"""Corruption errors: AlexNet is 100, and the paper's ResNet-50 comes out as the paper says."""

from __future__ import annotations

import pytest

from milanx.act.alexnet import ALEXNET_CLEAN, ALEXNET_ERRORS, ALEXNET_MEANS
from milanx.act.corruption_error import (
    corruption_errors,
    mean_corruption_error,
    relative_corruption_errors,
    relative_mean_corruption_error,
)
from milanx.act.corruptions import CORRUPTIONS, SEVERITIES
from milanx.errors import InputError

# google-research/augmix, imagenet.py, ALEXNET_ERR, in its order.
AUGMIX = [0.886428, 0.894468, 0.922640, 0.819880, 0.826268, 0.785948, 0.798360, 0.866816,
          0.826572, 0.819324, 0.564592, 0.853204, 0.646056, 0.717840, 0.606500]  # fmt: skip
# The paper's table 1: ResNet-50's corruption errors, rounded; its mCE; its relative mCE.
RESNET50 = [80, 82, 83, 75, 89, 78, 80, 78, 75, 66, 57, 71, 85, 77, 77]
RESNET50_CLEAN, RESNET50_MCE, RESNET50_RELATIVE = 23.9, 76.7, 105.0


def resnet50() -> dict[str, list[float]]:
    return {
        name: [ce / 100 * error for error in ALEXNET_ERRORS[name]]
        for name, ce in zip(CORRUPTIONS, RESNET50, strict=True)
    }


def test_alexnet_has_every_corruption_and_the_known_means() -> None:
    assert list(ALEXNET_ERRORS) == list(CORRUPTIONS)
    assert {len(errors) for errors in ALEXNET_ERRORS.values()} == {len(SEVERITIES)}
    assert list(ALEXNET_MEANS.values()) == pytest.approx([100 * mean for mean in AUGMIX], abs=1e-6)


def test_the_reference_is_100() -> None:
    assert mean_corruption_error(ALEXNET_ERRORS) == pytest.approx(100)
    assert relative_mean_corruption_error(ALEXNET_ERRORS, ALEXNET_CLEAN) == pytest.approx(100)


def test_resnet50_as_published() -> None:
    errors = resnet50()
    assert list(corruption_errors(errors).values()) == pytest.approx(RESNET50)
    assert mean_corruption_error(errors) == pytest.approx(RESNET50_MCE, abs=0.5)  # of rounded CE
    relative = relative_mean_corruption_error(errors, RESNET50_CLEAN)
    assert relative == pytest.approx(RESNET50_RELATIVE, abs=0.6)


def test_names_count_not_order() -> None:
    errors = resnet50()
    turned = dict(reversed(errors.items()))
    assert mean_corruption_error(turned) == mean_corruption_error(errors)
    assert corruption_errors(turned) == corruption_errors(errors)


def test_by_hand_over_two_corruptions_and_two_severities() -> None:
    reference = {"fog": [20.0, 40.0], "snow": [50.0, 70.0]}
    errors = {"fog": [15.0, 30.0], "snow": [60.0, 90.0]}
    assert corruption_errors(errors, reference) == pytest.approx({"fog": 75, "snow": 125})
    assert mean_corruption_error(errors, reference) == pytest.approx(100)
    relative = relative_corruption_errors(errors, 5, reference, 10)
    assert relative == pytest.approx({"fog": 100 * 35 / 40, "snow": 100 * 140 / 100})
    assert relative_mean_corruption_error(errors, 5, reference, 10) == pytest.approx(113.75)


def test_sums_not_means_of_ratios() -> None:
    reference = {"fog": [10.0, 90.0]}
    assert mean_corruption_error({"fog": [20.0, 90.0]}, reference) == pytest.approx(110)


def test_what_cannot_be_compared_says_so() -> None:
    errors = resnet50()
    with pytest.raises(InputError, match="snow"):
        mean_corruption_error({name: errors[name] for name in errors if name != "snow"})
    with pytest.raises(InputError, match="saturate"):
        mean_corruption_error({**errors, "saturate": [1.0] * 5})
    with pytest.raises(InputError, match="3 severities"):
        mean_corruption_error({**errors, "fog": [1.0] * 3})
    with pytest.raises(InputError, match="not in 0 to 100"):
        mean_corruption_error({**errors, "fog": [1.0, 2.0, 3.0, 4.0, 101.0]})
    with pytest.raises(InputError, match="not in 0 to 100"):
        relative_mean_corruption_error(errors, -1.0)
    with pytest.raises(InputError, match="no mean corruption error"):
        mean_corruption_error({}, {})
    with pytest.raises(InputError, match="no corruption error for fog"):
        relative_mean_corruption_error({"fog": [3.0]}, 2.0, {"fog": [5.0]}, 5.0)
