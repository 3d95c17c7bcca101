"""The units that P1 scores: logits whose class the probe images have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from milanx.errors import InputError
from milanx.evaluate.common.names import ClassNamer, accepted_names, wnid_of
from milanx.language.words import normalise_text
from milanx.runs import Run


@dataclass(frozen=True)
class Logits:
    """The logits of a run whose classes its images have.

    Attributes:
        rows: their rows of the table, n.
        wnids: the class of each.
        labels: the class of each probe image, "" where none is known.
        namer: tells which of the images' classes a text names.
    """

    rows: list[dict[str, Any]]
    wnids: list[str]
    labels: list[str]
    namer: ClassNamer

    @property
    def texts(self) -> list[str]:
        """Their descriptions."""
        return [row["description"] for row in self.rows]

    def right(self, unit: int, text: str) -> float:
        """Whether a text names the class of the unit of this number."""
        return float(self.namer.right(text, self.wnids[unit]))

    def top1(self, texts: Sequence[str]) -> np.ndarray:
        """Whether texts, one a unit, name their classes: float [n]."""
        return np.array([self.right(i, text) for i, text in enumerate(texts)])

    def top5(self, rows: Sequence[dict[str, Any]]) -> np.ndarray:
        """Whether one of the five best different candidates of a row does: float [n]."""
        return np.array([self._any_of_five(i, row) for i, row in enumerate(rows)])

    def _any_of_five(self, unit: int, row: dict[str, Any]) -> float:
        different: dict[str, str] = {}
        for candidate in row["candidates"]:
            different.setdefault(normalise_text(candidate["text"]), candidate["text"])
        return float(any(self.right(unit, text) for text in list(different.values())[:5]))

    def same_units(self, other: Run) -> list[dict[str, Any]]:
        """Return another run's rows of the same units.

        Raises:
            InputError: it does not have them.
        """
        known = {(r["layer"], r["unit"], r["sign"]): r for r in other.rows}
        try:
            return [known[r["layer"], r["unit"], r["sign"]] for r in self.rows]
        except KeyError as error:
            raise InputError(
                f"{other.root} lacks unit {error.args[0][1]} of {error.args[0][0]}",
                "runs that are compared must describe the same units",
                "describe the same layers and images with both methods",
            ) from error


def classes_of(images: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the WordNet id of each row of a table of images, "" where none is known."""
    return [str(r["wnid"] or "") or wnid_of(str(r["name"] or "")) for r in images]


def read_logits(run: Run) -> Logits:
    """Find the logits of a run whose classes its images have.

    Raises:
        InputError: no labels among its images, no logits, or none of these classes.
    """
    labels = classes_of(run.store.image_table())
    if not any(labels):
        raise InputError(
            "P1 needs labelled probe images",
            "this run's images carry no wnid, nor a name that means one ImageNet class",
            "probe with a parquet file that has a column wnid or name",
        )
    order = list(accepted_names())
    logits = [
        r for r in run.rows if run.store.record(r["layer"]).kind == "logits" and r["sign"] == "+"
    ]
    if not logits:
        raise InputError(
            "P1 needs a classifier's logits",
            "none of this run's layers is logits",
            "describe the classifier layer, such as --layer classifier or fc",
        )
    present = set(labels)
    rows = [r for r in logits if r["unit"] < len(order) and order[r["unit"]] in present]
    if not rows:
        raise InputError(
            "no logit of this run has a class of its images",
            "units are taken as ImageNet-1k's classes in the usual order",
        )
    namer = ClassNamer(sorted(present - {""}))
    return Logits(rows, [order[r["unit"]] for r in rows], labels, namer)
