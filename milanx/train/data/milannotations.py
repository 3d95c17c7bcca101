"""MILANNOTATIONS as it lies on disk: people's descriptions of the exemplars of real units.

The layout is the published one (Hernandez et al. 2022, https://arxiv.org/abs/2201.11114):

    FOLDER/{arch}/{dataset}/annotations.csv           layer, unit, summary: a row an annotation
    FOLDER/{arch}/{dataset}/{layer}/masks.npy         uint8 [units, k, 1, H, W]
    FOLDER/{arch}/{dataset}/{layer}/images.npy        [units, k, 3, H, W], where it may be shared
    FOLDER/{arch}/{dataset}/{layer}/ids.csv           units x k places in the sorted photos
    FOLDER/{arch}/{dataset}/{layer}/units.npy         numbers of the units, when not 0, 1, 2, ...
    FOLDER/imagenet/val/{class}/*.JPEG                the photos that may not be shared

Arrays are memory-mapped, one unit is read at a time. ``units.npy`` is honoured: an annotation of
unit 7 belongs to the row whose number is 7, not to the row 7.

The published tool that merges ImageNet's photos in resizes them to the square as a whole, while
the masks were made on resized and centre-cropped views, and it writes floats in 0..1. Such files
are recognised (`Geometry`) and said; where the photos are at hand, views are made anew from them
with the crop that fits the masks.
"""

from __future__ import annotations

import csv
import functools
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
from PIL import Image

from milanx.errors import InputError, did_you_mean
from milanx.images.preprocess import Preprocess
from milanx.train.data.networks import DINO, SPLITS, held_out_unit
from milanx.train.data.summaries import read_annotations

ANNOTATIONS = 3  # a unit; units with fewer are left out, further ones are cut
CHECKED = 24  # views whose geometry is compared with their photos
SAME = 12.0  # root mean square difference, in grey levels, up to which two views are one picture
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


class Geometry(Enum):
    """How the views of a network lie under its masks."""

    ALIGNED = "views and masks are of one crop"
    SQUASHED = "views show the whole photo, squashed; masks are of its centre crop"
    MERGED = "views were merged by the published tool, which squashes; without the photos this "\
        "can neither be seen nor be mended"  # fmt: skip
    REMADE = "views are made anew from the photos, with the crop of the masks"
    SHIPPED = "views come with the masks"
    UNKNOWN = "cannot be checked without the photos"
    OTHER = "views are of neither the squashed nor the cropped photos that were given"


@dataclass(frozen=True)
class AnnotatedUnit:
    """A unit that people described.

    Attributes:
        network: ``arch/dataset``.
        layer: name of its layer.
        unit: its number in the layer.
        row: its row in the layer's arrays.
        descriptions: what people wrote, cleaned.
        held: whether it is for measuring in a split within its network.
    """

    network: str
    layer: str
    unit: int
    row: int
    descriptions: tuple[str, ...]
    held: bool


def _load(path: Path, dimensions: int) -> np.ndarray:
    """Map an array; InputError where it is missing, damaged or of another shape."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(
            f"{path} is missing",
            f"each layer of MILANNOTATIONS has its {path.name}",
            "unpack the archive of this network again",
        ) from error
    except (ValueError, OSError, EOFError) as error:
        raise InputError(
            f"{path} cannot be read", str(error), "unpack the archive of this network again"
        ) from error
    if array.ndim != dimensions:
        raise InputError(
            f"{path} has the shape {list(array.shape)}",
            f"it must have {dimensions} dimensions",
            "unpack the archive of this network again",
        )
    return array


def image_folder(root: Path) -> list[Path]:
    """List photos in torchvision's ``ImageFolder`` order, which ``ids.csv`` counts in."""
    found = []
    for folder in sorted(p.name for p in os.scandir(root) if p.is_dir()):
        for place, _, names in sorted(os.walk(root / folder, followlinks=True)):
            found += [Path(place, n) for n in sorted(names) if n.lower().endswith(PHOTO_SUFFIXES)]
    return found


class _Layer:
    """The arrays of one layer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.masks = _load(folder / "masks.npy", 5)
        self.images = _load(folder / "images.npy", 5) if self.has("images.npy") else None
        shape = self.masks.shape
        if self.images is not None and (
            self.images.shape[:2] != shape[:2] or self.images.shape[3:] != shape[3:]
        ):
            raise InputError(
                f"{folder / 'images.npy'} does not fit its masks",
                f"its shape is {list(self.images.shape)}, that of the masks {list(shape)}",
                "unpack the archive of this network again",
            )
        numbers = np.arange(shape[0])
        if self.has("units.npy"):
            numbers = np.asarray(_load(folder / "units.npy", 1))
            if len(numbers) != shape[0]:
                raise InputError(
                    f"{folder / 'units.npy'} names {len(numbers)} units",
                    f"masks.npy has {shape[0]} rows",
                    "unpack the archive of this network again",
                )
        self.rows = {int(unit): row for row, unit in enumerate(numbers.tolist())}

    def has(self, name: str) -> bool:
        return (self.folder / name).is_file()

    @functools.cached_property
    def ids(self) -> np.ndarray:
        """Places of the photos of each view, int64 [units, k]."""
        path, shape = self.folder / "ids.csv", self.masks.shape[:2]
        if not path.is_file():
            raise InputError(
                f"{path} is missing",
                "it says which photos the views are, and there is no images.npy to use instead",
                "unpack the archive of this network again",
            )
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if row]
        try:
            ids = np.array([[int(cell) for cell in row] for row in rows], np.int64)
        except ValueError as error:
            raise InputError(
                f"{path} cannot be read", str(error), "it holds whole numbers alone"
            ) from error
        if ids.shape != shape:
            raise InputError(
                f"{path} has {len(rows)} rows",
                f"masks.npy has {shape[0]} units with {shape[1]} views each",
                "unpack the archive of this network again",
            )
        return ids


class Milannotations:
    """Units with their views, masks and descriptions.

    Args:
        root: the folder that holds ``{arch}/{dataset}``.
        split: a name of `SPLITS`, such as ``base`` or ``leave-one-out/alexnet-imagenet``.
        part: ``train``, ``test`` or ``all``.
        photos: ImageFolder of the photos that are not in the archives (default
            ``root/imagenet/val``, where it exists); views of networks on ImageNet that lack
            ``images.npy``, or whose views do not lie under their masks, are made from it.
        seed: of the split by unit.

    Attributes:
        root: the folder.
        photo_root: the folder of photos, where there is one.
        units: in the order of networks, layers (by name), rows.
        geometry: of each network, how its views lie under its masks.
        notes: what a user should be told, a sentence each.

    Raises:
        InputError: an unknown split, a file that is missing, damaged or does not fit.
    """

    def __init__(
        self,
        root: Path,
        split: str = "base",
        part: str = "all",
        *,
        photos: Path | None = None,
        seed: int = 0,
    ) -> None:
        if split not in SPLITS or part not in ("train", "test", "all"):
            raise InputError(
                f"no part {part!r} of a split {split!r} of MILANNOTATIONS",
                f"the parts are train, test, all; the splits {', '.join(SPLITS)}",
                did_you_mean(split, SPLITS) or "base is what MILAN was trained on",
            )
        self.root, self.notes = root, list[str]()
        published = root / "imagenet" / "val"
        self.photo_root = photos or (published if published.is_dir() else None)
        self._layers: dict[tuple[str, str], _Layer] = {}
        chosen = SPLITS[split]
        networks = {"train": chosen.train, "test": chosen.test}.get(
            part, tuple(dict.fromkeys(chosen.train + chosen.test))
        )
        units = [unit for network in networks for unit in self._annotated(network, seed)]
        if chosen.within and part != "all":
            units = [unit for unit in units if unit.held == (part == "test")]
        self.units = units
        self.geometry = {network: self._geometry(network, seed) for network in networks}

    def __len__(self) -> int:
        return len(self.units)

    def __iter__(self) -> Iterator[tuple[AnnotatedUnit, np.ndarray, np.ndarray]]:
        """Yield each unit with its views [k, 3, H, W] and masks [k, 1, H, W]."""
        for unit in self.units:
            yield unit, self.views(unit), self.masks(unit)

    def masks(self, unit: AnnotatedUnit) -> np.ndarray:
        """Read the masks of a unit: uint8 [k, 1, H, W] of 0 and 1."""
        return (np.asarray(self._layers[unit.network, unit.layer].masks[unit.row]) > 0).astype(
            np.uint8
        )

    def views(self, unit: AnnotatedUnit) -> np.ndarray:
        """Read the views of a unit: uint8 [k, 3, H, W], from its archive or from the photos."""
        layer = self._layers[unit.network, unit.layer]
        if layer.images is None or self.geometry[unit.network] is Geometry.REMADE:
            return self._remade(layer, unit.row)
        return _bytes(np.asarray(layer.images[unit.row]))

    def _annotated(self, network: str, seed: int) -> list[AnnotatedUnit]:
        """Read a network's annotations; open its layers."""
        folder = self.root / network
        texts = read_annotations(folder / "annotations.csv")
        units: list[AnnotatedUnit] = []
        few = absent = 0
        for layer in sorted({layer for layer, _ in texts}):
            arrays = self._layers[network, layer] = _Layer(folder / layer)
            of_layer = {u: t for (name, u), t in texts.items() if name == layer}
            few += sum(len(t) < ANNOTATIONS for t in of_layer.values())
            absent += sum(u not in arrays.rows for u in of_layer)
            units += [
                AnnotatedUnit(network, layer, unit, row, tuple(of_layer[unit][:ANNOTATIONS]),
                              held_out_unit(network, layer, unit, seed))
                for unit, row in arrays.rows.items()
                if len(of_layer.get(unit, ())) >= ANNOTATIONS
            ]  # fmt: skip
        if few:
            self.notes.append(
                f"{network}: {few} units with fewer than {ANNOTATIONS} annotations left out"
            )
        if absent:
            self.notes.append(f"{network}: {absent} annotated units are not in its arrays")
        return units

    @functools.cached_property
    def _photos(self) -> list[Path]:
        return image_folder(self.photo_root) if self.photo_root else []

    def _photo(self, layer: _Layer, row: int, place: int) -> Image.Image:
        number = int(layer.ids[row, place])
        if not 0 <= number < len(self._photos):
            raise InputError(
                f"photo {number} of {layer.folder} is not in {self.photo_root}",
                f"that folder holds {len(self._photos)} photos; ids.csv counts in the sorted "
                "photos of ImageNet's validation set, 50,000 in 1,000 class folders",
                "give the complete folder",
            )
        with Image.open(self._photos[number]) as image:
            return image.convert("RGB")

    def _remade(self, layer: _Layer, row: int) -> np.ndarray:
        crop, _ = _geometries(layer.masks.shape[-2:])
        views = [crop.view(self._photo(layer, row, j)) for j in range(layer.masks.shape[1])]
        return np.stack(views).transpose(0, 3, 1, 2)

    def _geometry(self, network: str, seed: int) -> Geometry:
        """Find how a network's views lie under its masks, and note what a user should know."""
        layers = [layer for (name, _), layer in self._layers.items() if name == network]
        needs_photos = network in ("alexnet/imagenet", "resnet152/imagenet", DINO)
        if any(layer.images is None for layer in layers):
            if not needs_photos or self.photo_root is None:
                missing = next(layer.folder for layer in layers if layer.images is None)
                raise InputError(
                    f"{missing / 'images.npy'} is missing",
                    "the views of this network may not be shared; they are made from ImageNet"
                    if needs_photos else "the archive of this network brings its views",
                    "put ImageNet's validation photos under FOLDER/imagenet/val/CLASS, or name "
                    "their folder" if needs_photos else "unpack the archive again",
                )  # fmt: skip
            return self._noted(network, Geometry.REMADE)
        if not needs_photos or not layers:
            return Geometry.SHIPPED
        merged = any(np.issubdtype(layer.images.dtype, np.floating)
                     for layer in layers if layer.images is not None)  # fmt: skip
        if self.photo_root is None:
            return self._noted(network, Geometry.MERGED if merged else Geometry.UNKNOWN)
        found = self._compared(layers, seed)
        if found is Geometry.SQUASHED:
            self._noted(network, found)
            return self._noted(network, Geometry.REMADE)
        return found if found is Geometry.ALIGNED else self._noted(network, found)

    def _noted(self, network: str, geometry: Geometry) -> Geometry:
        self.notes.append(f"{network}: {geometry.value}")
        return geometry

    def _compared(self, layers: list[_Layer], seed: int) -> Geometry:
        """Compare some views with their photos, cropped and squashed; the nearer wins the vote."""
        rng = np.random.default_rng(seed)
        votes: Counter[Geometry] = Counter()
        for _ in range(CHECKED):
            layer = layers[int(rng.integers(len(layers)))]
            assert layer.images is not None
            row, place = (int(rng.integers(n)) for n in layer.masks.shape[:2])
            view = _bytes(np.asarray(layer.images[row, place])).astype(np.float32)
            photo = self._photo(layer, row, place)
            distances = [
                float(np.sqrt(np.mean((view - way.view(photo).transpose(2, 0, 1)) ** 2)))
                for way in _geometries(layer.masks.shape[-2:])
            ]
            nearer = (Geometry.ALIGNED, Geometry.SQUASHED)[int(np.argmin(distances))]
            votes[nearer if min(distances) <= SAME else Geometry.OTHER] += 1
        return votes.most_common(1)[0][0]


def _geometries(size: tuple[int, ...]) -> tuple[Preprocess, Preprocess]:
    """Return the crop that the masks are of, and the squash of the published merging tool.

    ImageNet's usual proportion: the short side becomes 256 for a crop of 224.
    """
    height, width = size
    side = round(max(size) * 256 / 224)
    return Preprocess((height, width), side), Preprocess((height, width), (height, width))


def _bytes(images: np.ndarray) -> np.ndarray:
    """Return images as uint8; floats are in 0..1, as the published merging tool writes them."""
    if np.issubdtype(images.dtype, np.floating):
        return np.rint(images.clip(0, 1) * 255).astype(np.uint8)
    return images.astype(np.uint8)
