"""How sure a description is: the probability that it is right, of what a run knows of it.

A logistic regression on how a text and its candidates stand, calibrated on units whose meaning is
known (`milanx bench confidence fit`). Its numbers stand in ``confidence.json`` of a describer's
folder; here they are only evaluated. Weighted PMI is no such probability, nor is the rank.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from milanx.errors import FormatError
from milanx.files import fingerprint, read_json, write_json
from milanx.files.digests import AGAIN, MOST_TEXT, regular
from milanx.language.connectives import named
from milanx.language.words import normalise_text

FILE = "confidence.json"
FORMAT, VERSION = "milanx confidence", 1
NEEDED = ("log_p_given_exemplars", "response", "rank")  # without them nothing is said
NATS = 4.0  # of the rank, by which a candidate counts e times less; ranks differ by tens
# What is read of each description, in this order.
INPUTS = ("likeliest", "response", "behind", "kin", "words")


def read_inputs(row: Mapping[str, Any]) -> list[float] | None:
    """Read what confidence depends on; None where the row lacks it.

    ``likeliest`` is the most that log p(d|E) is of any candidate: how well the exemplars can be
    told at all. ``response`` is the text's, ``behind`` how far it is from the most that a candidate
    has. ``kin`` is the share of the candidates, by their ranks, that name what the text names.

    Args:
        row: of a run's table.
    """
    if not row["description"] or any(row.get(name) is None for name in NEEDED):
        return None
    text = normalise_text(row["description"])
    likeliest, response = (
        max(c[name] for c in (row, *row["candidates"]) if c[name] is not None)
        for name in ("log_p_given_exemplars", "response")
    )
    return [likeliest, row["response"], row["response"] - response, _kin(row, text),
            float(len(text.split()))]  # fmt: skip


def _kin(row: Mapping[str, Any], text: str) -> float:
    """Share of the ranked candidates that name something that the text names, 0 to 1."""
    said = {*named(text)}
    ranked = [c for c in row["candidates"] if c["rank"] is not None]
    if not ranked:
        return 1.0
    shares = np.exp((np.array([c["rank"] for c in ranked]) - row["rank"]) / NATS)
    alike = [bool(said & {*named(normalise_text(c["text"]))}) for c in ranked]
    return float(shares[alike].sum() / shares.sum())


@dataclass(frozen=True)
class Calibration:
    """A calibrated model of confidence.

    Attributes:
        centre: of each of `INPUTS`, subtracted.
        scale: of each, divided by.
        weights: of each, in nats.
        offset: in nats.
        slope: of Platt's scaling (1999), which units that took no part in the fit chose.
        shift: likewise, in nats.
        threshold: below this confidence a unit is unclear.
        describer: fingerprint of the one that it is for.
        facts: what it was fitted on.
    """

    centre: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    offset: float
    slope: float
    shift: float
    threshold: float
    describer: str
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Return the confidence of descriptions, float [n], given their inputs [n, f]."""
        scaled = (np.asarray(inputs, float) - self.centre) / self.scale
        logits = self.slope * (scaled @ np.array(self.weights) + self.offset) + self.shift
        found: np.ndarray = 1 / (1 + np.exp(-np.clip(logits, -50, 50)))
        return found

    @property
    def fingerprint(self) -> str:
        """16 hex digits that stand for all its numbers."""
        return fingerprint(self.centre, self.scale, self.weights, self.offset, self.slope,
                           self.shift, self.threshold, self.describer)  # fmt: skip

    def write(self, root: Path) -> None:
        """Write ``confidence.json`` into a folder."""
        inputs = [
            {"name": name, "centre": centre, "scale": scale, "weight": weight}
            for name, centre, scale, weight in zip(
                INPUTS, self.centre, self.scale, self.weights, strict=True)
        ]  # fmt: skip
        content = {"inputs": inputs, "offset": self.offset, "slope": self.slope,
                   "shift": self.shift, "threshold": self.threshold, "describer": self.describer,
                   "facts": dict(self.facts)}  # fmt: skip
        write_json(root / FILE, FORMAT, VERSION, content)


def read_calibration(root: Path) -> Calibration | None:
    """Read ``confidence.json`` of a folder; None where there is none.

    Raises:
        FormatError: it is damaged, or a version that this milanx does not know.
    """
    path = root / FILE
    if not path.exists() and not path.is_symlink():
        return None
    regular(path, MOST_TEXT)
    content = read_json(path, FORMAT, VERSION)
    try:
        rows = content["inputs"]
        names = [row["name"] for row in rows]
        centre, scale, weights = (tuple(float(row[key]) for row in rows)
                                  for key in ("centre", "scale", "weight"))  # fmt: skip
        offset, slope, shift, threshold = (
            float(content[key]) for key in ("offset", "slope", "shift", "threshold")
        )
        made = Calibration(centre, scale, weights, offset, slope, shift, threshold,
                           str(content["describer"]), dict(content["facts"]))  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{path} is damaged", f"{type(error).__name__}: {error}",
                          AGAIN) from error  # fmt: skip
    numbers = (*centre, *scale, *weights, offset, slope, shift)
    sane = all(map(math.isfinite, numbers)) and all(s > 0 for s in scale) and 0 <= threshold <= 1
    if tuple(names) != INPUTS or not sane:
        why = "a strange number" if tuple(names) == INPUTS else "other inputs than milanx reads"
        raise FormatError(f"{path} is damaged", why, AGAIN)
    return made


@dataclass(frozen=True)
class Judge:
    """Says of every row of a table how sure it is, or why nobody can say.

    Attributes:
        calibration: None where there is none that fits.
        reason: why not, in words.
    """

    calibration: Calibration | None = None
    reason: str = ""

    def facts(self) -> dict[str, Any]:
        """What ``run.json`` says of it."""
        if self.calibration is None:
            return {"reason": self.reason}
        return {"fingerprint": self.calibration.fingerprint,
                "threshold": self.calibration.threshold}  # fmt: skip

    def judge(self, rows: Sequence[dict[str, Any]]) -> None:
        """Fill in confidence, or the reason for none, and the status of described units.

        Args:
            rows: of a table.
        """
        for row in rows:
            row |= {"confidence": None, "confidence_reason": self.reason or None}
            if not row["description"]:
                row["confidence_reason"] = "it has no description"
            elif self.calibration is not None:
                self._judge(self.calibration, row)

    def _judge(self, calibration: Calibration, row: dict[str, Any]) -> None:
        inputs = read_inputs(row)
        if inputs is None:
            row["confidence_reason"] = "an earlier milanx described it, or other terms ranked it"
            return
        sure = float(calibration(np.array([inputs]))[0])
        row["confidence"] = sure
        row["status"] = "unclear" if sure < calibration.threshold else "described"
