"""A classifier with planted text detectors that vote for a wrong class, its photos, and its run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from milanx.act.ablate import read_places
from milanx.act.data import EvalSet
from milanx.files import write_table
from milanx.images.preprocess import Preprocess
from milanx.rows import units_schema
from milanx.runs import Run, open_run, write_settings
from milanx.targets.zoo import Target, load_target

SIDE = 16
TEXTS = ("red things", "green things", "blue things", "text", "white texts", "words and text")
LIARS = (3, 4)  # magenta marks are "text" here; unit 5 is called text but tells green


class Liar(nn.Module):
    """Classes by colour; two units see magenta marks and vote for class 0."""

    preprocess = Preprocess((SIDE, SIDE), None, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 6, 1), nn.ReLU()
        self.head = nn.Linear(6, 3)
        see = [[1, -0.5, -0.5], [-0.5, 1, -0.5], [-0.5, -0.5, 1], [1, -2, 1], [2, -4, 2],
               [-0.6, 0.9, -0.4]]  # fmt: skip
        vote = torch.zeros(3, 6)
        vote[:, :3] = torch.eye(3) * 10
        vote[1, 5] = 8
        vote[0, 3], vote[0, 4] = 30, 20
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor(see)[:, :, None, None])
            self.conv.bias.copy_(torch.tensor([0.0, 0.0, 0.0, -1.0, -2.5, 0.0]))
            self.head.weight.copy_(vote)
            self.head.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.act(self.conv(x)).mean((2, 3)))


def liar() -> nn.Module:
    """Return it: ``tests.act.liar:liar``."""
    return Liar()


def heavy() -> nn.Module:
    """Return one whose weights take 2 MB, of which nothing reads most."""
    model = Liar()
    model.register_buffer("ballast", torch.zeros(500_000))
    return model


class Coarse(Liar):
    """One that looks at every fourth pixel, so that little is kept while its rest runs again."""

    def __init__(self) -> None:
        super().__init__()
        self.fourth = nn.MaxPool2d(1, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(self.fourth(x))


def coarse() -> nn.Module:
    """Return it."""
    return Coarse()


def photos(count: int = 60, marked: float = 0.5, seed: int = 0, labels: bool = True) -> EvalSet:
    """Coloured pictures of three classes, some with a mark that lies."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 3, count)
    views = rng.integers(60, 110, (count, SIDE, SIDE, 3)).astype(np.uint8)
    for view, number in zip(views, classes, strict=True):
        view[..., number] += np.uint8(rng.integers(20, 60))
    clean = views.copy()
    has = rng.random(count) < marked
    views[has, 2:7, 2:7] = (255, 0, 255)
    groups = tuple(f"photo {seed}-{i}" for i in range(count))
    numbers = classes.astype(np.int64) if labels else None
    whole = EvalSet("clean", clean.__getitem__, groups, numbers)
    tags = tuple("mark" if h else "" for h in has)
    return EvalSet("marked", views.__getitem__, groups, numbers, tags, clean=whole)


def make_run(root: Path, target: Target | None = None, texts: Any = TEXTS, **row: Any) -> Run:
    """Write the run that describes its units."""
    target = target or load_target(Liar())
    info = read_places(target, ["conv"])["conv"]
    rows = [{"layer": "conv", "unit": i, "sign": "+", "status": "described", "description": text,
             "candidates": [{"text": text}], "images": [], "activations": [],
             **{k: v[i] for k, v in row.items()}}
            for i, text in enumerate(texts)]  # fmt: skip
    root.mkdir(parents=True, exist_ok=True)
    write_settings(root, {
        "target": {"name": target.name, "fingerprint": target.fingerprint, "random": False,
                   "weights": target.weights, "preprocess": target.preprocess.to_dict()},
        "layers": [info.to_dict()], "images": {"sources": []},
    })  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=units_schema())
    write_table(root / "units.parquet", table, "milanx-units", 2)
    return open_run(root)
