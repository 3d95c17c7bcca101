"""Tell in a describer's folder what it was trained on, of photos that are at hand.

For folders that an earlier milanx wrote: training writes it by itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from milanx.describing.checks import INDEX
from milanx.describing.folder import read_content, write_content
from milanx.describing.trained import write_trained
from milanx.errors import InputError
from milanx.train.data.photos import PhotoSource, list_photos
from milanx.train.recipe import Data
from milanx.train.units.division import divide
from milanx.train.units.meanings import trained_photos


def tell_photos(root: Path | str, data: Path | str) -> int:
    """Write ``trained.parquet`` into a describer's folder, by the recipe that it tells.

    The photos are read again and held out by the same rules as in training; that they are the same
    shows in the numbers of views that training wrote down.

    Args:
        root: the describer's folder.
        data: the folder that holds the photos of its recipe.

    Returns:
        How many photos were trained on.

    Raises:
        InputError: it was not trained on photos, they are not there, or they are others.
        FormatError: no describer, or a damaged one.
    """
    root, data = Path(root), Path(data)
    training = read_content(root)[0]["training"]
    recipe = training.get("recipe", {}).get("data", {})
    if not recipe.get("photos") or not {"photos", "photos_trained_on"} <= training.keys():
        raise InputError(f"{root} was not trained on photos", "its recipe names none")
    found = [known for source in _sources(recipe, data) for known in list_photos(source)]
    photos, views = [p for p, n in found if n], np.array([n for _, n in found if n])
    asked = TypeAdapter(Data).validate_python({**recipe, "root": str(data)})
    divided = divide(photos, asked)
    keep, checked = divided.keep, divided.checked
    counts = int(views.sum()), int(views[keep & ~checked].sum())
    told = training["photos"], training["photos_trained_on"]
    if counts != told:
        raise InputError(
            f"the photos in {data} are not those that {root} was trained on",
            f"they make {counts[0]} views, {counts[1]} of them to train on; it tells {told[0]} "
            f"and {told[1]}",
            "give the very data of its training",
        )
    shown = trained_photos(divided.photos, keep, checked)
    write_trained(root, shown)
    write_content(root, json.loads((root / INDEX).read_text(encoding="utf-8")))
    return len(set(shown))


def _sources(recipe: Mapping[str, Any], data: Path) -> list[PhotoSource]:
    return [PhotoSource(data / p["file"], p["per_class"], p["views"], p["text"])
            for p in recipe["photos"]]  # fmt: skip
