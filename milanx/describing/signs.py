"""What exemplars say of a description when it is chosen.

They take no part in the choice of a text. ``alike`` needs no text: do a unit's exemplars share
anything beyond what all of the layer share? ``shown`` asks for the text: does it tell the exemplars
from those of the layer's other units? Nor does confidence ask them: where the terms of the ranking
are known they tell right from wrong no better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from milanx.describing.candidates import Signs
from milanx.features.encoder import MASKED

if TYPE_CHECKING:
    from milanx.describing.texts import TextSpace
    from milanx.features.evidence import Evidence

FEW = 8  # units that tell nothing, counted beside a layer's others: few of them say little


@dataclass(frozen=True)
class Crowd:
    """What the masks of units all over a layer show.

    Attributes:
        shown: [m, j], every exemplar's, centred unit rows.
        units: how many units they are of.
    """

    shown: torch.Tensor
    units: int

    @classmethod
    def of(cls, evidence: Evidence, centre: torch.Tensor) -> Crowd:
        """Collect the exemplars of some units; ``centre`` [j] is the joint space's mean."""
        return cls(masked(evidence, centre)[evidence.valid], len(evidence))

    @property
    def share(self) -> float:
        """What a comparison with them counts, 0 to 1."""
        return self.units / (self.units + FEW)


def read_signs(
    evidence: Evidence,
    photos: np.ndarray,
    crowd: Crowd,
    texts: Sequence[str],
    space: TextSpace,
) -> list[Signs]:
    """Read the signs of units' descriptions.

    Args:
        evidence: of u units.
        photos: what stands for the photo of each exemplar, int [u, k].
        crowd: of their layer.
        texts: the descriptions.
        space: texts' vectors.
    """
    rows = masked(evidence, space.set_encoder.joint_mean)
    found = []
    for row, (text, valid) in enumerate(zip(texts, evidence.valid, strict=True)):
        own = rows[row][valid]
        numbers = torch.from_numpy(photos[row][valid.cpu().numpy()]).to(own.device)
        auroc = _above(*_fits(text, (own, crowd.shown), space))
        found.append(Signs(_alike(own, numbers, crowd), 0.5 + crowd.share * (auroc - 0.5)))
    return found


def masked(evidence: Evidence, centre: torch.Tensor) -> torch.Tensor:
    """Return what is under the masks in the joint space, centred: unit rows [u, k, j]."""
    return F.normalize(evidence.joint[:, :, MASKED] - centre, dim=-1)


def _alike(own: torch.Tensor, photos: torch.Tensor, crowd: Crowd) -> float:
    """Mean cosine of exemplars [k, j] of different photos, less that with the crowd."""
    apart = photos[:, None] != photos[None]
    if not apart.any():
        return 0.0
    usual = float((own @ crowd.shown.mean(0)).mean())
    return float((own @ own.T)[apart].mean()) - crowd.share * usual


def _fits(
    text: str, several: tuple[torch.Tensor, torch.Tensor], space: TextSpace
) -> tuple[torch.Tensor, torch.Tensor]:
    """Say how well a text fits exemplars and the crowd, [k] and [m].

    What it joins is compared part by part, as responses do (`milanx.describing.response`).
    """
    divided = space.split(text)
    if divided is None:
        vector = space.centred([text])[0]
        return several[0] @ vector, several[1] @ vector
    vectors = space.centred([divided[0], divided[2]])
    usual = several[1] @ vectors.T
    mean, spread = usual.mean(0), usual.std(0, correction=0).clamp_min(1e-6)
    a, b = (((rows @ vectors.T - mean) / spread).T for rows in several)
    return _join(divided[1], *a), _join(divided[1], *b)


def _join(connective: str, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    if connective == "or":
        return torch.maximum(first, second)
    return torch.minimum(first, second if connective == "and" else -second)


def _above(own: torch.Tensor, others: torch.Tensor) -> float:
    """Share of pairs of own [k] and others [m] in which the own is larger, ties by half."""
    ranks = torch.searchsorted(others.sort().values, own)
    ends = torch.searchsorted(others.sort().values, own, right=True)
    return float((ranks + ends).double().mean() / 2 / max(1, len(others)))
