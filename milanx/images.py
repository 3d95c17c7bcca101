"""Probe images by source: folders, parquet files in the Hugging Face layout, ``builtin:probe``."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from milanx.errors import InputError
from milanx.files import cache_dir, fingerprint, read_json, write_json
from milanx.zoo import Preprocess

BUILTIN = "builtin:probe"
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})
NEAR = 4  # bits in which the difference hashes of near-duplicates may differ
HASH_BITS = 64
ROWS_AT_ONCE = 512  # rows of a parquet file that are compared at a time


@dataclass(frozen=True)
class ImageRecord:
    """What is known of one probe image.

    Attributes:
        index: its number among all images of a run.
        source: name of its source.
        path: within the source.
        fingerprint: of its bytes.
        group: images of one group never fall on both sides of a split.
        label: class number, if it has one.
        name: class name, if it has one.
        wnid: WordNet id, if it has one.
    """

    index: int
    source: str
    path: str
    fingerprint: str
    group: str
    label: int | None = None
    name: str | None = None
    wnid: str | None = None


@dataclass(frozen=True)
class Skipped:
    """An image that could not be read."""

    source: str
    path: str
    why: str


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
class _Item:
    """An image of a source before it has a place in the run."""

    path: str
    fingerprint: str
    group: str | None
    label: int | None = None
    name: str | None = None
    wnid: str | None = None


class _Source(Protocol):
    info: SourceInfo

    def items(self) -> list[_Item]: ...

    def read(self, row: int) -> Image.Image: ...


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

    def _item(self, path: Path) -> _Item:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        inside = path.relative_to(self.root)
        name = inside.parts[0] if len(inside.parts) > 1 else None
        return _Item(inside.as_posix(), digest, None, name=name)

    def items(self) -> list[_Item]:
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
        self._items: list[_Item] = []
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

    def _item(self, row: dict[str, Any], number: int) -> _Item:
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
        return _Item(path or str(number), digest, None if group is None else str(group),
                     label if isinstance(label, int) else None, name, row.get("wnid"))  # fmt: skip

    def items(self) -> list[_Item]:
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
    """The images made in the package."""

    def __init__(self, name: str) -> None:
        from milanx import scenes

        self.scenes = scenes
        digest = scenes.fingerprint()
        self._items = [
            _Item(f"scene-{i:04d}", fingerprint(digest, i), scenes.group(i))
            for i in range(scenes.COUNT)
        ]
        self.info = SourceInfo(name, "builtin", scenes.COUNT, digest, True, tuple(scenes.CONCEPTS))

    def items(self) -> list[_Item]:
        return self._items

    def read(self, row: int) -> Image.Image:
        return Image.fromarray(self.scenes.scene(row).image)


class ProbeImages:
    """Probe images of any number of sources, made by `open_images`.

    Attributes:
        records: one an image, by index.
        skipped: those that could not be read.
        sources: what is known of the sources.
        fingerprint: stands for all images and their order.
    """

    def __init__(
        self,
        records: list[ImageRecord],
        skipped: list[Skipped],
        sources: list[SourceInfo],
        places: list[tuple[_Source, int]],
    ) -> None:
        self.records, self.skipped, self.sources = records, skipped, sources
        self._places = places
        self.fingerprint = fingerprint(
            [[r.source, r.path, r.fingerprint, r.group] for r in records]
        )

    def __len__(self) -> int:
        return len(self.records)

    def read(self, index: int) -> Image.Image:
        """Decode one image, RGB."""
        source, row = self._places[index]
        return source.read(row)

    def split(self, aside: float = 0.2, seed: int = 0) -> np.ndarray:
        """Split by group; True: may become an exemplar, False: kept aside.

        Groups are taken in a seeded random order until their images reach the share.

        Returns:
            bool [n].
        """
        groups = np.array([r.group for r in self.records])
        names, counts = np.unique(groups, return_counts=True)
        order = np.random.default_rng(seed).permutation(len(names))
        before = np.concatenate([[0], np.cumsum(counts[order])[:-1]])
        chosen = set(names[order[before < round(aside * len(groups))]].tolist())
        if len(chosen) == len(names):  # a single group cannot be on both sides
            chosen = set()
        return np.array([g not in chosen for g in groups.tolist()])

    def iterate(
        self, indices: Sequence[int], preprocess: Preprocess, batch_size: int, workers: int = 2
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield views uint8 [b, 3, H, W] and indices int64 [b], in the order of ``indices``.

        Two batches are decoded ahead, so memory does not grow with the images.
        """

        def view(index: int) -> np.ndarray:
            return preprocess.view(self.read(index))

        batches = [indices[i : i + batch_size] for i in range(0, len(indices), batch_size)]
        with ThreadPoolExecutor(max(1, workers)) as pool:
            ahead: deque[tuple[Sequence[int], list[Any]]] = deque()
            for batch in [*batches, None, None]:
                if batch is not None:
                    ahead.append((batch, [pool.submit(view, int(i)) for i in batch]))
                if ahead and (batch is None or len(ahead) > 2):
                    here, futures = ahead.popleft()
                    stacked = np.stack([f.result() for f in futures])
                    yield torch.from_numpy(stacked).permute(0, 3, 1, 2), torch.tensor(list(here))


def open_images(
    specs: Sequence[str | Path], *, limit: int | None = None, seed: int = 0
) -> ProbeImages:
    """Open sources of probe images.

    Args:
        specs: folders, parquet files, ``builtin:probe``.
        limit: at most this many images of all, spread evenly over each source's order.
        seed: kept for sources that draw; none does.

    Raises:
        InputError: a source that is not there, or of which no image can be read.
    """
    names: set[str] = set()
    sources: list[_Source] = []
    for spec in specs:
        name = BUILTIN if str(spec) == BUILTIN else Path(spec).stem or str(spec)
        unique, number = name, 2
        while unique in names:
            unique, number = f"{name}-{number}", number + 1
        names.add(unique)
        sources.append(_open(str(spec), unique))
    if not sources:
        raise InputError("no probe images", "no source was given", "--images builtin:probe")
    total = sum(len(s.items()) for s in sources)
    records: list[ImageRecord] = []
    skipped: list[Skipped] = []
    places: list[tuple[_Source, int]] = []
    for source in sources:
        count = len(source.items())
        take = count if limit is None else max(1, min(count, round(limit * count / total)))
        rows = np.unique(np.linspace(0, count - 1, take).round().astype(int)).tolist()
        scanned = _scan(source, rows)
        readable = 0
        for row in rows:
            item, (digest, why) = source.items()[row], scanned[row]
            if why:
                skipped.append(Skipped(source.info.name, item.path, why))
                continue
            readable += 1
            group = item.group if item.group is not None else f"hash:{digest}"
            records.append(ImageRecord(
                len(records), source.info.name, item.path, item.fingerprint, group, item.label,
                item.name, item.wnid))  # fmt: skip
            places.append((source, row))
        if not readable:
            raise InputError(
                f"no image of {source.info.name} can be read",
                f"{len(rows)} were tried; the first: {scanned[rows[0]][1]}",
                "give images that open in a viewer",
            )
    return ProbeImages(_grouped(records), skipped, [s.info for s in sources], places)


def _open(spec: str, name: str) -> _Source:
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


def _scan(source: _Source, rows: Sequence[int]) -> dict[int, tuple[str, str]]:
    """Decode every image once: its difference hash (16 hex digits), or why it cannot be read.

    Kept in the cache by the source's fingerprint.
    """
    items = source.items()
    if all(items[row].group is not None for row in rows) and source.info.kind == "builtin":
        return {row: ("", "") for row in rows}
    path = cache_dir("scans", f"{source.info.fingerprint}-{fingerprint(list(rows))}.json")
    if path.is_file():
        content = read_json(path, "milanx-scan", 1)["rows"]
        return {row: (a, b) for row, (a, b) in zip(rows, content, strict=True)}
    import imagehash

    def look(row: int) -> tuple[str, str]:
        try:
            return str(imagehash.dhash(source.read(row))), ""
        except UnidentifiedImageError:
            return "", "it is no image"
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            return "", str(error).splitlines()[0] if str(error) else type(error).__name__

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(look, rows))
    write_json(path, "milanx-scan", 1, {"rows": found})
    return dict(zip(rows, found, strict=True))


def _grouped(records: list[ImageRecord]) -> list[ImageRecord]:
    """Bring near-duplicates, of all sources, into one group."""
    from dataclasses import replace

    hashed = [i for i, r in enumerate(records) if r.group.startswith("hash:")]
    if not hashed:
        return records
    hashes = np.array([int(records[i].group[5:], 16) for i in hashed], np.uint64)
    parent = np.arange(len(hashed))

    def find(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = int(parent[i])
        return i

    for start in range(0, len(hashes), ROWS_AT_ONCE):
        block = hashes[start : start + ROWS_AT_ONCE, None] ^ hashes[None]
        for a, b in np.argwhere(np.bitwise_count(block) <= NEAR):
            if a + start < b:
                one, other = find(int(a) + start), find(int(b))
                parent[max(one, other)] = min(one, other)
    made = list(records)
    for place, i in enumerate(hashed):
        first = records[hashed[find(place)]]
        made[i] = replace(records[i], group=f"{first.source}/{first.path}")
    return made
