"""How good descriptions are: protocols, the rows beside them, and their statistics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from milanx.errors import InputError, did_you_mean
from milanx.progress import Reporter

PROTOCOLS = ("p1", "p2")


def run_protocols(
    run: Path,
    protocols: Sequence[str],
    *,
    images: Sequence[str] = (),
    describer: str = "builtin",
    count: int = 200,
    seed: int = 0,
    progress: Reporter | None = None,
) -> list[dict[str, Any]]:
    """Run protocols by name.

    Args:
        run: the run folder that p1 scores; where p2 writes its planted units.
        protocols: of `PROTOCOLS`.
        images: photos for p2.
        describer: for p2, ``builtin`` or a folder.
        count: planted units of p2.
        seed: of everything that is drawn.
        progress: told about long parts.

    Raises:
        InputError: an unknown protocol, or one whose inputs are missing.
    """
    reports = []
    for name in protocols:
        if name == "p1":
            from milanx.evaluate import p1
            from milanx.runs import open_run

            opened = open_run(run)
            if opened.demonstration:
                raise InputError(
                    "no score is given for the built-in images",
                    "they are a demonstration and hold few concepts",
                    "probe with labelled photos of your own",
                )
            reports.append(p1.evaluate(opened, seed=seed))
        elif name == "p2":
            from milanx.describer import Describer
            from milanx.evaluate import p2

            if not images:
                raise InputError(
                    "P2 needs photos",
                    "it plants units on photos with labels or regions",
                    "--images FILE.parquet",
                )
            reports.append(
                p2.evaluate(
                    Describer.load(describer),
                    [Path(i) for i in images],
                    count=count,
                    seed=seed,
                    out=run,
                    progress=progress,
                )
            )
        else:
            raise InputError(
                f"no protocol {name!r}",
                f"there are {', '.join(PROTOCOLS)}",
                did_you_mean(name, PROTOCOLS) or "--protocol p1",
            )
    return reports
