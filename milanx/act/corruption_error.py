"""Corruption errors and their means: how much worse than a reference model, in %.

Hendrycks and Dietterich 2019 (1903.12261), section 4.2. The reference is AlexNet on the released
ImageNet-C. For other images, fewer corruptions or fewer severities it is a model measured on the
same ones, such as the unedited one, and the figure is no mCE of the benchmark: say so beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from milanx.act.alexnet import ALEXNET_CLEAN, ALEXNET_ERRORS
from milanx.errors import InputError

Errors = Mapping[str, Sequence[float]]  # corruption -> error in % by severity


def corruption_errors(errors: Errors, reference: Errors = ALEXNET_ERRORS) -> dict[str, float]:
    """Return the errors of each corruption, summed over severities, in % of the reference's.

    Args:
        errors: top-1 errors in %, not fractions, of the model, by corruption and severity.
        reference: those of the reference model on the same images.

    Raises:
        InputError: when the two differ in their corruptions or severities, an error is not in 0
            to 100, or the reference makes no error.
    """
    _check(errors, reference)
    return {name: _ratio(name, sum(errors[name]), sum(reference[name])) for name in reference}


def relative_corruption_errors(
    errors: Errors,
    clean: float,
    reference: Errors = ALEXNET_ERRORS,
    reference_clean: float = ALEXNET_CLEAN,
) -> dict[str, float]:
    """Return what each corruption adds to the clean error, in % of what it adds to the reference's.

    Args:
        errors: as of `corruption_errors`.
        clean: the model's error on the uncorrupted images, in %.
        reference: as of `corruption_errors`.
        reference_clean: the reference's error on the uncorrupted images, in %.

    Raises:
        InputError: as of `corruption_errors`, and when a corruption adds nothing to the
            reference's errors.
    """
    _check({**errors, "clean": [clean]}, {**reference, "clean": [reference_clean]})
    return {
        name: _ratio(
            name,
            sum(error - clean for error in errors[name]),
            sum(error - reference_clean for error in reference[name]),
        )
        for name in reference
    }


def mean_corruption_error(errors: Errors, reference: Errors = ALEXNET_ERRORS) -> float:
    """Return the mean of `corruption_errors`: mCE, 100 for the reference itself."""
    return _mean(corruption_errors(errors, reference))


def relative_mean_corruption_error(
    errors: Errors,
    clean: float,
    reference: Errors = ALEXNET_ERRORS,
    reference_clean: float = ALEXNET_CLEAN,
) -> float:
    """Return the mean of `relative_corruption_errors`, 100 for the reference itself."""
    return _mean(relative_corruption_errors(errors, clean, reference, reference_clean))


def _mean(values: Mapping[str, float]) -> float:
    return math.fsum(values.values()) / len(values)


def _ratio(name: str, value: float, of_reference: float) -> float:
    if of_reference <= 0:
        raise InputError(
            f"no corruption error for {name}",
            "the reference model makes no more errors with it than without",
            ("leave this corruption out", "take a higher severity or another reference"),
        )
    return 100 * value / of_reference


def _check(errors: Errors, reference: Errors) -> None:
    if not errors or set(errors) != set(reference):
        missing = sorted(set(reference) - set(errors))
        unknown = sorted(set(errors) - set(reference))
        raise InputError(
            "no mean corruption error over these corruptions",
            f"without errors: {missing or 'none'}; unknown to the reference: {unknown or 'none'}",
            "take as reference a model that was measured on the same corruptions",
        )
    for name, values in errors.items():
        if len(values) != len(reference[name]):
            raise InputError(
                f"{name}: {len(values)} severities, the reference has {len(reference[name])}",
                "sums over other severities cannot be compared",
                "measure both on the same severities",
            )
        if not all(0 <= value <= 100 for value in (*values, *reference[name])):
            raise InputError(
                f"{name}: an error that is not in 0 to 100",
                f"given {list(values)}, of the reference {list(reference[name])}",
                "give top-1 errors in %",
            )
