"""What a repository may hold: files of known kinds, at paths that stay in their folder."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import PurePosixPath

from milanx.errors import FormatError
from milanx.files.kinds import DESCRIBER, RUN, TABLE, Kind

# What milanx reads, and what it shows to people; nothing else of a repository is fetched.
READ = (".safetensors", ".json", ".parquet", ".npy", ".yaml", ".txt")
SHOWN = (".md", ".html", ".png", ".jpg", ".jpeg")
# Pickles by name: they run code when they are opened by the libraries that open them.
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill")
# What milanx pushes; a run holds a table too, so it comes first.
PUSHED = (RUN, DESCRIBER, TABLE)
HOUSEHOLD = (".gitattributes", ".gitignore", "README.md", "LICENSE", "LICENSE.md")
ODD = re.compile(r"[\x00-\x1f\x7f\\]|[\ud800-\udfff]")
DEEPEST, LONGEST = 16, 255  # folders in one another; bytes of a name, on any disk


def check_path(where: str, name: str) -> None:
    """Refuse a path that would leave the folder it is written to, on any system.

    Args:
        where: the repository, for the error.
        name: the path in it.

    Raises:
        FormatError: it would, or no disk has such a name.
    """
    parts = name.split("/")
    drive = re.match(r"[A-Za-z]:", name)
    odd = ODD.search(name) or any(part in ("", ".", "..") for part in parts)
    long = len(parts) > DEEPEST or any(len(p.encode("utf-8", "replace")) > LONGEST for p in parts)
    if drive or odd or long:
        raise FormatError(
            f"{where} holds a file called {name[:200]!r}",
            "its path leaves the folder that it would be written to, or fits no disk",
            "nothing of it was fetched; tell its owner",
        )


def fetched(where: str, names: Iterable[str], kind: Kind) -> list[str]:
    """Return the files of a repository that are fetched: parts of a kind of folder.

    What else lies there, a licence say, is passed over.

    Args:
        where: the repository, for errors.
        names: of all its files.
        kind: of the folder that is made of them.

    Raises:
        FormatError: a path leaves the folder, there is a pickle, or a part of no known kind of
            file.
    """
    found = []
    for name in sorted(names):
        check_path(where, name)
        ending = PurePosixPath(name).suffix.lower()
        part = kind.part(name) is not None and not name.startswith(".")
        if ending in PICKLES or (part and ending not in (*READ, *SHOWN)):
            raise FormatError(
                f"{where} holds {name}", "such a file can run code when it is opened"
                if ending in PICKLES else f"milanx opens {', '.join(READ)} alone",
                ["nothing of it was fetched", f"ask its owner to take {name} out"],
            )  # fmt: skip
        if part:
            found.append(name)
    return found


def holds(names: Collection[str]) -> Kind | None:
    """Return what a repository with these files is, None for what milanx did not push."""
    return next((kind for kind in PUSHED if kind.markers[0] in names), None)
