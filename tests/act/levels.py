"""A model with planted behaviour: the class of a picture is how bright it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from milanx import Subject
from milanx.images.preprocess import Preprocess
from milanx.targets.zoo import load_target

SIDE = 16
CENTRES = (40, 100, 160, 220)  # grey levels of the four classes
NAMES = ("night", "dusk", "day", "noon")


class Levels(nn.Module):
    """The nearest of four grey levels to a picture's mean."""

    preprocess = Preprocess((SIDE, SIDE), None, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    def __init__(self) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.tensor(CENTRES) / 255)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -((x.mean((1, 2, 3))[:, None] - self.centres) ** 2)


def levels() -> nn.Module:
    """Return it: ``tests.act.levels:levels``."""
    return Levels()


def without_noon(model: nn.Module | None = None) -> Subject:
    """Return a subject that can never say noon."""
    target = load_target(model or Levels())

    @contextmanager
    def edited() -> Iterator[None]:
        handle = target.model.register_forward_hook(
            lambda m, i, out: out - torch.tensor([0.0, 0.0, 0.0, 9.0])
        )
        try:
            yield
        finally:
            handle.remove()

    return Subject(target, edited, "without noon")


def pictures(count: int = 12) -> list[tuple[np.ndarray, int]]:
    """Return views uint8 [16, 16, 3] with their class; noisy, around a grey level of their own."""
    rng = np.random.default_rng(3)
    made = []
    for i in range(count):
        level = rng.integers(20, 250)
        view = np.clip(level + rng.normal(0, 12, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
        made.append((view, i % 4 if i % 3 == 0 else int(np.abs(level - CENTRES).argmin())))
    return made


def write_folder(root: Path, count: int = 12) -> Path:
    """Write the pictures as a folder a class, losslessly."""
    for i, (view, label) in enumerate(pictures(count)):
        path = root / NAMES[label] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(view).save(path)
    return root
