"""MILAN's results and MAIA's exemplars: a folder a layer, of arrays and tables without heads.

MILAN: ``LAYER/images.npy`` uint8 [units, k, 3, H, W], ``masks.npy`` uint8 [units, k, 1, H, W],
``ids.csv`` and ``activations.csv`` [units, k], ``units.npy`` where not all units are there, and
``annotations.csv`` (layer, unit, summary; a row a text) beside the layers. Layout:
``src/exemplars/compute.py`` and ``src/milannotations/datasets.py`` of
github.com/evandez/neuron-descriptions. Its published data lack ``images.npy`` where a licence
forbids them, and ``activations.csv``.

MAIA reads the same under ``MODEL/imagenet/LAYER/``, with ``thresholds.csv`` [units], and finds a
unit by its row alone: ``utils/DatasetExemplars.py`` of
github.com/multimodal-interpretability/maia.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from milanx.errors import InputError
from milanx.files import reading
from milanx.files.digests import regular
from milanx.progress import Stage
from milanx.share.exchange.building import GREY, KIND
from milanx.share.exchange.bundle import Bundle, Units, gathered, missing, whole
from milanx.share.exchange.cells import MOST_BYTES, bare, guarded, need, read_csv, write_csv
from milanx.share.exchange.npy import NpyFile, read_npy
from milanx.share.exchange.place import read_marker
from milanx.targets.units import layer_folder

if TYPE_CHECKING:
    from milanx.runs import Run

TEXTS = "annotations.csv"
COLUMNS = ("layer", "unit", "summary")
DATASET = "imagenet"  # MAIA looks nowhere else
UNITS_AT_ONCE = 8
DEEPEST = 3  # folders below the place: MODEL/DATASET/LAYER
LEFT_OUT = ("candidates other than the first, and all figures of texts", "scores and confidence",
            "what is known of images but their numbers")  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """What is written of one layer.

    Attributes:
        name: of it.
        rows: of the store; -1 for a unit that is not there, whose row stays empty.
        units: number of each.
    """

    name: str
    rows: tuple[int, ...]
    units: tuple[int, ...]


def write_milan(run: Run, root: Path, bar: Stage) -> tuple[int, tuple[str, ...], dict[str, str]]:
    """Write MILAN's layout; returns the units, what is left out, and the folders' layers."""
    layers, notes = _chosen(run, False)
    folders = _folders(run, root, layers, bar)
    for layer, folder in zip(layers, folders, strict=True):
        if layer.units != tuple(range(len(layer.units))):
            with NpyFile(root / folder / "units.npy", (len(layer.units),), np.int64) as file:
                file.add(np.array(layer.units, np.int64))
    notes += _write_texts(run, root / TEXTS, [layer.name for layer in layers])
    names = dict(zip(folders, (layer.name for layer in layers), strict=True))
    return sum(len(layer.units) for layer in layers), tuple(notes), names


def write_maia(run: Run, root: Path, bar: Stage) -> tuple[int, tuple[str, ...], dict[str, str]]:
    """Write MAIA's layout; returns the units, what is left out, and the folders' layers."""
    layers, notes = _chosen(run, True)
    inside = root / layer_folder(run.target) / DATASET
    folders = _folders(run, inside, layers, bar)
    known = not run.settings.get(KIND)
    for layer, folder in zip(layers, folders, strict=True):
        levels = run.store.stats(layer.name)["quantile"]
        values = [levels[row] if known and row >= 0 else np.nan for row in layer.rows]
        _write_numbers(inside / folder / "thresholds.csv", np.array(values)[:, None])
    notes += ["thresholds: an imported run keeps none"] * (not known)
    notes += _write_texts(run, inside / TEXTS, [layer.name for layer in layers])
    count = sum(row >= 0 for layer in layers for row in layer.rows)
    names = dict(zip(folders, (layer.name for layer in layers), strict=True))
    return count, tuple(notes), names


def _chosen(run: Run, by_row: bool) -> tuple[list[Layer], list[str]]:
    """Return the rows of each layer that are written: those of the sign +.

    Args:
        run: what is exported.
        by_row: a unit's row is its number, as MAIA has it.
    """
    layers, notes, low, short = [], list(LEFT_OUT), 0, 0
    for name in run.store.layers:
        place = {unit: row for row, (unit, sign) in enumerate(run.store.units(name)) if sign == "+"}
        low += len(run.store.units(name)) - len(place)
        if not place:
            continue
        units = sorted(place)
        if by_row:
            gaps = units[-1] + 1 - len(units)
            notes += [f"{name}: {gaps} units that were not described stand as empty rows"] * (
                gaps > 0
            )
            units = list(range(units[-1] + 1))
        layers.append(Layer(name, tuple(place.get(u, -1) for u in units), tuple(units)))
        rows = [row for row in layers[-1].rows if row >= 0]
        short += int((run.store.images(name)[rows] < 0).any(1).sum())
    if not layers:
        raise InputError("there is nothing to export", "the run's units are all of the sign -, "
                         "which this format does not know", "--to jsonl holds them")  # fmt: skip
    notes += [f"{low} units of the sign -: the format knows none"] * bool(low)
    notes += [f"that {short} units have fewer exemplars than others: image -1, activation nan, "
              "black, with an empty mask, stands for those that lack"] * bool(short)  # fmt: skip
    return layers, notes


def plain_bytes(run: Run, by_row: bool) -> int:
    """Return how many bytes the views and masks of an export take, none of them compressed.

    Args:
        run: what is exported.
        by_row: as MAIA has it, with empty rows for units that are not there.
    """
    height, width = run.store.view_size
    return sum(len(layer.rows) * run.store.images(layer.name).shape[1] * 4 * height * width
               for layer in _chosen(run, by_row)[0])  # fmt: skip


def _folders(run: Run, root: Path, layers: Sequence[Layer], bar: Stage) -> list[str]:
    """Write a folder a layer; returns their names."""
    names = []
    for layer in layers:
        names.append(layer_folder(layer.name))
        _write_layer(run, root / names[-1], layer, bar)
    return names


def _write_layer(run: Run, folder: Path, layer: Layer, bar: Stage) -> None:
    """Write the arrays of a layer, some units at a time."""
    folder.mkdir(parents=True)
    store, (height, width) = run.store, run.store.view_size
    numbers, values = store.images(layer.name), store.activations(layer.name)
    n, k = len(layer.rows), numbers.shape[1]
    with (
        NpyFile(folder / "images.npy", (n, k, 3, height, width), np.uint8) as images,
        NpyFile(folder / "masks.npy", (n, k, 1, height, width), np.uint8) as masks,
    ):
        for row in layer.rows:
            if row < 0:
                images.skip(1)
                masks.skip(1)
                continue
            there = numbers[row] >= 0
            views = np.zeros((k, 3, height, width), np.uint8)
            for place in np.flatnonzero(there):
                views[place] = store.view(int(numbers[row, place]))
            images.add(views[None])
            mask = store.masks(layer.name, [row])[0].numpy() & there[:, None, None]
            masks.add(mask[None, :, None].astype(np.uint8))
            bar.advance(1)
    empty = np.array(layer.rows) < 0
    _write_numbers(folder / "ids.csv", np.where(empty[:, None], -1, numbers[list(layer.rows)]))
    _write_numbers(folder / "activations.csv",
                   np.where(empty[:, None], np.nan, values[list(layer.rows)]))  # fmt: skip


def _write_numbers(path: Path, values: np.ndarray) -> None:
    """Write a table of numbers as `numpy.loadtxt` reads it, exact for float32."""
    np.savetxt(path, values, delimiter=",", fmt="%d" if values.dtype.kind == "i" else "%.9g")


def _write_texts(run: Run, path: Path, layers: Sequence[str]) -> list[str]:
    """Write the descriptions; returns what is left out."""
    rows = [(guarded(row["layer"]), row["unit"], guarded(row["description"]))
            for row in run.rows
            if row["sign"] == "+" and row["description"] and row["layer"] in layers]  # fmt: skip
    write_csv(path, COLUMNS, rows)
    silent = len([row for row in run.rows if row["sign"] == "+"]) - len(rows)
    return [f"why {silent} units have no text (dead or unclear): they have no row"] * bool(silent)


def read_milan(path: Path) -> Bundle:
    """Read MILAN's or MAIA's layout.

    Args:
        path: the folder that the layers lie in, or one above it with no other model.

    Raises:
        InputError: no layer, or arrays and tables that do not go together.
        FormatError: a file is damaged.
    """
    if not path.is_dir():
        raise missing(path, "there is no such folder", "name the folder that holds the layers")
    folders = _layer_folders(path)
    root = folders[0].parent
    marker = read_marker(root)
    names = {folder.name: str(marker.get("layers", {}).get(folder.name, folder.name))
             for folder in folders}  # fmt: skip
    rows: list[Any] = []
    if (root / TEXTS).is_file():
        header, lines = read_csv(root / TEXTS)
        need(root / TEXTS, header, COLUMNS)
        rows = [((bare(row["layer"]), whole(row["unit"], "the unit", root / TEXTS, line), "+"),
                 bare(row["summary"]), None) for line, row in lines]  # fmt: skip
    texts = gathered(rows)
    arrays = _Arrays(all((folder / "ids.csv").is_file() for folder in folders))
    layers = tuple(arrays.read(folder, names[folder.name]) for folder in folders)
    known = {(layer.layer, unit, sign) for layer in layers for unit, sign in layer.units}
    notes = list(arrays.notes)
    notes += ["numbers of images: not every layer has an ids.csv, so that each exemplar counts as "
              "an image of its own"] * (not arrays.numbered)  # fmt: skip
    shown = {int(i) for layer in layers for i in np.unique(layer.images) if i >= 0}
    bare_ = len(shown - set(arrays.places)) * bool(arrays.places)
    notes += [f"views of {bare_} images: their layers have no images.npy; they are grey"] * bool(
        bare_
    )
    stray = len(set(texts) - known)
    notes += [f"texts of {stray} units that have no exemplars"] * bool(stray)
    notes += ["thresholds: masks are kept instead"] * any(
        (folder / "thresholds.csv").is_file() for folder in folders
    )
    return Bundle(
        str(marker.get("target") or ""), layers, {k: t for k, t in texts.items() if k in known},
        arrays.view if arrays.places else None, arrays.size or (0, 0), notes=tuple(notes),
    )  # fmt: skip


def _layer_folders(path: Path) -> list[Path]:
    """Find the folders of layers: those that hold ``masks.npy`` or ``images.npy``.

    Raises:
        InputError: there are none, or of several models.
    """
    level = [path]
    for _ in range(DEEPEST):
        level = [f for folder in level for f in sorted(folder.iterdir())
                 if f.is_dir() and not f.is_symlink() and not f.name.startswith(".")]  # fmt: skip
        found = [f for f in level if any((f / n).is_file() for n in ("masks.npy", "images.npy"))]
        if found:
            break
    else:
        raise missing(path, "no folder in it holds masks.npy or images.npy",
                      "name the folder that holds the layers")  # fmt: skip
    parents = sorted({str(f.parent) for f in found})
    if len(parents) > 1:
        raise missing(path, f"it holds several models: {', '.join(parents[:3])}", "name one")
    return found


class _Arrays:
    """The arrays of all layers; nothing is read of them but what is asked for.

    Args:
        numbered: every layer says which images its exemplars are.

    Attributes:
        places: of the first exemplar that shows an image: array of views, row, rank.
        size: (H, W) of the views, once one is known.
        notes: what is not taken over.
    """

    def __init__(self, numbered: bool) -> None:
        self.numbered = numbered
        self.places: dict[int, tuple[np.ndarray, int, int]] = {}
        self.size: tuple[int, int] | None = None
        self.notes: list[str] = []
        self._next = 0  # number of an image where no ids.csv says one

    def view(self, image: int) -> np.ndarray:
        """Return a view, uint8 [H, W, 3]; a grey one where no layer has it."""
        if image not in self.places:
            return np.full((*(self.size or (1, 1)), 3), GREY, np.uint8)
        views, row, rank = self.places[image]
        return np.ascontiguousarray(views[row, rank].transpose(1, 2, 0))

    def read(self, folder: Path, name: str) -> Units:
        """Read a layer."""
        views = _array(folder / "images.npy", 3)
        masks = _array(folder / "masks.npy", 1)
        shapes = [(a.shape[0], a.shape[1], *a.shape[3:]) for a in (views, masks) if a is not None]
        if len(set(shapes)) != 1:
            raise InputError(f"{folder}: images.npy and masks.npy do not go together",
                             f"they hold units, images, height and width {shapes}",
                             "export both again")  # fmt: skip
        rows, k, height, width = shapes[0]
        if self.size not in (None, (height, width)):
            raise InputError(f"{folder}: its views are {(height, width)}",
                             f"those of other layers are {self.size}",
                             "import layers of one size at a time")  # fmt: skip
        self.size = (height, width)
        images = _numbers(folder / "ids.csv", (rows, k), np.int64) if self.numbered else None
        if images is None:
            images = np.arange(self._next, self._next + rows * k).reshape(rows, k)
            self._next += rows * k
        values = _numbers(folder / "activations.csv", (rows, k), np.float32)
        if values is None:
            self.notes.append(f"{name}: there is no activations.csv")
            values = np.full((rows, k), np.nan, np.float32)
        if views is not None:
            self._note_views(views, images)
        return Units(name, _units(folder, rows), np.maximum(images, -1), values,
                     None if masks is None else self._masks(masks, images, name))  # fmt: skip

    def _note_views(self, views: np.ndarray, images: np.ndarray) -> None:
        """Remember where each image is first shown."""
        for (row, rank), image in np.ndenumerate(images):
            if image >= 0:
                self.places.setdefault(int(image), (views, row, rank))

    def _masks(self, masks: np.ndarray, images: np.ndarray, name: str) -> Any:
        """Return what gives the masks of a row; an empty one is the whole view."""
        empty = [int(((masks[row, :, 0].reshape(masks.shape[1], -1).max(1) == 0)
                      & (images[row] >= 0)).sum()) for row in range(len(masks))]  # fmt: skip
        if sum(empty):
            self.notes.append(f"{name}: that {sum(empty)} masks are empty: they are the whole view")
        return lambda row: masks[row, :, 0] > 0


def _array(path: Path, channels: int) -> np.ndarray | None:
    """Map an array of views or masks, uint8 [units, k, channels, H, W]; None where there is none.

    Raises:
        FormatError: it is damaged, or holds something else.
    """
    if not path.exists():
        return None
    array = read_npy(path)
    with reading(path):
        fits = array.dtype == np.uint8 or (channels == 1 and array.dtype == bool)
        if array.ndim != 5 or array.shape[2] != channels or not fits or not min(array.shape):
            raise ValueError(f"it holds {array.dtype} {array.shape}, not uint8 "
                             f"(units, images, {channels}, height, width)")  # fmt: skip
    return array


def _numbers(path: Path, shape: tuple[int, int], kind: type) -> np.ndarray | None:
    """Read a table of numbers; None where there is none.

    Raises:
        FormatError: it is damaged, or of another shape.
    """
    if not path.exists():
        return None
    regular(path, MOST_BYTES)
    with reading(path):
        found: np.ndarray = np.loadtxt(path, delimiter=",", dtype=kind, ndmin=2, comments=None)
        if found.shape != shape:
            raise ValueError(f"it holds {found.shape} numbers for {shape} units and images")
    return found


def _units(folder: Path, rows: int) -> tuple[tuple[int, str], ...]:
    """Return the units of the rows: those of ``units.npy``, else by their places."""
    path = folder / "units.npy"
    if not path.exists():
        return tuple((unit, "+") for unit in range(rows))
    units = read_npy(path)
    with reading(path):
        whole_ = units.ndim == 1 and len(units) == rows and units.dtype.kind in "iu"
        if not whole_ or len(set(units.tolist())) != rows or min(units.tolist()) < 0:
            raise ValueError(f"it holds {units.dtype} {units.shape} for {rows} units")
    return tuple((int(unit), "+") for unit in units)
