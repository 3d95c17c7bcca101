"""The files of an exemplar store, read with a look at what they are.

Each is told by a digest in ``exemplars/index.json`` (`milanx.files.digests`), and what it holds
must go together with the rest: whoever asks a store gets what was written, or a `FormatError`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from milanx.errors import FormatError
from milanx.exemplars.masks import LayerRecord
from milanx.files import read_json, read_table, reading
from milanx.files.digests import AGAIN, Listing
from milanx.targets.units import layer_folder

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT, VERSION = "milanx-exemplars", 1
STATS = ("quantile", "low_quantile", "median", "mean", "deviation", "maximum", "minimum")
ARRAYS = ("max.npy", "mean.npy")
LARGEST_VIEW, LARGEST_MAP = 2**14, 2**12  # sides, in pixels and cells


def layer_path(root: Path, layer: str) -> Path:
    """Return where a layer's exemplars lie in a run folder."""
    return root / "exemplars" / layer_folder(layer)


def read_index(root: Path) -> tuple[dict[str, Any], Listing]:
    """Read ``exemplars/index.json``; returns fingerprint, view_size and records, and the files.

    Raises:
        FormatError: there are no finished exemplars, damaged ones, or of an unknown version.
    """
    path = root / "exemplars" / "index.json"
    content = read_json(path, FORMAT, VERSION)
    with reading(path):
        size = tuple(content["view_size"])
        records = {r["name"]: LayerRecord(**{**r, "map_size": tuple(r["map_size"])})
                   for r in content["layers"]}  # fmt: skip
        if not isinstance(content["fingerprint"], str) or not _sides(size, LARGEST_VIEW):
            raise ValueError(f"fingerprint {content['fingerprint']!r}, view_size {size}")
        for record in records.values():
            sane = isinstance(record.name, str) and isinstance(record.rectified, bool)
            if not sane or not _sides(record.map_size, LARGEST_MAP):
                raise ValueError(f"the layer {record}")
    listing = Listing.read(root, content, path)
    listing.check_there()
    found = {"fingerprint": content["fingerprint"], "view_size": size, "records": records}
    return found, listing


def _sides(size: tuple[Any, ...], most: int) -> bool:
    """Whether two numbers are sides of something."""
    return len(size) == 2 and all(type(side) is int and 0 < side <= most for side in size)


def read_layer(root: Path, listing: Listing, record: LayerRecord) -> dict[str, Any]:
    """Read a layer: units and signs of its rows, images, activations, maps, stats.

    Raises:
        FormatError: a file is damaged, or they do not go together.
    """
    folder = layer_path(root, record.name)

    def checked(name: str) -> Path:
        return listing.check((folder / name).relative_to(root).as_posix())

    table = read_table(checked("index.parquet"), FORMAT, VERSION)
    kept = _tensors(checked("maps.safetensors"), ("maps",))
    maps = kept["maps"]
    with reading(folder / "index.parquet"):
        rows, k = maps.shape[:2]
        columns = {name: _column(table, name) for name in ("unit", "image", "activation")}
        units = columns["unit"].reshape(rows, k)
        signs = np.array(table.column("sign").to_pylist(), object).reshape(rows, k)
        if (units != units[:, :1]).any() or (signs != signs[:, :1]).any():
            raise ValueError("rows of one unit name several")
        if not set(signs[:, 0]) <= {"+", "-"}:
            raise ValueError(f"signs {sorted(map(str, set(signs[:, 0])))}")
        pairs = [(int(u), str(s)) for u, s in zip(units[:, 0], signs[:, 0], strict=True)]
        if len(set(pairs)) != rows or units.min(initial=0) < 0:
            raise ValueError("its units are not told apart")
    scales = kept.get("scales")
    known = scales is None or (scales.dtype == np.int16 and scales.shape == (rows, k))
    if maps.dtype != np.float16 or maps.shape[2:] != tuple(record.map_size) or not known:
        raise FormatError(f"{folder / 'maps.safetensors'} is damaged",
                          f"its maps are {maps.dtype} {maps.shape}", AGAIN)  # fmt: skip
    stats = _tensors(checked("stats.safetensors"), STATS)
    for name, column in stats.items():
        if column.shape != (rows,) or column.dtype != np.float32:
            raise FormatError(f"{folder / 'stats.safetensors'} is damaged",
                              f"{name} is {column.dtype} {column.shape}", AGAIN)  # fmt: skip
    return {
        "units": pairs,
        "images": columns["image"].reshape(rows, k),
        "activations": columns["activation"].reshape(rows, k),
        "maps": maps if scales is None else _scaled(maps, scales),
        "stats": stats,
    }


def _scaled(maps: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Return maps float16 [r, k, h, w] times two to the power of scales [r, k], float32."""
    with np.errstate(over="ignore"):  # what was infinite becomes the largest number
        return np.nan_to_num(np.ldexp(maps.astype(np.float32), scales[..., None, None]))


def _column(table: pa.Table, name: str) -> np.ndarray:
    """Return a column of numbers without gaps, as the type that is written."""
    kinds = {"unit": np.int32, "image": np.int64, "activation": np.float32}
    column = table.column(name)
    if column.null_count or column.type.to_pandas_dtype() is not kinds[name]:
        raise ValueError(f"the column {name} is {column.type} with {column.null_count} gaps")
    return column.to_numpy()


def _tensors(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Read a safetensors file that holds certain tensors."""
    from safetensors.numpy import load_file

    with reading(path):
        found: dict[str, np.ndarray] = load_file(path)
        missing = set(names) - set(found)
        if missing:
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    return found


def read_array(root: Path, listing: Listing, layer: str, name: str, units: int) -> np.ndarray:
    """Map ``max.npy`` or ``mean.npy`` of a layer, float32 [images, units].

    Raises:
        FormatError: there is none, or it is something else.
    """
    path = listing.check((layer_path(root, layer) / name).relative_to(root).as_posix())
    with reading(path):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.ndim != 2 or array.dtype != np.dtype("<f4") or not array.flags.c_contiguous:
            raise ValueError(f"it holds {array.dtype} {array.shape}")
        if array.shape[1] != units:
            raise ValueError(f"it has {array.shape[1]} columns for {units} units")
    return array


def read_views(listing: Listing) -> dict[int, bytes]:
    """Read ``views.parquet``: image index -> WebP.

    Raises:
        FormatError: it is damaged.
    """
    path = listing.check("views.parquet")
    table = read_table(path, FORMAT, VERSION)
    with reading(path):
        images, pictures = table.column("image"), table.column("webp")
        if images.null_count or pictures.null_count:
            raise ValueError("it has gaps")
        found = dict(zip(images.to_pylist(), pictures.to_pylist(), strict=True))
        if not all(type(i) is int and isinstance(w, bytes) for i, w in found.items()):
            raise ValueError(f"its columns are {images.type} and {pictures.type}")
    return found


def read_images(listing: Listing) -> list[dict[str, Any]]:
    """Read ``images.parquet``, in order of the index.

    Raises:
        FormatError: it is damaged.
    """
    path = listing.check("images.parquet")
    table = read_table(path, FORMAT, VERSION)
    with reading(path):
        rows: list[dict[str, Any]] = table.to_pylist()
        if "index" in table.column_names and [r["index"] for r in rows] != [*range(len(rows))]:
            raise ValueError("its indices do not count from 0")
    return rows


def open_view(listing: Listing, content: bytes, size: tuple[int, int]) -> np.ndarray:
    """Decode a view, uint8 [3, H, W].

    Raises:
        FormatError: it is no picture of this size.
    """
    import io

    from PIL import Image

    with reading(listing.root / "views.parquet", "a view"):
        picture = Image.open(io.BytesIO(content), formats=["WEBP"])
        if picture.size != (size[1], size[0]):
            raise ValueError(f"it is {picture.size}, not {size[::-1]}")
        return np.ascontiguousarray(np.asarray(picture.convert("RGB")).transpose(2, 0, 1))
