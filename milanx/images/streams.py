"""The first rows of a data set that is not fetched whole: what is kept of them, and for how long.

Rows are kept by the state of the data set that they are of: the commit of a repository, which the
Hub is asked for each time, or the names, sizes and times of a folder's files. A data set that
changed is read anew, and never serves pictures of before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milanx.environment import note
from milanx.files import atomic_path, cache_dir, explained, fingerprint, write_text
from milanx.files.room import clear, limit, used
from milanx.hub.fetch import COMMIT, TIMEOUT
from milanx.hub.reach import check_answers
from milanx.hub.refusals import Unreachable, in_words, offline

SHELF = "streams"  # in milanx's cache


@dataclass(frozen=True)
class Kept:
    """Where the rows of one question lie.

    Attributes:
        asked: what is asked for, as 16 hex digits: the data set's name, its split and options.
        state: the commit that it stands at, or what tells the files of a folder.
    """

    asked: str
    state: str

    @property
    def path(self) -> Path:
        """The parquet file, there or not."""
        return cache_dir(SHELF) / f"{fingerprint(self.asked, self.state)}.parquet"

    def remember(self) -> None:
        """Note the state, for when nobody can be asked for it."""
        used(self.path)
        if _last(self.asked) != self.state:
            write_text(_note(self.asked), self.state)


def find(name: str, revision: str | None, asked: str, what: str) -> Kept:
    """Return where the rows of a repository's data set lie, after asking what commit it stands at.

    Args:
        name: ``owner/name``.
        revision: a branch, a tag or a commit, which asks nobody; the main branch when None.
        asked: see `Kept`.
        what: cannot be done, where nobody answers: the first line of the error.

    Raises:
        InputError: there is no such data set for this user, or the Hub may not be asked and
            nothing was kept.
        Unreachable: the Hub does not answer, and nothing was kept.
    """
    from huggingface_hub import HfApi, constants

    if revision and COMMIT.fullmatch(revision):
        return Kept(asked, revision)
    last = _last(asked)
    before = Kept(asked, last) if last else None
    there = before is not None and before.path.is_file()
    if constants.HF_HUB_OFFLINE:
        if before is None or not there:
            raise offline(what)
        return before
    try:
        with in_words(what):
            check_answers()
            info = HfApi().dataset_info(name, revision=revision, timeout=TIMEOUT)
    except Unreachable as error:
        if before is None or not there:
            raise
        note(f"{error.why}: taking the rows of {name} as they were last fetched "
             f"({before.state[:7]})")  # fmt: skip
        return before
    return Kept(asked, str(info.sha))


def find_local(folder: Path, asked: str) -> Kept:
    """Return where the rows of a folder's data set lie, by the files that are there now.

    Raises:
        InputError: the folder cannot be read.
    """
    with explained(folder):
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        told = [(path.relative_to(folder).as_posix(), path.stat().st_size,
                 path.stat().st_mtime_ns) for path in files]  # fmt: skip
    return Kept(asked, fingerprint(told))


def write_rows(path: Path, batches: Iterable[list[dict[str, Any]]]) -> None:
    """Write rows, some at a time, as a parquet file that `milanx.images.table.Table` reads.

    Args:
        path: of the file.
        batches: rows with ``image`` (bytes, path), ``label``, ``name``, ``wnid`` and ``group``.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.string()
    schema = pa.schema([
        ("image", pa.struct([("bytes", pa.binary()), ("path", text)])), ("label", pa.int64()),
        ("name", text), ("wnid", text), ("group", text),
    ])  # fmt: skip
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for rows in batches:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    clear(limit() - path.stat().st_size, path)  # which is read now, however large it is


def batches(rows: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    """Return rows, so many at a time."""
    some: list[dict[str, Any]] = []
    for row in rows:
        some.append(row)
        if len(some) == size:
            yield some
            some = []
    if some:
        yield some


def _note(asked: str) -> Path:
    return cache_dir(SHELF) / f"{asked}.state"


def _last(asked: str) -> str | None:
    """Return the state that was last noted, if one was."""
    try:
        return _note(asked).read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None
