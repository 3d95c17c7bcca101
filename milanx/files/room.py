"""How much of the disk caches take, and what goes first where it is too much.

Of what milanx can make again, the arrays (`milanx.files.arrays`) are held to a limit together: the
files that were not used for the longest are removed. A file that another process has open, or
mapped into its memory, stays readable there.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from milanx.errors import InputError
from milanx.files import cache_dir
from milanx.files.replacing import lasting_name

LIMIT = "MILANX_CACHE_GB"
USUAL = 8.0  # gigabytes; the views of a default run take .13
ARRAYS = ".safetensors"
STALE = 24 * 3600  # seconds after which nobody writes a temporary file any more


def limit() -> int:
    """Return how many bytes arrays of the cache may take (``MILANX_CACHE_GB``, else 8).

    Raises:
        InputError: it is no number, or below 0.
    """
    told = os.environ.get(LIMIT, "").strip()
    try:
        gigabytes = float(told) if told else USUAL
        if not 0 <= gigabytes < float("inf"):
            raise ValueError(told)
    except ValueError as error:
        raise InputError(f"{LIMIT} cannot be {told!r}", "it says how many gigabytes of arrays the "
                         "cache may hold", f"leave it out for {USUAL:g}, or give a number; 0 keeps "
                         "nothing") from error  # fmt: skip
    return int(gigabytes * 10**9)


def used(path: Path) -> None:
    """Note that a file of the cache was used now."""
    with contextlib.suppress(OSError):  # of a cache that can be read and not written
        os.utime(path)


def make_room(wanted: int, replaced: Path) -> bool:
    """Remove the arrays of the cache that were not used for the longest, until a file fits.

    Args:
        wanted: bytes of the file.
        replaced: its path; what lies there goes when it is written.

    Returns:
        Whether it fits: not where it alone is above the limit.
    """
    most = limit()
    if wanted > most:
        return False
    there = {path: told for path, told in _arrays() if path != replaced}
    total = wanted + sum(told.st_size for told in there.values())
    for path, told in sorted(there.items(), key=lambda item: item[1].st_mtime):
        if lasting_name(path.name) != path.name:  # a process writes it, or was killed
            if time.time() - told.st_mtime < STALE:
                continue
        elif total <= most:
            continue
        with contextlib.suppress(OSError):
            path.unlink()
        total -= told.st_size
    return True


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


def _arrays() -> list[tuple[Path, os.stat_result]]:
    """Return the arrays of the cache, those that are being written included."""
    found = []
    for path in cache_dir().glob("*/*"):
        if lasting_name(path.name).endswith(ARRAYS) and not path.is_symlink():
            with contextlib.suppress(OSError):  # another process removed it
                found.append((path, path.stat()))
    return found
