"""The measures of how well a concept explains a unit, each of many versions of the concept at once.

The concept foretells the unit: the truth is which images excite it most, as Oikarinen, Yan and Weng
(2025, "Evaluating Neuron Explanations: A Unified Framework with Sanity Checks") set it up. So
recall is the share of the exciting images that show the concept, and precision the share of those
that show it which excite the unit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from milanx.scoring.correlate import correlations

SCORE = "score of milanx"
FLOOR = 1e-8  # of a probability before its logarithm, as in the code of Oikarinen et al.


@dataclass(frozen=True)
class Excited:
    """What a unit does on ``n`` images.

    Attributes:
        activations: spatial maxima, float [n].
        active: the images that excite it most, bool [n]; some, and not all.
        sources: number of each image's source, int [n].
    """

    activations: np.ndarray
    active: np.ndarray
    sources: np.ndarray

    @classmethod
    def most(cls, activations: np.ndarray, count: int, sources: np.ndarray) -> Excited:
        """Take the ``count`` images of the highest activations for those that excite it."""
        active = np.zeros(len(activations), bool)
        active[np.argsort(-activations, kind="stable")[:count]] = True
        return cls(np.asarray(activations, np.float64), active, sources)


@dataclass(frozen=True)
class Concept:
    """A concept in ``d`` versions.

    Attributes:
        signal: how much each image shows it, 0 to 1, float [d, n].
        labels: which images show it, bool [d, n].
    """

    signal: np.ndarray
    labels: np.ndarray


Measure = Callable[[Excited, Concept], np.ndarray]  # -> [d]


def _score(unit: Excited, concept: Concept) -> np.ndarray:
    """Our score: the correlation of prediction and activation within each source, averaged."""
    return correlations(concept.signal, _each(unit.activations, concept), unit.sources)


def _correlation(unit: Excited, concept: Concept) -> np.ndarray:
    everything = np.zeros(len(unit.sources), int)
    return correlations(concept.signal, _each(unit.activations, concept), everything)


def _each(values: np.ndarray, concept: Concept) -> np.ndarray:
    return np.broadcast_to(values, concept.labels.shape)


def _counts(unit: Excited, concept: Concept) -> tuple[np.ndarray, ...]:
    """Count images that are active and labelled, labelled alone, active alone, neither: [d] each.

    `sklearn.metrics.multilabel_confusion_matrix` counts the same, a hundred times as slowly.
    """
    both = (concept.labels @ unit.active.astype(np.float32)).astype(float)
    labelled = concept.labels.sum(1).astype(float)
    active, n = float(unit.active.sum()), len(unit.active)
    return both, labelled - both, active - both, n - labelled - active + both


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide; nothing of nothing is 0, as what is nowhere explains nothing."""
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), 0.0)


def _recall(unit: Excited, concept: Concept) -> np.ndarray:
    both, _, missed, _ = _counts(unit, concept)
    return _share(both, both + missed)


def _precision(unit: Excited, concept: Concept) -> np.ndarray:
    both, wrong, _, _ = _counts(unit, concept)
    return _share(both, both + wrong)


def _f1(unit: Excited, concept: Concept) -> np.ndarray:
    both, wrong, missed, _ = _counts(unit, concept)
    return _share(2 * both, 2 * both + wrong + missed)


def _iou(unit: Excited, concept: Concept) -> np.ndarray:
    both, wrong, missed, _ = _counts(unit, concept)
    return _share(both, both + wrong + missed)


def _accuracy(unit: Excited, concept: Concept) -> np.ndarray:
    both, _, _, neither = _counts(unit, concept)
    return (both + neither) / len(unit.active)


def _balanced(unit: Excited, concept: Concept) -> np.ndarray:
    _, wrong, _, neither = _counts(unit, concept)
    return (_recall(unit, concept) + _share(neither, neither + wrong)) / 2


def _auroc(unit: Excited, concept: Concept) -> np.ndarray:
    """The concept ranks the images; on labels it is the balanced accuracy."""
    from sklearn.metrics import roc_auc_score

    return _areas(roc_auc_score, unit, concept)


def _average_precision(unit: Excited, concept: Concept) -> np.ndarray:
    from sklearn.metrics import average_precision_score

    return _areas(average_precision_score, unit, concept)


def _areas(area: Callable[..., np.ndarray], unit: Excited, concept: Concept) -> np.ndarray:
    found = area(_each(unit.active, concept).T, concept.signal.T, average=None)
    return np.atleast_1d(np.asarray(found, float))


def _auroc_of_labels(unit: Excited, concept: Concept) -> np.ndarray:
    """The activation ranks the images, and the labels are the truth (CoSy, INVERT); .5 of none."""
    ranks = rankdata(unit.activations)
    yes = concept.labels.sum(1).astype(float)
    no = len(ranks) - yes
    above = concept.labels @ ranks - yes * (yes + 1) / 2
    return np.where(yes * no > 0, above / np.where(yes * no > 0, yes * no, 1), 0.5)


def _wpmi(lam: float) -> Measure:
    """Mean over the active images of log p(concept | image), less lam log p(concept), in nats."""

    def measure(unit: Excited, concept: Concept) -> np.ndarray:
        given = np.log(np.maximum(concept.signal[:, unit.active], FLOOR)).mean(1)
        found: np.ndarray = given - lam * np.log(np.maximum(concept.signal.mean(1), FLOOR))
        return found

    return measure


MEASURES: dict[str, Measure] = {
    SCORE: _score,
    "correlation": _correlation,
    "IoU": _iou,
    "F1": _f1,
    "average precision": _average_precision,
    "AUROC": _auroc,
    "AUROC, activation ranks labels": _auroc_of_labels,
    "balanced accuracy": _balanced,
    "accuracy": _accuracy,
    "recall": _recall,
    "precision": _precision,
    "WPMI, lambda 1": _wpmi(1.0),
    "WPMI, lambda 0.2": _wpmi(0.2),
}
