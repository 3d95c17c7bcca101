"""P2's photos: seen by no training, with the atoms that annotations and pixels show.

Which a training saw the describer's own folder tells (`milanx.describing.trained`), whatever their
files are called. Each may have a copy with lettering drawn over it, so that text is an atom like
any other.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from milanx.describing.trained import Trained, group_of
from milanx.errors import InputError
from milanx.evaluate.common.names import accepted_names
from milanx.evaluate.p2.atoms import KIND_OF, TEXT, Lettering, lettering, pixel_atoms
from milanx.evaluate.p2.facts import fact_of, is_for, with_parts
from milanx.exemplars.planted import MAP
from milanx.images.near import clusters, picture_hash, united
from milanx.images.preprocess import Preprocess

SIDE = 224
PER_FILE = 5000  # photos that are read of a file, spread evenly over it
LETTERED = 0.4  # share of the photos of which a copy with lettering is made
_SUFFIX = re.compile(r"-(other-merged|merged|other|stuff)$")
_CROP = Preprocess((SIDE, SIDE), SIDE, "bilinear")


@dataclass(frozen=True)
class PlantedPhoto:
    """A photo and what it shows.

    Attributes:
        picture: uint8 [H, W, 3], as it was read.
        atoms: map of every atom that it shows, float32 [14, 14] in 0..1.
        source: the file that it came from.
        kind: of the atoms that its annotation names: ``class``, ``region`` or ``texture``.
        text: lettering that is drawn over it.
        group: what stands for the photograph, with lettering or without.
        kinds: of atoms that a file says the kind of.
    """

    picture: np.ndarray
    atoms: dict[str, np.ndarray]
    source: str = ""
    kind: str = "region"
    text: Lettering | None = None
    group: str = ""
    kinds: Mapping[str, str] = field(default_factory=dict)

    @property
    def view(self) -> np.ndarray:
        """The view, uint8 [224, 224, 3]."""
        view = _CROP.view(Image.fromarray(self.picture))
        return view if self.text is None else self.text.draw(view)


@lru_cache(maxsize=1)
def kinds_above() -> dict[str, tuple[str, ...]]:
    """Return kind above classes -> WordNet ids."""
    text = resources.files("milanx.evaluate.p2").joinpath("p2_kinds.json").read_text("utf-8")
    return {kind: tuple(wnids) for kind, wnids in json.loads(text).items()}


def kind_of(atom: str, fallback: str) -> str:
    """Return the kind of an atom; ``fallback`` for what an annotation names."""
    return KIND_OF.get(atom) or ("kind above" if atom in kinds_above() else fallback)


def read_photos(
    paths: Sequence[Path],
    trained: Trained | None,
    *,
    per_file: int = PER_FILE,
    apart: Callable[[str], bool] = lambda group: False,
    reported: bool | None = None,
    seed: int = 0,
) -> list[PlantedPhoto]:
    """Read photos that no training saw, of parquet files that have regions or names.

    Args:
        paths: files with the columns image and regions, or image and name.
        trained: what the describer was trained on; its photos and their near-duplicates are left
            out. None where no training saw any photo of these files.
        per_file: photos that are read of a file, spread evenly over it.
        apart: whether a group is for other uses.
        reported: of files with groups of their own read the photos for reports
            (`milanx.evaluate.p2.facts.is_for`), or those for choosing; all when None.
        seed: of the lettering.

    Raises:
        InputError: a file without either, or all of whose photos were trained on.
    """
    rng = np.random.default_rng(seed)
    rows = [row for path in paths for row in _unseen(path, trained, per_file, reported)
            if not apart(row.group)]  # fmt: skip
    found: list[PlantedPhoto] = []
    for row, group in zip(rows, _united(rows), strict=True):
        photo = _photo(row.content, row.source, group)
        if photo is not None:
            found.append(photo)
            if rng.random() < LETTERED:
                found.append(_lettered(photo, rng))
    return found


@dataclass(frozen=True)
class _Row:
    """A row of a file: its columns, the file, the photo's group and difference hash."""

    content: dict[str, Any]
    source: str
    group: str
    picture: str


def _unseen(path: Path, trained: Trained | None, count: int, reported: bool | None) -> list[_Row]:
    """Return rows of a file whose photos no training saw.

    Raises:
        InputError: there are none.
    """
    rows = [
        _Row(row, f"{path.stem}: {row['source']}" if row.get("group") else path.stem,
             group_of(row["image"]["path"], row["image"]["bytes"]), picture_hash(_image(row)))
        for row in _rows(path, count, reported)
    ]  # fmt: skip
    if trained is None:
        return rows
    seen = trained.seen([row.group for row in rows], [row.picture for row in rows])
    if seen.all():
        raise InputError(f"all photos of {path} were trained on",
                         "the describer's folder tells so", "give other photos")  # fmt: skip
    return [row for row, known in zip(rows, seen, strict=True) if not known]


def _united(rows: Sequence[_Row]) -> list[str]:
    """Return the photos' groups, those of near-duplicates made one, in whichever file they lie."""
    groups = [row.group for row in rows]
    # Groups of bytes are no source's word that two photographs are apart.
    own = [group if ":" in group else None for group in groups]
    labels = united(clusters([row.picture for row in rows]), own, [row.source for row in rows])
    first = np.unique(labels, return_index=True)[1]
    return [groups[int(first[label])] for label in labels]


def _rows(path: Path, count: int, reported: bool | None) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    if not path.is_file():
        raise InputError(f"no photos at {path}", "there is no such file", "give a .parquet file")
    names = pq.read_schema(path).names
    if "regions" not in names and "name" not in names:
        raise InputError(f"{path} says nothing of its photos",
                         "P2 needs a column regions (name, mask) or name",
                         "give segmented or labelled photos")  # fmt: skip
    own = ("group", "source") if {"group", "source"} <= {*names} else ()
    columns = [c for c in ("image", "regions", "name", "wnid", *own) if c in names]
    table = pq.read_table(path, columns=columns)
    if own and reported is not None:
        told = table.select(["group"]).to_pylist()
        paths = table["image"].combine_chunks().field("path").to_pylist()
        kept = [is_for({"image": {"path": inside}, **row}, reports=reported)
                for inside, row in zip(paths, told, strict=True)]  # fmt: skip
        table = table.filter(kept)
    chosen = np.unique(np.linspace(0, len(table) - 1, min(count, len(table))).astype(int))
    rows: list[dict[str, Any]] = table.take(chosen).to_pylist()
    return rows


def _image(row: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")


def _photo(row: dict[str, Any], source: str, group: str) -> PlantedPhoto | None:
    atoms, kinds = _facts(row) if row.get("group") else (_atoms(row), {})
    if not atoms:
        return None
    image = _image(row)
    kind = "region" if "regions" in row else "class" if "wnid" in row else "texture"
    atoms |= {n: m for n, m in pixel_atoms(_CROP.view(image)).items() if n not in atoms}
    return PlantedPhoto(np.asarray(image), atoms, source, kind, group=group, kinds=kinds)


def _lettered(photo: PlantedPhoto, rng: np.random.Generator) -> PlantedPhoto:
    text = lettering(rng, SIDE)
    return replace(photo, text=text, atoms={**photo.atoms, TEXT: text.cells(SIDE)})


def _atoms(row: dict[str, Any]) -> dict[str, np.ndarray]:
    if "regions" not in row:
        atoms: dict[str, np.ndarray] = {}
        whole = np.ones((MAP, MAP), np.float32)
        names = accepted_names().get(row.get("wnid") or "", (row.get("name"),))
        if names[0]:
            atoms[str(names[0]).replace("_", " ").lower()] = whole
            above = [k for k, wnids in kinds_above().items() if row.get("wnid") in wnids]
            atoms |= dict.fromkeys(above, whole)
        return atoms
    return region_atoms(row["regions"] or [])


def _facts(row: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return atoms of a row of a file with groups of its own, and the kinds of some of them."""
    if "regions" in row:
        owners = {_name(r["name"]): r["part_of"] for r in row["regions"] or () if r.get("part_of")}
        return with_parts(_atoms(row), owners)
    fact = fact_of(str(row.get("name") or ""))
    if fact is None:
        return _atoms(row), {}
    atom, kind, cells = fact
    return {atom: cells}, {atom: kind}


def _name(name: str) -> str:
    """Return the name of a region as it is said."""
    name = _SUFFIX.sub("", name)
    return {"tv": "television", "floor-wood": "wooden floor"}.get(name, name).replace("-", " ")


def region_atoms(regions: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Return the map of every name of an image's regions, float32 [14, 14] in 0..1."""
    atoms: dict[str, np.ndarray] = {}
    for region in regions:
        mask = Image.open(io.BytesIO(region["mask"])).convert("L").point(lambda v: 255 * (v > 0))
        view = Image.fromarray(_CROP.view(mask)[..., 0])
        cells = np.asarray(view.resize((MAP, MAP), Image.Resampling.BOX), np.float32) / 255
        if cells.max() >= 0.5:
            name = _name(region["name"])
            atoms[name] = np.maximum(atoms.get(name, 0), cells)
    return atoms
