"""What a describer was trained on, as its folder tells it: photos, and classes.

``trained.parquet`` has a row for each photo that any training read, those on which trainings were
checked included: its group (a photograph's number, a video, or a digest of the file's bytes), its
difference hash (`milanx.images.near`), and the class that it was shown as. Whoever measures a
describer leaves these photos and their near-duplicates out, under whatever name they come. No text
depends on the file, so it is no part of a describer's fingerprint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from milanx.errors import InputError
from milanx.files import read_table, reading, write_table
from milanx.images.near import clusters
from milanx.images.splits import photo_group

if TYPE_CHECKING:
    from milanx.files.digests import Listing

FILE, FORMAT, VERSION = "trained.parquet", "milanx trained photos", 1
COLUMNS = ("group", "picture", "name", "wnid")
CHECKED = "checked"  # whether trainings were checked on the photo, and not fitted to it


@dataclass(frozen=True)
class TrainedPhoto:
    """A photo that a training read.

    Attributes:
        group: of `group_of`.
        picture: of `milanx.images.near.picture_hash`.
        name: of its class; empty where it has none.
        wnid: WordNet id of its class; empty where it has none.
        checked: trainings were checked on it; nothing was fitted to it.
    """

    group: str
    picture: str
    name: str = ""
    wnid: str = ""
    checked: bool = False


def group_of(path: str | None, content: bytes) -> str:
    """Return the group of a photo: one photograph, or one video, under several names.

    Args:
        path: the file's name in its source.
        content: its bytes.
    """
    return photo_group(path or "", hashlib.sha256(content).hexdigest()[:16])


@dataclass(frozen=True)
class Trained:
    """What a describer was trained on.

    Attributes:
        photos: those that any training read.
        held_out: classes that no training named or showed: WordNet ids, or names as their data
            set spells them; None where nothing is said of it.
    """

    photos: tuple[TrainedPhoto, ...]
    held_out: frozenset[str] | None = None

    @property
    def classes(self) -> frozenset[str]:
        """WordNet ids, and names, of the classes of which photos were trained on."""
        return frozenset(c for p in self.photos for c in (p.name, p.wnid) if c)

    def has(self, groups: Sequence[str]) -> np.ndarray:
        """Say which groups were trained on: bool [n]. Near-duplicates are not looked for."""
        known = {photo.group for photo in self.photos}
        return np.array([group in known for group in groups], bool)

    def seen(self, groups: Sequence[str], pictures: Sequence[str]) -> np.ndarray:
        """Say which photos were trained on, or are near-duplicates of such: bool [n].

        Args:
            groups: of each (`group_of`).
            pictures: hash of each (`milanx.images.near.picture_hash`).
        """
        labels = clusters([*(p.picture for p in self.photos), *pictures])
        near = np.isin(labels[len(self.photos) :], labels[: len(self.photos)])
        own = self.has(groups)
        again = {group for group, n in zip(groups, near, strict=True) if n}
        return np.array([o or group in again for o, group in zip(own, groups, strict=True)], bool)

    def only_checked(self) -> Trained:
        """Return what is left where photos count that anything was fitted to, and no others."""
        fitted = {photo.group for photo in self.photos if not photo.checked}
        return Trained(tuple(p for p in self.photos if p.group in fitted), self.held_out)


def write_trained(root: Path, photos: Iterable[TrainedPhoto]) -> None:
    """Write ``trained.parquet`` into a describer's folder; `write_content` then tells it."""
    import pyarrow as pa

    rows = sorted(set(photos), key=lambda p: (p.group, p.picture, p.name, p.wnid, p.checked))
    columns = {n: pa.array([getattr(p, n) for p in rows], pa.string()) for n in COLUMNS}
    table = pa.table({**columns, CHECKED: pa.array([p.checked for p in rows], pa.bool_())})
    write_table(root / FILE, table, FORMAT, VERSION)


def read_trained(listing: Listing, training: Mapping[str, Any]) -> Trained:
    """Read what a describer's folder tells of its training.

    Args:
        listing: its files.
        training: of its ``describer.json``.

    Raises:
        InputError: it tells nothing of photos.
        FormatError: the file is damaged, or of an unknown version.
    """
    if not (listing.root / FILE).exists():
        raise InputError(
            f"{listing.root} does not tell which photos the describer was trained on",
            f"it holds no {FILE}: an earlier milanx wrote it, or it was trained on units that "
            "people described",
            ["--held-out-all FILE says of a file that no training read it",
             "docs/own-describer.md shows how it is told for photos that are at hand"],
        )  # fmt: skip
    path = listing.check(FILE)
    table = read_table(path, FORMAT, VERSION)
    with reading(path):
        columns = [table.column(name).to_pylist() for name in (*COLUMNS, CHECKED)]
        if not all(isinstance(v, str) for column in columns[:-1] for v in column):
            raise ValueError("its columns hold other things than texts")
        photos = tuple(TrainedPhoto(*row) for row in zip(*columns, strict=True))
        clusters([photo.picture for photo in photos])  # all are hashes
    return Trained(photos, held_out(training))


def held_out(training: Mapping[str, Any]) -> frozenset[str] | None:
    """Return the classes that a training held out; None where nothing is said of it."""
    told = [training.get(name) for name in ("held_out_wnids", "held_out_classes")]
    if not any(isinstance(names, list) for names in told):
        return None
    return frozenset(str(name) for names in told for name in names or ())
