"""Where probe images come from: a folder, a parquet file, or the built-in ones."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image, ImageOps

from milanx.errors import InputError
from milanx.files import fingerprint

BUILTIN = "builtin:probe"
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})
ROWS_AT_ONCE = 512  # rows of a parquet file that are read at a time


@dataclass(frozen=True)
class SourceInfo:
    """What is known of a source."""

    name: str
    kind: str
    count: int
    fingerprint: str
    demonstration: bool = False
    concepts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Item:
    """An image of a source before it has a place in the run."""

    path: str
    fingerprint: str
    group: str | None
    label: int | None = None
    name: str | None = None
    wnid: str | None = None


class Source(Protocol):
    """A source of probe images, made by `open_source`."""

    info: SourceInfo

    def items(self) -> list[Item]:
        """Return its images, by row; none is decoded."""

    def read(self, row: int) -> Image.Image:
        """Decode one image, RGB."""


def decode(content: bytes) -> Image.Image:
    """Decode an image fully, as RGB, turned as its EXIF data says.

    Raises:
        OSError: bytes that are no image, or only a part of one.
    """
    image = Image.open(io.BytesIO(content))
    image.load()
    return ImageOps.exif_transpose(image).convert("RGB")


class _Folder:
    """Images under a folder; the name of a subfolder is the class."""

    def __init__(self, root: Path, name: str) -> None:
        if not root.exists():
            raise InputError(f"no images at {root}", "there is no such file or folder",
                             "give a folder, a .parquet file, or builtin:probe")  # fmt: skip
        self.root = root
        self.paths = sorted(p for p in root.rglob("*") if p.is_file() and _is_image(p))
        if not self.paths:
            there = sum(1 for p in root.rglob("*") if p.is_file())
            raise InputError(
                f"no images in {root}",
                f"none of its {there} files is an image" if there else "the folder is empty",
                f"images end in {', '.join(sorted(SUFFIXES)[:6])}, ...",
            )
        self._items = [self._item(p) for p in self.paths]
        digest = fingerprint([[i.path, i.fingerprint] for i in self._items])
        self.info = SourceInfo(name, "folder", len(self.paths), digest)

    def _item(self, path: Path) -> Item:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        inside = path.relative_to(self.root)
        name = inside.parts[0] if len(inside.parts) > 1 else None
        return Item(inside.as_posix(), digest, None, name=name)

    def items(self) -> list[Item]:
        return self._items

    def read(self, row: int) -> Image.Image:
        return decode(self.paths[row].read_bytes())


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


class _Parquet:
    """A parquet file: column image as struct(bytes, path) or bytes; label, name, wnid, group."""

    def __init__(self, path: Path, name: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            self.file = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"cannot read {path}", str(error).splitlines()[0],
                             "it is damaged or no parquet file") from error  # fmt: skip
        columns = self.file.schema_arrow.names
        if "image" not in columns:
            raise InputError(f"{path} holds no images", f"its columns are {', '.join(columns)}",
                             "it needs a column image: struct(bytes, path), or bytes")  # fmt: skip
        self.classes = _class_names(self.file.schema_arrow)
        extra = [c for c in ("label", "name", "wnid", "group") if c in columns]
        self._items: list[Item] = []
        digest = hashlib.sha256()
        for batch in self.file.iter_batches(ROWS_AT_ONCE, columns=["image", *extra]):
            for row in batch.to_pylist():
                self._items.append(self._item(row, len(self._items)))
                digest.update(self._items[-1].fingerprint.encode())
        self.starts = np.cumsum(
            [0]
            + [self.file.metadata.row_group(i).num_rows for i in range(self.file.num_row_groups)]
        )
        if not self._items:
            raise InputError(f"no images in {path}", "it has no rows", "give another file")
        self.info = SourceInfo(name, "parquet", len(self._items), digest.hexdigest()[:16])
        self._group = lru_cache(maxsize=2)(self._read_group)
        self._lock = threading.Lock()  # a ParquetFile is no place for two threads at once

    def _item(self, row: dict[str, Any], number: int) -> Item:
        content, path = _image_bytes(row["image"])
        label = row.get("label")
        name = row.get("name")
        if (
            name is None
            and self.classes
            and isinstance(label, int)
            and 0 <= label < len(self.classes)
        ):
            name = self.classes[label]
        digest = hashlib.sha256(content).hexdigest()[:16]
        group = row.get("group")
        return Item(path or str(number), digest, None if group is None else str(group),
                    label if isinstance(label, int) else None, name, row.get("wnid"))  # fmt: skip

    def items(self) -> list[Item]:
        return self._items

    def _read_group(self, group: int) -> list[Any]:
        return self.file.read_row_group(group, columns=["image"]).column("image").to_pylist()

    def read(self, row: int) -> Image.Image:
        group = int(np.searchsorted(self.starts, row, side="right")) - 1
        with self._lock:
            value = self._group(group)[row - int(self.starts[group])]
        return decode(_image_bytes(value)[0])


def _image_bytes(value: Any) -> tuple[bytes, str | None]:
    if isinstance(value, dict):
        return value.get("bytes") or b"", value.get("path")
    return value or b"", None


def _class_names(schema: Any) -> list[str]:
    """Read the names of a ClassLabel column from the metadata that `datasets` writes."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return list(features["label"]["names"])
    except (KeyError, TypeError, ValueError):
        return []


class _Builtin:
    """The images that come with the package."""

    def __init__(self, name: str) -> None:
        from milanx.images import builtin

        self.views = builtin.views()
        self._items = [
            Item(view.path, digest, view.group)
            for view, digest in zip(self.views, builtin.fingerprints(), strict=True)
        ]
        self.info = SourceInfo(
            name, "builtin", len(self.views), fingerprint([i.fingerprint for i in self._items]),
            True, builtin.CONCEPTS,
        )  # fmt: skip

    def items(self) -> list[Item]:
        return self._items

    def read(self, row: int) -> Image.Image:
        return self.views[row].read()


def open_source(spec: str, name: str) -> Source:
    """Open a source by what a user calls it: a folder, a parquet file or ``builtin:probe``.

    Raises:
        InputError: nothing of that name, or no images in it.
    """
    if spec == BUILTIN:
        return _Builtin(name)
    if spec.startswith("builtin:"):
        raise InputError(f"no images called {spec}", "the only built-in ones are builtin:probe",
                         "--images builtin:probe")  # fmt: skip
    path = Path(spec)
    if path.suffix == ".parquet" and path.is_file():
        return _Parquet(path, name)
    if path.is_file():
        raise InputError(f"{spec} is no source of images", "it is a single file, and no parquet",
                         "give the folder that holds the images")  # fmt: skip
    return _Folder(path, name)
