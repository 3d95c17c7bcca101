"""What may be replaced: what milanx wrote, when it is told to, and nothing else.

A folder is told by its format file (`Kind.markers`), and every entry in it by the list of parts
that its kind has (`milanx.files.kinds`). Whatever is not on the list, a link or a dotfile of the
user's say, keeps the whole folder from being replaced. Extraction and describing go on in a run
folder without being told; there they replace its parts alone, and those only where they are what
their names say.
"""

from __future__ import annotations

import glob
import json
import os
import re
import secrets
import shutil
from pathlib import Path, PurePosixPath

from milanx.errors import InputError
from milanx.files.kinds import Kind

GENERATOR = re.compile(r'<meta name="generator" content="(milanx [a-z]+) \d+">')
HEAD = 1000  # bytes of a page in which its format stands
TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}\.(?:tmp|old)")  # what `beside` makes
OTHER = "choose another folder"
OVERWRITE = "--overwrite replaces it"


def beside(path: Path, ending: str) -> Path:
    """Return a new temporary name beside ``path``; ``ending`` is ``tmp`` or ``old``."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.{ending}")


def lasting_name(name: str) -> str:
    """Return the name for which `beside` made ``name``, or ``name`` itself."""
    found = TEMPORARY.fullmatch(name)
    return found[1] if found else name


def format_of(path: Path) -> str | None:
    """Return the format that a json, parquet or html file says it has, None if it says none."""
    try:
        if not path.is_file():  # a pipe would never end
            return None
        if path.suffix == ".json":
            content = json.loads(path.read_text(encoding="utf-8"))
            found = content.get("format") if isinstance(content, dict) else None
            return found if isinstance(found, str) else None
        if path.suffix == ".html":
            with path.open("rb") as file:
                match = GENERATOR.search(file.read(HEAD).decode("utf-8", "replace"))
            return match[1] if match else None
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return ((pq.read_schema(path).metadata or {}).get(b"format") or b"").decode() or None
        except pa.ArrowException:
            return None
    except (OSError, ValueError, RecursionError):
        return None


def check_place(path: Path, kind: Kind, *, overwrite: bool = False, resumes: bool = False) -> None:
    """Refuse, before the work, a place where a folder of ``kind`` cannot be written.

    Args:
        path: the folder to be written.
        kind: of the folder.
        overwrite: a folder of the kind may be there, which is replaced as a whole.
        resumes: it may be there and is gone on with; what else lies in it stays where it is.

    Raises:
        InputError: a file or link, the folder one is in or at home or one above it, a part of the
            path is no folder, nothing can be written there, or there is what must not be replaced.
    """
    try:
        _check_path(path, kind)
        if not path.exists():
            return
        if overwrite:
            _check_links(path)
        elif not resumes and any(path.iterdir()):
            marked = _is_marked(path, kind)
            why = f"it holds {kind.name}" if marked else f"it holds {_first(path)!r}"
            raise InputError(
                f"{path} is there already", why, [OTHER, OVERWRITE] if marked else OTHER
            )
        check_content(path, kind, everything=not resumes or overwrite)
    except OSError as error:
        raise InputError(f"{path} cannot be used", str(error), OTHER) from error


def check_content(path: Path, kind: Kind, *, everything: bool = True) -> None:
    """Refuse a folder that does not hold what milanx wrote.

    Args:
        path: the folder.
        kind: what it should be.
        everything: all in it must be milanx's; otherwise only what has the name of a part.

    Raises:
        InputError: it is no such folder, or holds something else, which is named.
    """
    if path.is_symlink() or not path.is_dir():
        raise InputError(f"{path} is no folder", f"{kind.name} is a folder, and no link", OTHER)
    foreign = _first_foreign(path, kind, everything)
    if foreign is None:
        if _is_blank(path, kind) or _is_marked(path, kind):
            return
        foreign = _first(path)  # nothing says whose it is
    raise InputError(
        f"{path} is not overwritten",
        f"it holds {foreign!r}, which milanx did not write as a part of {kind.name}",
        [OTHER, f"move {foreign} to another place"],
    )


def check_file(root: Path, name: str, form: str) -> None:
    """Refuse to replace a part of a folder that is not of the format ``form``, or behind a link.

    Args:
        root: the folder.
        name: of the part, relative to it.
        form: its format.

    Raises:
        InputError: there is such a file or link.
    """
    path = root / name
    inside = [path, *(root / p for p in PurePosixPath(name).parents)][:-1]
    linked = next((p for p in inside if p.is_symlink()), None)
    if linked is not None:
        raise InputError(f"{linked} is a link", "milanx writes through no link", f"remove {linked}")
    if path.exists() and format_of(path) != form:
        raise InputError(
            f"{path} is not overwritten",
            "it does not say that milanx wrote it",
            "move it to another place",
        )


def discard(path: Path, kind: Kind) -> None:
    """Remove a folder of ``kind``; under another name, so that a kill leaves no half of it.

    Raises:
        InputError: not all in it is milanx's.
    """
    check_content(path, kind)
    old = beside(path, "old")
    path.rename(old)
    shutil.rmtree(old, ignore_errors=True)


def remove_leftovers(*paths: Path) -> None:
    """Remove what killed processes left beside paths under temporary names.

    For whoever alone makes these paths (`milanx.files.lock.held`).
    """
    for path in paths:
        for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
            if TEMPORARY.fullmatch(left.name) and lasting_name(left.name) == path.name:
                if left.is_dir() and not left.is_symlink():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink(missing_ok=True)


def _check_path(path: Path, kind: Kind) -> None:
    """Refuse a path for what it is, whatever lies there."""
    if path.is_symlink():
        raise InputError(
            f"{path} is a link", f"{kind.name} is written into folders, not through links",
            f"name the folder itself: {os.path.realpath(path)}",
        )  # fmt: skip
    real = Path(os.path.realpath(path))
    for name, special in (("the folder you are in", Path.cwd()), ("your home folder", Path.home())):
        if path.name in ("", "..") or Path(os.path.realpath(special)).is_relative_to(real):
            raise InputError(
                f"{path} is not used", f"it is {name}, or one above it",
                f"give {kind.name} a folder of its own",
            )  # fmt: skip
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file", f"{kind.name} is a folder", OTHER)
    there = next(p for p in (path.absolute(), *path.absolute().parents) if os.path.lexists(p))
    if not there.is_dir():
        raise InputError(f"cannot write {path}", f"{there} is no folder", OTHER)
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"cannot write {path}", "writing there is not permitted", OTHER)


def _check_links(path: Path) -> None:
    linked = next((p for p in path.absolute().parents if p.is_symlink()), None)
    if linked is not None:
        raise InputError(
            f"{path} is not overwritten", f"the way to it goes through the link {linked}",
            f"name the folder itself: {os.path.realpath(path)}",
        )  # fmt: skip


def _first(path: Path) -> str:
    return min(p.name for p in path.iterdir())


def _is_marked(path: Path, kind: Kind) -> bool:
    """Whether a file with its format says that milanx wrote the folder."""
    for marker in kind.markers:
        inside = [path / marker, *(path / p for p in PurePosixPath(marker).parents)][:-1]
        if not any(p.is_symlink() for p in inside) and format_of(inside[0]) == kind.parts[marker]:
            return True
    return False


def _is_blank(path: Path, kind: Kind) -> bool:
    """Whether nothing is in the folder but temporary names that a kill left there."""
    names = [p.name for p in path.iterdir()]
    lasting = [lasting_name(name) for name in names]
    return all(
        name != last and (kind.part(last) is not None or kind.has_folder(last))
        for name, last in zip(names, lasting, strict=True)
    )


def _first_foreign(folder: Path, kind: Kind, everything: bool, inside: str = "") -> str | None:
    """Return the first path in a folder that is no part of the kind, None if all is.

    Without ``everything`` names that no part has are passed over.
    """
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except FileNotFoundError:  # another process has just renamed it
        return None
    for entry in entries:
        name = f"{inside}{entry.name}"
        lasting = "/".join(map(lasting_name, name.split("/")))
        part, is_folder = kind.part(lasting), kind.has_folder(lasting)
        if entry.is_dir(follow_symlinks=False):
            if is_folder:
                deeper = _first_foreign(folder / entry.name, kind, everything, f"{name}/")
                if deeper is not None:
                    return deeper
            elif everything or part is not None:
                return name
        elif entry.is_file(follow_symlinks=False) and part is not None:
            form, path = kind.parts[part], folder / entry.name
            # A half-written file says nothing yet; one that another process has just renamed, too.
            if form is not None and name == lasting and format_of(path) != form and path.exists():
                return name
        else:  # in a part's place, or no part at all
            taken = part is not None or lasting in kind.folders
            if everything or taken or (is_folder and entry.is_symlink()):
                return name
    return None
