"""Probe images of any number of sources: records, groups of near-duplicates, the split."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from milanx.errors import InputError
from milanx.files import cache_dir, fingerprint, read_json, write_json
from milanx.images.preprocess import Preprocess
from milanx.images.sources import BUILTIN, Item, Source, SourceInfo, open_source

NEAR = 4  # bits in which the difference hashes of near-duplicates may differ
HASHES_AT_ONCE = 512  # hashes that are compared with all others at a time


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


@dataclass(frozen=True)
class Skipped:
    """An image that could not be read."""

    source: str
    path: str
    why: str


class ProbeImages:
    """Probe images of any number of sources, made by `open_images`.

    Attributes:
        records: one an image, by index.
        skipped: those that could not be read.
        sources: what is known of the sources.
        fingerprint: stands for all images and their order.
    """

    def __init__(
        self,
        records: list[ImageRecord],
        skipped: list[Skipped],
        sources: list[SourceInfo],
        places: list[tuple[Source, int]],
    ) -> None:
        self.records, self.skipped, self.sources = records, skipped, sources
        self._places = places
        self.fingerprint = fingerprint(
            [[r.source, r.path, r.fingerprint, r.group] for r in records]
        )

    def __len__(self) -> int:
        return len(self.records)

    def read(self, index: int) -> Image.Image:
        """Decode one image, RGB."""
        source, row = self._places[index]
        return source.read(row)

    def split(self, aside: float = 0.2, seed: int = 0) -> np.ndarray:
        """Split by group; True: may become an exemplar, False: kept aside.

        Groups are taken in a seeded random order until their images reach the share.

        Returns:
            bool [n].
        """
        groups = np.array([r.group for r in self.records])
        names, counts = np.unique(groups, return_counts=True)
        order = np.random.default_rng(seed).permutation(len(names))
        before = np.concatenate([[0], np.cumsum(counts[order])[:-1]])
        chosen = set(names[order[before < round(aside * len(groups))]].tolist())
        if len(chosen) == len(names):  # a single group cannot be on both sides
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


def open_images(specs: Sequence[str | Path], *, limit: int | None = None) -> ProbeImages:
    """Open sources of probe images.

    Args:
        specs: folders, parquet files, ``builtin:probe``.
        limit: at most this many images of all, spread evenly over each source's order.

    Raises:
        InputError: a source that is not there, or of which no image can be read.
    """
    if not specs:
        raise InputError("no probe images", "no source was given", "--images builtin:probe")
    sources = _open_sources(specs)
    total = sum(len(s.items()) for s in sources)
    records: list[ImageRecord] = []
    skipped: list[Skipped] = []
    places: list[tuple[Source, int]] = []
    for source in sources:
        count = len(source.items())
        take = count if limit is None else max(1, min(count, round(limit * count / total)))
        rows = np.unique(np.linspace(0, count - 1, take).round().astype(int)).tolist()
        scanned = _scan(source, rows)
        readable = [row for row in rows if not scanned[row][1]]
        if not readable:
            raise InputError(
                f"no image of {source.info.name} can be read",
                f"{len(rows)} were tried; the first: {scanned[rows[0]][1]}",
                "give images that open in a viewer",
            )
        items = source.items()
        skipped += [Skipped(source.info.name, items[row].path, scanned[row][1])
                    for row in rows if scanned[row][1]]  # fmt: skip
        records += [_record(len(records) + i, source.info.name, items[row], scanned[row][0])
                    for i, row in enumerate(readable)]  # fmt: skip
        places += [(source, row) for row in readable]
    return ProbeImages(_grouped(records), skipped, [s.info for s in sources], places)


def _open_sources(specs: Sequence[str | Path]) -> list[Source]:
    """Open sources, each under a name of its own."""
    names: set[str] = set()
    sources: list[Source] = []
    for spec in specs:
        name = BUILTIN if str(spec) == BUILTIN else Path(spec).stem or str(spec)
        unique, number = name, 2
        while unique in names:
            unique, number = f"{name}-{number}", number + 1
        names.add(unique)
        sources.append(open_source(str(spec), unique))
    return sources


def _record(index: int, source: str, item: Item, digest: str) -> ImageRecord:
    """Note an image; without a group of its own its hash stands for one until `_grouped`."""
    group = item.group if item.group is not None else f"hash:{digest}"
    return ImageRecord(index, source, item.path, item.fingerprint, group, item.label, item.name,
                       item.wnid)  # fmt: skip


def _scan(source: Source, rows: Sequence[int]) -> dict[int, tuple[str, str]]:
    """Decode every image once: its difference hash (16 hex digits), or why it cannot be read.

    Kept in the cache by the source's fingerprint.
    """
    items = source.items()
    if all(items[row].group is not None for row in rows) and source.info.kind == "builtin":
        return {row: ("", "") for row in rows}
    path = cache_dir("scans", f"{source.info.fingerprint}-{fingerprint(list(rows))}.json")
    if path.is_file():
        content = read_json(path, "milanx-scan", 1)["rows"]
        return {row: (a, b) for row, (a, b) in zip(rows, content, strict=True)}
    import imagehash

    def look(row: int) -> tuple[str, str]:
        try:
            return str(imagehash.dhash(source.read(row))), ""
        except UnidentifiedImageError:
            return "", "it is no image"
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            return "", str(error).splitlines()[0] if str(error) else type(error).__name__

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(look, rows))
    write_json(path, "milanx-scan", 1, {"rows": found})
    return dict(zip(rows, found, strict=True))


def _grouped(records: list[ImageRecord]) -> list[ImageRecord]:
    """Bring near-duplicates, of all sources, into one group, named after its first image."""
    from scipy.sparse import csr_array, vstack
    from scipy.sparse.csgraph import connected_components

    hashed = [i for i, r in enumerate(records) if r.group.startswith("hash:")]
    if not hashed:
        return records
    hashes = np.array([int(records[i].group[5:], 16) for i in hashed], np.uint64)
    # Each distinct hash once: a thousand copies of one picture are no million pairs.
    distinct, which = np.unique(hashes, return_inverse=True)
    near = [csr_array(np.bitwise_count(distinct[i : i + HASHES_AT_ONCE, None] ^ distinct) <= NEAR)
            for i in range(0, len(distinct), HASHES_AT_ONCE)]  # fmt: skip
    _, labels = connected_components(vstack(near), directed=False)
    _, first, cluster = np.unique(labels[which], return_index=True, return_inverse=True)
    made = list(records)
    for i, place in zip(hashed, first[cluster].tolist(), strict=True):
        like = records[hashed[place]]
        made[i] = replace(records[i], group=f"{like.source}/{like.path}")
    return made
