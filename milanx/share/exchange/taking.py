"""`milanx import`: a run made of what another tool wrote."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from milanx.files.kinds import RUN
from milanx.files.replacing import check_place
from milanx.progress import Reporter
from milanx.share.exchange.building import build
from milanx.share.exchange.bundle import Bundle, missing
from milanx.share.exchange.dissect import read_dissect
from milanx.share.exchange.export import known_format
from milanx.share.exchange.fiftyone import read_fiftyone
from milanx.share.exchange.lens import read_lens
from milanx.share.exchange.milan import read_milan
from milanx.share.exchange.rows import read_rows_csv, read_rows_jsonl

if TYPE_CHECKING:
    from milanx.runs import Run

READERS: dict[str, Callable[[Path], Bundle]] = {
    "milan": read_milan, "maia": read_milan, "fiftyone": read_fiftyone, "semanticlens": read_lens,
    "csv": read_rows_csv, "jsonl": read_rows_jsonl, "clip-dissect": read_dissect,
}  # fmt: skip


def import_run(
    format: str,
    place: Path | str,
    out: Path | str,
    *,
    target: str | None = None,
    overwrite: bool = False,
    progress: Reporter | None = None,
) -> Run:
    """Make a run of what another tool wrote.

    Args:
        format: one of those that `milanx.export_run` takes.
        place: the folder or file.
        out: the run folder.
        target: the model's name; where the format says none, ``unknown``, when None.
        overwrite: replace a run that is there.
        progress: told about the layers.

    Returns:
        The run; what was not taken over stands in ``settings["imported"]["left_out"]``.

    Raises:
        InputError: no such format, no such place, or it holds something else; or ``out`` holds
            what must not be replaced.
        FormatError: a file is damaged.
    """
    read, path = READERS[known_format(format, "import")], Path(place)
    check_place(Path(out), RUN, overwrite=overwrite)
    if not path.exists():
        raise missing(path, "there is nothing of that name", "name a folder or file that is there")
    bundle = read(path)
    if target:
        bundle = replace(bundle, target=target)
    return build(bundle, format, Path(out), overwrite=overwrite, progress=progress)
