"""Protocols by name: what is asked is checked first, then each is run and its report written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milanx.environment import pick_device
from milanx.errors import InputError, did_you_mean
from milanx.exemplars.request import DEFAULT_DTYPE, DTYPES
from milanx.files.digests import FILES
from milanx.files.kinds import EVALUATION, RUN
from milanx.files.lock import held
from milanx.files.replacing import check_file, check_place
from milanx.progress import Reporter, Silent

if TYPE_CHECKING:
    from milanx.evaluate.p2.protocol import Planting
    from milanx.runs import Run
    from milanx.scoring.simulator import Simulating

VERSION = 1
Report = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """What is measured, on what, and beside what.

    Attributes:
        run: the run folder that p1 and p3 score; where p2 and kin write their planted units.
        protocols: of `PROTOCOLS`.
        images: photos for p2 and kin; for p3 and p5 where the run's images lie now, if they have
            moved.
        describer: for p1's linear probe, p2 and kin: ``builtin`` or a folder.
        count: planted units of p2.
        kinds: of the single meanings that p2's units have; all meanings, joined ones too, when
            empty.
        vary: of p2, settings of the search under which the same units are described once more
            each, as ``response=0``.
        simulator: for p3 and p5, ``builtin``, a folder, or an open_clip model's name.
        against: for p1 and p3, other runs of the same units to compare with (p3: the first).
        unseen: those of p2's photos that no training read at all: every one is used.
        vocabulary: for p3, a file of texts, one a line, for its upper row.
        seed: of everything that is drawn.
        overwrite: p2 and kin may replace a run folder that is there.
        methods: of `milanx.describing.ways.METHODS`: one table of them in place of the report of
            one; ``against`` are then runs of those that need regions, for p1 and p3.
        milan: the folder of MILAN's networks, for its row.
        device: where p2's and kin's describer and the simulator of p3 and p5 compute: ``auto``, or
            a device of torch's.
        dtype: of the products of the simulator's image tower.

    Raises:
        InputError: an unknown protocol or dtype, protocols that want the folder for two purposes,
            or planting without photos.
    """

    run: Path
    protocols: tuple[str, ...]
    images: tuple[str, ...] = ()
    describer: str = "builtin"
    count: int = 200
    kinds: tuple[str, ...] = ()
    vary: tuple[str, ...] = ()
    simulator: str = "builtin"
    against: tuple[Path, ...] = ()
    unseen: tuple[str, ...] = ()
    vocabulary: Path | None = None
    seed: int = 0
    overwrite: bool = False
    methods: tuple[str, ...] = ()
    milan: str = ""
    device: str = "auto"
    dtype: str = DEFAULT_DTYPE

    def __post_init__(self) -> None:
        unknown = [name for name in self.protocols if name not in PROTOCOLS]
        single = [name for name in self.protocols if name in OF_NO_METHOD and self.methods]
        if not unknown and single:
            raise InputError(f"{single[0]} has no table of methods", OF_NO_METHOD[single[0]],
                             "--protocol p1, p2 or p3")  # fmt: skip
        if unknown:
            raise InputError(
                f"no protocol {unknown[0]!r}",
                f"there are {', '.join(PROTOCOLS)}",
                did_you_mean(unknown[0], PROTOCOLS) or "--protocol p1",
            )
        if self.dtype not in DTYPES:
            hint = did_you_mean(self.dtype, DTYPES) or f"--dtype {DEFAULT_DTYPE}"
            raise InputError(f"no dtype {self.dtype!r}", f"there are {', '.join(DTYPES)}", hint)
        if self.vary and (self.protocols != ("p2",) or self.methods):
            raise InputError(
                "settings are varied for p2 alone",
                "it describes units anew; the others read a run, a table of methods has its own",
                "--protocol p2, without --method",
            )
        planting = self.planting
        if planting and len(self.protocols) > 1:
            scoring = [name for name in self.protocols if name not in PLANTING]
            other = (*scoring, planting[-1])[0]
            raise InputError(
                f"{planting[0]} and {other} cannot share {self.run}",
                f"{planting[0]} writes its planted units there, and {other} needs the folder "
                "itself",
                "run them one by one, each with a folder of its own",
            )
        if planting and not self.images:
            raise InputError(
                f"{planting[0]} needs photos",
                "it plants units on photos with labels or regions",
                "--images FILE.parquet",
            )

    @property
    def planting(self) -> list[str]:
        """Those of the protocols that write a run of planted units."""
        return [name for name in self.protocols if name in PLANTING]


def run_protocols(asked: Asked, progress: Reporter | None = None) -> list[Report]:
    """Run protocols by name.

    The reports of p1, p3 and p5 are also written into the run, ``evaluation-p1.json`` and so on; of
    one that was fetched into `milanx.runs.Run.results`.

    Args:
        asked: what is measured.
        progress: told about long parts.

    Raises:
        InputError: a run, photos or runs beside it that cannot be used, or a folder that holds
            what must not be replaced.
    """
    from milanx.runs import open_run

    progress, place = progress or Silent(), asked.run
    if asked.planting:
        check_place(place, RUN, overwrite=asked.overwrite)
    else:  # where it lies, if its repository was named
        opened = open_run(asked.run)
        asked, place = replace(asked, run=opened.root), opened.results
    ending = "-methods" if asked.methods else ""
    for name in asked.protocols:
        check_file(place, f"evaluation-{name}{ending}.json", EVALUATION)
    before = _table(asked)
    reports = []
    for name in asked.protocols:
        make = _methods(name) if asked.methods else PROTOCOLS[name]
        reports.append(make(asked, progress))
        if name not in PLANTING:
            with held(place, progress.say, f"the run {place}"):
                if _table(asked) != before:
                    raise InputError(
                        f"the report of {name} is not written into {place}",
                        "the run was described anew while it was evaluated",
                        "evaluate it again",
                    )
                written = write_report(place, f"{name}{ending}", reports[-1])
            if place != asked.run:
                progress.say(f"the report of {name} is {written}")
    return reports


def _table(asked: Asked) -> object:
    """What tells the table of the run that is evaluated; None where one is made."""
    from milanx.runs import open_run

    return None if asked.planting else open_run(asked.run).settings.get(FILES)


def write_report(run: Path, protocol: str, report: Report) -> Path:
    """Write a report into its run folder, atomically; returns where."""
    from milanx.files import write_json

    path = run / f"evaluation-{protocol}.json"
    write_json(path, EVALUATION, VERSION, report)
    return path


def _scored(root: Path) -> Run:
    """Open a run that may be reported on."""
    from milanx.runs import open_run

    opened = open_run(root)
    if opened.demonstration:
        raise InputError(
            "no protocol is run on the built-in images",
            "they are a demonstration and hold few concepts",
            "probe with photos of your own; p1 needs labelled ones",
        )
    return opened


def _p1(asked: Asked, progress: Reporter | None) -> Report:
    from milanx.evaluate.p1 import protocol as p1
    from milanx.runs import open_run

    others = [open_run(other) for other in asked.against]
    run = _scored(asked.run)
    return p1.evaluate(run, describer=asked.describer, against=others, seed=asked.seed)


def _p2(asked: Asked, progress: Reporter | None) -> Report:
    from milanx.describing.describer import Describer
    from milanx.evaluate.p2 import protocol as p2

    return p2.evaluate(
        Describer.load(asked.describer, pick_device(asked.device)), _planting(asked),
        out=asked.run, overwrite=asked.overwrite, progress=progress,
    )  # fmt: skip


def _planting(asked: Asked) -> Planting:
    """What p2 plants."""
    from milanx.evaluate.p2.protocol import Planting
    from milanx.evaluate.p2.variations import read_variations

    files, whole = (tuple(map(Path, paths)) for paths in (asked.images, asked.unseen))
    return Planting(files, whole, asked.count, asked.seed, asked.kinds,
                    read_variations(asked.vary))  # fmt: skip


def _simulating(asked: Asked) -> Simulating:
    """The simulator of p3 and p5, and where it computes."""
    import torch

    from milanx.scoring.simulator import Simulating, Where

    where = Where(torch.device(pick_device(asked.device)), getattr(torch, asked.dtype))
    return Simulating(asked.simulator, where)


def _p3(asked: Asked, progress: Reporter | None) -> Report:
    from milanx.evaluate.p3 import protocol as p3

    return p3.evaluate(
        _scored(asked.run),
        simulator=_simulating(asked),
        against=asked.against[0] if asked.against else None,
        vocabulary=asked.vocabulary,
        images=asked.images,
        seed=asked.seed,
        progress=progress,
    )


def _p5(asked: Asked, progress: Reporter | None) -> Report:
    from milanx.evaluate.p5 import protocol as p5

    return p5.evaluate(_scored(asked.run), simulator=_simulating(asked), images=asked.images,
                       seed=asked.seed, progress=progress)  # fmt: skip


def _kin(asked: Asked, progress: Reporter | None) -> Report:
    from milanx.describing.describer import Describer
    from milanx.evaluate.p1 import kin

    return kin.evaluate(
        Describer.load(asked.describer, pick_device(asked.device)),
        [Path(i) for i in asked.images],
        seed=asked.seed, out=asked.run, overwrite=asked.overwrite, progress=progress,
    )  # fmt: skip


def _methods(protocol: str) -> Callable[[Asked, Reporter | None], Report]:
    """Return what makes the table of all methods by a protocol."""

    def made(asked: Asked, progress: Reporter | None) -> Report:
        from milanx.describing.describer import Describer
        from milanx.describing.milan.describer import Milan
        from milanx.evaluate.methods import planted, tables
        from milanx.evaluate.methods.say import methods_of
        from milanx.runs import open_run

        device, methods = pick_device(asked.device), methods_of(asked.methods)
        milan = Milan.load(asked.milan, device) if asked.milan else None
        tools = tables.Tools(
            methods, Describer.load(asked.describer, device), milan, asked.seed, progress
        )
        if protocol == "p2":
            return planted.p2_table(_planting(asked), asked.run, tools, overwrite=asked.overwrite)
        run, others = _scored(asked.run), [open_run(other) for other in asked.against]
        if protocol == "p1":
            return tables.p1_table(run, others, tools)
        simulator = _simulating(asked)
        return tables.p3_table(run, others, tools, simulator=simulator, images=asked.images)

    return made


PROTOCOLS: dict[str, Callable[[Asked, Reporter | None], Report]] = {
    "p1": _p1, "p2": _p2, "p3": _p3, "p5": _p5, "kin": _kin,
}  # fmt: skip
OF_NO_METHOD = {"kin": "it measures a describer", "p5": "it measures scores"}
PLANTING = ("p2", "kin")  # these write a run of planted units, the others read one
