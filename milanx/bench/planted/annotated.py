"""Photos whose annotations say what they show, and that no training of the describer saw."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from milanx.bench.planted.meanings import CONCERNS, captioned
from milanx.errors import InputError
from milanx.evaluate.p2.atoms import TEXT, lettering
from milanx.evaluate.p2.photos import SIDE, PlantedPhoto, region_atoms
from milanx.exemplars.planted import MAP
from milanx.files import fingerprint
from milanx.images.splits import held_out, photo_group
from milanx.language.compare import lemmas

HELD_OUT, HELD_OUT_CAPTIONS = 0.2, 0.1  # shares that the bundled describer's training left out
COCO = "coco:"  # its photos are in files that were trained on, whatever file they come from
OF_A_CLASS = 24  # photos of one class
LETTERED = 0.15  # share of the photos of which a copy with lettering is made
COLUMNS = ("image", "regions", "name", "captions", "source")


@dataclass(frozen=True)
class UnitsAsked:
    """Units of known meaning, and the photos that they are planted on.

    Attributes:
        images: parquet files that a describer was trained on; the groups that it left out are used.
        whole: parquet files that it was not trained on; all their photos are used, but those of
            COCO, which other files may hold.
        meant: units of each thing that a rule must find.
        other: units of each thing that none must find.
        photos: at most so many of each source.
        limit: at most so many units; spread over the things.
        impure: whether exemplar sets are P2's, up to three tenths of which show something else,
            with loose and displaced masks; else what extraction would find.
        seed: of everything that is drawn.
    """

    images: tuple[Path, ...] = ()
    whole: tuple[Path, ...] = ()
    meant: int = 3
    other: int = 1
    photos: int = 250
    limit: int | None = None
    impure: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.images and not self.whole:
            raise InputError("no photos to plant units on", "neither --images nor --whole is given",
                             "give parquet files with regions, names or captions")  # fmt: skip
        for what, value in (("meant", self.meant), ("other", self.other), ("photos", self.photos)):
            if value < 1:
                raise InputError(f"{what} cannot be {value}", "it is 1 or more")


@dataclass
class _Kept:
    """What is kept of a source while its file is read."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    classes: dict[str, int] = field(default_factory=dict)


def read_annotated(asked: UnitsAsked) -> list[PlantedPhoto]:
    """Read the photos, each with the things of `CONCERNS` that it shows; some also lettered.

    Raises:
        InputError: no such file, or none of its photos shows anything that is known here.
    """
    rng = np.random.default_rng([asked.seed, 0])
    found: list[PlantedPhoto] = []
    for path in (*asked.images, *asked.whole):
        before = len(found)
        kept: dict[str, _Kept] = {}
        for row in _rows(path):
            if not _unseen(row, whole=path in asked.whole):
                continue
            source = f"{path.stem} {row.get('source') or ''}".split(" train")[0].split(" val")[0]
            _keep(kept.setdefault(source.strip(), _Kept()), row)
        for source, some in sorted(kept.items()):
            order = rng.permutation(len(some.rows))
            if not some.classes:
                order = order[: asked.photos]
            for i in sorted(order.tolist()):
                found += _photos(some.rows[i], source, rng)
        if len(found) == before:
            raise InputError(f"{path} shows nothing that a unit can mean",
                             "no region, name or caption of its unseen photos is known",
                             "give segmented, labelled or captioned photos")  # fmt: skip
    return found


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    if not path.is_file():
        raise InputError(f"no photos at {path}", "there is no such file", "give a .parquet file")
    file = pq.ParquetFile(path)
    columns = [c for c in COLUMNS if c in file.schema_arrow.names]
    for batch in file.iter_batches(64, columns=columns):
        yield from batch.to_pylist()


def _unseen(row: dict[str, Any], *, whole: bool) -> bool:
    """Whether no training saw a photo."""
    content = row["image"]["bytes"]
    group = photo_group(row["image"]["path"] or "", fingerprint(content.hex()))
    if whole and not group.startswith(COCO):
        return True
    only_captions = not row.get("regions") and bool(row.get("captions"))
    return held_out(group, HELD_OUT_CAPTIONS if only_captions else HELD_OUT)


def _keep(kept: _Kept, row: dict[str, Any]) -> None:
    """Keep a row, unless it has a name that is not known, or that enough rows have."""
    if "regions" not in row and row.get("name"):
        name = _name(str(row["name"]))
        if name not in CONCERNS or kept.classes.get(name, 0) >= OF_A_CLASS:
            return
        kept.classes[name] = kept.classes.get(name, 0) + 1
    kept.rows.append(row)


def _name(text: str) -> str:
    return text.replace("_", " ").lower()


def _photos(row: dict[str, Any], source: str, rng: np.random.Generator) -> list[PlantedPhoto]:
    """Return a photo that shows something known, and a copy with lettering of some."""
    atoms = _atoms(row)
    if not atoms:
        return []
    image = np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB"))
    photo = PlantedPhoto(image, atoms, source)
    if rng.random() >= LETTERED:
        return [photo]
    text = lettering(rng, SIDE)
    return [photo, replace(photo, text=text, atoms={**photo.atoms, TEXT: text.cells(SIDE)})]


def _atoms(row: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return what a photo shows: regions where it has some, else its name, else its captions."""
    if row.get("regions"):
        return {n: m for n, m in region_atoms(row["regions"]).items() if n in CONCERNS}
    names: Sequence[str] = [_name(str(row["name"]))] if row.get("name") else []
    if not names:
        names = captioned([lemmas(c) for c in row.get("captions") or []])
    return {n: np.ones((MAP, MAP), np.float32) for n in names if n in CONCERNS}
