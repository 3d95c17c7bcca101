"""Images in a parquet file: what its columns may be, and how a row becomes an image."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from functools import cached_property, lru_cache, partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from milanx.errors import InputError
from milanx.images.decoding import decode, why
from milanx.images.item import Item, Skipped, SourceInfo, one_line, plain_name

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE = "image"  # the usual name of the column
KNOWN = ("label", "name", "wnid", "group")
REGIONS = "regions"  # a list of struct(name, mask)
ROWS_AT_ONCE = 64  # rows of a parquet file that are read at a time
TAKEN = "struct(bytes, path), bytes, or paths from the file's own folder"
MAGIC = b"PAR1"  # with which a parquet file begins and ends


def is_parquet(path: Path) -> bool:
    """Whether a file says of itself that it is parquet.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return path.suffix.lower() == ".parquet" or file.read(len(MAGIC)) == MAGIC


class Table:
    """A parquet file: a column of images; label, name, wnid, group.

    Raises:
        InputError: it is damaged, or has no column of images that can be read.
    """

    def __init__(self, path: Path, name: str) -> None:
        import pyarrow.parquet as pq

        self.path, self.name = path, name
        self.faults: list[Skipped] = []
        self.ignored: dict[str, int] = {}
        with self._explained():
            # pyarrow takes no name that is no UTF-8.
            odd = plain_name(str(path)) != str(path)
            self.file = pq.ParquetFile(path.open("rb") if odd else path)
            schema = self.file.schema_arrow
        self.column = _image_column(schema, path)
        self.classes = _class_names(schema)
        if not self.file.metadata.num_rows:
            raise InputError(f"no images in {one_line(str(path))}", "it has no rows",
                             "give another file")  # fmt: skip
        groups = range(self.file.num_row_groups)
        counts = [self.file.metadata.row_group(i).num_rows for i in groups]
        self.starts = np.cumsum([0, *counts])
        self._group = lru_cache(maxsize=2)(self._read_group)
        self._regions = lru_cache(maxsize=2)(partial(self._read_group, column=REGIONS))
        self._lock = threading.Lock()  # a ParquetFile is no place for two threads at once

    def _explained(self) -> _Explained:
        return _Explained(self.path)

    @cached_property
    def info(self) -> SourceInfo:
        """What is known of it; every image is read for its fingerprint."""
        digest = hashlib.sha256()
        for item in self._items:
            digest.update(item.fingerprint.encode())
        return SourceInfo(self.name, "parquet", len(self._items), digest.hexdigest()[:16])

    @cached_property
    def _items(self) -> list[Item]:
        there = self.file.schema_arrow.names
        extra = [c for c in KNOWN if c in there and c != self.column]
        made: list[Item] = []
        with self._explained(), self._lock:
            for batch in self.file.iter_batches(ROWS_AT_ONCE, columns=[self.column, *extra]):
                made += [self._item(row, len(made) + i) for i, row in enumerate(batch.to_pylist())]
        return made

    def _item(self, row: dict[str, Any], number: int) -> Item:
        content, path = content_of(row[self.column])
        digest = reason = ""
        try:
            digest = self._digest(content, path)
        except OSError as error:
            reason = str(error) if error.errno is None else why(error)
        label, name = class_number(row.get("label")), row.get("name")
        if name is None and isinstance(row.get("label"), str):
            name = row["label"]
        if name is None and label is not None and 0 <= label < len(self.classes):
            name = self.classes[label]
        return Item(path or str(number), digest, text_or_none(row.get("group")), label,
                    text_or_none(name), text_or_none(row.get("wnid")), reason)  # fmt: skip

    def _digest(self, content: bytes | None, path: str | None) -> str:
        if content:
            return hashlib.sha256(content).hexdigest()[:16]
        with open(self._place(path), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]

    def _place(self, path: str | None) -> str:
        """Where a row's image lies that is no part of the file.

        Raises:
            OSError: nowhere; without a number, so that what it says is all there is to say.
        """
        if not path:
            raise OSError("the row holds no image")
        if "://" in path:
            raise OSError("it is an address, and nothing is downloaded")
        return os.path.join(self.path.parent, path)

    def items(self) -> list[Item]:
        """Return its images, by row; none is decoded."""
        return self._items

    def _read_group(self, group: int, column: str | None = None) -> pa.ChunkedArray:
        return self.file.read_row_group(group, columns=[column or self.column]).column(0)

    def regions(self, row: int) -> list[dict[str, Any]]:
        """Return the regions of an image: of each its ``name`` and an encoded ``mask``."""
        if REGIONS not in self.file.schema_arrow.names:
            return []
        group = int(np.searchsorted(self.starts, row, side="right")) - 1
        with self._explained(), self._lock:
            found = self._regions(group)[row - int(self.starts[group])].as_py()
        return [r for r in found or () if isinstance(r, dict)]

    def read(self, row: int) -> Image.Image:
        """Decode one image, RGB."""
        group = int(np.searchsorted(self.starts, row, side="right")) - 1
        with self._lock:
            value = self._group(group)[row - int(self.starts[group])].as_py()
        content, path = content_of(value)
        suffix = PurePath(path or "").suffix
        if content:
            return decode(content, suffix)
        with open(self._place(path), "rb") as file:
            return decode(file, suffix)


class _Explained:
    """Turns what pyarrow says of a damaged file into an `InputError`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> None:
        import pyarrow as pa

        if isinstance(error, pa.ArrowException | OSError | UnicodeDecodeError):
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(f"cannot read {one_line(str(self.path))}", said,
                             "it is damaged or no parquet file") from error  # fmt: skip


def _image_column(schema: pa.Schema, path: Path) -> str:
    """Return the column that holds images: ``image``, else the only one of bytes.

    Raises:
        InputError: there is none, or it holds something else.
    """
    shown = one_line(str(path))
    if IMAGE in schema.names:
        if schema.names.count(IMAGE) > 1:
            raise InputError(f"{shown} has several columns image", "which one is meant is not said",
                             "name the others otherwise")  # fmt: skip
        if refused := _refused(schema.field(IMAGE).type):
            raise InputError(f"the column image of {shown} cannot be read", refused,
                             f"it may be {TAKEN}")  # fmt: skip
        return IMAGE
    able = [f.name for f in schema if _holds_bytes(f.type)]
    if len(able) == 1:
        return able[0]
    raise InputError(
        f"{shown} holds no column image", f"its columns are {', '.join(schema.names) or 'none'}",
        f"it needs a column image: {TAKEN}",
    )  # fmt: skip


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of values that an extension or a dictionary stands for."""
    import pyarrow as pa

    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_bytes(kind: pa.DataType) -> bool:
    from pyarrow import types as t

    return bool(t.is_binary(kind) or t.is_large_binary(kind) or t.is_fixed_size_binary(kind)
                or t.is_binary_view(kind))  # fmt: skip


def _is_text(kind: pa.DataType) -> bool:
    from pyarrow import types as t

    return bool(t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind))


def _fields(kind: pa.DataType) -> dict[str, pa.DataType]:
    from pyarrow import types as t

    return {f.name: _plain_type(f.type) for f in kind} if t.is_struct(kind) else {}


def _holds_bytes(kind: pa.DataType) -> bool:
    plain = _plain_type(kind)
    return _is_bytes(plain) or ("bytes" in _fields(plain) and not _refused(kind))


def _refused(kind: pa.DataType) -> str:
    """Say why values of a type are no images; nothing where they may be."""
    from pyarrow import types as t

    plain = _plain_type(kind)
    if _is_bytes(plain) or _is_text(plain):
        return ""
    if t.is_struct(plain):
        fields = _fields(plain)
        fits = ("bytes" in fields or "path" in fields) and all(
            check(fields[name])
            for name, check in (("bytes", _is_bytes), ("path", _is_text))
            if name in fields and not t.is_null(fields[name])
        )
        return "" if fits else f"it holds {plain}, without bytes or path of an image"
    if t.is_nested(plain):
        return f"it holds {plain}: lists of images or numbers, where a row is one encoded image"
    if t.is_null(plain):
        return "it is empty in every row"
    return f"it holds {plain}, which is no image"


def content_of(value: Any) -> tuple[bytes | None, str | None]:
    """Return the bytes of a row's image, or the path where it lies."""
    if isinstance(value, dict):
        return value.get("bytes"), value.get("path")
    return (None, value) if isinstance(value, str) else (value, None)


def class_number(label: Any) -> int | None:
    """A class number; pandas makes floats of whole numbers where one is missing."""
    if isinstance(label, float) and label.is_integer():
        return int(label)
    return label if isinstance(label, int) else None


def text_or_none(value: Any) -> str | None:
    """Return a value as text, None where there is none."""
    return None if value is None else str(value)


def _class_names(schema: pa.Schema) -> list[str]:
    """Read the names of a ClassLabel column from the metadata that `datasets` writes."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return list(features["label"]["names"])
    except (KeyError, TypeError, ValueError):
        return []
