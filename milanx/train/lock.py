"""One process at a time: a lock beside what is written, and who holds it.

The operating system frees the lock of a process that ended, however it did, so none is ever stale;
the note of a process that was killed is left, and is told.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from milanx.errors import InputError
from milanx.files import explained


@contextmanager
def held(path: Path, say: Callable[[str], None], what: str = "") -> Iterator[None]:
    """Hold ``path`` while a block makes it.

    Args:
        path: a file or folder, there or not; the lock is ``.NAME.lock`` beside it.
        say: told a line where the last holder was killed.
        what: is being made, in words; the path when empty.

    Raises:
        InputError: another process holds it; its id and machine are said.
    """
    path = path.resolve()
    note = path.with_name(f".{path.name}.holder")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise InputError(
                f"{what or path} is being made by {_holder(note) or 'another process'}",
                "two trainings would write the same files",
                ("wait until it is done and call again: what it made is used",
                 "end that process, if nobody needs it"),
            ) from error  # fmt: skip
    try:
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
        lock.release()


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
