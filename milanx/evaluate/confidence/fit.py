"""Calibration: a logistic regression, Platt's scaling on units that it did not see, a threshold.

Few inputs take part, and none against what it means: what else a kind of units happens to go with
does not hold for the next. The scaling is that of meanings which a fit left out, so that confidence
is no surer than it is on what it has not met. Units without a meaning teach the weights what
nothing looks like, but take no part in the scaling: how many of them there are is our choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from milanx.describing.confidence import INPUTS, Calibration, read_inputs
from milanx.errors import InputError
from milanx.evaluate.confidence.units import RANDOM, Judged
from milanx.measures.folds import folds

LEAST = 40  # right ones, and wrong ones, that are needed
PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0)  # of sklearn's C
# Which way each input may weigh: a longer text says more that can be wrong.
SIGNS = {"likeliest": 1, "response": 1, "behind": 1, "kin": 1, "words": -1}
NEVER = -1  # the fold of units that no fit leaves out
UNCLEAR = 0.92  # share of the controls that the threshold leaves out: the aim, and some to spare
SPREAD = 1e-6  # of an input that never varies


@dataclass(frozen=True)
class Table:
    """Units as a regression reads them.

    Attributes:
        inputs: float [n, f].
        right: 0 or 1, [n].
        weights: [n].
        fold: int [n]: units without a meaning are in `NEVER`.
    """

    inputs: np.ndarray
    right: np.ndarray
    weights: np.ndarray
    fold: np.ndarray

    @classmethod
    def of(cls, judged: Sequence[Judged], seed: int) -> Table:
        """Read units, all of one weight.

        Raises:
            InputError: a unit that lacks what confidence depends on, or too few of them.
        """
        inputs = inputs_of(judged)
        right = np.array([unit.right for unit in judged])
        if min(right.sum(), (1 - right).sum()) < LEAST:
            counts = f"{int(right.sum())} right and {int((1 - right).sum())} wrong texts"
            raise InputError(counts, f"{LEAST} of each are needed to calibrate",
                             "ask for more units")  # fmt: skip
        fold = _folds(judged, seed)
        return cls(inputs, right, np.ones(len(right)), fold)

    def part(self, inside: np.ndarray) -> Table:
        """Return some rows, bool [n]."""
        return Table(self.inputs[inside], self.right[inside], self.weights[inside],
                     self.fold[inside])  # fmt: skip


def inputs_of(judged: Sequence[Judged]) -> np.ndarray:
    """Return the inputs of units, float [n, f].

    Raises:
        InputError: one of them lacks some.
    """
    found = [read_inputs(unit.row) for unit in judged]
    if any(values is None for values in found):
        raise InputError("a unit lacks what confidence depends on",
                         "response has no weight in the describer's settings",
                         "calibrate a describer that ranks by it")  # fmt: skip
    return np.array(found, float).reshape(len(found), len(INPUTS))


def calibrate(judged: Sequence[Judged], describer: str, seed: int = 0) -> Calibration:
    """Fit confidence to units; its threshold is still 0.

    Args:
        judged: units whose text is right or wrong.
        describer: fingerprint of what described them.
        seed: of the folds.

    Raises:
        InputError: too few units.
    """
    table = Table.of(judged, seed)
    meant = table.fold != NEVER
    told, unseen = table.part(meant), {c: _out_of_fold(table, c)[meant] for c in PENALTIES}
    penalty = min(PENALTIES, key=lambda c: _loss(told, unseen[c]))
    fitted = _fit(table, penalty)
    slope, shift = _platt(unseen[penalty], told)
    facts: dict[str, Any] = {"penalty": penalty, "seed": seed, "units": len(judged),
                             "right": float(np.mean([u.right for u in judged]))}  # fmt: skip
    return Calibration(*fitted, slope, shift, 0.0, describer, facts)


Fitted = tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...], float]


def _fit(table: Table, penalty: float) -> Fitted:
    """Fit the regression: centre, scale and weight of each input, and the offset.

    An input that would weigh against its meaning is left out, and the others are fitted again.
    """
    from sklearn.linear_model import LogisticRegression

    centre = np.average(table.inputs, axis=0, weights=table.weights)
    scale = np.sqrt(np.average((table.inputs - centre) ** 2, axis=0, weights=table.weights))
    scale = np.where(scale > SPREAD, scale, 1.0)
    weights, kept = np.zeros(len(INPUTS)), [*range(len(INPUTS))]
    model = LogisticRegression(C=penalty, max_iter=1000)
    scaled = (table.inputs - centre) / scale
    while True:
        model.fit(scaled[:, kept], table.right, sample_weight=table.weights)
        wrong = {i for i, weight in zip(kept, model.coef_[0], strict=True)
                 if weight * SIGNS[INPUTS[i]] < 0}  # fmt: skip
        if not wrong:
            break
        kept = [i for i in kept if i not in wrong]
    weights[kept] = model.coef_[0]
    columns = (tuple(map(float, values)) for values in (centre, scale, weights))
    return (*columns, float(model.intercept_[0]))  # type: ignore[return-value]


def _folds(judged: Sequence[Judged], seed: int) -> np.ndarray:
    """Assign units to folds, int [n]: all of one meaning to one."""
    known = {unit.meaning: None for unit in judged if unit.kind != RANDOM}
    place = dict(zip(known, folds(len(known), seed).tolist(), strict=True))
    return np.array([NEVER if u.kind == RANDOM else place[u.meaning] for u in judged])


def _out_of_fold(table: Table, penalty: float) -> np.ndarray:
    """Return what regressions fitted on the other folds say of each row, in nats [n]."""
    found, meant = np.zeros(len(table.right)), table.fold != NEVER
    for number in np.unique(table.fold[table.fold != NEVER]):
        inside = table.fold == number
        others = table.part(~inside)
        left = table.weights[~inside & meant].sum() / table.weights[meant].sum()
        # As large a part of those without a meaning, or every fit but the last would say less.
        others = replace(others, weights=np.where(others.fold == NEVER, left, 1) * others.weights)
        centre, scale, weights, offset = _fit(others, penalty)
        found[inside] = (table.inputs[inside] - centre) / scale @ weights + offset
    return found


def _loss(table: Table, logits: np.ndarray) -> float:
    """Mean log loss of rows, in nats."""
    losses = np.logaddexp(0, np.where(table.right > 0, -logits, logits))
    return float(np.average(losses, weights=table.weights))


def _platt(logits: np.ndarray, table: Table) -> tuple[float, float]:
    """Fit slope and shift of logits that did not see their own units (Platt 1999)."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1e6, max_iter=1000)
    model.fit(logits[:, None], table.right, sample_weight=table.weights)
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def with_threshold(calibration: Calibration, controls: Sequence[Judged]) -> Calibration:
    """Choose the threshold below which the asked share of development controls lies."""
    sure = calibration(inputs_of(controls))
    return replace(calibration, threshold=float(np.quantile(sure, UNCLEAR)))
