"""Images under a folder: which of its files they are, whatever links and names there are."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath

from PIL import Image

from milanx.errors import InputError
from milanx.files import fingerprint
from milanx.images.decoding import decode, is_image, suffixes, why
from milanx.images.item import Item, Skipped, SourceInfo, one_line, plain_name

SHOWN = 6  # suffixes that an error names


@dataclass
class _Found:
    """What lies under a folder.

    Attributes:
        files: paths of images, relative to the folder, sorted by their parts.
        faults: (path, why) of folders and links that cannot be followed.
        ignored: how many files of each suffix are no images.
    """

    files: list[str] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)


def _walk(root: str) -> _Found:
    """Look for images under a folder, hidden files and folders aside.

    Links are followed; every folder is entered once, by its own name rather than by a link, and
    none that the folder itself lies in: so loops end.
    """
    found, seen = _Found(), {_identity(str(p)) for p in Path(os.path.realpath(root)).parents}
    folders, links = [""], list[str]()
    while folders or links:
        inside = folders.pop() if folders else links.pop(0)
        try:
            identity = _identity(os.path.join(root, inside))
            if identity in seen:
                continue
            seen.add(identity)
            with os.scandir(os.path.join(root, inside)) as entries:
                here = sorted(entries, key=lambda e: os.fsencode(e.name))
        except OSError as error:
            found.faults.append((inside or ".", why(error)))
            continue
        for entry in here:
            name = os.path.join(inside, entry.name)
            if entry.name.startswith("."):
                continue
            try:
                if entry.is_dir():
                    (links if entry.is_symlink() else folders).append(name)
                elif entry.is_file():
                    _sort(found, root, name)
                elif entry.is_symlink():
                    found.faults.append((name, "it is a link to nothing"))
            except OSError as error:
                found.faults.append((name, why(error)))
    found.files.sort(key=lambda name: [os.fsencode(part) for part in PurePath(name).parts])
    return found


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _sort(found: _Found, root: str, name: str) -> None:
    """Note a file as an image or as none."""
    if is_image(os.path.join(root, name)):
        found.files.append(name)
    else:
        found.ignored[PurePath(name).suffix.lower() or "no suffix"] += 1


def counted(ignored: dict[str, int]) -> str:
    """Say how many files of each suffix there are, such as ``10 .txt, 2 .json``."""
    first = sorted(ignored.items(), key=lambda pair: (-pair[1], pair[0]))
    more = sum(count for _, count in first[SHOWN:])
    said = [f"{count} {one_line(suffix)}" for suffix, count in first[:SHOWN]]
    return ", ".join([*said, f"{more} others"] if more else said)


class Folder:
    """Images under a folder; the name of a subfolder is the class.

    Raises:
        InputError: it holds no image, or cannot be read.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.root, self.name = root, name
        found = _walk(str(root))
        self.files, self.ignored = found.files, dict(found.ignored)
        self.faults = [Skipped(name, plain_name(p), reason) for p, reason in found.faults]
        if not self.files:
            raise _without_images(root, self.faults, self.ignored)

    @cached_property
    def info(self) -> SourceInfo:
        """What is known of it; every image is read for its fingerprint."""
        digest = fingerprint([[i.path, i.fingerprint] for i in self._items])
        return SourceInfo(self.name, "folder", len(self.files), digest)

    @cached_property
    def _items(self) -> list[Item]:
        return [self._item(file) for file in self.files]

    def _item(self, file: str) -> Item:
        digest = reason = ""
        try:
            with open(os.path.join(self.root, file), "rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()[:16]
        except OSError as error:
            reason = why(error)
        parts = PurePath(plain_name(file)).parts
        name = parts[0] if len(parts) > 1 else None
        return Item("/".join(parts), digest, None, name=name, why=reason)

    def items(self) -> list[Item]:
        """Return its images, by row; none is decoded."""
        return self._items

    def read(self, row: int) -> Image.Image:
        """Decode one image, RGB."""
        file = self.files[row]
        with open(os.path.join(self.root, file), "rb") as opened:
            return decode(opened, PurePath(file).suffix)


def _without_images(root: Path, faults: list[Skipped], ignored: dict[str, int]) -> InputError:
    """Say why a folder has no images, and what to do."""
    what = f"no images in {one_line(str(root))}"
    if faults:
        fault = faults[0]
        first = "it" if fault.path == "." else one_line(fault.path)
        return InputError(what, f"{first} cannot be read: {fault.why}", "make it readable")
    if ".parquet" in ignored:
        return InputError(what, f"it holds {counted(ignored)}",
                          "name the .parquet file itself; --images may be repeated")  # fmt: skip
    if ".tar" in ignored:
        return InputError(what, f"it holds {counted(ignored)}",
                          f"name the shards: --images '{one_line(str(root))}/*.tar'")  # fmt: skip
    usual = [s for s in (".jpg", ".png", ".webp", ".tif", ".bmp", ".gif") if s in suffixes()]
    there = sum(ignored.values())
    return InputError(
        what,
        f"none of its {there} files is an image that can be read ({counted(ignored)})"
        if there else "the folder is empty, or all in it is hidden",
        f"give images such as {', '.join(usual)}; others are to be converted",
    )  # fmt: skip
