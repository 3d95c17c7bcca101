"""Exemplar sets and the store that holds them: views, maps, masks made when they are needed."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save_file

from milanx.errors import FormatError, InputError, did_you_mean
from milanx.exemplars.masks import LayerRecord, make_masks, mask_shares
from milanx.exemplars.reading import (
    ARRAYS,
    FORMAT,
    VERSION,
    layer_path,
    open_view,
    read_array,
    read_images,
    read_index,
    read_layer,
    read_views,
)
from milanx.files import explained, read_json, write_json, write_table
from milanx.files.digests import FILES, Listing

WEBP_QUALITY = 95
WEBP_THREADS = 4
VIEWS_AT_ONCE = 64  # that are in memory while they are encoded
UNITS_AT_ONCE = 8  # units whose masks are in memory at a time


@dataclass(frozen=True)
class ExemplarSet:
    """The exemplars of one unit, best first.

    Attributes:
        layer: address.
        unit: number.
        sign: ``+`` or ``-``.
        images: int64 [k], indices of the probe images.
        activations: float32 [k], spatial maximum; for ``-`` its deviation below the median.
        views: uint8 [k, 3, H, W].
        masks: bool [k, H, W].
    """

    layer: str
    unit: int
    sign: str
    images: np.ndarray
    activations: np.ndarray
    views: np.ndarray
    masks: np.ndarray


class ExemplarStore:
    """The exemplars of a run folder, made by `open`.

    Args:
        root: the run folder.
        content: of its index: fingerprint, view_size and records.
        listing: its files.
    """

    def __init__(self, root: Path, content: dict[str, Any], listing: Listing) -> None:
        self.root, self.listing = root, listing
        self.fingerprint: str = content["fingerprint"]
        self.view_size: tuple[int, int] = content["view_size"]
        self._records: dict[str, LayerRecord] = content["records"]
        self._decode = lru_cache(maxsize=4096)(self._decode_view)
        self._arrays: dict[tuple[str, str], np.ndarray] = {}

    @classmethod
    def open(cls, root: Path | str) -> ExemplarStore:
        """Open the store of a run folder; all its files must be there, in their sizes.

        What they hold is looked at where it is read.

        Raises:
            FormatError: the folder holds no finished exemplars, damaged ones, or of an unknown
                version.
        """
        return cls(Path(root), *read_index(Path(root)))

    @property
    def layers(self) -> list[str]:
        """The layers, in the order of the forward pass."""
        return list(self._records)

    def _layer(self, layer: str) -> dict[str, Any]:
        if layer not in self._records:
            hint = did_you_mean(layer, self._records)
            raise InputError(
                f"no layer {layer!r} here", f"there are {', '.join(self._records)}", hint
            )
        return self._load(layer)

    @cached_property
    def _load(self) -> Callable[[str], dict[str, Any]]:
        @lru_cache(maxsize=8)
        def load(layer: str) -> dict[str, Any]:
            return read_layer(self.root, self.listing, self._records[layer])

        return load

    def units(self, layer: str) -> list[tuple[int, str]]:
        """Return (unit, sign) of each row of a layer."""
        return list(self._layer(layer)["units"])

    def images(self, layer: str) -> np.ndarray:
        """Return the image indices int64 [rows, k]; -1 where a unit has fewer than k exemplars.

        Fewer images excite it, or it is off on all others.
        """
        return self._layer(layer)["images"]

    def activations(self, layer: str) -> np.ndarray:
        """Return the activations float32 [rows, k]; NaN where there is no exemplar."""
        return self._layer(layer)["activations"]

    def maps(self, layer: str) -> np.ndarray:
        """Return the maps of the exemplars [rows, k, h, w], at the layer's own size.

        float16, or float32 where that cannot hold them.
        """
        return self._layer(layer)["maps"]

    def stats(self, layer: str) -> dict[str, np.ndarray]:
        """Return quantile, low_quantile, median, mean, deviation, maximum and minimum.

        float32 [rows] each; where there were any, ``nan_images`` and ``infinite_images`` too, the
        number of images with such values.
        """
        return self._layer(layer)["stats"]

    def record(self, layer: str) -> LayerRecord:
        """Return what is known of a layer."""
        self._layer(layer)
        return self._records[layer]

    def status(self, layer: str) -> list[str]:
        """Return ``dead`` or ``alive`` for each row.

        Dead units give one value everywhere, or no number at all, or nothing excites them.
        """
        content = self._layer(layer)
        stats = content["stats"]
        dead = (stats["maximum"] <= stats["minimum"]) | (content["images"] < 0).all(1)
        if self._records[layer].rectified:
            dead |= stats["maximum"] <= 0
        return ["dead" if d else "alive" for d in dead]

    def odd_numbers(self) -> list[str]:
        """Say of each layer how many units gave NaN or infinite values, and on how many images."""
        told = []
        for layer in self.layers:
            stats = self.stats(layer)
            for name, word, then in (
                ("nan_images", "NaN", "these never become exemplars"),
                ("infinite_images", "infinite values", "these rank first, or last"),
            ):
                if name in stats and (count := int((stats[name] > 0).sum())):
                    told.append(f"{layer}: {count} units gave {word}, on up to "
                                f"{int(stats[name].max())} images; {then}")  # fmt: skip
        return told

    def column(self, layer: str, unit: int) -> int:
        """Return the place of a unit among the columns of `maxima` and `means`."""
        columns = self._layer(layer).setdefault(
            "columns", {u: i for i, u in enumerate(dict.fromkeys(u for u, _ in self.units(layer)))}
        )
        return int(columns[unit])

    def has_maxima(self, layer: str) -> bool:
        """Whether the store knows every unit's maximum on every image; planted ones may not."""
        return (layer_path(self.root, layer) / "max.npy").is_file()

    def maxima(self, layer: str) -> np.ndarray:
        """Return the spatial maximum of every unit on every image [images, units].

        Mapped from disk; where a value is not finite a copy, in which NaN stands as the unit's
        lowest value and an infinity as its highest or lowest, so that they rank as they should.
        """
        return self._numbers(layer, "max.npy")

    def means(self, layer: str) -> np.ndarray:
        """Return the spatial mean of every unit on every image, as `maxima` has them."""
        return self._numbers(layer, "mean.npy")

    def _numbers(self, layer: str, name: str) -> np.ndarray:
        if (layer, name) not in self._arrays:
            units = len({unit for unit, _ in self.units(layer)})
            self._arrays[layer, name] = read_array(self.root, self.listing, layer, name, units)
        values = self._arrays[layer, name]
        if not {"nan_images", "infinite_images"} & set(self._layer(layer)["stats"]):
            return values
        values = np.array(values)
        finite = np.isfinite(values)
        low = np.where(finite, values, np.inf).min(0)
        high = np.where(finite, values, -np.inf).max(0)
        low, high = (np.where(np.isfinite(end), end, 0) for end in (low, high))
        values = np.where(np.isposinf(values), high, values)
        return np.where(np.isfinite(values), values, low).astype(np.float32)

    @cached_property
    def _views(self) -> dict[int, bytes]:
        return read_views(self.listing)

    def view_indices(self) -> np.ndarray:
        """Return the indices of the distinct images that are exemplars, int64 [n], ascending."""
        return np.array(sorted(self._views), np.int64)

    def _decode_view(self, image: int) -> np.ndarray:
        if image not in self._views:
            raise FormatError(f"{self.root / 'views.parquet'} lacks the view of image {image}",
                              "an exemplar shows it", "make it again")  # fmt: skip
        return open_view(self.listing, self._views[image], self.view_size)

    def view(self, image: int) -> np.ndarray:
        """Return one view, uint8 [3, H, W]."""
        return self._decode(int(image))

    def image_table(self) -> list[dict[str, Any]]:
        """Return what is known of every probe image, in order of its index."""
        return read_images(self.listing)

    @cached_property
    def searched(self) -> np.ndarray:
        """The indices of the images that were not kept aside, int64 [n], ascending."""
        return np.array([i for i, row in enumerate(self.image_table())
                         if row.get("split") != "aside"], np.int64)  # fmt: skip

    @cached_property
    def photos(self) -> np.ndarray:
        """The number of each image's photo, one for the images of a group, int64 [n]."""
        names = [str(row.get("group") or f"image {row['index']}") for row in self.image_table()]
        return np.unique(names, return_inverse=True)[1].astype(np.int64)

    def masks(self, layer: str, rows: Sequence[int]) -> torch.Tensor:
        """Make the masks of some rows, bool [rows, k, H, W]."""
        content, record = self._layer(layer), self._records[layer]
        stats = content["stats"]
        chosen = list(rows)
        maps = torch.from_numpy(content["maps"][chosen].astype(np.float32))
        signs = [content["units"][row][1] for row in chosen]
        return make_masks(maps, {k: v[chosen] for k, v in stats.items()}, signs, record,
                          self.view_size)  # fmt: skip

    def mask_weights(self, layer: str, rows: Sequence[int], size: tuple[int, int]) -> np.ndarray:
        """Return the share of each cell of a grid that the masks cover, float32 [rows, k, h, w]."""
        content, record = self._layer(layer), self._records[layer]
        parts = []
        for start in range(0, len(rows), UNITS_AT_ONCE):
            here = list(rows[start : start + UNITS_AT_ONCE])
            maps = torch.from_numpy(content["maps"][here].astype(np.float32))
            stats = {name: column[here] for name, column in content["stats"].items()}
            signs = [content["units"][row][1] for row in here]
            parts.append(mask_shares(maps, stats, signs, record, self.view_size, size).numpy())
        return np.concatenate(parts) if parts else np.zeros((0, 0, *size), np.float32)

    def get(self, layer: str, unit: int, sign: str = "+") -> ExemplarSet:
        """Return the exemplars of one unit.

        Raises:
            InputError: no such layer or unit.
        """
        known = self._layer(layer)["units"]
        if (unit, sign) not in known:
            raise InputError(f"{layer} has no unit {unit} of sign {sign} here",
                             f"{len(known)} of its units were extracted")  # fmt: skip
        row = known.index((unit, sign))
        kept = self.images(layer)[row] >= 0
        images = self.images(layer)[row][kept]
        views = [self.view(i) for i in images]
        return ExemplarSet(
            layer, unit, sign, images, self.activations(layer)[row][kept],
            np.stack(views) if views else np.zeros((0, 3, *self.view_size), np.uint8),
            self.masks(layer, [row])[0].numpy()[kept],
        )  # fmt: skip


def write_layer(
    folder: Path,
    units: Sequence[tuple[int, str]],
    images: np.ndarray,
    activations: np.ndarray,
    maps: np.ndarray,
    scales: np.ndarray,
    stats: dict[str, np.ndarray],
) -> None:
    """Write one layer's exemplars.

    Args:
        folder: ``exemplars/LAYER``.
        units: (unit, sign) of each row.
        images: int64 [rows, k], -1 pads.
        activations: float32 [rows, k].
        maps: float16 [rows, k, h, w].
        scales: int16 [rows, k], the power of two by which each map was divided.
        stats: float32 [rows] each.
    """
    import pyarrow as pa

    folder.mkdir(parents=True, exist_ok=True)
    rows, k = images.shape
    table = pa.table({
        "unit": pa.array(np.repeat([u for u, _ in units], k), pa.int32()),
        "sign": pa.array(np.repeat([s for _, s in units], k)),
        "rank": pa.array(np.tile(np.arange(k), rows), pa.int32()),
        "image": pa.array(images.ravel(), pa.int64()),
        "activation": pa.array(activations.ravel(), pa.float32()),
    })  # fmt: skip
    write_table(folder / "index.parquet", table, FORMAT, VERSION)
    tensors = {"maps": np.ascontiguousarray(maps)}
    if scales.any():
        tensors["scales"] = np.ascontiguousarray(scales)
    with explained(folder):
        save_file(tensors, folder / "maps.safetensors")
        save_file({n: np.ascontiguousarray(v.astype(np.float32)) for n, v in stats.items()},
                  folder / "stats.safetensors")  # fmt: skip


def write_views(
    root: Path, views: Iterable[tuple[int, np.ndarray]], *, lossless: bool = False
) -> None:
    """Write ``views.parquet``: each distinct view once, as WebP.

    Args:
        root: the run folder.
        views: image index and view uint8 [H, W, 3], ascending.
        lossless: keep every pixel as it is; for views that were encoded before.
    """
    from concurrent.futures import ThreadPoolExecutor

    import pyarrow as pa

    def encode(item: tuple[int, np.ndarray]) -> tuple[int, bytes]:
        buffer = io.BytesIO()
        Image.fromarray(item[1]).save(buffer, "WEBP", quality=WEBP_QUALITY, lossless=lossless)
        return item[0], buffer.getvalue()

    rows: list[tuple[int, bytes]] = []
    source = iter(views)
    with ThreadPoolExecutor(WEBP_THREADS) as pool:
        while some := list(islice(source, VIEWS_AT_ONCE)):
            rows += pool.map(encode, some)
    table = pa.table({
        "image": pa.array([i for i, _ in rows], pa.int64()),
        "webp": pa.array([w for _, w in rows], pa.binary()),
    })  # fmt: skip
    write_table(root / "views.parquet", table, FORMAT, VERSION)


def write_index(
    root: Path, records: Sequence[LayerRecord], view_size: tuple[int, int], fingerprint: str
) -> None:
    """Write what makes a store of the folder, with the digests of its files.

    Last, so that a half-written one is none.
    """
    names = ["views.parquet", "images.parquet"]
    for record in records:
        folder = layer_path(root, record.name).relative_to(root)
        for name in ("index.parquet", "maps.safetensors", "stats.safetensors", *ARRAYS):
            names.append((folder / name).as_posix())
    listing = Listing.of(root, [name for name in names if (root / name).is_file()])
    content = {"fingerprint": fingerprint, "view_size": list(view_size),
               "layers": [_written(r) for r in records], FILES: listing.to_dict()}  # fmt: skip
    write_json(root / "exemplars" / "index.json", FORMAT, VERSION, content)


def _written(record: LayerRecord) -> dict[str, Any]:
    """Return a record for json; what few layers are is left out of the others."""
    values = asdict(record)
    return values if record.pooled else {k: v for k, v in values.items() if k != "pooled"}


def read_fingerprint(root: Path) -> str | None:
    """Return the fingerprint of a folder's finished exemplars, or None where there are none."""
    try:
        content = read_json(root / "exemplars" / "index.json", FORMAT, VERSION)
    except FormatError:
        return None
    return str(content.get("fingerprint"))
