"""P2's photos: seen by no training, with the atoms that annotations and pixels show.

Each may have a copy with lettering drawn over it, so that text is an atom like any other.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from milanx.errors import InputError
from milanx.evaluate.common.names import accepted_names
from milanx.evaluate.p2.atoms import KIND_OF, TEXT, Lettering, lettering, pixel_atoms
from milanx.exemplars.planted import MAP
from milanx.files import fingerprint
from milanx.images.preprocess import Preprocess
from milanx.images.splits import held_out, photo_group

SIDE = 224
PER_FILE = 5000  # photos that are read of a file, spread evenly over it
LETTERED = 0.4  # share of the photos of which a copy with lettering is made
MEASURED = frozenset({"tiny_imagenet_val", "imagenet_sample"})  # files that no training reads
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
    """

    picture: np.ndarray
    atoms: dict[str, np.ndarray]
    source: str = ""
    kind: str = "region"
    text: Lettering | None = None

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
    paths: Sequence[Path], share: float, *, whole: Sequence[Path] = (), seed: int = 0
) -> list[PlantedPhoto]:
    """Read photos that no training saw, of parquet files that have regions or names.

    Args:
        paths: files with the columns image and regions, or image and name.
        share: of a file's photos that no training saw, by group.
        whole: files of which no training saw any photo; `MEASURED` are always such.
        seed: of the lettering.

    Raises:
        InputError: a file without either.
    """
    rng = np.random.default_rng(seed)
    found = []
    for path in paths:
        every = path in whole or path.stem in MEASURED
        for row in _rows(path):
            content = row["image"]["bytes"]
            group = photo_group(row["image"]["path"], fingerprint(content.hex()))
            if not every and not held_out(group, share):
                continue
            photo = _photo(row, content, path.stem)
            if photo is not None:
                found.append(photo)
                if rng.random() < LETTERED:
                    found.append(_lettered(photo, rng))
    return found


def _rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    if not path.is_file():
        raise InputError(f"no photos at {path}", "there is no such file", "give a .parquet file")
    names = pq.read_schema(path).names
    if "regions" not in names and "name" not in names:
        raise InputError(f"{path} says nothing of its photos",
                         "P2 needs a column regions (name, mask) or name",
                         "give segmented or labelled photos")  # fmt: skip
    columns = [c for c in ("image", "regions", "name", "wnid") if c in names]
    table = pq.read_table(path, columns=columns)
    chosen = np.unique(np.linspace(0, len(table) - 1, min(PER_FILE, len(table))).astype(int))
    rows: list[dict[str, Any]] = table.take(chosen).to_pylist()
    return rows


def _photo(row: dict[str, Any], content: bytes, source: str) -> PlantedPhoto | None:
    image = Image.open(io.BytesIO(content)).convert("RGB")
    atoms = _atoms(row)
    if not atoms:
        return None
    kind = "region" if "regions" in row else "class" if "wnid" in row else "texture"
    atoms |= {n: m for n, m in pixel_atoms(_CROP.view(image)).items() if n not in atoms}
    return PlantedPhoto(np.asarray(image), atoms, source, kind)


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


def region_atoms(regions: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Return the map of every name of an image's regions, float32 [14, 14] in 0..1."""
    atoms: dict[str, np.ndarray] = {}
    for region in regions:
        mask = Image.open(io.BytesIO(region["mask"])).convert("L").point(lambda v: 255 * (v > 0))
        view = Image.fromarray(_CROP.view(mask)[..., 0])
        cells = np.asarray(view.resize((MAP, MAP), Image.Resampling.BOX), np.float32) / 255
        name = _SUFFIX.sub("", region["name"])
        name = {"tv": "television", "floor-wood": "wooden floor"}.get(name, name).replace("-", " ")
        if cells.max() >= 0.5:
            atoms[name] = np.maximum(atoms.get(name, 0), cells)
    return atoms
