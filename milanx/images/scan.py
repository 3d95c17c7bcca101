"""Every image of a source looked at once: its hash, or why it cannot be read; kept in the cache.

What is kept is only a saving of time. A file of it that is damaged, altered or of another version
is made again; where none can be written, work goes on without. A fault of the machine, such as a
disk that fails or a file that may not be read, is not kept: another time the image may be there.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, __version__

from milanx.errors import MilanxError
from milanx.files import cache_dir, fingerprint, read_json, write_json
from milanx.files.jsons import json_text
from milanx.files.room import make_room, used
from milanx.images.decoding import is_fault, why
from milanx.images.item import Source, one_line
from milanx.images.near import picture_hash

SCAN, SCAN_VERSION = "milanx-scan", 2


@dataclass(frozen=True)
class Look:
    """What was seen of an image.

    Attributes:
        hash: as `picture_hash` gives it; empty where it cannot be read.
        why: it cannot be read; empty where it can.
        lasting: the image is so, and the machine did not fail.
    """

    hash: str
    why: str = ""
    lasting: bool = True


def scan(source: Source, rows: Sequence[int]) -> tuple[dict[int, Look], str]:
    """Decode images of a source once, but for those that the cache knows.

    Returns:
        What was seen of each row, and what to say where the cache cannot be written.
    """
    Image.init()  # what can be opened, before two threads ask for it
    path = _place(source, rows)
    kept = _read(path, len(rows))
    looks = {row: known for row, known in zip(rows, kept, strict=True) if known}
    todo = [row for row in rows if row not in looks]
    with ThreadPoolExecutor(2) as pool:
        looks.update(zip(todo, pool.map(lambda row: _look(source, row), todo), strict=True))
    if not any(looks[row].lasting for row in todo):
        return looks, ""
    return looks, _write(path, [looks[row] for row in rows])


def _look(source: Source, row: int) -> Look:
    """Decode one image; whatever it raises is the image's own affair."""
    if reason := source.items()[row].why:
        return Look("", reason, False)
    try:
        return Look(picture_hash(source.read(row)))
    except Exception as error:
        return Look("", why(error), not is_fault(error))


def _place(source: Source, rows: Sequence[int]) -> Path | None:
    """The file of a scan; what can be decoded depends on Pillow and its plugins."""
    try:
        folder = cache_dir("scans")
    except (OSError, RuntimeError):  # there is no home
        return None
    key = fingerprint(list(rows), __version__, sorted(Image.OPEN))
    return folder / f"{source.info.fingerprint}-{key}.json"


def _read(path: Path | None, count: int) -> list[Look | None]:
    """Return what is kept of each row; nothing where the file is not as it was written."""
    nothing: list[Look | None] = [None] * count
    if path is None:
        return nothing
    try:
        content = read_json(path, SCAN, SCAN_VERSION)
    except (MilanxError, OSError, RecursionError):
        return nothing
    rows = content.get("rows")
    if content.get("digest") != fingerprint(rows) or not isinstance(rows, list):
        return nothing
    if len(rows) != count or not all(map(_is_row, rows)):
        return nothing
    used(path)
    return [None if row is None else Look(*row) for row in rows]


def _is_row(row: Any) -> bool:
    return row is None or (
        isinstance(row, list) and len(row) == 2 and all(isinstance(v, str) for v in row)
    )


def _write(path: Path | None, looks: Sequence[Look]) -> str:
    """Keep what lasts; returns what to say where that cannot be."""
    if path is None:
        return "images are looked at again next time: there is no folder for caches"
    rows = [[look.hash, look.why] if look.lasting else None for look in looks]
    try:
        if not make_room(len(json_text(rows)), path):
            return ""
        write_json(path, SCAN, SCAN_VERSION, {"digest": fingerprint(rows), "rows": rows})
    except MilanxError as error:
        reason = error.why
    except OSError as error:
        reason = why(error)
    else:
        return ""
    return (f"images are looked at again next time: {one_line(str(path.parent))} cannot be "
            f"written ({reason}); MILANX_CACHE names another")  # fmt: skip
