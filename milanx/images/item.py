"""What is known of sources and their images, and how their names are written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from PIL import Image


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
    """An image of a source before it has a place in the run.

    Attributes:
        path: within the source, as `plain_name` writes it.
        fingerprint: of its bytes; empty where they cannot be read.
        group: its own, or None.
        label: class number.
        name: of its class.
        wnid: of its class.
        why: its bytes cannot be read now, in words; empty where they can.
    """

    path: str
    fingerprint: str
    group: str | None
    label: int | None = None
    name: str | None = None
    wnid: str | None = None
    why: str = ""


@dataclass(frozen=True)
class Skipped:
    """An image, or a folder of them, that could not be read."""

    source: str
    path: str
    why: str


class Source(Protocol):
    """A source of probe images, made by `open_source`."""

    name: str

    @property
    def info(self) -> SourceInfo:
        """What is known of it; all its images are looked through for that."""

    @property
    def faults(self) -> list[Skipped]:
        """Folders and links in it that cannot be followed."""

    @property
    def ignored(self) -> dict[str, int]:
        """How many files of each suffix in it are no images."""

    def items(self) -> list[Item]:
        """Return its images, by row; none is decoded."""

    def read(self, row: int) -> Image.Image:
        """Decode one image, RGB."""


def plain_name(name: str) -> str:
    r"""Write a file's name as UTF-8 that every format holds, the same in every locale.

    Bytes that are no UTF-8 stand as ``\xe9``.
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def one_line(name: str) -> str:
    r"""Write a name for a terminal: line breaks and the like as ``\n``."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii")
        for c in plain_name(name)
    )
