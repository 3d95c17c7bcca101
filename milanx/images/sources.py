"""Where probe images come from: what a user names, or a program hands over, as a `Source`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from milanx.errors import InputError, did_you_mean
from milanx.files import fingerprint
from milanx.images.decoding import decode as decode  # also found here, beside the sources
from milanx.images.decoding import is_image, why
from milanx.images.folder import Folder
from milanx.images.hf import PREFIX as HF
from milanx.images.hf import open_hf, read_spec
from milanx.images.hf import placed as placed_hf
from milanx.images.item import Item, Skipped, Source, SourceInfo, one_line, plain_name
from milanx.images.pictures import NAME, Pictures
from milanx.images.shards import Shards, is_pattern, is_shards, shard_paths
from milanx.images.table import Table, is_parquet
from milanx.images.vision import PREFIX as VISION
from milanx.images.vision import open_vision
from milanx.images.vision import placed as placed_vision

BUILTIN = "builtin:probe"
NEARBY = 6  # names beside a missing one that an error shows
GIVE = "give a folder, a .parquet file, .tar shards, hf:NAME, torchvision:NAME or builtin:probe"


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


def given_sources(images: Any) -> tuple[str | Path | Source, ...]:
    """Return sources as they are asked for: one or several, by name or as pictures.

    Args:
        images: a name or path, a `Source`, a sequence of these or of sequences of pictures, or one
            sequence or iterator of pictures (`milanx.images.pictures`).

    Raises:
        InputError: it is none of these, or empty.
    """
    if _is_source(images):
        return (images,)
    if isinstance(images, list | tuple) and any(map(_is_source, images)):
        return tuple(s if _is_source(s) else Pictures(NAME, s) for s in images)
    if isinstance(images, list | tuple) and not images:
        return ()
    return (Pictures(NAME, images),)


def _is_source(given: Any) -> bool:
    return isinstance(given, str | Path) or (hasattr(given, "items") and hasattr(given, "read")
                                             and hasattr(given, "info"))  # fmt: skip


def is_named(spec: str | Path) -> bool:
    """Whether a source is named by more than a path: of libraries, built-in, or by a pattern."""
    text = str(spec)
    return text.startswith((HF, VISION, "builtin:")) or is_pattern(text)


def place_of(spec: str | Path | Source) -> dict[str, str]:
    """Return what finds a source again, wherever one stands then.

    Returns:
        ``path`` of a folder or file, or ``spec``, as which it is named, with absolute paths in it;
        neither for what the package or a program makes.
    """
    if not isinstance(spec, str | Path) or str(spec) == BUILTIN:
        return {}
    text = str(spec)
    if text.startswith(HF):
        return {"spec": placed_hf(text)}
    if text.startswith(VISION):
        return {"spec": placed_vision(text)}
    if is_named(spec):
        return {"spec": str(located(spec).absolute() if is_pattern(text) else spec)}
    if ":" in text and not Path(spec).exists():
        return {}
    return {"path": str(located(spec).resolve())}


def source_name(spec: str | Path | Source) -> str:
    """Return what a source is called, before it is told from others of that name."""
    if not isinstance(spec, str | Path):
        return spec.name
    if str(spec).startswith(HF):
        wanted = read_spec(str(spec))
        name = Path(wanted.path).name + (f"-{wanted.split}" if wanted.split else "")
    elif str(spec).startswith(VISION):
        name = str(spec).removeprefix(VISION).partition("?")[0]
    else:
        name = BUILTIN if str(spec) == BUILTIN else Path(spec).stem
    return plain_name(name) or str(spec)


def open_sources(specs: Sequence[str | Path | Source]) -> list[Source]:
    """Open sources, each under a name of its own; no image is read yet.

    Raises:
        InputError: none is given, or one that `open_source` refuses.
    """
    if not specs:
        raise InputError("no probe images", "no source was given", "--images builtin:probe")
    names: set[str] = set()
    sources: list[Source] = []
    for spec in specs:
        name = source_name(spec)
        unique, number = name, 2
        while unique in names:
            unique, number = f"{name}-{number}", number + 1
        names.add(unique)
        if isinstance(spec, str | Path):
            sources.append(open_source(str(spec), unique))
        else:
            spec.name = unique
            sources.append(spec)
    return sources


def open_source(spec: str, name: str) -> Source:
    """Open a source by what a user calls it: a path, or a name as ``builtin:probe`` is.

    Raises:
        InputError: nothing of that name, or no images in it.
    """
    if spec == BUILTIN:
        return _Builtin(name)
    if spec.startswith("builtin:"):
        raise InputError(f"no images called {one_line(spec)}",
                         "the only built-in ones are builtin:probe",
                         "--images builtin:probe")  # fmt: skip
    if spec.startswith(HF):
        return open_hf(spec, name)
    if spec.startswith(VISION):
        return open_vision(spec, name)
    path = located(spec)
    shown = one_line(str(path))
    if is_shards(spec) and (path.is_file() or is_pattern(spec)):
        return Shards(shard_paths(str(path)), name)
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
        raise InputError(f"no images at {shown}", reason, GIVE) from error
    raise InputError(f"{shown} is no source of images", f"it is {kind}",
                     "give the folder that holds the images")  # fmt: skip


def check_there(spec: str | Path) -> None:
    """Refuse a path at which nothing is, without looking into what is there.

    Args:
        spec: as `open_source` takes it; of what is no path nothing is said.

    Raises:
        InputError: nothing is there, with what is near.
    """
    if is_named(spec):
        return
    path = located(spec)
    try:
        path.stat()
    except FileNotFoundError:
        raise _missing(path) from None
    except (OSError, ValueError):  # `open_source` says what is wrong with it
        return


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
    ways = [did_you_mean(name, there), GIVE]
    if any(c in str(path) for c in "*?["):
        ways = ["name folders without * and ?; those below a folder are read too"]
    return InputError(f"no images at {one_line(str(path))}", reason, [w for w in ways if w])
