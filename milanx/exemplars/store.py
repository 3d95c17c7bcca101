"""Exemplar sets and the store that holds them: views, maps, masks made when they are needed."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

from milanx.errors import FormatError, InputError, did_you_mean
from milanx.exemplars.masks import LayerRecord, make_masks, mask_shares
from milanx.files import read_json, read_table, write_json, write_table
from milanx.targets.units import layer_folder

FORMAT, VERSION = "milanx-exemplars", 1
WEBP_QUALITY = 95
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
    """The exemplars of a run folder.

    Args:
        root: the run folder; `open` checks it.
    """

    def __init__(self, root: Path, content: dict[str, Any]) -> None:
        self.root = root
        self.fingerprint: str = content["fingerprint"]
        self.view_size: tuple[int, int] = tuple(content["view_size"])
        self._records = {
            r["name"]: LayerRecord(**{**r, "map_size": tuple(r["map_size"])})
            for r in content["layers"]
        }
        self._decode = lru_cache(maxsize=4096)(self._decode_view)

    @classmethod
    def open(cls, root: Path | str) -> ExemplarStore:
        """Open the store of a run folder.

        Raises:
            FormatError: the folder holds no finished exemplars, or of an unknown version.
        """
        root = Path(root)
        return cls(root, read_json(root / "exemplars" / "index.json", FORMAT, VERSION))

    def _folder(self, layer: str) -> Path:
        return self.root / "exemplars" / layer_folder(layer)

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
            folder = self._folder(layer)
            table = read_table(folder / "index.parquet", FORMAT, VERSION)
            kept = load_file(folder / "maps.safetensors")
            maps = kept["maps"]
            if "scales" in kept:
                with np.errstate(over="ignore"):  # what was infinite becomes the largest number
                    maps = np.ldexp(maps.astype(np.float32), kept["scales"][..., None, None])
                maps = np.nan_to_num(maps)
            shape = maps.shape[:2]
            columns = {name: table.column(name).to_numpy() for name in ("image", "activation")}
            units = table.column("unit").to_numpy().reshape(shape)[:, 0]
            signs = table.column("sign").to_pylist()[:: shape[1]]
            return {
                "units": [(int(u), s) for u, s in zip(units, signs, strict=True)],
                "images": columns["image"].reshape(shape),
                "activations": columns["activation"].reshape(shape),
                "maps": maps,
                "stats": load_file(folder / "stats.safetensors"),
            }

        return load

    def units(self, layer: str) -> list[tuple[int, str]]:
        """Return (unit, sign) of each row of a layer."""
        return list(self._layer(layer)["units"])

    def images(self, layer: str) -> np.ndarray:
        """Return the image indices int64 [rows, k]; -1 where there are fewer than k."""
        return self._layer(layer)["images"]

    def activations(self, layer: str) -> np.ndarray:
        """Return the activations float32 [rows, k]; NaN where there are fewer than k."""
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

        Dead units give one value everywhere, or no number at all.
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
        return (self._folder(layer) / "max.npy").is_file()

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
        values: np.ndarray = np.load(self._folder(layer) / name, mmap_mode="r")
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
        table = read_table(self.root / "views.parquet", FORMAT, VERSION)
        return dict(
            zip(table.column("image").to_pylist(), table.column("webp").to_pylist(), strict=True)
        )

    def view_indices(self) -> np.ndarray:
        """Return the indices of the distinct images that are exemplars, int64 [n], ascending."""
        return np.array(sorted(self._views), np.int64)

    def _decode_view(self, image: int) -> np.ndarray:
        picture = Image.open(io.BytesIO(self._views[image])).convert("RGB")
        return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))

    def view(self, image: int) -> np.ndarray:
        """Return one view, uint8 [3, H, W]."""
        return self._decode(int(image))

    def image_table(self) -> list[dict[str, Any]]:
        """Return what is known of every probe image, in order of its index."""
        rows: list[dict[str, Any]] = read_table(
            self.root / "images.parquet", FORMAT, VERSION
        ).to_pylist()
        return rows

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
    save_file(tensors, folder / "maps.safetensors")
    save_file({n: np.ascontiguousarray(v.astype(np.float32)) for n, v in stats.items()},
              folder / "stats.safetensors")  # fmt: skip


def write_views(root: Path, views: Iterable[tuple[int, np.ndarray]]) -> None:
    """Write ``views.parquet``: each distinct view once, as WebP.

    Args:
        root: the run folder.
        views: image index and view uint8 [H, W, 3], ascending.
    """
    from concurrent.futures import ThreadPoolExecutor

    import pyarrow as pa

    def encode(item: tuple[int, np.ndarray]) -> tuple[int, bytes]:
        buffer = io.BytesIO()
        Image.fromarray(item[1]).save(buffer, "WEBP", quality=WEBP_QUALITY)
        return item[0], buffer.getvalue()

    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(encode, views))
    table = pa.table({
        "image": pa.array([i for i, _ in rows], pa.int64()),
        "webp": pa.array([w for _, w in rows], pa.binary()),
    })  # fmt: skip
    write_table(root / "views.parquet", table, FORMAT, VERSION)


def write_index(
    root: Path, records: Sequence[LayerRecord], view_size: tuple[int, int], fingerprint: str
) -> None:
    """Write what makes a store of the folder; last, so that a half-written one is none."""
    content = {"fingerprint": fingerprint, "view_size": list(view_size),
               "layers": [asdict(r) for r in records]}  # fmt: skip
    write_json(root / "exemplars" / "index.json", FORMAT, VERSION, content)


def read_fingerprint(root: Path) -> str | None:
    """Return the fingerprint of a folder's finished exemplars, or None where there are none."""
    try:
        return str(read_json(root / "exemplars" / "index.json", FORMAT, VERSION)["fingerprint"])
    except FormatError:
        return None
