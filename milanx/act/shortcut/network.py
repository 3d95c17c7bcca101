"""A residual network of 0.3 million weights for pictures of 64 x 64.

Deep residual learning (He et al., CVPR 2016) at the least size that learns ten classes and reads
their names within two minutes on two cores.
"""

from __future__ import annotations

import torch
from torch import nn

from milanx.images.preprocess import Preprocess

WIDTHS = (24, 32, 64, 128)  # of the stem and three stages; 13 million multiplications at 64 x 64
LAYER = "stage3"  # the late layer that is described and edited


def preprocess(side: int) -> Preprocess:
    """Return how the network takes images of ``side`` pixels."""
    return Preprocess((side, side), side, "bilinear", (0.5,) * 3, (0.25,) * 3)


class Block(nn.Module):
    """Two convolutions and a way around them; halves the map."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.around = nn.Sequential(
            nn.Conv2d(width_in, width, 1, 2, bias=False), nn.BatchNorm2d(width)
        )
        self.act1, self.act2 = nn.ReLU(), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [b, c, h, w] to [b, width, h / 2, w / 2]."""
        y = self.act1(self.bn1(self.conv1(x)))
        return self.act2(self.bn2(self.conv2(y)) + self.around(x))


class SmallResNet(nn.Module):
    """A stem and three residual stages.

    Args:
        classes: how many.
        side: of the images.
    """

    def __init__(self, classes: int, side: int = 64) -> None:
        super().__init__()
        self.preprocess = preprocess(side)
        stem, *stages = WIDTHS
        self.stem = nn.Sequential(
            nn.Conv2d(3, stem, 5, 2, 2, bias=False), nn.BatchNorm2d(stem), nn.ReLU()
        )
        self.stage1 = Block(stem, stages[0])
        self.stage2 = Block(stages[0], stages[1])
        self.stage3 = Block(stages[1], stages[2])
        self.head = nn.Linear(stages[2], classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map inputs [b, 3, side, side] to logits [b, classes]."""
        x = self.stage3(self.stage2(self.stage1(self.stem(x))))
        return self.head(x.mean((2, 3)))
