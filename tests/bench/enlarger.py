"""A small network that ends as planting needs: a last convolution, its rectifier, a classifier."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from milanx.images.preprocess import Preprocess

CLASSES = 4


class Enlarger(nn.Module):
    """Cells know brightness, colours and edges; no class is said of all pictures."""

    preprocess = Preprocess((64, 64), 64, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.stem = nn.Conv2d(3, 24, 3, 1, 1)
        self.pool = nn.AvgPool2d(8)
        self.conv_head = nn.Conv2d(24, 40, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(40)
        self.act = nn.ReLU6()
        self.classifier = nn.Linear(40, CLASSES)
        with torch.no_grad():
            for weight in (self.stem.weight, self.conv_head.weight, self.classifier.weight):
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
            self.stem.bias.zero_()
            self.classifier.bias.zero_()
            blurred = F.interpolate(
                torch.rand(64, 3, 6, 6, generator=generator), 64, mode="bicubic"
            )
            said = self.eval()(blurred.clamp(0, 1))
            self.classifier.weight.div_(said.std(0)[:, None])  # every class is said of some
            self.classifier.bias.copy_(-(said / said.std(0)).mean(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        cells = self.pool(self.stem(x).relu())
        return self.classifier(self.act(self.bn2(self.conv_head(cells))).mean((2, 3)))


def enlarger() -> nn.Module:
    """Return the network: ``tests.bench.enlarger:enlarger``."""
    return Enlarger().eval()
