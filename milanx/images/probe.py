"""Probe images of any number of sources: records, groups of near-duplicates, the split."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from milanx.errors import InputError
from milanx.files import fingerprint
from milanx.images.decoding import why
from milanx.images.folder import counted
from milanx.images.generated import GENERATED
from milanx.images.item import Item, Skipped, Source, SourceInfo, one_line
from milanx.images.near import clusters, united
from milanx.images.preprocess import Preprocess
from milanx.images.scan import Look, scan
from milanx.images.sources import open_sources

SHOWN = 3  # skipped images that a note names
KNOWN = ("builtin", GENERATED)  # kinds of sources that need not be looked through
FEW = 75  # distinct photos: five times the exemplars that a unit has by default


@dataclass(frozen=True)
class ImageRecord:
    """What is known of one probe image.

    Attributes:
        index: its number among all images of a run.
        source: name of its source.
        path: within the source.
        fingerprint: of its bytes.
        group: images of one group never fall on both sides of a split.
        label: class number, if it has one.
        name: class name, if it has one.
        wnid: WordNet id, if it has one.
    """

    index: int
    source: str
    path: str
    fingerprint: str
    group: str
    label: int | None = None
    name: str | None = None
    wnid: str | None = None


class ProbeImages:
    """Probe images of any number of sources, made by `open_images`.

    Attributes:
        records: one an image, by index.
        skipped: those that could not be read.
        sources: what is known of the sources.
        distinct: how many photos they show, near-duplicates counted once.
        notes: what the user should know of them, a line each.
        fingerprint: stands for all images and their order.
    """

    def __init__(
        self,
        records: list[ImageRecord],
        skipped: list[Skipped],
        sources: list[SourceInfo],
        places: list[tuple[Source, int]],
        distinct: int | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.records, self.skipped, self.sources = records, skipped, sources
        self.distinct = len(records) if distinct is None else distinct
        self.notes = notes
        self._places = places
        self.fingerprint = fingerprint(
            [[r.source, r.path, r.fingerprint, r.group] for r in records]
        )

    def __len__(self) -> int:
        return len(self.records)

    def read(self, index: int) -> Image.Image:
        """Decode one image, RGB.

        Raises:
            InputError: it could be read when it was opened, and now cannot.
        """
        source, row = self._places[index]
        try:
            return source.read(row)
        except Exception as error:
            record = self.records[index]
            raise InputError(
                f"{one_line(record.path)} of {one_line(record.source)} cannot be read any more",
                why(error), "run the same command again: what cannot be read is skipped",
            ) from error  # fmt: skip

    def regions(self, index: int) -> list[dict[str, Any]]:
        """Return what a source says of the regions of an image; nothing where it says nothing."""
        source, row = self._places[index]
        read = getattr(source, "regions", None)
        return read(row) if read else []

    def split(self, aside: float = 0.2, seed: int = 0) -> np.ndarray:
        """Split by group; True: may become an exemplar, False: kept aside.

        Groups are taken in a seeded random order until their images reach the share; one that is
        more than half of all images stays, whose copies would leave too little to learn from.

        Returns:
            bool [n].
        """
        groups = np.array([r.group for r in self.records])
        names, counts = np.unique(groups, return_counts=True)
        order = np.random.default_rng(seed).permutation(len(names))
        order = order[2 * counts[order] <= len(groups)]
        before = np.cumsum(counts[order]) - counts[order]
        chosen = set(names[order[before < round(aside * len(groups))]].tolist())
        if len(chosen) == len(names):  # all cannot be on one side
            chosen = set()
        return np.array([g not in chosen for g in groups.tolist()])

    def iterate(
        self, indices: Sequence[int], preprocess: Preprocess, batch_size: int, workers: int = 2
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield views uint8 [b, 3, H, W] and indices int64 [b], in the order of ``indices``.

        Two batches are decoded ahead, so memory does not grow with the images.
        """

        def view(index: int) -> np.ndarray:
            return preprocess.view(self.read(index))

        batches = [indices[i : i + batch_size] for i in range(0, len(indices), batch_size)]
        with ThreadPoolExecutor(max(1, workers)) as pool:
            ahead: deque[tuple[Sequence[int], list[Any]]] = deque()
            for batch in [*batches, None, None]:
                if batch is not None:
                    ahead.append((batch, [pool.submit(view, int(i)) for i in batch]))
                if ahead and (batch is None or len(ahead) > 2):
                    here, futures = ahead.popleft()
                    stacked = np.stack([f.result() for f in futures])
                    yield torch.from_numpy(stacked).permute(0, 3, 1, 2), torch.tensor(list(here))


@dataclass(frozen=True)
class _Chosen:
    """The readable images of a source.

    Attributes:
        source: it.
        rows: of them.
        looks: what was seen of each; nothing where none needed to be looked at.
    """

    source: Source
    rows: list[int]
    looks: dict[int, Look]


def open_images(specs: Sequence[str | Path | Source], *, limit: int | None = None) -> ProbeImages:
    """Open sources of probe images.

    Args:
        specs: folders, parquet files, whatever `open_sources` takes, or what it made of them.
        limit: at most this many images of all, spread evenly over each source's order.

    Raises:
        InputError: a source that is not there, or of which no image can be read.
    """
    sources = [s for s in specs if not isinstance(s, str | Path)]
    if len(sources) < len(specs) or not specs:
        sources = open_sources(specs)
    total = sum(len(s.items()) for s in sources)
    skipped = [fault for source in sources for fault in source.faults]
    chosen: list[_Chosen] = []
    said: list[str] = []
    for source in sources:
        count = len(source.items())
        take = count if limit is None else max(1, min(count, round(limit * count / total)))
        rows = np.unique(np.linspace(0, count - 1, take).round().astype(int)).tolist()
        looks, note = ({}, "") if _is_known(sources) else scan(source, rows)
        unread = [row for row in rows if row in looks and looks[row].why]
        if len(unread) == len(rows):
            raise InputError(
                f"no image of {one_line(source.info.name)} can be read",
                f"{len(rows)} were tried; the first: {looks[rows[0]].why}",
                "give images that open in a viewer",
            )
        skipped += [Skipped(source.info.name, source.items()[row].path, looks[row].why)
                    for row in unread]  # fmt: skip
        chosen.append(_Chosen(source, [row for row in rows if row not in set(unread)], looks))
        said.append(note)
    records, distinct = _records(chosen)
    places = [(one.source, row) for one in chosen for row in one.rows]
    notes = (_on_skipped(skipped), _on_ignored(sources), *_on_distinct(len(records), distinct),
             *dict.fromkeys(said))  # fmt: skip
    return ProbeImages(
        records, skipped, [s.info for s in sources], places, distinct, tuple(n for n in notes if n)
    )


def _is_known(sources: Sequence[Source]) -> bool:
    """Whether built-in or generated images are among themselves: their groups stand, all readable.

    With images of others they are looked at, so that one photo is never on both sides.
    """
    return all(source.info.kind in KNOWN for source in sources)


def _records(chosen: Sequence[_Chosen]) -> tuple[list[ImageRecord], int]:
    """Note the images with their groups; returns how many photos they show, too.

    A group is named after the first of its images: its own group, else its source and path.
    """
    places = [(one, row) for one in chosen for row in one.rows]
    items: list[Item] = [one.source.items()[row] for one, row in places]
    names = [one.source.info.name for one, _ in places]
    own = [item.group for item in items]
    near = np.arange(len(items))
    if all(one.looks for one in chosen):
        near = clusters([one.looks[row].hash for one, row in places])
    group = united(near, own, names)
    first = np.unique(group, return_index=True)[1][group].tolist()
    titles = [
        f"{n}/{i.path}" if g is None else g for n, i, g in zip(names, items, own, strict=True)
    ]
    records = [
        ImageRecord(number, name, item.path, item.fingerprint, titles[like], item.label, item.name,
                    item.wnid)
        for number, (name, item, like) in enumerate(zip(names, items, first, strict=True))
    ]  # fmt: skip
    return records, len(set(near.tolist()))


def _on_skipped(skipped: Sequence[Skipped]) -> str:
    if not skipped:
        return ""
    shown = [f"{one_line(s.path)} ({s.why})" for s in skipped[:SHOWN]]
    more = len(skipped) - len(shown)
    return (f"skipped {len(skipped)} that cannot be read: {', '.join(shown)}"
            + f", and {more} more" * bool(more))  # fmt: skip


def _on_ignored(sources: Sequence[Source]) -> str:
    ignored: dict[str, int] = {}
    for source in sources:
        for suffix, count in source.ignored.items():
            ignored[suffix] = ignored.get(suffix, 0) + count
    total = sum(ignored.values())
    return f"ignored {total} files that are no images: {counted(ignored)}" if total else ""


def _on_distinct(count: int, distinct: int) -> Iterator[str]:
    photos = f"{distinct} distinct photo{'s' * (distinct != 1)}"
    if distinct < count:
        yield (f"{count} images show {photos}; near-duplicates are one group, never on both sides "
               "of a split")  # fmt: skip
    if distinct < FEW:
        yield (f"few images: {photos}; descriptions then say what these show rather than what "
               "units detect: give some hundreds")  # fmt: skip
