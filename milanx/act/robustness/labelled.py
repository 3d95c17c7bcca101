"""Figures of any labelled images: top-1, top-5, by class, differences between models."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from milanx.act.data import Classes, EvalSet
from milanx.act.robustness.measure import Answers
from milanx.act.robustness.resampling import draw_means, figure
from milanx.measures.intervals import CROSSED_DRAWS, wilson

TOPS = (1, 5)


def labelled_figures(
    answers: Mapping[str, Answers],
    images: EvalSet,
    classes: Classes,
    seed: int = 0,
    draws: int = CROSSED_DRAWS,
) -> dict[str, Any]:
    """Make accuracies in %, with 95 % intervals over images.

    Args:
        answers: of each model, with ``rank``.
        images: with labels.
        classes: of the models.
        seed: of the bootstrap.
        draws: of the bootstrap.
    """
    assert images.labels is not None
    tops = [k for k in TOPS if k < classes.count]
    right = {m: 100.0 * np.column_stack([a["rank"] < k for k in tops]) for m, a in answers.items()}
    drawn = {m: draw_means(columns, images.groups, seed, draws) for m, columns in right.items()}
    reference = next(iter(answers))

    def between(model: str, other: str | None) -> dict[str, Any]:
        means, of = right[model].mean(0), drawn[model]
        if other is not None:
            means, of = means - right[other].mean(0), of - drawn[other]
        return {f"top{k}": figure(means[i], of[:, i]) for i, k in enumerate(tops)}

    return {
        "models": {
            m: {**between(m, None), "classes": _by_class(a["rank"], images.labels, classes)}
            for m, a in answers.items()
        },
        "differences": {m: between(m, reference) for m in answers if m != reference},
        "notes": [],
    }


def _by_class(rank: np.ndarray, labels: np.ndarray, classes: Classes) -> list[dict[str, Any]]:
    rows = []
    for label in np.unique(labels).tolist():
        right = rank[labels == label] == 0
        low, high = wilson(int(right.sum()), len(right))
        rows.append({
            "class": label,
            "name": class_name(classes, label),
            "images": len(right),
            "top1": {"estimate": 100.0 * right.mean(), "interval": [100 * low, 100 * high]},
        })  # fmt: skip
    return rows


def class_name(classes: Classes, label: int) -> str:
    """Return what a class is called: its first name, its WordNet id, or its number."""
    if classes.names:
        return classes.names[label][0]
    return classes.wnids[label] if classes.wnids else str(label)


def relabelled(images: EvalSet, predicted: Sequence[int] | np.ndarray) -> EvalSet:
    """Return images whose labels are what a model says of them."""
    return dataclasses.replace(images, labels=np.asarray(predicted, np.int64))
