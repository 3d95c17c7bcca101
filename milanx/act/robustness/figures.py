"""The table of corruptions: errors by type and severity, normalised means, differences.

What a corruption's errors are divided by is AlexNet's for the published images, all of them: then
the mean is mCE. For all else it is the first model's on the same pictures (`WHY_NOT_MCE`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from milanx.act.alexnet import ALEXNET_CLEAN, ALEXNET_ERRORS
from milanx.act.corruption_error import corruption_errors, relative_corruption_errors
from milanx.act.robustness.measure import Answers
from milanx.act.robustness.resampling import draw_means, figure
from milanx.measures.intervals import CROSSED_DRAWS

WHY_NOT_MCE = (
    "No mCE: that is defined by AlexNet's errors on the released ImageNet-C, all 15 corruptions at "
    "all 5 severities, which do not hold for other pictures. Here 100 is the error of {reference} "
    "on the same pictures."
)
CLEAN = ("clean", 0)

Cells = Mapping[tuple[str, int], Answers]


def corruption_figures(
    answers: Mapping[str, Cells],
    groups: Sequence[str],
    published: bool = False,
    seed: int = 0,
    draws: int = CROSSED_DRAWS,
) -> dict[str, Any]:
    """Make all figures of clean and corrupted images, in %, with 95 % intervals over images.

    Args:
        answers: of each model, by (corruption, severity), with ``rank``; ``("clean", 0)`` if known.
        groups: of the images.
        published: whether the pictures are the released ones; all of them give mCE.
        seed: of the bootstrap.
        draws: of the bootstrap.
    """
    reference = next(iter(answers))
    names = list(dict.fromkeys(name for name, _ in answers[reference] if (name, 0) != CLEAN))
    severities = sorted({severity for _, severity in answers[reference]} - {0})
    alexnet = published and set(names) == set(ALEXNET_ERRORS) and severities == [1, 2, 3, 4, 5]
    measured = {
        model: _Errors(cells, names, severities, groups, seed, draws)
        for model, cells in answers.items()
    }
    against = _Errors.alexnet(names) if alexnet else measured[reference]
    notes = [] if alexnet else [WHY_NOT_MCE.format(reference=reference)]
    silent = [n for n, e in zip(names, against.errors, strict=True) if e.sum() <= 0]
    if silent:
        notes.append(f"left out of the normalised mean, since {reference} makes no error there: "
                     + ", ".join(silent))  # fmt: skip
    return {
        "corruptions": names,
        "severities": severities,
        "normalised_by": "AlexNet" if alexnet else reference,
        "mce": alexnet,
        "models": {m: _of_model(e, against, names) for m, e in measured.items()},
        "differences": {
            model: _differences(errors, measured[reference], names)
            for model, errors in measured.items()
            if model != reference
        },
        "notes": notes,
    }


class _Errors:
    """Errors in % of one model: of all images [t, s], and in each bootstrap draw [d, t, s]."""

    errors: np.ndarray
    drawn: np.ndarray
    clean: float | None
    clean_drawn: np.ndarray

    def __init__(
        self,
        cells: Cells,
        names: Sequence[str],
        severities: Sequence[int],
        groups: Sequence[str],
        seed: int,
        draws: int,
    ) -> None:
        order = [(name, severity) for name in names for severity in severities]
        wrong = [cells[cell]["rank"] > 0 for cell in order]
        wrong += [cells[CLEAN]["rank"] > 0] if CLEAN in cells else []
        columns = 100.0 * np.column_stack(wrong)
        means, drawn = columns.mean(0), draw_means(columns, groups, seed, draws)
        shape = (len(names), len(severities))
        self.errors = means[: len(order)].reshape(shape)
        self.drawn = drawn[:, : len(order)].reshape(-1, *shape)
        self.clean = float(means[-1]) if CLEAN in cells else None
        self.clean_drawn = drawn[:, -1]

    @property
    def shift(self) -> float:
        """The clean error, once for each severity."""
        return (self.clean or 0.0) * self.errors.shape[1]

    @property
    def drawn_shift(self) -> np.ndarray:
        """The same in each draw, [d, 1]."""
        return self.clean_drawn[:, None] * self.errors.shape[1]

    @classmethod
    def alexnet(cls, names: Sequence[str]) -> _Errors:
        """Return the published errors, which no draw changes."""
        made = cls.__new__(cls)
        made.errors = np.array([ALEXNET_ERRORS[name] for name in names])
        made.drawn = made.errors[None]
        made.clean, made.clean_drawn = ALEXNET_CLEAN, np.array([ALEXNET_CLEAN])
        return made

    def by_name(self, names: Sequence[str], of: Sequence[str]) -> dict[str, list[float]]:
        """Return the errors of some corruptions by name."""
        return {n: e.tolist() for n, e in zip(names, self.errors, strict=True) if n in of}


def _of_model(own: _Errors, against: _Errors, names: Sequence[str]) -> dict[str, Any]:
    by_type = own.drawn.mean(2)
    made: dict[str, Any] = {
        "clean": None if own.clean is None else figure(own.clean, own.clean_drawn),
        "errors": {
            name: {"by_severity": row.tolist(), "mean": figure(row.mean(), by_type[:, i])}
            for i, (name, row) in enumerate(zip(names, own.errors, strict=True))
        },
        "mean": figure(own.errors.mean(), by_type.mean(1)),
    }
    made["normalised"], made["normalised_mean"] = _normalised(own, against, names, clean=False)
    if own.clean is None or against.clean is None:
        return {**made, "relative": None, "relative_mean": None}
    made["relative"], made["relative_mean"] = _normalised(own, against, names, clean=True)
    return made


def _normalised(
    own: _Errors, against: _Errors, names: Sequence[str], clean: bool
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the (relative) corruption error of each type, and their mean with its interval.

    Types to whose errors the reference adds none have no such figure.

    Args:
        own: of the model.
        against: of the reference.
        names: of the corruptions.
        clean: whether the errors on clean images are taken off first.
    """
    totals = [e.errors.sum(1) - e.shift * clean for e in (own, against)]
    kept = [n for n, total in zip(names, totals[1], strict=True) if total > 0]
    if not kept:
        return {}, figure(float("nan"), np.zeros(0))
    errors = own.by_name(names, kept), against.by_name(names, kept)
    if clean:
        assert own.clean is not None and against.clean is not None
        ratios = relative_corruption_errors(errors[0], own.clean, errors[1], against.clean)
    else:
        ratios = corruption_errors(*errors)
    rows = np.isin(np.array(names), kept)
    drawn = [(e.drawn.sum(2) - e.drawn_shift * clean)[:, rows] for e in (own, against)]
    return ratios, figure(sum(ratios.values()) / len(ratios), _ratio(*drawn).mean(1))


def _differences(own: _Errors, first: _Errors, names: Sequence[str]) -> dict[str, Any]:
    """Return errors minus the first model's, from the same draws."""
    errors, drawn = own.errors - first.errors, (own.drawn - first.drawn).mean(2)
    clean = None
    if own.clean is not None and first.clean is not None:
        clean = figure(own.clean - first.clean, own.clean_drawn - first.clean_drawn)
    return {
        "clean": clean,
        "errors": {n: figure(errors[i].mean(), drawn[:, i]) for i, n in enumerate(names)},
        "mean": figure(errors.mean(), drawn.mean(1)),
    }


def _ratio(own: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return 100 times the quotient [d, t]; not a number where the reference is none above 0."""
    reference = np.broadcast_to(reference, own.shape)
    made = np.full(own.shape, np.nan)
    np.divide(100 * own, reference, out=made, where=reference > 0)
    return made
