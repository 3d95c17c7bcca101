"""What files of a folder are told by: a sha256 digest each, in the folder's index.

The index, a json file, is told by its own ``seal``, which stands for everything else in it. Folders
of an earlier milanx have neither, and are read as they are. A digest tells damage; it is no
signature, for whoever changes a file on purpose can write its digest too.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milanx.errors import FormatError

SEAL, FILES = "seal", "files"  # keys of an index
SEAL_DIGITS = 64
WHOLE = 256 * 2**20  # bytes, .2 s of one core; larger files are told by size, and by `check`
MOST_TEXT = 256 * 2**20  # bytes of a json file; none of milanx's comes near
AGAIN = "make it again"


@dataclass(frozen=True)
class Entry:
    """One file: its size in bytes and its sha256 digest in hex."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Listing:
    """The files of a folder, as its index tells them.

    Attributes:
        root: the folder.
        files: by path relative to it; None for a folder of an earlier milanx, which told none.
    """

    root: Path
    files: Mapping[str, Entry] | None

    @classmethod
    def of(cls, root: Path, names: Iterable[str]) -> Listing:
        """Read files and tell them.

        Raises:
            FormatError: one is not there.
        """
        files = {}
        for name in sorted(names):
            size = regular(root / name).st_size
            files[name] = Entry(size, digest_file(root / name))
        return cls(root, files)

    @classmethod
    def read(cls, root: Path, content: Mapping[str, Any], index: Path) -> Listing:
        """Read what `to_dict` gave out of the content of an index.

        Raises:
            FormatError: it is damaged.
        """
        told = content.get(FILES)
        if told is None:
            return cls(root, None)
        try:
            files = {str(name): Entry(**entry) for name, entry in told.items()}
            for name, entry in files.items():
                parts = Path(name).parts
                if (
                    not parts
                    or Path(name).is_absolute()
                    or ".." in parts
                    or len(entry.sha256) != 64
                ):
                    raise ValueError(f"no file {name!r}")
                if isinstance(entry.bytes, bool) or not isinstance(entry.bytes, int):
                    raise ValueError(f"the size of {name!r} is {entry.bytes!r}")
        except (AttributeError, TypeError, ValueError) as error:
            raise FormatError(f"{index} is damaged", f"its {FILES}: {error}", AGAIN) from error
        return cls(root, files)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return what an index says of them."""
        return {name: {"bytes": e.bytes, "sha256": e.sha256}
                for name, e in (self.files or {}).items()}  # fmt: skip

    def check_there(self, prefix: str = "") -> None:
        """Refuse a folder that lacks a file, or has one of another size; reads none of them.

        Raises:
            FormatError: the first such file.
        """
        for name in self.files or ():
            if name.startswith(prefix):
                self._check_size(name)

    def check(self, name: str) -> Path:
        """Return a file after a look at its bytes: all of them up to `WHOLE`, else its size.

        Raises:
            FormatError: it is not there, or not what the index tells.
        """
        entry = (self.files or {}).get(name)
        if entry is not None and entry.bytes <= WHOLE:
            self._check_bytes(name, entry)
        elif entry is not None:
            self._check_size(name)
        else:
            regular(self.root / name)
        return self.root / name

    def faults(self, advance: Callable[[int], None] = lambda n: None) -> list[FormatError]:
        """Read every file whole; returns what is wrong, ``advance`` is told of each file."""
        found = []
        for name, entry in (self.files or {}).items():
            try:
                self._check_bytes(name, entry)
            except FormatError as error:
                found.append(error)
            advance(1)
        return found

    def _check_size(self, name: str) -> None:
        size, told = regular(self.root / name).st_size, (self.files or {})[name].bytes
        if size != told:
            raise FormatError(
                f"{self.root / name} is damaged", f"it has {size} bytes, and had {told} when it "
                "was written", AGAIN,
            )  # fmt: skip

    def _check_bytes(self, name: str, entry: Entry) -> None:
        self._check_size(name)
        if digest_file(self.root / name) != entry.sha256:
            raise FormatError(
                f"{self.root / name} is damaged", "its bytes are not those that were written "
                "(another sha256 digest)", AGAIN,
            )  # fmt: skip


def regular(path: Path, most: int | None = None) -> os.stat_result:
    """Return what is known of a file that is one: no link, folder, pipe or device.

    Args:
        path: the file.
        most: bytes that it may have.

    Raises:
        FormatError: there is none, it is something else, or it is larger.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError as error:
        raise FormatError(f"{path} does not exist", "this file belongs there", AGAIN) from error
    except (OSError, ValueError) as error:
        raise FormatError(f"{path} cannot be read", str(error), AGAIN) from error
    if not stat.S_ISREG(found.st_mode):
        kind = "a link" if stat.S_ISLNK(found.st_mode) else "no regular file"
        raise FormatError(
            f"{path} is {kind}", "milanx reads nothing but regular files here",
            "copy what it stands for into its place (cp -rL copies a folder so)",
        )  # fmt: skip
    if most is not None and found.st_size > most:
        raise FormatError(f"{path} is too large", f"it has {found.st_size} bytes; at most {most} "
                          "are read", AGAIN)  # fmt: skip
    return found


def digest_file(path: Path) -> str:
    """Return the sha256 digest of a file's bytes, 64 hex digits.

    Raises:
        FormatError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FormatError(f"{path} cannot be read", str(error), AGAIN) from error


def seal_of(content: Mapping[str, Any]) -> str:
    """Return the digest of what an index says beside its seal, 64 hex digits."""
    rest = {key: value for key, value in content.items() if key != SEAL}
    text = json.dumps(json.loads(json.dumps(rest)), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def check_seal(path: Path, content: Mapping[str, Any]) -> None:
    """Refuse a sealed json file whose text was changed; one without a seal passes.

    Raises:
        FormatError: the seal is another's.
    """
    sealed = SEAL in content and content[SEAL] == seal_of(content)
    if not sealed and (SEAL in content or _sealed_as_another(content)):
        raise FormatError(
            f"{path} is damaged",
            "its text is not that which was written (its seal is another's)",
            [AGAIN, f"if you changed it on purpose, take the entry {SEAL!r} out of it"],
        )


def _sealed_as_another(content: Mapping[str, Any]) -> bool:
    """Whether the word ``seal`` itself is what was changed."""
    return any(
        value == seal_of({key: other for key, other in content.items() if key != name})
        for name, value in content.items()
        if isinstance(value, str) and len(value) == SEAL_DIGITS
    )


def is_whole(root: Path, index: Path) -> bool:
    """Whether a folder of a cache is what was written, by what its index tells of all its files.

    Args:
        root: the folder.
        index: its json file, of `milanx.files.write_json`, with `FILES`.
    """
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        check_seal(index, content)
        listing = Listing.read(root, content, index)
        for name in listing.files or ():
            listing.check(name)
    except (FormatError, OSError, ValueError, AttributeError, RecursionError):
        return False
    return listing.files is not None


def told(root: Path) -> dict[str, dict[str, Any]]:
    """Return what the index of a folder says of all files that lie in it."""
    names = [str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()]
    return Listing.of(root, names).to_dict()
