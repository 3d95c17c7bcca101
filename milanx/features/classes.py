"""What an encoder's own classifier says of exemplars: classes that no caption names.

The classifier of a network with average pooling is linear in its last feature map, so what it says
of a mean under a mask is the mean of what it says of the positions there ("Learning deep features
for discriminative localization", Zhou et al. 2016, section 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch.nn import functional as F

from milanx.features.encoder import Encoder
from milanx.features.evidence import Evidence


@dataclass(frozen=True)
class ClassHead:
    """A classifier over the last feature map.

    Attributes:
        weight: [classes, c].
        bias: [classes].
        names: of the classes, in lower case.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    names: tuple[str, ...]

    @torch.inference_mode()
    def evidence(self, sets: Evidence) -> torch.Tensor:
        """Return the mean probability of each class over each set's masks: [u, classes]."""
        channels = self.weight.shape[1]
        pooled = sets.features[:, :, 0, :channels].to(self.weight)
        shares = (pooled @ self.weight.T + self.bias).softmax(-1)
        valid = sets.valid.to(shares)[..., None]
        return (shares * valid).sum(1) / valid.sum(1).clamp_min(1)

    @torch.inference_mode()
    def shares(self, means: torch.Tensor) -> torch.Tensor:
        """Return the probability of each class for means of the last feature map.

        Args:
            means: [n, c or more], of which the last feature map's channels come first.

        Returns:
            [n, classes].
        """
        read = means[:, : self.weight.shape[1]].to(self.weight)
        return (read @ self.weight.T + self.bias).softmax(-1)

    def most(self, sets: Evidence, count: int) -> list[list[str]]:
        """Return the names of the classes with most evidence of each set, the most first."""
        ranked = self.evidence(sets).topk(min(count, len(self.names))).indices.tolist()
        return [list(dict.fromkeys(self.names[i] for i in row)) for row in ranked]


def class_head(encoder: Encoder) -> ClassHead | None:
    """Return the classifier that an encoder's tower came with; None where it has none."""
    tower = getattr(encoder.spec, "tower", "")
    head = _package_head(tower) if tower else None
    if head is None or head.weight.shape[1] != encoder.last_channels:
        return None
    device = encoder.device
    return ClassHead(head.weight.to(device), head.bias.to(device), head.names)


def class_vectors(encoder: Encoder) -> torch.Tensor:
    """Return mean text vectors of the names of ImageNet's classes: unit rows [1000, j]."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    names = [[name.strip().lower() for name in info.index_to_description(i).split(",")]
             for i in range(info.num_classes())]  # fmt: skip
    vectors = encoder.texts([name for row in names for name in row]).split([*map(len, names)])
    return F.normalize(torch.stack([own.mean(0) for own in vectors]), dim=-1)


@lru_cache(maxsize=1)
def _package_head(tower: str) -> ClassHead | None:
    """Read the classifier of a tower whose weights a package brings."""
    from timm.data import ImageNetInfo

    from milanx.targets.weights import package_state_dict

    weights = package_state_dict(tower)
    info = ImageNetInfo()
    if weights is None or len(weights["classifier.bias"]) != info.num_classes():
        return None
    names = (info.index_to_description(i).split(",")[0].lower() for i in range(info.num_classes()))
    return ClassHead(weights["classifier.weight"], weights["classifier.bias"], tuple(names))
