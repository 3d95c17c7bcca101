"""Images that a program hands over: a sequence or an iterator of pictures, with labels or without.

An element is a PIL image, an array uint8 [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] (numbers of any
range where it is [H, W]), the bytes of a file, a pair of one of these and its label (a class number
or name), or a mapping with ``image`` and maybe ``label``, ``name``, ``wnid`` and ``group``, as the
rows of `datasets` are. Images are known by their pixels.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from milanx.errors import InputError
from milanx.files import fingerprint
from milanx.images.decoding import decode, shown, to_eight_bits, why
from milanx.images.item import Item, Skipped, SourceInfo, plain_name

NAME = "images"  # of a source that is none on disk
TAKEN = "give PIL images or uint8 arrays, alone or as (image, label)"


@dataclass(frozen=True)
class Element:
    """One element, taken apart.

    Attributes:
        picture: what the picture is made of.
        label: class number, or None.
        name: of the class, or None.
        group: or None.
        wnid: or None.
    """

    picture: Any
    label: int | None = None
    name: str | None = None
    group: str | None = None
    wnid: str | None = None


class Pictures:
    """A sequence of pictures; an iterator is gone through once, and what it gives is kept.

    Args:
        name: of the source.
        given: the sequence or iterable.
        kind: of the source.
        classes: names of the classes by their numbers.
        path: of an element; its number where None.

    Raises:
        InputError: it is neither, or it is empty.
    """

    def __init__(
        self,
        name: str,
        given: Iterable[Any],
        *,
        kind: str = "pictures",
        classes: tuple[str, ...] = (),
        path: Callable[[int], str] = str,
    ) -> None:
        self.name, self.kind, self.classes, self._path = name, kind, classes, path
        self.faults: list[Skipped] = []
        self.ignored: dict[str, int] = {}
        self._lock = threading.Lock()  # sequences, and pictures that are yet to be loaded
        what = f"a {type(given).__name__} is no source of images"
        if isinstance(given, Mapping | set | frozenset):
            raise InputError(what, "its elements have no order", "give a list of images")
        kept: Any = given
        if not (hasattr(given, "__len__") and hasattr(given, "__getitem__")):
            try:
                kept = list(given)
            except TypeError as error:
                raise InputError(what, f"it cannot be gone through: {error}",
                                 "give a folder, or a list of images") from error  # fmt: skip
        self._given = kept
        self._count = len(self._given)
        if not self._count:
            raise InputError(f"no images in the {type(given).__name__}", "it is empty",
                             "give some hundreds")  # fmt: skip

    @cached_property
    def info(self) -> SourceInfo:
        """What is known of it; every image is looked at for its fingerprint."""
        digest = fingerprint([i.fingerprint for i in self._items])
        return SourceInfo(self.name, self.kind, self._count, digest)

    @cached_property
    def _items(self) -> list[Item]:
        return [self._item(row) for row in range(self._count)]

    def _item(self, row: int) -> Item:
        """Note one image; whatever it raises is its own affair."""
        digest = reason = ""
        found = Element(None)
        try:
            with self._lock:
                found = taken_apart(self._given[row])
                digest = digest_of(as_picture(found.picture))
        except Exception as error:
            reason = why(error)
        name = found.name
        if name is None and found.label is not None and 0 <= found.label < len(self.classes):
            name = self.classes[found.label]
        return Item(plain_name(self._path(row)), digest, found.group, found.label, name,
                    found.wnid, reason)  # fmt: skip

    def items(self) -> list[Item]:
        """Return its images, by row."""
        return self._items

    def read(self, row: int) -> Image.Image:
        """Decode one image, RGB.

        Raises:
            ValueError: it is another one than before.
        """
        with self._lock:
            picture = as_picture(taken_apart(self._given[row]).picture)
        if digest_of(picture) != self._items[row].fingerprint:
            raise ValueError("it is another picture each time it is asked for: leave random "
                             "augmentation away")  # fmt: skip
        return picture


def digest_of(picture: Image.Image) -> str:
    """Return 16 hex digits that stand for an RGB picture's pixels."""
    told = hashlib.sha256(f"{picture.mode} {picture.width} x {picture.height} ".encode())
    told.update(picture.tobytes())
    return told.hexdigest()[:16]


def taken_apart(value: Any) -> Element:
    """Return the picture of an element, and what is said of it.

    Raises:
        ValueError: a mapping without an image.
    """
    if isinstance(value, Mapping) and not ({"bytes", "path"} & set(value)):
        if value.get("image") is None:
            raise ValueError("it is a row without an image")
        label, name = _label(value.get("label"))
        said = {key: None if value.get(key) is None else str(value[key])
                for key in ("name", "group", "wnid")}  # fmt: skip
        return Element(value["image"], label, said["name"] or name, said["group"], said["wnid"])
    if isinstance(value, tuple | list) and value and not isinstance(value[0], int | float):
        return Element(value[0], *_label(value[1] if len(value) > 1 else None))
    return Element(value)


def _label(value: Any) -> tuple[int | None, str | None]:
    """Return a class number and a class name; neither where it is something else."""
    if isinstance(value, str):
        return None, value
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    return (int(value) if isinstance(value, int) else None), None


def as_picture(value: Any) -> Image.Image:
    """Return an RGB picture.

    Raises:
        TypeError: it is none.
        Exception: whatever Pillow says of a damaged one.
    """
    if isinstance(value, Image.Image):
        return shown(value)
    if isinstance(value, bytes):
        return decode(value)
    if isinstance(value, Mapping) and isinstance(value.get("bytes"), bytes):
        return decode(value["bytes"])
    if isinstance(value, np.ndarray):
        return shown(Image.fromarray(_eight_bits(value)))
    raise TypeError(f"a {type(value).__name__} is no picture: {TAKEN}")


def _eight_bits(values: np.ndarray) -> np.ndarray:
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    colour = values.ndim == 3 and values.shape[2] in (3, 4)
    if not values.size or not (values.ndim == 2 or colour):
        raise TypeError(f"an array {list(values.shape)} is no picture: {TAKEN}")
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    if colour or values.dtype.kind not in "biuf":
        raise TypeError(f"an array of {values.dtype} is no picture in colours: {TAKEN}")
    return to_eight_bits(values)
