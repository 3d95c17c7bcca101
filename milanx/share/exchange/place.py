"""Where an export goes: nothing is replaced but an earlier export, and that when told to.

A folder says what it is by ``milanx-export.json``, which also keeps what the format has no room
for, in words, and the layers' names where folders cannot bear them. A table says it by its head.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milanx.errors import FormatError, InputError
from milanx.files import read_json, write_json
from milanx.files.kinds import EXPORT
from milanx.files.replacing import check_place

MARKER, FORMAT, VERSION = "milanx-export.json", "milanx-export", 1
HEAD = 4096  # bytes of a table that are looked at


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        root: the file or folder.
        format: its format.
        units: how many units it holds.
        bytes: of all its files.
        notes: what the format cannot hold and is left out, a sentence each.
    """

    root: Path
    format: str
    units: int
    bytes: int
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as json has it."""
        return {"root": str(self.root), "format": self.format, "units": self.units,
                "bytes": self.bytes, "notes": list(self.notes)}  # fmt: skip


def check_folder(path: Path, overwrite: bool) -> None:
    """Refuse, before the work, a folder that cannot be written.

    Raises:
        InputError: something is there that must not be replaced.
    """
    check_place(path, EXPORT, overwrite=overwrite)


def check_table(path: Path, head: bytes, overwrite: bool) -> None:
    """Refuse, before the work, a file that cannot be written.

    Args:
        path: the file.
        head: how one that milanx wrote begins.
        overwrite: such a one is replaced.

    Raises:
        InputError: something is there that must not be replaced.
    """
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_file():
        kind = "a link" if path.is_symlink() else "no file"
        raise InputError(f"cannot write {path}", f"it is {kind}", "choose another name")
    with path.open("rb") as file:
        own = file.read(max(HEAD, len(head))).startswith(head)
    if not overwrite:
        raise InputError(f"{path} is there already", "nothing is replaced unasked",
                         ["choose another name", *["--overwrite replaces it"] * own])  # fmt: skip
    if not own:
        raise InputError(f"{path} is not overwritten", "it does not begin as this table does, so "
                         "milanx did not write it", "choose another name")  # fmt: skip


def write_marker(
    root: Path, format: str, target: str, layers: dict[str, str], notes: tuple[str, ...]
) -> None:
    """Write ``milanx-export.json``.

    Args:
        root: the folder.
        format: of the export.
        target: the model's name.
        layers: the names of the layers by the folders that hold them.
        notes: what is left out.
    """
    content = {"to": format, "target": target, "layers": layers, "left_out": list(notes)}
    write_json(root / MARKER, FORMAT, VERSION, content)


def read_marker(root: Path) -> dict[str, Any]:
    """Read ``milanx-export.json`` of a folder or one above it; nothing where there is none.

    Raises:
        FormatError: it is damaged.
    """
    for folder in (root, *root.absolute().parents[:2]):
        if (folder / MARKER).is_file():
            content = read_json(folder / MARKER, FORMAT, VERSION)
            if not isinstance(content.get("layers"), dict):
                raise FormatError(f"{folder / MARKER} is damaged", "its layers are no names",
                                  "export again")  # fmt: skip
            return content
    return {}


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(p.stat().st_size for p in files)
