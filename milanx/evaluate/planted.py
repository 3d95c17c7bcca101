"""P2's own generator: atoms of labelled and segmented photos, meanings, and exemplar sets.

Nothing of it is shared with training: its atoms come with phrases of its own, and the levels of
noise are drawn as the protocol states them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from milanx.errors import InputError
from milanx.files import fingerprint
from milanx.probes import MAP, Meaning, combine
from milanx.splits import held_out, photo_group
from milanx.zoo import Preprocess

K = 15
MIN_IMAGES = 8  # photos that must show a meaning
PURITY = (0.7, 1.0)
OVERLAP = (0.4, 1.0)  # intersection over union of a noisy mask with the true one
DISPLACEMENT = 0.15  # of the side
SIDE = 224
_SUFFIX = re.compile(r"-(other-merged|merged|other|stuff)$")


@dataclass(frozen=True)
class PlantedPhoto:
    """A photo with the map of every atom that it shows, float32 [14, 14] in 0..1."""

    view: np.ndarray
    atoms: dict[str, np.ndarray]


@dataclass(frozen=True)
class PlantedUnit:
    """A unit that was built.

    Attributes:
        meaning: what it means.
        choices: five mutually similar meanings of the same size, the true one among them.
        images: int64 [k].
        maps: float32 [k, 14, 14], above one half is inside the mask.
    """

    meaning: Meaning
    choices: tuple[Meaning, ...]
    images: np.ndarray
    maps: np.ndarray


def read_photos(paths: Sequence[Path], share: float) -> list[PlantedPhoto]:
    """Read the held-out photos of parquet files that have regions or names.

    Args:
        paths: files with the columns image and regions, or image and name.
        share: of the photos that no training saw, by group.

    Raises:
        InputError: a file without either.
    """
    import pyarrow.parquet as pq

    crop = Preprocess((SIDE, SIDE), SIDE, "bilinear")
    found = []
    for path in paths:
        if not path.is_file():
            raise InputError(
                f"no photos at {path}", "there is no such file", "give a .parquet file"
            )
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        if "regions" not in names and "name" not in names:
            raise InputError(f"{path} says nothing of its photos",
                             "P2 needs a column regions (name, mask) or name",
                             "give segmented or labelled photos")  # fmt: skip
        for batch in file.iter_batches(64):
            for row in batch.to_pylist():
                content = row["image"]["bytes"]
                group = photo_group(row["image"]["path"], fingerprint(content.hex()))
                if held_out(group, share):
                    image = Image.open(io.BytesIO(content)).convert("RGB")
                    atoms = _atoms(row, crop)
                    if atoms:
                        found.append(PlantedPhoto(crop.view(image), atoms))
    return found


def _atoms(row: dict[str, Any], crop: Preprocess) -> dict[str, np.ndarray]:
    atoms: dict[str, np.ndarray] = {}
    if "regions" not in row:
        if row.get("name"):
            atoms[str(row["name"]).replace("_", " ").lower()] = np.ones((MAP, MAP), np.float32)
        return atoms
    for region in row["regions"] or []:
        mask = Image.open(io.BytesIO(region["mask"])).convert("L").point(lambda v: 255 * (v > 0))
        view = Image.fromarray(crop.view(mask)[..., 0])
        cells = np.asarray(view.resize((MAP, MAP), Image.Resampling.BOX), np.float32) / 255
        name = _SUFFIX.sub("", region["name"])
        name = {"tv": "television", "floor-wood": "wooden floor"}.get(name, name).replace("-", " ")
        if cells.max() >= 0.5:
            atoms[name] = np.maximum(atoms.get(name, 0), cells)
    return atoms


def generate(photos: Sequence[PlantedPhoto], count: int, seed: int) -> list[PlantedUnit]:
    """Draw planted units: half single meanings, the rest AND, OR and AND-NOT.

    Raises:
        InputError: too few photos for any meaning.
    """
    rng = np.random.default_rng(seed)
    counts: dict[str, int] = {}
    for photo in photos:
        for atom in photo.atoms:
            counts[atom] = counts.get(atom, 0) + 1
    atoms = sorted(a for a, n in counts.items() if n >= MIN_IMAGES)
    empty = np.zeros((MAP, MAP), np.float32)
    maps = {a: np.stack([p.atoms.get(a, empty) for p in photos]) for a in atoms}
    pools = _meanings(atoms, maps)
    if len(pools["single"]) < 5:
        raise InputError("too few photos to plant units", f"{len(photos)} held-out photos show "
                         f"{len(atoms)} things in {MIN_IMAGES} photos or more",
                         "give more photos, or with more kinds of regions")  # fmt: skip
    similar = _similarities([m for pool in pools.values() for m in pool])
    units = []
    for number in range(count):
        kinds = ["single", *(k for k in ("and", "or", "and-not") if len(pools[k]) >= 5)]
        kind = "single" if number % 2 == 0 or len(kinds) == 1 else str(rng.choice(kinds[1:]))
        choices = _choices(pools, kind, similar, rng)
        true = choices[int(rng.integers(len(choices)))]
        images, noisy = _exemplars(combine(maps, true), rng)
        units.append(PlantedUnit(true, tuple(choices), images, noisy))
    return units


def _meanings(atoms: list[str], maps: dict[str, np.ndarray]) -> dict[str, list[Meaning]]:
    """All meanings that enough photos show."""
    present = {a: maps[a].max((1, 2)) >= 0.5 for a in atoms}
    pools: dict[str, list[Meaning]] = {"single": [Meaning((a,)) for a in atoms],
                                       "and": [], "or": [], "and-not": []}  # fmt: skip
    for i, a in enumerate(atoms):
        for b in atoms[i + 1 :]:
            if (present[a] & present[b]).sum() >= MIN_IMAGES:
                pools["and"].append(Meaning((a, b), "and"))
                pools["or"].append(Meaning((a, b), "or"))
                for x, y in ((a, b), (b, a)):
                    if (present[x] & ~present[y]).sum() >= MIN_IMAGES:
                        pools["and-not"].append(Meaning((x, y), "and-not"))
    return pools


def _similarities(meanings: list[Meaning]) -> dict[tuple[str, str], float]:
    from milanx.evaluate.text import Sentences

    phrases = sorted({m.phrase for m in meanings})
    rows = Sentences()(phrases)
    table = rows @ rows.T
    return {
        (a, b): float(table[i, j]) for i, a in enumerate(phrases) for j, b in enumerate(phrases)
    }


def _choices(
    pools: dict[str, list[Meaning]],
    kind: str,
    similar: dict[tuple[str, str], float],
    rng: np.random.Generator,
) -> list[Meaning]:
    """Five similar meanings of one size; for pairs another connective of the same atoms too."""
    pool = pools[kind]
    first = pool[int(rng.integers(len(pool)))]
    others = pool if kind == "single" else [m for k in ("and", "or", "and-not") for m in pools[k]]
    ranked = sorted((m for m in others if m != first),
                    key=lambda m: (-similar[first.phrase, m.phrase], m.phrase))  # fmt: skip
    return [first, *ranked[:4]]


def _exemplars(activation: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw an impure exemplar set with loose, displaced masks: images [k], maps [k, 14, 14]."""
    showing = np.flatnonzero(activation.max((1, 2)) >= 0.5)
    others = np.flatnonzero(activation.max((1, 2)) < 0.5)
    k = min(K, len(showing))
    pure = round(k * rng.uniform(*PURITY)) if len(others) else k
    images = np.concatenate([rng.permutation(showing)[:pure], rng.permutation(others)[: k - pure]])
    images = np.concatenate([images, np.full(K - len(images), -1)]).astype(np.int64)
    overlap = rng.uniform(*OVERLAP)
    maps = np.zeros((K, MAP, MAP), np.float32)
    for place, image in enumerate(images):
        if image < 0:
            continue
        true = activation[image] >= 0.5
        if not true.any():
            true = np.zeros((MAP, MAP), bool)
            y, x = rng.integers(0, MAP - 4, 2)
            true[y : y + 5, x : x + 5] = True
        maps[place] = _loosen(true, overlap, rng)
    return images, maps


def _loosen(mask: np.ndarray, overlap: float, rng: np.random.Generator) -> np.ndarray:
    """Displace a mask and add or remove cells until its overlap with the true one has fallen."""
    reach = round(DISPLACEMENT * MAP)
    moved = np.roll(mask, tuple(rng.integers(-reach, reach + 1, 2)), (0, 1))
    if moved.all() or not (moved & mask).any():
        moved = mask.copy()
    for cell in rng.permutation(mask.size):
        if (moved & mask).sum() / (moved | mask).sum() <= overlap:
            break
        flipped = moved.copy()
        flipped.flat[cell] = ~flipped.flat[cell]
        if flipped.any():
            moved = flipped
    return moved.astype(np.float32)
