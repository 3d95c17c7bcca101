"""What of a recipe's photos is trained on, what is checked on and what is held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from milanx.images.near import clusters, united
from milanx.train.data.kinds import Kind, read_kinds
from milanx.train.data.photos import Photo
from milanx.train.recipe import Data
from milanx.train.units.meanings import checked_photos, near_photos, training_photos
from milanx.train.units.phrases import held_out_names, whole_words


@dataclass(frozen=True)
class Division:
    """Photos, or views of them, divided.

    Attributes:
        photos: n of them, with the groups and sources that count.
        keep: bool [n], those that are not held out.
        checked: bool [n], those that trainings are checked on.
    """

    photos: list[Photo]
    keep: np.ndarray
    checked: np.ndarray


def divide(photos: Sequence[Photo], data: Data) -> Division:
    """Divide photos as a recipe's data asks.

    Raises:
        InputError: a file that ``data`` names is not there.
    """
    words = whole_words(held_out_names(dictionary(data)))
    shares = {Path(p.file).stem: p.held_out for p in data.photos if p.held_out is not None}
    if data.near_duplicates:
        photos = _as_one_group(photos)
    keep = training_photos(photos, data.held_out_captions, data.held_out_photos, shares, words)
    if data.without:
        keep &= ~near_photos(photos, [Path(data.root) / file for file in data.without])
        # What is of one group with a photo that is left out goes with it.
        left = {p.group for p, k in zip(photos, keep, strict=True) if not k}
        keep = np.array([p.group not in left for p in photos], bool)
    return Division(_of_origins(photos, data), keep, checked_photos(photos, data.checked))


def dictionary(data: Data) -> tuple[Kind, ...]:
    """Return what a recipe's dictionary says of classes; nothing where it names none."""
    return read_kinds(Path(data.root) / data.kinds) if data.kinds else ()


def _as_one_group(photos: Sequence[Photo]) -> list[Photo]:
    """Give near-duplicates one group, the first one's, in whatever source they stand.

    No source's word counts that two of its photos are apart: frames of one camera have names of
    their own too.
    """
    labels = united(clusters([p.picture for p in photos]), [p.group for p in photos],
                    [str(i) for i in range(len(photos))])  # fmt: skip
    first = np.unique(labels, return_index=True)[1]
    return [replace(p, group=photos[int(first[label])].group)
            for p, label in zip(photos, labels, strict=True)]  # fmt: skip


def _of_origins(photos: Sequence[Photo], data: Data) -> list[Photo]:
    """Tell photos of different origins apart, in the files that ask for it."""
    apart = {Path(p.file).stem for p in data.photos if p.by_origin}
    return [replace(p, source=f"{p.source}: {p.origin}") if p.source in apart and p.origin else p
            for p in photos]  # fmt: skip
