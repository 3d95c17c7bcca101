"""Shards of webdataset: tar files in which the files of one image share their names.

``n01440764_10026.jpg`` and ``n01440764_10026.cls`` are one image and its label (the name up to its
first dot tells them apart): ``.cls`` holds a class number or name, ``.json`` an object with
``label``, ``name``, ``wnid`` or ``group``, ``.txt`` a class name where neither says one. Layout:
github.com/webdataset/webdataset, README.

Nothing is unpacked: only regular files are read, where they lie in the shard. Links, devices, paths
that lead out of the shard and files that are too large are told and passed over.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from PIL import Image

from milanx.errors import InputError
from milanx.files import fingerprint
from milanx.images.decoding import decode, suffixes, why
from milanx.images.item import Item, Skipped, SourceInfo, one_line, plain_name
from milanx.images.pictures import taken_apart

SAYS = (".cls", ".json", ".txt")  # files that say what an image shows
MOST_IMAGE, MOST_SAID = 2**28, 2**20  # bytes of a picture's file and of those
MOST_SHARDS = 100_000
BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
PATTERN = frozenset("*?[{")


@dataclass(frozen=True)
class Member:
    """One picture in a shard.

    Attributes:
        shard: its place among the shards.
        name: in the shard.
        start: of its bytes.
        size: in bytes.
        said: of the files that say what it shows, by suffix: where their bytes lie.
    """

    shard: int
    name: str
    start: int
    size: int
    said: dict[str, tuple[int, int]] = field(default_factory=dict)


def is_shards(spec: str) -> bool:
    """Whether a user means shards: ``.tar``, or a pattern of them."""
    return spec.endswith(".tar")


def is_pattern(spec: str) -> bool:
    """Whether a name stands for several shards."""
    return is_shards(spec) and bool(PATTERN & set(spec)) and not os.path.exists(spec)


def shard_paths(spec: str) -> list[Path]:
    """Return the files of a pattern such as ``train-*.tar`` or ``train-{000..012}.tar``, in order.

    Raises:
        InputError: there are none, or one of those that are counted is not there.
    """
    if not is_pattern(spec):
        return [Path(spec)]
    found = sorted(_expanded(spec))
    if not found:
        raise InputError(f"no shards {one_line(spec)}", "there is no such file",
                         "name them as train-*.tar or train-{000..012}.tar")  # fmt: skip
    gone = [path for path in found if not path.is_file()]
    if gone:
        raise InputError(f"{len(gone)} of {len(found)} shards are not there",
                         f"the first is {one_line(str(gone[0]))}",
                         "fetch them, or name those that are")  # fmt: skip
    return found


def _expanded(spec: str) -> Iterator[Path]:
    counted = BRACES.search(spec)
    if counted is None:
        yield from map(Path, glob.glob(spec))
        return
    low, high = counted[1], counted[2]
    if int(high) - int(low) >= MOST_SHARDS:
        raise InputError(f"{one_line(spec)} names too many shards",
                         f"at most {MOST_SHARDS} are read", "name fewer")  # fmt: skip
    for number in range(int(low), int(high) + 1):
        name = f"{spec[: counted.start()]}{number:0{len(low)}d}{spec[counted.end() :]}"
        yield from _expanded(name) if PATTERN & set(name) else [Path(name)]


class Shards:
    """The images of some shards, in order.

    Args:
        paths: of the shards.
        name: of the source.

    Raises:
        InputError: one cannot be read, or they hold no images.
    """

    def __init__(self, paths: list[Path], name: str) -> None:
        self.paths, self.name = paths, name
        self.faults: list[Skipped] = []
        self.ignored: dict[str, int] = {}
        self.members: list[Member] = []
        for place in range(len(paths)):
            self._look_through(place)
        if not self.members:
            faults = f"; {self.faults[0].path}: {self.faults[0].why}" if self.faults else ""
            raise InputError(f"no images in {one_line(str(paths[0]))}",
                             f"of its files none is an image that can be read{faults}",
                             "a shard holds name.jpg, name.cls, ...")  # fmt: skip

    def _look_through(self, place: int) -> None:
        """Note the pictures of a shard, and what is said of them."""
        path = self.paths[place]
        pictures: dict[str, Member] = {}
        said: dict[str, dict[str, tuple[int, int]]] = {}
        for member in self._members(path):
            key, suffix = _key(member.name)
            last = f".{suffix.rpartition('.')[2]}" if suffix else ""
            if suffix in SAYS:
                self._bounded(path, member, MOST_SAID)
                if member.size <= MOST_SAID:
                    said.setdefault(key, {})[suffix] = (member.offset_data, member.size)
            elif last in suffixes():
                if self._bounded(path, member, MOST_IMAGE):
                    name = member.name
                    unique = name if name not in pictures else f"{name}#{len(pictures)}"
                    pictures[unique] = Member(place, unique, member.offset_data, member.size,
                                              said.setdefault(key, {}))  # fmt: skip
            else:
                self.ignored[last or "no suffix"] = self.ignored.get(last or "no suffix", 0) + 1
        self.members += pictures.values()

    def _members(self, path: Path) -> Iterator[tarfile.TarInfo]:
        """Yield the regular files of a shard; others are told."""
        try:
            end = path.stat().st_size
            with tarfile.open(path, "r:") as tar:
                while True:
                    try:
                        member = tar.next()
                    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
                        self._fault(path, "", f"it is damaged from here on: {why(error)}")
                        return
                    if member is None:
                        return
                    if reason := _hostile(member, end):
                        self._fault(path, member.name, reason)
                    elif member.isreg() and not PurePosixPath(member.name).name.startswith("."):
                        yield member
                    tar.members = []  # type: ignore[attr-defined]  # it keeps all of them otherwise
        except (OSError, tarfile.TarError, ValueError, EOFError) as error:
            packed = (
                "it is compressed, or no tar file" if isinstance(error, tarfile.TarError) else ""
            )
            raise InputError(f"cannot read {one_line(str(path))}", packed or why(error),
                             "give shards as plain .tar files") from error  # fmt: skip

    def _bounded(self, path: Path, member: tarfile.TarInfo, most: int) -> bool:
        if member.size > most:
            self._fault(path, member.name, f"it has {member.size} bytes; at most {most} are read")
        return member.size <= most

    def _fault(self, path: Path, name: str, reason: str) -> None:
        place = f"{path.name}/{name}" if name else path.name
        self.faults.append(Skipped(self.name, plain_name(place), reason))

    @cached_property
    def info(self) -> SourceInfo:
        """What is known of it; every image is read for its fingerprint."""
        digest = fingerprint([[i.path, i.fingerprint] for i in self._items])
        return SourceInfo(self.name, "shards", len(self.members), digest)

    @cached_property
    def _items(self) -> list[Item]:
        return [self._item(member) for member in self.members]

    def _item(self, member: Member) -> Item:
        digest = reason = ""
        label, name, group, wnid = None, None, None, None
        try:
            digest = hashlib.sha256(self._bytes(member.shard, member.start, member.size)
                                    ).hexdigest()[:16]  # fmt: skip
            label, name, group, wnid = self._said(member)
        except (OSError, ValueError, RecursionError) as error:
            reason = why(error)
        path = f"{self.paths[member.shard].name}/{member.name}"
        return Item(plain_name(path), digest, group, label, name, wnid, reason)

    def _said(self, member: Member) -> tuple[int | None, str | None, str | None, str | None]:
        """Return label, name, group and wnid."""
        texts = {suffix: self._bytes(member.shard, *place).decode("utf-8", "replace").strip()
                 for suffix, place in member.said.items()}  # fmt: skip
        row = {}
        if texts.get(".json"):
            row = json.loads(texts[".json"])
            if not isinstance(row, dict):
                raise ValueError("its .json is no object")
        if "label" not in row and texts.get(".cls"):
            row = {**row, "label": _label(texts[".cls"])}
        found = taken_apart({**row, "image": member.name})
        name = found.name or (texts.get(".txt") or None if found.label is None else None)
        return found.label, name, found.group, found.wnid

    def _bytes(self, shard: int, start: int, size: int) -> bytes:
        with self.paths[shard].open("rb") as file:
            file.seek(start)
            content = file.read(size)
        if len(content) != size:
            raise ValueError("the shard ends before it does")
        return content

    def items(self) -> list[Item]:
        """Return its images, by row; none is decoded."""
        return self._items

    def read(self, row: int) -> Image.Image:
        """Decode one image, RGB."""
        member = self.members[row]
        content = self._bytes(member.shard, member.start, member.size)
        return decode(content, PurePosixPath(member.name.partition("#")[0]).suffix)


def _key(name: str) -> tuple[str, str]:
    """Return a file's name up to the first dot of its last part, and the rest in lower case."""
    folder, _, last = name.rpartition("/")
    stem, dot, rest = last.partition(".")
    return f"{folder}/{stem}", (dot + rest).lower()


def _hostile(member: tarfile.TarInfo, end: int) -> str:
    """Say why a member is not read; nothing where it may be."""
    parts = PurePosixPath(member.name).parts
    if member.isdir():
        return ""
    if member.issym() or member.islnk():
        return "it is a link"
    if not member.isreg() or member.issparse():
        return "it is no plain file"
    if member.name.startswith("/") or ".." in parts or "\\" in member.name:
        return "its path leads out of the shard"
    if member.size < 0 or member.offset_data + member.size > end:
        return "the shard ends before it does"
    return ""


def _label(text: str) -> int | str:
    return int(text) if re.fullmatch(r"-?[0-9]{1,9}", text) else text
