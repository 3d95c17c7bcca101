"""One process at a time: a lock beside what is written, and who holds it.

The operating system frees the lock of a process that ended, however it did, so none is ever stale;
the note of a process that was killed is left, and is told to the next.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from milanx.errors import InputError
from milanx.files import explained

# What a file system says that knows no locks (some of clusters): then nobody is kept out.
NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}
TAKEN = {errno.EAGAIN, errno.EACCES}


@contextlib.contextmanager
def held(path: Path, say: Callable[[str], None], what: str = "") -> Iterator[None]:
    """Hold ``path`` while a block makes it.

    Args:
        path: a file or folder, there or not; the lock is ``.NAME.lock`` beside it, or inside a
            folder whose parent cannot be written. It is removed at the end.
        say: told a line where the last holder was killed, or where there are no locks.
        what: is being made, in words; the path when empty.

    Raises:
        InputError: another process holds it; its id and machine are said.
    """
    path = path.resolve()
    place, note = _places(path)
    with explained(path):
        place.parent.mkdir(parents=True, exist_ok=True)
        taken = _take(place, os.O_CREAT)
    if taken is None:
        raise _refusal(note, what or str(path))
    try:
        if taken < 0:
            say(f"{place.parent} knows no locks: nothing keeps two processes from {path.name}")
        if before := _holder(note):
            say(f"{before} was ended while it made {what or path.name}; going on from what it left")
        with explained(path):
            note.write_text(json.dumps(_own()), encoding="utf-8")
        yield
    except Exception:  # of Ctrl-C the note tells the next process
        note.unlink(missing_ok=True)
        raise
    else:
        note.unlink(missing_ok=True)
    finally:
        _release(place, taken)


def check_free(path: Path, what: str = "") -> None:
    """Refuse at once, before long work, what another process holds; writes nothing.

    Raises:
        InputError: another process holds it.
    """
    place, note = _places(path.resolve())
    try:
        taken = _take(place, 0)
    except OSError:  # there is no lock
        return
    if taken is None:
        raise _refusal(note, what or str(path))
    if taken >= 0:
        os.close(taken)


def _places(path: Path) -> tuple[Path, Path]:
    """Where the lock of a path lies, and its holder's note."""
    inside = path.is_dir() and not os.access(path.parent, os.W_OK)
    folder = path if inside else path.parent
    return folder / f".{path.name}.lock", folder / f".{path.name}.holder"


def _take(place: Path, create: int) -> int | None:
    """Lock a file; returns its descriptor, None where it is taken, -1 where there are no locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return -1
    while True:
        opened = os.open(place, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | create, 0o666)
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.stat(place), os.fstat(opened)):
                return opened
        except FileNotFoundError:
            pass
        except OSError as error:
            os.close(opened)
            if error.errno in TAKEN:
                return None
            if error.errno in NO_LOCKS:
                return -1
            raise
        os.close(opened)  # the last holder has just removed the file: this is the lock of nothing


def _release(place: Path, taken: int) -> None:
    """Remove a lock, and let it go; in this order, so that nobody locks what is removed then."""
    with contextlib.suppress(OSError):  # somebody has removed the whole folder
        place.unlink(missing_ok=True)
    if taken >= 0:
        os.close(taken)


def _refusal(note: Path, what: str) -> InputError:
    return InputError(
        f"{what} is being made by {_holder(note) or 'another process'}",
        "two of them would write the same files",
        ("wait until it is done and call again: what it made is used",
         "end that process, if nobody needs it"),
    )  # fmt: skip


def _own() -> dict[str, object]:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"pid": os.getpid(), "host": platform.node(), "since": since}


def _holder(note: Path) -> str:
    """Say who wrote a note; nobody where there is none, or half of one."""
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
        return f"process {found['pid']} on {found['host']} (since {found['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
