"""The images of the experiment: class names on a share of them, true or lying, by a seed.

The paper (Hernandez et al. 2022, section 7) never released its generator; this one is a function of
the images, the settings and the version of Pillow.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from milanx.act.shortcut import lettering
from milanx.act.shortcut.folder import (
    FORMAT,
    KIND,
    LYING,
    PLAIN,
    ROWS,
    SPLITS,
    VERSION,
    Experiment,
    open_experiment,
    schema,
    versions_of,
)
from milanx.errors import InputError
from milanx.files import atomic_path, fingerprint, fingerprint_file, write_json
from milanx.files.replacing import check_place
from milanx.images.preprocess import Preprocess
from milanx.images.probe import ImageRecord, ProbeImages, open_images
from milanx.progress import Reporter, Silent, Stage

LEAST = 4  # images of a class, below which it cannot be on every side of the split


@dataclass(frozen=True)
class MakeSettings:
    """What the images are made of, beside the photos.

    Attributes:
        shares: percent of the images of each class that carry its name; each a version.
        seed: of splits, of which images are written on, of hands and of lies.
        side: of the images, in pixels; they are resized and centre-cropped.
        describe: share of the photos that is held out for describing.
        validation: share that is held out for choosing.
        test: share that is held out for the test, where no other source is.
        style: of the lettering.
    """

    shares: tuple[int, ...] = (10, 50)
    seed: int = 0
    side: int = 64
    describe: float = 0.15
    validation: float = 0.15
    test: float = 0.15
    style: lettering.Style = field(default_factory=lettering.Style)

    def __post_init__(self) -> None:
        if not self.shares or any(not 0 < s <= 100 for s in self.shares):
            raise InputError(f"no share {list(self.shares)}", "a share is from 1 to 100 %",
                             "--share 10 --share 50")  # fmt: skip
        object.__setattr__(self, "shares", tuple(sorted(set(self.shares))))
        if self.seed < 0:
            raise InputError(f"no seed {self.seed}", "a seed is 0 or more", "--seed 0")
        least = 16  # the smallest letters need that much
        if self.side < least:
            raise InputError(f"no side of {self.side} pixels", "no name is readable on so few",
                             f"--side {least} or more")  # fmt: skip
        held = (self.describe, self.validation, self.test)
        if min(held) <= 0 or sum(held) >= 0.9:
            raise InputError(f"cannot hold out {held}", "each is above 0, all together below .9")


@dataclass(frozen=True)
class Photo:
    """One photo with its place in the experiment.

    Attributes:
        index: among the opened images.
        record: what is known of it.
        label: of its class.
        split: where it is.
        rank: its place among its class and split in the order in which they are written on, as a
            share from 0 to 1: it carries its name where this is below the version's share.
    """

    index: int
    record: ImageRecord
    label: int
    split: str
    rank: float


def make(
    data: Path | str,
    out: Path | str,
    *,
    test: Path | str | None = None,
    settings: MakeSettings | None = None,
    overwrite: bool = False,
    progress: Reporter | None = None,
) -> Experiment:
    """Write the images of an experiment.

    Args:
        data: labelled images: a folder with a subfolder a class, or a parquet file with the
            columns image and name (or a ClassLabel ``label``).
        out: the folder to write.
        test: images of the same classes to test on, of the same kinds; others are left out. A part
            of ``data`` when None.
        settings: how; the defaults when None.
        overwrite: replace an experiment that is there.
        progress: told about the stages.

    Returns:
        The experiment, opened.

    Raises:
        InputError: images without labels, too few of a class, or a place that cannot be written.
    """
    settings, progress, out = settings or MakeSettings(), progress or Silent(), Path(out)
    check_place(out, KIND, overwrite=overwrite)
    with progress.stage("open images", None):
        images = open_images([str(data), *([str(test)] if test else [])])
    for note in images.notes:
        progress.say(f"note: {note}")
    classes, photos = plan(images, settings, has_test=test is not None)
    files = [(s, v) for s in SPLITS for v in versions_of(s, settings.shares)]
    total = sum(sum(p.split == s for p in photos) for s, _ in files)
    with progress.stage("write images", total) as bar, \
            atomic_path(out, KIND if overwrite else None) as folder:  # fmt: skip
        folder.mkdir()
        writer = _Writer(images, classes, settings, bar)
        for split, version in files:
            chosen = [p for p in photos if p.split == split]
            writer.write(folder / f"{split}-{version}.parquet", chosen, version)
        left_out = Counter(p.split for p in photos if p.split not in SPLITS)
        _describe(folder, images, classes, settings, Counter(p.split for p in photos), left_out)
    return open_experiment(out)


def plan(
    images: ProbeImages, settings: MakeSettings, *, has_test: bool
) -> tuple[list[str], list[Photo]]:
    """Give every photo its class, its split (by group) and its rank.

    Photos of a group that is in the test source too are ``near the test``; test photos of other
    classes are ``of other classes``; neither is used.

    Raises:
        InputError: images without labels, or too few of a class.
    """
    first = images.sources[0].name
    own = [r for r in images.records if r.source == first]
    names = _names(own)
    classes = _order(own, names)
    wnids = {r.wnid: names[r.index] for r in own if r.wnid}
    rng = np.random.default_rng(settings.seed)
    label_of: dict[int, int] = {r.index: classes.index(names[r.index]) for r in own}
    split_of = _splits(own, label_of, settings, rng, has_test)
    if has_test:
        for record in images.records[len(own) :]:
            name = wnids.get(record.wnid) if wnids and record.wnid else _tidy(record.name)
            split_of[record.index] = "test" if name in classes else "of other classes"
            label_of[record.index] = classes.index(name) if name in classes else -1
        tested = {r.group for r in images.records if split_of[r.index] == "test"}
        for record in own:
            if record.group in tested:
                split_of[record.index] = "near the test"
    _check_counts(classes, label_of, split_of)
    ranks = _ranks(images.records, label_of, split_of, rng)
    photos = [Photo(r.index, r, label_of[r.index], split_of[r.index], ranks[r.index])
              for r in images.records]  # fmt: skip
    return classes, photos


def _tidy(name: str | None) -> str | None:
    """Return the first of a class's names, as people write it."""
    return name.split(",")[0].replace("_", " ").strip() if name else None


def _names(records: Sequence[ImageRecord]) -> dict[int, str]:
    found = {r.index: _tidy(r.name) for r in records}
    missing = next((r for r in records if not found[r.index]), None)
    if missing is not None:
        raise InputError(
            f"{missing.path} of {missing.source} has no class name",
            "the experiment writes the names of classes on images",
            "give a folder with a subfolder a class, or a parquet file with a column name",
        )
    return {index: name for index, name in found.items() if name}


def _order(records: Sequence[ImageRecord], names: dict[int, str]) -> list[str]:
    """Return the classes by the source's labels, else by name."""
    by_label = {r.label: names[r.index] for r in records}
    distinct = set(names.values())
    if None not in by_label and len(by_label) == len(distinct) == len(set(by_label.values())):
        return [by_label[label] for label in sorted(by_label)]  # type: ignore[type-var]
    if len(distinct) < 2:
        raise InputError("one class is no experiment", f"all images are {distinct.pop()!r}",
                         "give images of two classes or more")  # fmt: skip
    return sorted(distinct)


def _splits(
    records: Sequence[ImageRecord], label_of: dict[int, int], settings: MakeSettings,
    rng: np.random.Generator, has_test: bool,
) -> dict[int, str]:  # fmt: skip
    """Split by group: class by class, a group where its first photo's class is."""
    shares = [("describe", settings.describe), ("validation", settings.validation)]
    if not has_test:
        shares.append(("test", settings.test))
    groups: dict[str, list[ImageRecord]] = {}
    for record in records:
        groups.setdefault(record.group, []).append(record)
    of_class: dict[int, list[str]] = {}
    for name, members in groups.items():
        of_class.setdefault(label_of[members[0].index], []).append(name)
    found: dict[int, str] = {}
    for label in sorted(of_class):
        mine = sorted(of_class[label])
        order = [mine[i] for i in rng.permutation(len(mine))]
        count = sum(len(groups[g]) for g in order)
        done, limit, queue = 0, 0.0, list(shares)
        split = "train"
        for group in order:
            while queue and done >= limit:  # the next split begins where the last one is full
                split, share = queue.pop(0)
                limit = done + round(share * count)
            if not queue and done >= limit:
                split = "train"
            found.update(dict.fromkeys((r.index for r in groups[group]), split))
            done += len(groups[group])
    return found


def _check_counts(classes: list[str], label_of: dict[int, int], split_of: dict[int, str]) -> None:
    counts = Counter((split_of[i], label) for i, label in label_of.items())
    for split in SPLITS:
        least, label = min((counts[split, c], c) for c in range(len(classes)))
        if least == 0:
            raise InputError(
                f"there is no {split} image of {classes[label]!r}",
                f"every class needs an image on every side; {LEAST} groups of images are the least",
                "give more images of it, larger shares, or leave the class out",
            )


def _ranks(
    records: Sequence[ImageRecord], label_of: dict[int, int], split_of: dict[int, str],
    rng: np.random.Generator,
) -> dict[int, float]:  # fmt: skip
    cells: dict[tuple[str, int], list[int]] = {}
    for record in records:
        if split_of[record.index] in SPLITS:
            cell = (split_of[record.index], label_of[record.index])
            cells.setdefault(cell, []).append(record.index)
    found = dict.fromkeys(label_of, 1.0)
    for cell in sorted(cells):
        for place, member in enumerate(rng.permutation(len(cells[cell]))):
            found[cells[cell][member]] = place / len(cells[cell])
    return found


class _Writer:
    """Writes splits in versions.

    Args:
        images: the photos.
        classes: their names.
        settings: how.
        bar: told about each image.
    """

    def __init__(
        self, images: ProbeImages, classes: list[str], settings: MakeSettings, bar: Stage
    ) -> None:
        self.images, self.classes, self.settings, self.bar = images, classes, settings, bar
        side = settings.side
        self.preprocess = Preprocess((side, side), side, "bilinear")
        self.schema = schema(classes)

    def write(self, path: Path, photos: Sequence[Photo], version: str) -> None:
        """Write one file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        counts = Counter(p.label for p in photos)
        with pq.ParquetWriter(path, self.schema, compression="zstd") as file:
            for rows in _batches(photos):
                made = [self._row(photo, version, counts[photo.label]) for photo in rows]
                file.write_table(pa.Table.from_pylist(made, schema=self.schema))
                self.bar.advance(len(rows))

    def _row(self, photo: Photo, version: str, count: int) -> dict[str, Any]:
        """Make one image; ``count`` is how many its class has in this split."""
        from PIL import Image

        image = Image.fromarray(self.preprocess.view(self.images.read(photo.index)))
        label = self._written(photo, version, count)
        box = None
        if label is not None:
            how = lettering.hand(self.settings.seed, photo.record.fingerprint, self.settings.style)
            image, box = lettering.write(image, self.classes[label], how)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return {
            "image": {"bytes": buffer.getvalue(), "path": f"{photo.record.path}.png"},
            "label": photo.label,
            "name": self.classes[photo.label],
            "text": None if label is None else self.classes[label],
            "split": photo.split,
            "group": photo.record.group,
            "box": None if box is None else list(box),
        }

    def _written(self, photo: Photo, version: str, count: int) -> int | None:
        """Return the class whose name is written on a photo in a version, None for none."""
        if version == PLAIN:
            return None
        if version == LYING:  # every other class is as likely
            rng = np.random.default_rng(
                [VERSION, self.settings.seed, int(photo.record.fingerprint, 16), 1]
            )
            return (photo.label + 1 + int(rng.integers(len(self.classes) - 1))) % len(self.classes)
        share = int(version.removeprefix("text"))
        return photo.label if round(photo.rank * count) < round(share / 100 * count) else None


def _batches(photos: Sequence[Photo]) -> Iterator[Sequence[Photo]]:
    for start in range(0, len(photos), ROWS):
        yield photos[start : start + ROWS]


def _describe(
    folder: Path, images: ProbeImages, classes: list[str], settings: MakeSettings,
    counts: Counter[str], left_out: Counter[str],
) -> None:  # fmt: skip
    """Write ``shortcut.json``."""
    from PIL import __version__, features

    files = {p.name: fingerprint_file(p) for p in sorted(folder.glob("*.parquet"))}
    write_json(folder / "shortcut.json", FORMAT, VERSION, {
        "classes": classes,
        **asdict(settings),
        "images": {"fingerprint": images.fingerprint,
                   "sources": [{"name": s.name, "kind": s.kind, "count": s.count,
                                "fingerprint": s.fingerprint} for s in images.sources]},
        "counts": {split: counts[split] for split in SPLITS},
        "left_out": dict(sorted(left_out.items())),
        "lettering": {"version": lettering.VERSION, "font": lettering.FONT},
        "libraries": {"pillow": __version__, "freetype": features.version("freetype2")},
        "files": files,
        "fingerprint": fingerprint(files),
    })  # fmt: skip
