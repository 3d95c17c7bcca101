"""Labelled photos by their use, and lettering that lies over those that report."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from milanx.act.data import Classes, EvalSet, image_set
from milanx.bench.planted.settings import TextPlanting
from milanx.bench.planted.writing import LYING, write
from milanx.errors import InputError
from milanx.files import fingerprint
from milanx.images.probe import open_images
from milanx.images.splits import held_out
from milanx.targets.zoo import Target

# Photos up to these shares teach detectors, and weigh their votes; the others are the user's.
LEARNED, DEVELOPMENT = 0.3, 0.45
LEAST = 10  # photos of each use


@dataclass(frozen=True)
class Photos:
    """Labelled photos; none has two uses.

    Attributes:
        learned: detectors are learned on them.
        development: the strength of votes is chosen on them, lettered.
        users: all others, lettered: half of them choose how many units go and are what units are
            described on, the other half reports.
        names: what is written over photos, by class.
    """

    learned: EvalSet
    development: EvalSet
    users: EvalSet
    names: tuple[str, ...]


def read_photos(
    source: str | Path, target: Target, classes: Classes, asked: TextPlanting
) -> Photos:
    """Open labelled photos and divide them, by photograph.

    Raises:
        InputError: photos without labels, or too few of them.
    """
    opened = open_images([source])
    every = image_set(opened, target, classes)
    chosen = range(len(every))[asked.skip :][: asked.limit]
    if every.labels is None:
        raise InputError(f"the photos of {every.name} have no labels", "accuracy needs them",
                         "give labelled photos with --images")  # fmt: skip
    photos = every.subset(chosen)
    part: dict[str, list[int]] = {"learned": [], "development": [], "users": []}
    for i, group in enumerate(photos.groups):
        at = f"planted {asked.seed} {group}"
        use = "learned" if held_out(at, LEARNED) else (
            "development" if held_out(at, DEVELOPMENT) else "users")  # fmt: skip
        part[use].append(i)
    few = [use for use, indices in part.items() if len(indices) < LEAST]
    if few:
        raise InputError(f"{len(photos)} photos are too few",
                         f"{few[0]} has {len(part[few[0]])}, and needs {LEAST}",
                         "give more photos, or a higher --limit")  # fmt: skip
    names = tuple(n[0] for n in classes.names) or tuple(f"no {i}" for i in range(classes.count))
    every_nth = np.linspace(0, len(part["learned"]) - 1, min(asked.probed, len(part["learned"])))
    learned = photos.subset([part["learned"][int(i)] for i in every_nth])
    development, users = (lying(photos.subset(part[use]), names, asked.seed)
                          for use in ("development", "users"))  # fmt: skip
    return Photos(learned, development, users, names)


def hexadecimal(group: str) -> str:
    """Return hexadecimal digits that stand for a photograph."""
    return fingerprint("planted", group)


def lying(photos: EvalSet, names: Sequence[str], seed: int) -> EvalSet:
    """Return photos with the name of another class written over each."""
    assert photos.labels is not None
    labels = photos.labels

    def read(i: int) -> np.ndarray:
        name = hexadecimal(photos.groups[i])
        rng = np.random.default_rng([seed, 3, int(name, 16)])
        said = (int(labels[i]) + 1 + int(rng.integers(len(names) - 1))) % len(names)
        return write(photos.read(i), names[said], name, LYING, seed)[0]

    return EvalSet(f"{photos.name}, lying text", read, photos.groups, labels, clean=photos)


def without_class(photos: EvalSet, label: int) -> EvalSet:
    """Return the photos of other classes."""
    assert photos.labels is not None
    return photos.subset(np.flatnonzero(photos.labels != label).tolist())


def write_photos(path: Path, photos: EvalSet) -> None:
    """Write views in the Hugging Face layout, as PNG."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    for i, group in enumerate(photos.groups):
        buffer = io.BytesIO()
        Image.fromarray(photos.read(i)).save(buffer, "PNG")
        rows.append({"bytes": buffer.getvalue(), "path": f"{hexadecimal(group)}.png"})
    table = pa.table({"image": rows, "group": list(photos.groups)})
    pq.write_table(table, path, row_group_size=64)
