"""Planted units: units whose meaning is known because they were built.

Pixel predicates are torch modules that go through capture as any model does; predicates over
labels and regions are tables of activations that enter at the same interface after it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from milanx.exemplars.masks import LayerRecord
from milanx.exemplars.reading import layer_path
from milanx.exemplars.store import (
    FORMAT,
    VERSION,
    ExemplarStore,
    write_index,
    write_layer,
    write_views,
)
from milanx.files import atomic_path, fingerprint, write_table
from milanx.files.kinds import RUN
from milanx.images.preprocess import Preprocess

MAP = 14  # side of the maps of planted units
LAYER, VIEW_SIZE = "planted", (224, 224)  # of a store that `plant` writes
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.8, 0.15, 0.15), "green": (0.2, 0.55, 0.25), "blue": (0.15, 0.3, 0.75),
    "yellow": (0.95, 0.85, 0.15), "orange": (0.93, 0.55, 0.12), "purple": (0.5, 0.2, 0.62),
    "pink": (0.93, 0.55, 0.7), "white": (0.95, 0.95, 0.95), "black": (0.05, 0.05, 0.05),
}  # fmt: skip
COLOUR_WIDTH = 0.22  # distance in RGB at which a colour unit has fallen to zero
ORIENTATIONS = {"horizontal lines": 90.0, "vertical lines": 0.0, "diagonal lines": 45.0}
PLACES = {"top": (0.0, 0.5), "bottom": (1.0, 0.5), "left side": (0.5, 0.0),
          "right side": (0.5, 1.0), "center": (0.5, 0.5)}  # fmt: skip


class PixelUnits(nn.Module):
    """A model whose channels are pixel predicates; every output is rectified.

    Its layer ``units`` [b, u, 14, 14] holds colours, brightness, darkness, edge orientations,
    fine detail, plainness, and bright things at a place. ``names`` says what each one means.
    """

    preprocess = Preprocess(VIEW_SIZE, 256, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    colours: torch.Tensor
    across: torch.Tensor
    places: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.names = [
            *COLOURS, "bright areas", "dark areas", *ORIENTATIONS, "fine detail", "plain surfaces",
            *(f"bright things at the {place}" for place in PLACES),
        ]  # fmt: skip
        self.register_buffer("colours", torch.tensor(list(COLOURS.values())))
        angles = torch.tensor([math.radians(a) for a in ORIENTATIONS.values()])
        self.register_buffer("across", torch.stack([angles.cos(), angles.sin()], 1))
        grid = (torch.arange(MAP) + 0.5) / MAP
        places = torch.tensor(list(PLACES.values()))
        y = (grid[None, :, None] - places[:, :1, None]).square()
        x = (grid[None, None, :] - places[:, 1:, None]).square()
        self.register_buffer("places", torch.exp(-(x + y) / (2 * 0.2**2)))
        self.units = nn.ReLU()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Compute all predicates of ``pixels`` [b, 3, H, W] in 0..1."""
        distance = (pixels[:, None] - self.colours[None, :, :, None, None]).square().sum(2).sqrt()
        colours = F.adaptive_avg_pool2d((1 - distance / COLOUR_WIDTH).relu(), MAP)
        grey = pixels.mean(1, keepdim=True)
        light = F.adaptive_avg_pool2d(grey, MAP)
        gx = F.pad(grey[..., 1:] - grey[..., :-1], (0, 1))
        gy = F.pad(grey[..., 1:, :] - grey[..., :-1, :], (0, 0, 0, 1))
        strength = (gx.square() + gy.square()).sqrt()
        lines = []
        for cos, sin in self.across.tolist():
            along = (gx * cos + gy * sin).abs() - (gy * cos - gx * sin).abs()
            lines.append(F.adaptive_avg_pool2d(along, MAP))
        detail = F.adaptive_avg_pool2d(strength, MAP)
        maps = [colours, light - 0.75, 0.2 - light, *lines, detail - 0.06, 0.012 - detail,
                (light - 0.6) * self.places]  # fmt: skip
        return self.units(torch.cat(maps, 1))


@dataclass(frozen=True)
class Meaning:
    """What a planted unit means: atoms with their polarity, joined by a connective.

    Attributes:
        atoms: names.
        connective: ``single``, ``and``, ``or`` or ``and-not`` (the last atom is negated).
    """

    atoms: tuple[str, ...]
    connective: str = "single"

    @property
    def phrase(self) -> str:
        """Its canonical phrase."""
        if self.connective == "and-not":
            return f"{self.atoms[0]} without {self.atoms[1]}"
        return f" {self.connective} ".join(self.atoms)


def combine(maps: dict[str, np.ndarray], meaning: Meaning) -> np.ndarray:
    """Activations of a meaning.

    Args:
        maps: of each atom, [n, h, w] in 0..1: how much of the cell it covers in each image.
        meaning: what to compute.

    Returns:
        float32 [n, h, w]. AND holds where any of its atoms lies, in images that have them all;
        AND-NOT where the first lies, in images without the second.
    """
    parts = [maps[atom] for atom in meaning.atoms]
    if meaning.connective in ("single", "or"):
        return np.maximum.reduce(parts).astype(np.float32)
    present = [part.max((1, 2)) > 0 for part in parts]
    if meaning.connective == "and":
        together = np.logical_and.reduce(present)
        return (np.maximum.reduce(parts) * together[:, None, None]).astype(np.float32)
    return (parts[0] * (present[0] & ~present[1])[:, None, None]).astype(np.float32)


def plant(
    out: Path,
    chosen: Sequence[np.ndarray],
    maps: Sequence[np.ndarray],
    views: Iterable[tuple[int, np.ndarray]],
    records: Sequence[dict[str, object]],
    *,
    activations: np.ndarray | None = None,
    overwrite: bool = False,
) -> ExemplarStore:
    """Write planted units as the store of a run folder.

    Args:
        out: the folder.
        chosen: of each unit the indices of its exemplars, int64 [k] (all of one length).
        maps: of each unit their masks as maps, [k, h, w]; above one half is inside.
        views: index and view uint8 [H, W, 3] of `VIEW_SIZE`, ascending: every image that is an
            exemplar, and others that may serve as contrast.
        records: one row an image for ``images.parquet``.
        activations: of every image and unit, float32 [images, units]; written as ``max.npy`` and
            ``mean.npy``, which finding contrast views needs. None writes neither.
        overwrite: replace a run folder that is there.

    Returns:
        The store.

    Raises:
        InputError: there is something that must not be replaced.
    """
    import pyarrow as pa

    images = np.stack(chosen).astype(np.int64)
    stacked = np.stack(maps).astype(np.float16)
    rows = len(images)
    stats = {name: np.full(rows, value, np.float32) for name, value in {
        "quantile": 0.5, "low_quantile": 0.0, "median": 0.0, "mean": 0.0, "deviation": 1.0,
        "maximum": 1.0, "minimum": 0.0}.items()}  # fmt: skip
    if activations is not None:
        stats["median"] = np.median(activations, 0).astype(np.float32)
    height, width = stacked.shape[2:]
    record = LayerRecord(LAYER, "planted", (int(height), int(width)), True, None)
    with atomic_path(out, RUN if overwrite else None) as temporary:
        write_layer(
            layer_path(temporary, LAYER), [(u, "+") for u in range(rows)], images,
            stacked.max((2, 3)).astype(np.float32), stacked, np.zeros(images.shape, np.int16),
            stats,
        )  # fmt: skip
        if activations is not None:
            for name in ("max.npy", "mean.npy"):
                values = np.ascontiguousarray(activations, np.float32)
                np.save(layer_path(temporary, LAYER) / name, values, allow_pickle=False)
        write_views(temporary, views)
        write_table(temporary / "images.parquet", pa.Table.from_pylist(list(records)), FORMAT,
                    VERSION)  # fmt: skip
        key = fingerprint("planted", images.tolist(), stacked.astype(float).sum())
        write_index(temporary, [record], VIEW_SIZE, key)
    return ExemplarStore.open(out)
