"""Which images are near-duplicates: difference hashes, and colours where those say nothing.

The difference hash (N. Krawetz, "Kind of like that", hackerfactor.com 2013) keeps of a picture,
shrunk to 9 x 8 grey pixels, whether each is brighter than its neighbour: 64 bits. Near-duplicates
differ in at most `NEAR` of them. A picture that is flat at this size, of one colour or of a fine
even texture, has no such differences but rounding: it is known by its mean colour and by how much
its pixels vary, and is a near-duplicate of flat ones alone, that are within `FLAT_NEAR` levels in
all four. Whatever is near to the same is in one cluster: chains hold together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageStat

from milanx.images.resizing import resized

NEAR = 4  # bits in which the difference hashes of near-duplicates may differ
BITS = 64
SIZE = (9, 8)  # width and height of the picture that is hashed
FLAT = 3  # levels, of 255, between its darkest and brightest pixel, at most: re-encoding makes 2
FLAT_NEAR = 4  # levels, of 255, by which flat near-duplicates may differ
LONG_RUN = 64  # hashes with the same part, above which other parts of them are asked first


def picture_hash(image: Image.Image) -> str:
    """Return 16 hex digits, or ``flat:`` and 8 of them for a flat picture."""
    import imagehash

    small = resized(image.convert("L"), SIZE, SIZE, Image.Resampling.LANCZOS)
    low, high = small.getextrema()
    if high - low > FLAT:  # type: ignore[operator]
        return str(imagehash.dhash(small))
    found = ImageStat.Stat(image)
    values = [*found.mean, max(found.stddev)]
    return "flat:" + bytes(min(round(v), 255) for v in values).hex()


def clusters(hashes: Sequence[str]) -> np.ndarray:
    """Bring near-duplicates together, and what is near to them in turn.

    Returns:
        int64 [n]: clusters are numbered in the order of their first images.
    """
    if not hashes:
        return np.zeros(0, np.int64)
    # Each distinct hash once: a thousand copies of one picture are no million pairs.
    distinct, which = np.unique(np.array(hashes), return_inverse=True)
    is_flat = np.char.startswith(distinct, "flat:")
    labels = np.empty(len(distinct), np.int64)
    labels[~is_flat] = _near_hashes(np.array([int(h, 16) for h in distinct[~is_flat]], np.uint64))
    labels[is_flat] = len(distinct) + _near_colours(
        np.array([list(bytes.fromhex(h[5:])) for h in distinct[is_flat]], np.float64).reshape(-1, 4)
    )
    return by_first(labels[which])


def by_first(labels: np.ndarray) -> np.ndarray:
    """Number labels [n] in the order in which they first appear."""
    _, first, which = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[which]


def parts(bits: Sequence[int]) -> list[Sequence[int]]:
    """Share bits out among `NEAR` + 1 parts: one is the same in two hashes that are near.

    Each takes every fifth bit: next to one another, many would be those of a plain background.
    """
    return [bits[first :: NEAR + 1] for first in range(NEAR + 1)]


def _near_hashes(hashes: np.ndarray) -> np.ndarray:
    """Return the component int64 [n] of each of distinct hashes uint64 [n].

    Only those that share a part are compared. Where many share it, they are told apart by parts of
    their other bits in turn, as long as that halves the pairs. Memory grows with n alone.
    """
    labels = np.arange(len(hashes))
    todo: list[tuple[np.ndarray, Sequence[int]]] = [(labels, range(BITS))]
    while todo:
        members, bits = todo.pop()
        if len(np.unique(labels[members])) < 2:
            continue
        runs = [_Runs.of(hashes, members, part) for part in parts(bits)]
        pairs = sum(int((run.lengths**2).sum()) for run in runs)
        if len(bits) < BITS and 2 * pairs >= len(members) ** 2:
            labels = _compared(labels, hashes, members, np.zeros(len(members), np.int64))
            continue
        for part, run in zip(parts(bits), runs, strict=True):
            short = (run.lengths <= LONG_RUN)[run.numbers]
            labels = _compared(labels, hashes, run.members[short], run.numbers[short])
            left = [bit for bit in bits if bit not in part]
            ends = np.cumsum(run.lengths)
            todo += [(run.members[ends[i] - run.lengths[i] : ends[i]], left)
                     for i in np.flatnonzero(run.lengths > LONG_RUN)]  # fmt: skip
    return labels


@dataclass(frozen=True)
class _Runs:
    """Hashes sorted by some of their bits.

    Attributes:
        members: their places, int64 [m].
        numbers: of the runs of equal bits that they are in, ascending, int64 [m].
        lengths: of these runs.
    """

    members: np.ndarray
    numbers: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, hashes: np.ndarray, members: np.ndarray, bits: Sequence[int]) -> _Runs:
        keys = hashes[members] & np.uint64(sum(1 << bit for bit in bits))
        order = np.argsort(keys, kind="stable")
        _, numbers, lengths = np.unique(keys[order], return_inverse=True, return_counts=True)
        return cls(members[order], numbers, lengths.astype(np.int64))


def _compared(
    labels: np.ndarray, hashes: np.ndarray, members: np.ndarray, runs: np.ndarray
) -> np.ndarray:
    """Return the labels [n] after all pairs of ``members`` in one run were compared."""
    here, step, found = np.arange(len(members)), 0, 0
    edges: list[np.ndarray] = []
    while len(here):  # those that have a step-th one behind them in their run
        step += 1
        here = here[here + step < len(members)]
        here = here[runs[here] == runs[here + step]]
        pairs = np.stack([members[here], members[here + step]])
        pairs = pairs[:, labels[pairs[0]] != labels[pairs[1]]]
        near = np.bitwise_count(hashes[pairs[0]] ^ hashes[pairs[1]]) <= NEAR
        if near.any():
            edges.append(pairs[:, near])
            found += edges[-1].shape[1]
        if found > len(members):
            labels, edges, found = _joined(labels, edges), [], 0
    return _joined(labels, edges)


def _joined(labels: np.ndarray, edges: Sequence[np.ndarray]) -> np.ndarray:
    """Return the labels [n] after those of every edge [2, e] have become one."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not edges:
        return labels
    ends = labels[np.concatenate(edges, axis=1)]
    size = (len(labels), len(labels))
    graph = coo_array((np.ones(ends.shape[1], np.int8), (ends[0], ends[1])), shape=size)
    return connected_components(graph, directed=False)[1].astype(np.int64)[labels]


def _near_colours(colours: np.ndarray) -> np.ndarray:
    """Return the component int64 [n] of each of distinct colours with deviation [n, 4]."""
    from scipy.spatial import cKDTree

    if not len(colours):
        return np.zeros(0, np.int64)
    pairs = cKDTree(colours).query_pairs(FLAT_NEAR, p=np.inf, output_type="ndarray")
    return _joined(np.arange(len(colours)), [pairs.T])


def united(near: np.ndarray, own: Sequence[str | None], sources: Sequence[str]) -> np.ndarray:
    """Unite two relations: to be near-duplicates, and to have the same group of one's own.

    Where all images of a cluster are of one source and bring groups of their own, the source's word
    stands: two films are not one because each has a black frame.

    Args:
        near: int64 [n], of `clusters`.
        own: the group that an image brings, or None.
        sources: the name of its source.

    Returns:
        int64 [n]: numbered in the order of their first images.
    """
    count = len(near)
    _, place = np.unique(np.array(sources), return_inverse=True)
    alone = np.array([group is None for group in own])
    joins = np.zeros(int(near.max(initial=-1)) + 1, bool)
    np.logical_or.at(joins, near, alone)
    first = np.full(len(joins), len(joins) + count)
    np.minimum.at(first, near, place)
    np.logical_or.at(joins, near, place != first[near])
    numbers: dict[str, int] = {}
    labels = np.arange(count)
    edges = []
    for relation, taken in (
        (near, joins[near]),
        (np.array([numbers.setdefault(g or "", len(numbers)) for g in own]), ~alone),
    ):
        members = np.flatnonzero(taken)
        _, start, which = np.unique(relation[members], return_index=True, return_inverse=True)
        edges.append(np.stack([members, members[start][which]]))
    return by_first(_joined(labels, edges))
