"""How much of the disk caches take, and what goes first where it is too much.

What milanx can make again is held to a limit together: arrays (`milanx.files.arrays`), looks at
images, rows of streams, digests, lists of layers. What was not used for the longest is removed
first; never what a process has open or mapped, as far as the system
tells (Linux), and never what one writes. Elsewhere an open file stays readable to who has it, or
cannot be removed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from milanx.errors import InputError
from milanx.files import cache_dir
from milanx.files.lock import check_free
from milanx.files.replacing import lasting_name

LIMIT = "MILANX_CACHE_GB"
USUAL = 8.0  # gigabytes; the views of a default run take .13
ARRAYS = ".safetensors"
# Folders of the cache all of whose files, or folders, can be made again, in seconds or minutes.
SHELVES = frozenset({"digests", "layers", "scans", "streams"})
MONTH = 30 * 24 * 3600  # seconds
PROCESSES = Path("/proc")
STALE = 24 * 3600  # seconds after which nobody writes a temporary file any more


def limit() -> int:
    """Return how many bytes of the cache may be taken (``MILANX_CACHE_GB``, else 8).

    Raises:
        InputError: it is no number, or below 0.
    """
    told = os.environ.get(LIMIT, "").strip()
    try:
        gigabytes = float(told) if told else USUAL
        if not 0 <= gigabytes < float("inf"):
            raise ValueError(told)
    except ValueError as error:
        raise InputError(f"{LIMIT} cannot be {told!r}", "it says how many gigabytes the cache "
                         "may hold", f"leave it out for {USUAL:g}, or give a number; 0 keeps "
                         "nothing") from error  # fmt: skip
    return int(gigabytes * 10**9)


def used(path: Path) -> None:
    """Note that a file of the cache was used now."""
    with contextlib.suppress(OSError):  # of a cache that can be read and not written
        os.utime(path)


def bounded(path: Path) -> bool:
    """Whether a path is that of something of the cache which the limit is for."""
    root = cache_dir()
    if not path.is_relative_to(root) or len(path.relative_to(root).parts) != 2:
        return False
    return path.parent.name in SHELVES or lasting_name(path.name).endswith(ARRAYS)


def make_room(wanted: int, replaced: Path) -> bool:
    """Remove what of the cache was not used for the longest, until something fits.

    Args:
        wanted: bytes of it.
        replaced: its path; what lies there goes when it is written.

    Returns:
        Whether it fits: not where it alone is above the limit.
    """
    most = limit()
    if wanted > most:
        return False
    clear(most - wanted, replaced)
    return True


def clear(most: int, kept: Path) -> None:
    """Remove what of the cache was not used for the longest, until the rest takes so many bytes.

    Args:
        most: bytes.
        kept: a path that is left and not counted.
    """
    there = [entry for entry in _entries() if entry.path != kept]
    total = sum(entry.size for entry in there)
    held: frozenset[Path] | None = None
    for entry in sorted(there, key=lambda entry: entry.used):
        if lasting_name(entry.path.name) != entry.path.name:  # it is being written, or was
            if time.time() - entry.used < STALE:
                continue
        elif total <= most:
            continue
        held = _open_files() if held is None else held
        if not entry.is_free(held):
            continue
        entry.remove()
        total -= entry.size


def forget_unused(shelf: str, seconds: float = MONTH) -> None:
    """Remove what of a folder of the cache nobody read or wrote for so long, each as a whole.

    For what takes too long to make to give way to other kinds: photos that trainings encoded.
    """
    held: frozenset[Path] | None = None
    for entry in _entries(cache_dir(shelf)):
        if entry.files and time.time() - entry.used > seconds:
            held = _open_files() if held is None else held
            if entry.is_free(held):
                entry.remove()


@dataclass(frozen=True)
class _Entry:
    """A file or folder of the cache that can be made again.

    Attributes:
        path: its place.
        files: of it, itself or those in it, with what was known of each.
    """

    path: Path
    files: tuple[tuple[Path, os.stat_result], ...]

    @cached_property
    def size(self) -> int:
        """Bytes that it takes."""
        return sum(told.st_size for _, told in self.files)

    @cached_property
    def used(self) -> float:
        """When it was last written, used or, as far as the system notes that, read."""
        return max((max(told.st_mtime, told.st_atime) for _, told in self.files), default=0.0)

    def is_free(self, held: frozenset[Path]) -> bool:
        """Whether nobody has it: nobody made or used it since it was looked at, or has it open."""
        if any(path in held for path, _ in self.files):
            return False
        try:
            check_free(self.path)
            return all(path.stat().st_mtime == told.st_mtime for path, told in self.files)
        except (InputError, OSError):
            return False

    def remove(self) -> None:
        """Remove it; what the system does not let go stays."""
        if self.path.is_dir():
            shutil.rmtree(self.path, ignore_errors=True)
            return
        with contextlib.suppress(OSError):
            self.path.unlink()


def _entries(shelf: Path | None = None) -> list[_Entry]:
    """Return what of the cache the limit is for, what is being written included; or a folder's."""
    paths = [p for p in cache_dir().glob("*/*") if bounded(p)] if shelf is None else shelf.glob("*")
    return [_Entry(path, tuple(_told(path))) for path in paths
            if not path.is_symlink() and not path.name.endswith((".lock", ".holder"))]  # fmt: skip


def _told(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for file in path.rglob("*") if path.is_dir() else [path]:
        with contextlib.suppress(OSError):  # another process removed it
            if not file.is_symlink() and file.is_file():
                yield file, file.stat()


def _open_files() -> frozenset[Path]:
    """Return the files of the cache that some process has open or mapped, as the system tells."""
    root, found = str(cache_dir().resolve()), set()
    for process in PROCESSES.glob("[0-9]*"):
        with contextlib.suppress(OSError, UnicodeDecodeError):  # another user's, or just ended
            for line in (process / "maps").read_text().splitlines():
                if (at := line.find(root)) > 0:
                    found.add(line[at:])
        with contextlib.suppress(OSError):
            for number in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    found.add(os.readlink(number))
    return frozenset(cache_dir() / Path(name).relative_to(root) for name in found
                     if name.startswith(root + os.sep))  # fmt: skip


def sizes() -> dict[str, int]:
    """Return how many bytes each folder of the cache takes."""
    root = cache_dir()
    found: dict[str, int] = {}
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError):
                if path.is_file() and not path.is_symlink():
                    found[folder.name] = found.get(folder.name, 0) + path.stat().st_size
    return found
