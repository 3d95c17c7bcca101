"""A classifier of red, green and blue whose first three units decide alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from milanx.images.preprocess import Preprocess
from tests.helpers import write_parquet

UNITS = 30
PREPROCESS = Preprocess((16, 16), 16, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


class Voter(nn.Module):
    """Units 0, 1, 2 are how red, green and blue a place is; the others the head hardly reads."""

    preprocess = PREPROCESS

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.conv = nn.Conv2d(3, UNITS, 1)
        self.act = nn.ReLU()
        self.head = nn.Linear(UNITS, 3)
        with torch.no_grad():
            self.conv.weight.copy_(torch.rand(UNITS, 3, 1, 1, generator=generator))
            self.conv.weight[:3] = (2 * torch.eye(3) - 1)[..., None, None]
            self.conv.bias.zero_()
            self.head.weight.copy_(torch.randn(3, UNITS, generator=generator) * 0.01)
            self.head.weight[:, :3] = 5 * torch.eye(3)
            self.head.bias.copy_(torch.tensor([0.0, 0.02, 0.01]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.act(self.conv(x)).mean((2, 3)))


def voter() -> nn.Module:
    """Return the model: ``tests.act.voter:voter``."""
    return Voter().eval()


def colours(path: Path, count: int = 60, **columns: list) -> Path:
    """Write noisy pictures of red, green and blue by turns, with their labels and names."""
    rng = np.random.default_rng(0)
    images = []
    for i in range(count):
        noise = rng.integers(0, 60, (16, 16, 3))
        noise[:, :, i % 3] += 120 + int(rng.integers(0, 60))
        images.append(Image.fromarray(noise.astype(np.uint8)))
    labels = [i % 3 for i in range(count)]
    names = [("red", "green", "blue")[i] for i in labels]
    groups = [f"g{i}" for i in range(count)]
    return write_parquet(path, images, label=labels, name=names, group=groups, **columns)
