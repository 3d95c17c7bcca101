"""Controls: what a description of nothing looks like, and how much of it is unclear.

An untrained copy of the target; random orthogonal directions of the layer; the layer's own units
with images, or with masks, that are not theirs. Where as much is said of them as of units, the
words come from the pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from milanx.evaluate.confidence.units import Judged
from milanx.exemplars.planted import MAP, VIEW_SIZE, plant
from milanx.pipeline import describe
from milanx.progress import Reporter, Silent

if TYPE_CHECKING:
    from milanx.describing.describer import Describer
    from milanx.exemplars.store import ExemplarStore
    from milanx.runs import Run

UNITS = "the units themselves"
WEIGHTS = "random weights"
DIRECTIONS = "random directions"
SETS = "random exemplar sets"
MASKS = "displaced masks"
# Of these a threshold is chosen. Directions of a layer mean something as often as its units do, and
# under a mask that was moved lie the same photos, of which the text still holds.
EMPTY = (WEIGHTS, SETS)
DISPLACED = (MAP // 3, 2 * MAP // 3)  # cells that a mask is moved by, around the edge, each way


@dataclass(frozen=True)
class Controlled:
    """On which layer controls are made.

    Attributes:
        model: the target, by name.
        layer: of its layers.
        images: probe images.
        out: new folder for the runs.
        units: of each control.
        limit: images that the target is shown.
        weights: a checkpoint of the target's.
        seed: of directions and draws.
    """

    model: str
    layer: str
    images: tuple[str, ...]
    out: Path
    units: int = 100
    limit: int | None = None
    weights: Path | None = None
    seed: int = 0


def make_controls(
    describer: Describer, asked: Controlled, progress: Reporter | None = None
) -> dict[str, list[Judged]]:
    """Describe the units of a layer and the controls of it: name -> what was described.

    The first two are scored like any run; sets and masks, whose images are not those of the
    activations any more, are not.

    Raises:
        InputError: a target, a layer or images that cannot be used.
    """
    progress = progress or Silent()
    layer = f"{asked.layer}:0-{asked.units - 1}"
    real = _described(describer, asked, "units", [layer], progress)
    width = next(int(info["units"]) for info in real.settings["layers"])
    path = _write_directions(asked, width)
    made = {
        UNITS: real,
        WEIGHTS: _described(describer, asked, "weights", [layer], progress, random_weights=True),
        DIRECTIONS: _described(
            describer, asked, "directions", [asked.layer], progress, directions=path
        ),
    }
    found = {name: _judged(run, name) for name, run in made.items()}
    rng = np.random.default_rng(asked.seed)
    name = real.store.layers[0]
    for control, change in ((SETS, _other_images), (MASKS, _other_masks)):
        store = change(real.store, name, asked.out / control.split()[0], rng)
        found[control] = _of_store(describer, store, control, progress)
    return found


def _described(
    describer: Describer, asked: Controlled, name: str, layers: Sequence[str], progress: Reporter,
    *, random_weights: bool = False, directions: Path | None = None,
) -> Run:  # fmt: skip
    return describe(
        asked.model, layers=layers, images=asked.images, limit=asked.limit, describer=describer,
        weights=None if random_weights else asked.weights, random_weights=random_weights,
        directions=directions, out=asked.out / name, progress=progress,
    )  # fmt: skip


def _write_directions(asked: Controlled, width: int) -> Path:
    """Write orthogonal directions, drawn at random, as many as units where there are so many."""
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(asked.seed)
    matrix, _ = torch.linalg.qr(torch.randn(width, width, generator=generator))
    path = asked.out / "directions.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"directions": matrix[: asked.units].contiguous()}, path)
    return path


def _judged(run: Run, kind: str) -> list[Judged]:
    return Judged.of_rows(run.rows, [0.0] * len(run), [kind] * len(run), run.store)


def _of_store(
    describer: Describer, store: ExemplarStore, kind: str, progress: Reporter
) -> list[Judged]:
    from milanx.runs import open_run, write_settings, write_units

    write_settings(store.root, {"target": {"name": kind}})
    write_units(store.root, describer.describe(store, progress=progress), store)
    return _judged(open_run(store.root), kind)


def _other_images(
    store: ExemplarStore, layer: str, out: Path, rng: np.random.Generator
) -> ExemplarStore:
    """Give each unit the activations of other images: its sets are random ones of those shown."""
    alive = [row for row, status in enumerate(store.status(layer)) if status != "dead"]
    shown = store.view_indices()
    rest = np.setdiff1d(np.arange(len(store.image_table())), shown)
    images = store.images(layer)[alive].copy()
    activations = np.array(_columns(store, layer, alive))
    for row in range(len(alive)):
        moved = np.arange(len(activations))
        moved[shown], moved[rest] = rng.permutation(shown), rng.permutation(rest)
        valid = images[row] >= 0
        images[row][valid] = moved[images[row][valid]]
        activations[moved, row] = activations[:, row].copy()
    return _write(store, out, images, _maps(store, layer, alive), activations)


def _other_masks(
    store: ExemplarStore, layer: str, out: Path, rng: np.random.Generator
) -> ExemplarStore:
    """Move every mask by a third to two thirds of the side, each way, around the edge."""
    alive = [row for row, status in enumerate(store.status(layer)) if status != "dead"]
    maps = _maps(store, layer, alive)
    for unit in maps:
        for place in range(len(unit)):
            unit[place] = np.roll(unit[place], tuple(rng.integers(*DISPLACED, 2)), (0, 1))
    return _write(store, out, store.images(layer)[alive], maps, _columns(store, layer, alive))


def _columns(store: ExemplarStore, layer: str, rows: Sequence[int]) -> np.ndarray:
    columns = [store.column(layer, store.units(layer)[row][0]) for row in rows]
    return np.asarray(store.maxima(layer), np.float32)[:, columns]


def _maps(store: ExemplarStore, layer: str, rows: Sequence[int]) -> np.ndarray:
    """Return masks as maps, float32 [rows, k, 14, 14]: a cell is inside, or it is not."""
    shares = store.mask_weights(layer, rows, (MAP, MAP))
    most = shares.max((2, 3), keepdims=True)
    return (shares >= 0.5 * np.where(most > 0, most, 1)).astype(np.float32)


def _write(
    store: ExemplarStore, out: Path, images: np.ndarray, maps: np.ndarray, activations: np.ndarray
) -> ExemplarStore:
    views = ((int(i), _view(store, int(i))) for i in store.view_indices())
    table = store.image_table()
    return plant(out, list(images), list(maps), views, table, activations=activations)


def _view(store: ExemplarStore, image: int) -> np.ndarray:
    """Return a view as planted stores hold them, uint8 [224, 224, 3]."""
    view = np.ascontiguousarray(store.view(image).transpose(1, 2, 0))
    if view.shape[:2] == VIEW_SIZE:
        return view
    return np.asarray(Image.fromarray(view).resize(VIEW_SIZE[::-1], Image.Resampling.BICUBIC))
