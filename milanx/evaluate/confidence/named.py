"""Logits whose class is known: P1's units, those of one side's classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from milanx.errors import InputError
from milanx.evaluate.common.names import accepted_names
from milanx.evaluate.confidence.lists import Side
from milanx.evaluate.confidence.units import Judged
from milanx.evaluate.p1.logits import read_logits
from milanx.pipeline import describe
from milanx.progress import Reporter

if TYPE_CHECKING:
    from milanx.describing.describer import Describer

PHOTOS = "photos.parquet"


@dataclass(frozen=True)
class Shown:
    """What targets are shown.

    Attributes:
        images: files with a column ``wnid``.
        per_class: photos of each class, of each file.
        classes: at most so many of the side's classes, spread evenly.
        weights: a checkpoint of the target's, where none is installed.
    """

    images: tuple[Path, ...]
    per_class: int
    classes: int
    weights: Path | None = None


def named_units(
    describer: Describer,
    side: Side,
    shown: Shown,
    out: Path,
    progress: Reporter,
) -> list[Judged]:
    """Describe the logits of a side's classes on photos of these alone, and say which are named.

    Args:
        describer: whose confidence it is.
        side: whose target, and whose classes.
        shown: to the target.
        out: new folder for a run a target.
        progress: told about the stages.

    Raises:
        InputError: files without classes of this side.
    """
    out.mkdir(parents=True, exist_ok=True)
    wnids = write_photos(shown, side, out / PHOTOS)
    order = {wnid: i for i, wnid in enumerate(accepted_names())}
    units = ",".join(str(order[wnid]) for wnid in sorted(wnids, key=order.__getitem__))
    found = []
    for target, layers in side.used.layers.items():
        run = describe(target, layers=[f"{layers[0]}:{units}"], images=[str(out / PHOTOS)],
                       describer=describer, weights=shown.weights,
                       out=out / target, progress=progress)  # fmt: skip
        logits = read_logits(run)
        right = logits.top1(logits.texts).tolist()
        kinds = [f"logits of {target}"] * len(right)
        names = [accepted_names()[wnid][0] for wnid in logits.wnids]
        found += Judged.of_rows(logits.rows, right, kinds, run.store, names)
    return found


def write_photos(shown: Shown, side: Side, out: Path) -> set[str]:
    """Write photos of the side's classes into one file, and return these classes.

    Raises:
        InputError: there are none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = accepted_names()
    tables = [pq.read_table(path, columns=["image", "wnid", "name"]) for path in shown.images]
    there = {wnid for table in tables for wnid in table.column("wnid").to_pylist()}
    able = sorted(w for w in there if w in names and side.meant(names[w][0].lower()))
    places = np.unique(np.linspace(0, len(able) - 1, min(shown.classes, len(able))).astype(int))
    wanted = {able[i] for i in places}
    parts = []
    for table in tables:
        seen: dict[str, int] = {}
        kept = []
        for place, wnid in enumerate(table.column("wnid").to_pylist()):
            seen[wnid] = seen.get(wnid, 0) + 1
            if wnid in wanted and seen[wnid] <= shown.per_class:
                kept.append(place)
        parts.append(table.take(kept))
    made = pa.concat_tables(parts)
    if not len(made):
        raise InputError(f"no photos of classes that are {side.name}", "the files hold none",
                         "give tiny_imagenet_val.parquet")  # fmt: skip
    pq.write_table(made, out)
    return set(made.column("wnid").to_pylist())
