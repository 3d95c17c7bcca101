"""`milanx export`: a run written as what another tool reads."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milanx.errors import InputError, did_you_mean
from milanx.files import atomic_path
from milanx.files.kinds import EXPORT
from milanx.progress import Reporter, Silent
from milanx.share.exchange.dissect import HEAD as DISSECT_HEAD
from milanx.share.exchange.dissect import write_dissect
from milanx.share.exchange.fiftyone import write_fiftyone
from milanx.share.exchange.lens import write_lens
from milanx.share.exchange.milan import plain_bytes, write_maia, write_milan
from milanx.share.exchange.place import (
    Exported,
    check_folder,
    check_table,
    size_of,
    write_marker,
)
from milanx.share.exchange.rows import (
    CSV_HEAD,
    JSONL_HEAD,
    write_rows_csv,
    write_rows_jsonl,
)

if TYPE_CHECKING:
    from milanx.describing.describer import Describer
    from milanx.runs import Run

TableWriter = Callable[["Run", Path], tuple[int, tuple[str, ...]]]


@dataclass(frozen=True)
class _Table:
    """A format of one file: how it begins, and what writes it."""

    head: bytes
    write: TableWriter


TABLES = {
    "csv": _Table(CSV_HEAD, write_rows_csv),
    "jsonl": _Table(JSONL_HEAD, write_rows_jsonl),
    "clip-dissect": _Table(DISSECT_HEAD, write_dissect),
}
FOLDERS: dict[str, Callable[..., Any]] = {
    "milan": write_milan, "maia": write_maia, "fiftyone": write_fiftyone,
    "semanticlens": write_lens,
}  # fmt: skip
PLAIN = {"milan": False, "maia": True}  # of which views fill a disk; whether rows are numbers
FORMATS = (*FOLDERS, *TABLES)


def known_format(name: str, command: str = "export") -> str:
    """Return the name of a format.

    Args:
        name: as the user gave it.
        command: that it was given to.

    Raises:
        InputError: there is none of that name.
    """
    if name not in FORMATS:
        raise InputError(f"no format {name!r}", f"there are {', '.join(FORMATS)}",
                         did_you_mean(name, FORMATS) or f"milanx {command} --help")  # fmt: skip
    return name


def export_run(
    run: Run | Path | str,
    format: str,
    out: Path | str,
    *,
    describer: str | Path | Describer = "builtin",
    overwrite: bool = False,
    progress: Reporter | None = None,
) -> Exported:
    """Write a run in the format of another tool.

    Args:
        run: with descriptions, or its folder.
        format: ``milan``, ``maia``, ``fiftyone``, ``semanticlens`` (folders), ``csv``, ``jsonl`` or
            ``clip-dissect`` (files).
        out: the folder or file.
        describer: whose encoder makes SemanticLens' concept database.
        overwrite: replace an earlier export.
        progress: told about the units.

    Returns:
        What was written, and in words what the format cannot hold.

    Raises:
        InputError: no such format, no descriptions, or ``out`` holds what must not be replaced.
    """
    from milanx.runs import Run, open_run

    place, name = Path(out), known_format(format)
    opened = run if isinstance(run, Run) else open_run(run)
    if name in TABLES:
        table = TABLES[name]
        check_table(place, table.head, overwrite)
        count, notes = table.write(opened, place)
        return Exported(place, name, count, size_of(place), notes)
    check_folder(place, overwrite)
    write, progress = FOLDERS[name], progress or Silent()
    if name in PLAIN:
        size = math.ceil(plain_bytes(opened, PLAIN[name]) / 1e6)
        progress.say(f"writes about {size:,} MB: {name} keeps views and masks as plain arrays")
    with (
        progress.stage("export", len(opened)) as bar,
        atomic_path(place, EXPORT if overwrite else None) as root,
    ):
        root.mkdir()
        more = {"describer": _loaded(describer)} if name == "semanticlens" else {}
        count, notes, layers = write(opened, root, bar, **more)
        write_marker(root, name, opened.target, layers, notes)
    return Exported(place, name, count, size_of(place), notes)


def _loaded(describer: str | Path | Describer) -> Describer:
    from milanx.describing.describer import Describer

    return describer if isinstance(describer, Describer) else Describer.load(describer)
