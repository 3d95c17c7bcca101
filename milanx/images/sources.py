"""Where probe images come from: a folder, a parquet file, or the built-in ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from PIL import Image

from milanx.errors import InputError, did_you_mean
from milanx.files import fingerprint
from milanx.images.decoding import decode as decode  # also found here, beside the sources
from milanx.images.decoding import is_image, why
from milanx.images.folder import Folder
from milanx.images.item import Item, Skipped, Source, SourceInfo, one_line, plain_name
from milanx.images.table import Table, is_parquet

BUILTIN = "builtin:probe"
NEARBY = 6  # names beside a missing one that an error shows


class _Builtin:
    """The images that come with the package."""

    def __init__(self, name: str) -> None:
        from milanx.images import builtin

        self.name, self.views = name, builtin.views()
        self.faults: list[Skipped] = []
        self.ignored: dict[str, int] = {}

    @cached_property
    def info(self) -> SourceInfo:
        from milanx.images.builtin import CONCEPTS

        digest = fingerprint([i.fingerprint for i in self._items])
        return SourceInfo(self.name, "builtin", len(self.views), digest, True, CONCEPTS)

    @cached_property
    def _items(self) -> list[Item]:
        from milanx.images import builtin

        return [
            Item(view.path, digest, view.group)
            for view, digest in zip(self.views, builtin.fingerprints(), strict=True)
        ]

    def items(self) -> list[Item]:
        return self._items

    def read(self, row: int) -> Image.Image:
        return self.views[row].read()


def located(spec: str | Path) -> Path:
    """Return the path that a user means: ``~`` is home, unless something has that very name.

    Raises:
        InputError: there is no such home.
    """
    path = Path(spec)
    if os.path.lexists(path):
        return path
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise InputError(f"no images at {one_line(str(spec))}", str(error),
                         "write the whole path") from error  # fmt: skip


def open_sources(specs: Sequence[str | Path]) -> list[Source]:
    """Open sources, each under a name of its own; no image is read yet.

    Raises:
        InputError: none is given, or one that `open_source` refuses.
    """
    if not specs:
        raise InputError("no probe images", "no source was given", "--images builtin:probe")
    names: set[str] = set()
    sources: list[Source] = []
    for spec in specs:
        name = BUILTIN if str(spec) == BUILTIN else plain_name(Path(spec).stem) or str(spec)
        unique, number = name, 2
        while unique in names:
            unique, number = f"{name}-{number}", number + 1
        names.add(unique)
        sources.append(open_source(str(spec), unique))
    return sources


def open_source(spec: str, name: str) -> Source:
    """Open a source by what a user calls it: a folder, a parquet file or ``builtin:probe``.

    Raises:
        InputError: nothing of that name, or no images in it.
    """
    if spec == BUILTIN:
        return _Builtin(name)
    if spec.startswith("builtin:"):
        raise InputError(f"no images called {one_line(spec)}",
                         "the only built-in ones are builtin:probe",
                         "--images builtin:probe")  # fmt: skip
    path = located(spec)
    shown = one_line(str(path))
    try:
        path.stat()
        if path.is_dir():
            return Folder(path, name)
        if not path.is_file():
            raise InputError(f"{shown} is no source of images", "it is neither folder nor file",
                             "give the folder that holds the images")  # fmt: skip
        if is_parquet(path):
            return Table(path, name)
        kind = "a single image" if is_image(str(path)) else "a single file, and no parquet"
    except FileNotFoundError:
        raise _missing(path) from None
    except (OSError, ValueError) as error:
        reason = why(error) if isinstance(error, OSError) else str(error)
        raise InputError(f"no images at {shown}", reason, "give a folder, a .parquet file, or "
                         "builtin:probe") from error  # fmt: skip
    raise InputError(f"{shown} is no source of images", f"it is {kind}",
                     "give the folder that holds the images")  # fmt: skip


def _missing(path: Path) -> InputError:
    """Say that there is no such path, and what is there near it."""
    above = next((p for p in path.absolute().parents if p.is_dir()), Path("/"))
    name = path.absolute().relative_to(above).parts[0]
    try:
        there = sorted(n for n in os.listdir(above) if not n.startswith("."))
    except OSError:
        there = []
    shown = ", ".join(map(one_line, there[:NEARBY])) + ", ..." * (len(there) > NEARBY)
    if path.is_symlink():
        reason = f"it is a link to {one_line(os.readlink(path))}, which is not there"
    else:
        reason = (f"there is no such file or folder; {one_line(str(above))} holds "
                  f"{shown or 'nothing'}")  # fmt: skip
    ways = [did_you_mean(name, there), "give a folder, a .parquet file, or builtin:probe"]
    if any(c in str(path) for c in "*?["):
        ways = ["name folders without * and ?; those below a folder are read too"]
    return InputError(f"no images at {one_line(str(path))}", reason, [w for w in ways if w])
