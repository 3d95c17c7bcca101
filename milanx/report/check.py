"""`milanx check`: every file of a run, a describer, a simulator or an edit, read whole."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from milanx.errors import FormatError, InputError
from milanx.files import reading
from milanx.files.digests import Listing
from milanx.files.replacing import format_of
from milanx.progress import Reporter, Silent

if TYPE_CHECKING:
    from milanx.runs import Run


@dataclass(frozen=True)
class Checked:
    """What a look at all files of a folder gave.

    Attributes:
        root: the folder.
        kind: what it is.
        files: how many were compared with their digests.
        untold: those that no digest tells, because an earlier milanx wrote them.
        faults: what is damaged.
    """

    root: Path
    kind: str
    files: int
    untold: tuple[str, ...]
    faults: tuple[FormatError, ...]

    def require(self) -> None:
        """Raise what is damaged, if anything is.

        Raises:
            FormatError: the first fault, and how many there are.
        """
        if not self.faults:
            return
        first, more = self.faults[0], len(self.faults) - 1
        names = "; ".join(fault.what for fault in self.faults[1:4])
        raise FormatError(
            first.what, first.why + (f"; {more} more: {names}" if more else ""), first.ways_out
        )


def check(root: Path | str, progress: Reporter | None = None) -> Checked:
    """Read every file of a folder and compare it with what it is told by.

    Args:
        root: a run, a describer, a simulator or an edit; ``builtin`` is the bundled describer.
        progress: told about the files.

    Raises:
        InputError: the path is none of them.
        FormatError: its index is damaged, or of an unknown version.
    """
    from milanx.describing.folder import BUILTIN, describer_root, read_content
    from milanx.describing.milan.folder import FORMAT, read_listing
    from milanx.runs import open_run
    from milanx.scoring.simulator import read_simulator

    progress = progress or Silent()
    folder = describer_root(BUILTIN) if str(root) == BUILTIN else Path(root)
    if format_of(folder / "describer.json") == FORMAT:
        listing = read_listing(folder)[1]
        return _listed("a describer of MILAN's", listing, "all but describer.json", progress)
    if (folder / "describer.json").exists():
        listing = read_content(folder)[1]
        return _listed("a describer", listing, "all but describer.json", progress)
    if (folder / "simulator.json").exists():
        return _listed("a simulator", read_simulator(folder)[1], "encoder.safetensors", progress)
    if (folder / "edit.json").exists():
        from milanx.act.export import read_edit

        return _listed("an edit", read_edit(folder).listing, "its weights", progress)
    if (folder / "run.json").exists():
        return _run(open_run(folder), progress)
    if (folder / "exemplars" / "index.json").exists():
        from milanx.runs import Run

        return _run(Run(folder, {}), progress)
    raise InputError(
        f"{root} cannot be checked",
        "it is no run, describer, simulator or edit"
        if folder.is_dir()
        else "there is no such folder",
        "name a folder that milanx describe, train or prune wrote, or builtin",
    )


def seal(root: Path | str) -> Path:
    """Tell the files of a describer or simulator as they lie there now; returns its index.

    For folders that an earlier milanx wrote, and for what was changed on purpose.

    Raises:
        InputError: the path is neither.
        FormatError: its index is damaged otherwise, or of an unknown version.
    """
    from milanx.describing.folder import write_content
    from milanx.describing.milan.folder import FORMAT, write_index
    from milanx.files.digests import SEAL
    from milanx.scoring.simulator import write_simulator

    writers = {"describer.json": write_content, "simulator.json": write_simulator}
    for name, write in writers.items():
        path = Path(root) / name
        if path.is_file():
            with reading(path):
                content = json.loads(path.read_text(encoding="utf-8"))
                content.pop(SEAL, None)
            write = write_index if content.get("format") == FORMAT else write
            write(Path(root), content)
            return path
    raise InputError(
        f"{root} is not sealed anew", "it is no describer's or simulator's folder",
        "describe again where a run is damaged",
    )  # fmt: skip


def _listed(kind: str, listing: Listing, untold: str, progress: Reporter) -> Checked:
    """Check a folder with one index."""
    with progress.stage("check", len(listing.files or ())) as bar:
        faults = listing.faults(bar.advance)
    missing = () if listing.files is not None else (untold,)
    return Checked(listing.root, kind, len(listing.files or ()), missing, tuple(faults))


def _run(run: Run, progress: Reporter) -> Checked:
    """Check a run: its table and its exemplars, and that they can be read."""
    faults: list[FormatError] = []
    untold: list[str] = []
    files = 0
    with progress.stage("check", None) as bar:
        try:
            told = Listing.read(run.root, run.settings, run.root / "run.json")
            if told.files or (run.root / "units.parquet").exists():
                untold += [] if told.files else ["units.parquet"]
                files += len(told.files or ())
                len(run)
        except FormatError as error:
            faults.append(error)
        try:
            listing = run.store.listing
            untold += [] if listing.files is not None else ["exemplars", "views", "images"]
            files += len(listing.files or ())
            found = listing.faults(bar.advance)
            faults += found
            for layer in () if found else run.store.layers:
                run.store.units(layer)
        except FormatError as error:
            faults.append(error)
    return Checked(run.root, "a run", files, tuple(untold), tuple(faults))
