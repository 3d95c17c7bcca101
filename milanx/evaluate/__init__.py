"""How good descriptions are: protocols, the rows beside them, and their statistics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milanx.errors import InputError, did_you_mean
from milanx.files.replacing import EVALUATION, RUN, check_file, check_place
from milanx.progress import Reporter

if TYPE_CHECKING:
    from milanx.runs import Run

PROTOCOLS = ("p1", "p2", "p3", "kin")
PLANTING = ("p2", "kin")  # these write a run of planted units, the others read one
VERSION = 1


def run_protocols(
    run: Path,
    protocols: Sequence[str],
    *,
    images: Sequence[str] = (),
    describer: str = "builtin",
    count: int = 200,
    simulator: str = "builtin",
    against: Sequence[Path] = (),
    unseen: Sequence[str] = (),
    vocabulary: Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: Reporter | None = None,
) -> list[dict[str, Any]]:
    """Run protocols by name.

    The reports of p1 and p3 are also written into the run, ``evaluation-p1.json`` and so on.

    Args:
        run: the run folder that p1 and p3 score; where p2 and kin write their planted units.
        protocols: of `PROTOCOLS`.
        images: photos for p2 and kin; for p3 where the run's images lie now, if they have moved.
        describer: for p1's linear probe, p2 and kin: ``builtin`` or a folder.
        count: planted units of p2.
        simulator: for p3, ``builtin``, a folder, or an open_clip model's name.
        against: for p1 and p3, other runs of the same units to compare with (p3: the first).
        unseen: those of p2's photos that no training read at all: every one is used.
        vocabulary: for p3, a file of texts, one a line, for its upper row.
        seed: of everything that is drawn.
        overwrite: p2 and kin may replace a run folder that is there.
        progress: told about long parts.

    Raises:
        InputError: an unknown protocol, one whose inputs are missing, protocols that want the
            folder for two purposes, or a folder that holds what must not be replaced.
    """
    unknown = [name for name in protocols if name not in PROTOCOLS]
    if unknown:
        raise InputError(
            f"no protocol {unknown[0]!r}",
            f"there are {', '.join(PROTOCOLS)}",
            did_you_mean(unknown[0], PROTOCOLS) or "--protocol p1",
        )
    _check_places(run, protocols, overwrite)
    common: dict[str, Any] = {"seed": seed, "overwrite": overwrite, "progress": progress}
    reports = []
    for name in protocols:
        if name == "p1":
            from milanx.evaluate.p1 import protocol as p1
            from milanx.runs import open_run

            others = [open_run(other) for other in against]
            reports.append(
                p1.evaluate(_scored(run), describer=describer, against=others, seed=seed)
            )
        elif name in PLANTING:
            whole = [Path(i) for i in unseen]
            how = {"count": count, "whole": whole} if name == "p2" else {}
            reports.append(_planted(name, run, images, describer, **how, **common))
        else:
            from milanx.evaluate.p3 import protocol as p3

            reports.append(
                p3.evaluate(
                    _scored(run),
                    simulator=simulator,
                    against=against[0] if against else None,
                    vocabulary=vocabulary,
                    images=images,
                    seed=seed,
                    progress=progress,
                )
            )
        if name in ("p1", "p3"):
            write_report(run, name, reports[-1])
    return reports


def _check_places(run: Path, protocols: Sequence[str], overwrite: bool) -> None:
    """Say before the work what would be lost by it."""
    planting = [name for name in protocols if name in PLANTING]
    if planting and len(protocols) > 1:
        other = next((name for name in protocols if name not in PLANTING), planting[-1])
        raise InputError(
            f"{planting[0]} and {other} cannot share {run}",
            f"{planting[0]} writes its planted units there, and {other} needs the folder itself",
            "run them one by one, each with a folder of its own",
        )
    if planting:
        check_place(run, RUN, overwrite=overwrite)
    for name in protocols:
        check_file(run, f"evaluation-{name}.json", EVALUATION)


def write_report(run: Path, protocol: str, report: dict[str, Any]) -> Path:
    """Write a report into its run folder, atomically; returns where."""
    from milanx.files import write_json

    path = run / f"evaluation-{protocol}.json"
    write_json(path, EVALUATION, VERSION, report)
    return path


def _scored(root: Path) -> Run:
    """Open a run that may be given a score."""
    from milanx.runs import open_run

    opened = open_run(root)
    if opened.demonstration:
        raise InputError(
            "no score is given for the built-in images",
            "they are a demonstration and hold few concepts",
            "probe with photos of your own; p1 needs labelled ones",
        )
    return opened


def _planted(
    name: str, out: Path, images: Sequence[str], describer: str, **settings: Any
) -> dict[str, Any]:
    """Run a protocol that plants units on photos; ``settings`` are of its ``evaluate``."""
    from milanx.describing.describer import Describer
    from milanx.evaluate.p1 import kin
    from milanx.evaluate.p2 import protocol as p2

    if not images:
        raise InputError(
            f"{name} needs photos",
            "it plants units on photos with labels or regions",
            "--images FILE.parquet",
        )
    loaded, files = Describer.load(describer), [Path(i) for i in images]
    protocol = kin.evaluate if name == "kin" else p2.evaluate
    return protocol(loaded, files, out=out, **settings)
