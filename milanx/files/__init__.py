"""Atomic writes, fingerprints, the folders of caches.

``kinds`` says what a folder may hold, ``replacing`` what may be replaced, ``digests`` what files
are told by, ``lock`` keeps two processes from making one, ``jsons`` writes json, ``yamls`` reads
what people write, ``arrays`` keeps arrays of a cache, ``room`` holds them to a limit.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from milanx.errors import FormatError, InputError
from milanx.files.digests import AGAIN, MOST_TEXT, SEAL, check_seal, seal_of
from milanx.files.jsons import finite, json_text
from milanx.files.kinds import Kind
from milanx.files.replacing import OTHER, beside, discard, lasting_name

if TYPE_CHECKING:
    import pyarrow as pa

REASONS = {
    errno.ENOSPC: ("the disk is full", "free some space or write to another disk with --out"),
    errno.EFBIG: (
        "a file may not grow so large there",
        "raise the limit (ulimit -f) or write to another disk with --out",
    ),
    errno.EDQUOT: ("your disk quota is used up", "free some space or write elsewhere with --out"),
    errno.EROFS: ("the file system is read-only", "write elsewhere with --out"),
    errno.EACCES: ("writing there is not permitted", "change its permissions or use --out"),
    errno.EPERM: ("writing there is not permitted", "change its permissions or use --out"),
    errno.ENOENT: ("the folder above it is not there and cannot be made", "choose another --out"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "choose another --out"),
    errno.EEXIST: ("a part of the path is a file, not a folder", "choose another --out"),
    errno.EISDIR: ("a folder has that name", "choose another --out"),
    errno.ENAMETOOLONG: ("the name is too long for the file system", "choose a shorter --out"),
    errno.EIO: ("the disk does not answer as it should", "write to another disk with --out"),
    errno.ESTALE: ("the folder has gone from its server", "write to another disk with --out"),
}
SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")  # what NumPy says where no more fits
IN_WORDS = re.compile(r"\(?os error (\d+)\)?|\[?[Ee]rrno (\d+)\]?")  # as Rust and Arrow say it
# What libraries raise on bytes that are no file of their format.
DAMAGE = (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, EOFError,
          OSError, RecursionError, MemoryError, RuntimeError, AssertionError,
          SafetensorError)  # fmt: skip
# Kinds of libraries' own: of tokenizers (a bare one), of what Rust gives up on.
OWN_KINDS = ("Exception", "PanicException")


def cache_dir(*names: str) -> Path:
    """Return the folder of cached files ``names`` (``MILANX_CACHE``, else the platform's).

    Where that cannot be written, as in a container without a home, it is one of the user's own
    among the temporary files, and a line on stderr says so.
    """
    return (Path(named) if (named := os.environ.get("MILANX_CACHE")) else _usual_cache()).joinpath(
        *names
    )


@functools.cache
def _usual_cache() -> Path:
    import platformdirs

    try:
        usual = Path(platformdirs.user_cache_dir("milanx"))
        usual.mkdir(parents=True, exist_ok=True)
        if os.access(usual, os.W_OK | os.X_OK):
            return usual
        why = "writing there is not permitted"
    except (OSError, RuntimeError) as error:  # the latter: no home is known
        why = getattr(error, "strerror", None) or str(error)
        usual = Path("the usual cache")
    made = _temporary_cache()
    sys.stderr.write(f"{usual} cannot be used ({why}): caching in {made}; MILANX_CACHE names "
                     "another folder\n")  # fmt: skip
    return made


def _temporary_cache() -> Path:
    """Return a folder among the temporary files that nobody else can have filled."""
    own = getattr(os, "getuid", lambda: 0)()
    place = Path(tempfile.gettempdir()) / f"milanx-{own}"
    with contextlib.suppress(OSError):
        place.mkdir(mode=0o700, exist_ok=True)
        found = place.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == own and not found.st_mode & 0o022:
            return place
    return Path(tempfile.mkdtemp(prefix="milanx-"))


def fingerprint(*parts: object) -> str:
    """Return 16 hex digits that stand for ``parts`` (anything that json can write)."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprint_file(path: Path) -> str:
    """Return 16 hex digits that stand for the bytes of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn a refusal to write ``path``, the system's or a library's, into an `InputError`.

    An error that names a file elsewhere is not about ``path`` and passes.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = _errno(error)
        if number not in REASONS or _elsewhere(error, path):
            raise
        why, way_out = REASONS[number]
        lasting = Path(*(lasting_name(part) for part in path.parts))
        if lasting.is_relative_to(cache_dir()):
            way_out = "free some space or let MILANX_CACHE name a folder elsewhere"
        raise InputError(f"cannot write {lasting}", why, way_out) from error


def _errno(error: OSError | SafetensorError) -> int | None:
    """Return the system's number of an error; some have it in their words alone."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if SHORT_WRITE.fullmatch(str(error)):
        return errno.ENOSPC
    match = IN_WORDS.search(str(error))
    return int(match[1] or match[2]) if match else None


def _elsewhere(error: Exception, path: Path) -> bool:
    """Whether an error names a file that is not ``path``, in it, above it or a name beside it."""
    named = getattr(error, "filename", None)
    if not isinstance(named, str | bytes | os.PathLike):
        return False
    place, own = Path(os.path.abspath(os.fsdecode(named))), Path(os.path.abspath(path))
    beside_it = place.parent == own.parent and own.name in place.name
    return not (place.is_relative_to(own) or own.is_relative_to(place) or beside_it)


@contextlib.contextmanager
def reading(path: Path, what: str = "") -> Iterator[None]:
    """Turn whatever a library says of a damaged file into a `FormatError`.

    Args:
        path: the file or folder that is read.
        what: it is, in words, for the reason.
    """
    try:
        yield
    except DAMAGE as error:
        raise _damaged(path, error, what) from error
    except BaseException as error:
        if type(error).__name__ not in OWN_KINDS:
            raise
        raise _damaged(path, error, what) from error


def _damaged(path: Path, error: BaseException, what: str) -> FormatError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
    return FormatError(f"{path} is damaged", f"{what}: {said}" if what else said, AGAIN)


@contextlib.contextmanager
def atomic_path(path: Path, replaces: Kind | None = None) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it takes its name, else it is removed.

    Works for a file, which replaces one of that name, and for a folder that the caller makes at
    the temporary path. Readers see the old content or the new, never a half.

    Args:
        path: the file or folder.
        replaces: the kind of folder that may be there and is replaced; none may when None.

    Raises:
        InputError: the place cannot be written (full, read-only, not permitted), it is a link, or
            a folder is there that must not be replaced.
    """
    if path.is_symlink():
        raise InputError(f"cannot write {path}", "it is a link, which would be lost", OTHER)
    temporary = beside(path, "tmp")
    with explained(path):
        above = [folder for folder in path.parents if not folder.exists()]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _usual_mode(temporary)
            if temporary.is_dir():
                replace_folder(temporary, path, replaces)
            else:
                with temporary.open("rb+") as file:
                    os.fsync(file.fileno())
                temporary.replace(path)
        except BaseException:
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.unlink(missing_ok=True)
            for folder in above:  # made for it, and removed where nobody has put anything else
                with contextlib.suppress(OSError):
                    folder.rmdir()
            raise


def _usual_mode(made: Path) -> None:
    """Let a file, or those of a folder, be read by whom the process's umask lets read it.

    safetensors makes files that nobody but their owner reads, whatever the umask says.
    """
    for path in made.rglob("*") if made.is_dir() else [made]:
        if path.is_file() and not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o666 & ~_umask())


@functools.lru_cache(maxsize=1)
def _umask() -> int:
    """Return the process's umask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def atomic_files(*paths: Path) -> Iterator[tuple[Path, ...]]:
    """Yield a temporary path for each of some files; on success all take their names, else none.

    Args:
        paths: of one report, say, of which no part should stand without the others.

    Raises:
        InputError: one cannot be written.
    """
    with contextlib.ExitStack() as stack:
        yield tuple(stack.enter_context(atomic_path(path)) for path in paths)


def replace_folder(new: Path, path: Path, kind: Kind | None) -> None:
    """Give the folder ``new`` the name ``path``; one of ``kind`` that had it is removed.

    Raises:
        InputError: something else is there.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        if kind is None:
            raise InputError(f"{path} is not overwritten", "it has come to be there", OTHER)
        discard(path, kind)
    new.rename(path)


def write_text(path: Path, text: str) -> None:
    r"""Write ``text`` atomically, as UTF-8.

    Of a path that is no UTF-8 the odd bytes are written as ``\udce9``, which json reads back.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, name: str, version: int, content: dict[str, Any]) -> None:
    """Write ``content`` as json with its format's name, version and seal, atomically.

    Numbers that are not finite become null (`milanx.files.jsons`). The seal tells damage
    (`milanx.files.digests`); one that ``content`` has is made anew.
    """
    document = finite({"format": name, "version": version, **content})
    document[SEAL] = seal_of(document)
    write_text(path, json_text(document, indent=2) + "\n")


def read_json(path: Path, name: str, version: int, older: Sequence[int] = ()) -> dict[str, Any]:
    """Read what `write_json` wrote, of a version or one of the ``older`` ones.

    Raises:
        FormatError: no such file, not json, another format, a version not known, or a text that
            is not that which was sealed.
    """
    try:
        if not path.is_file() and path.exists():
            raise OSError("it is no file")
        if path.stat().st_size > MOST_TEXT:
            raise OSError(f"it is larger than the {MOST_TEXT} bytes that are read")
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FormatError(f"{path} does not exist", f"a {name} has this file") from error
    except (ValueError, OSError, RecursionError) as error:
        raise FormatError(f"{path} cannot be read", str(error), AGAIN) from error
    found = content if isinstance(content, dict) else {}
    check_format(path, found.get("format"), found.get("version"), name, version, older)
    check_seal(path, found)
    return found


def check_format(
    path: Path,
    found: object,
    found_version: object,
    name: str,
    version: int,
    older: Sequence[int] = (),
) -> None:
    """Raise `FormatError` unless a file's format is the expected one, and its version or older."""
    if found != name:
        raise FormatError(f"{path} is no {name}", f"its format is {found!r}, not {name!r}")
    if isinstance(found_version, bool) or found_version not in (version, *older):
        newer = isinstance(found_version, int) and found_version > version
        raise FormatError(
            f"{path} has version {found_version} of the format {name}",
            f"this milanx reads version {' and '.join(map(str, (version, *older)))}",
            "a newer milanx wrote it: pip install --upgrade milanx" if newer
            else "use the milanx that wrote it, or make it again",
        )  # fmt: skip


def write_table(path: Path, table: pa.Table, name: str, version: int) -> None:
    """Write a parquet file (zstd, checksums) with its format's name and version, atomically."""
    import pyarrow.parquet as pq

    meta = {**(table.schema.metadata or {}), b"format": name.encode(), b"version": b"%d" % version}
    with atomic_path(path) as temporary:
        pq.write_table(
            table.replace_schema_metadata(meta),
            temporary,
            compression="zstd",
            write_page_checksum=True,
        )


def read_table(path: Path, name: str, version: int, older: Sequence[int] = ()) -> pa.Table:
    """Read what `write_table` wrote, of a version or one of the ``older`` ones.

    Raises:
        FormatError: no such file, damaged, another format, or a version not known.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except FileNotFoundError as error:
        raise FormatError(f"{path} does not exist", f"a {name} has this file") from error
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise FormatError(f"{path} cannot be read", str(error), AGAIN) from error
    meta = table.schema.metadata or {}
    said = meta.get(b"version", b"-1").decode("utf-8", "replace")
    version_number = int(said) if re.fullmatch(r"[0-9]{1,6}", said) else None
    kind = meta.get(b"format", b"none").decode("utf-8", "replace")
    check_format(path, kind, version_number, name, version, older)
    return table
