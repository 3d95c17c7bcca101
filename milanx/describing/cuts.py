"""Cuts: sets of points in groups, where they have any.

A set is cut in two, and a part of it again, where each cut is narrower than that of a set of the
same spread without groups, and where resampled sets are cut alike: a bisecting 2-means (Steinbach,
Karypis, Kumar 2000, "A comparison of document clustering techniques"), each cut tested as in
SigClust (Liu, Hayes, Nobel, Marron 2008, "Statistical significance of clustering for
high-dimension, low-sample-size data").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TURNS = 12  # of the power iteration that begins a cut
STEPS = 6  # of 2-means behind it
RESAMPLED = 0.8  # share of the points of a resampled set
TINY = 1e-9  # a share of the largest that is none


@dataclass(frozen=True)
class Cut:
    """Sets of points in two parts each.

    Attributes:
        first: which points are in the first part, bool [..., n].
        within: sum of squares that is left within the parts, as a share of the whole, [...].
    """

    first: np.ndarray
    within: np.ndarray


def cut(points: np.ndarray) -> Cut:
    """Cut sets of points [..., n, d] in two by 2-means, begun at the first principal axis."""
    centred = points - points.mean(-2, keepdims=True)
    gram = centred @ np.swapaxes(centred, -1, -2)
    size = gram.shape[-1]
    squares = np.diagonal(gram, axis1=-2, axis2=-1)
    total = squares.sum(-1)
    # Begun at the point farthest out, which is never across the axis as a constant would be.
    axis = np.take_along_axis(gram, squares.argmax(-1)[..., None, None], -1)
    for _ in range(TURNS):
        axis = gram @ axis
        axis = axis / np.maximum(np.linalg.norm(axis, axis=-2, keepdims=True), 1e-12)
    first = axis[..., 0] > 0
    for _ in range(STEPS):
        share = first.astype(gram.dtype)
        counts = np.maximum(share.sum(-1, keepdims=True), 1)
        rest = np.maximum(size - counts, 1)
        # Points are centred, so the parts' sums are each other's negatives.
        towards = (gram @ share[..., None])[..., 0]
        length = (towards * share).sum(-1, keepdims=True)
        near = length / counts**2 - 2 * towards / counts
        far = length / rest**2 + 2 * towards / rest
        first = near < far
    share = first.astype(gram.dtype)
    length = ((gram @ share[..., None])[..., 0] * share).sum(-1)
    counts = share.sum(-1)
    between = length / np.maximum(counts, 1) + length / np.maximum(size - counts, 1)
    return Cut(first, 1 - between / np.maximum(total, 1e-12))


def narrower(points: np.ndarray, draws: int, rng: np.random.Generator) -> float:
    """Say how much narrower the cut of points [n, d] is than those of sets without groups.

    These are Gaussian, with the points' own covariance.

    Returns:
        The difference of what is left within the parts, in deviations among the draws.
    """
    centred = points - points.mean(0)
    values, axes = np.linalg.eigh(centred @ centred.T)
    kept = values > TINY * float(values.max())
    if not kept.any():
        return -np.inf  # all points are one
    spread = np.sqrt(values[kept] / len(points))
    without = cut(rng.standard_normal((draws, len(points), int(kept.sum()))) * spread).within
    own = float(cut(axes[:, kept] * np.sqrt(values[kept])).within)
    return float((without.mean() - own) / max(float(without.std()), TINY))


def bisect(points: np.ndarray, groups: int) -> list[np.ndarray]:
    """Cut points [n, d] into groups: of all of them, again and again, where a cut takes off most.

    Returns:
        The places of each group's points; fewer groups than asked for where no more differ.
    """
    found = [np.arange(len(points))]
    while len(found) < groups:
        cuts = [_parts(points, inside) for inside in found]
        place, (gain, parts) = max(enumerate(cuts), key=lambda pair: pair[1][0])
        if gain <= 0:
            break
        found[place : place + 1] = parts
    return found


def _parts(points: np.ndarray, inside: np.ndarray) -> tuple[float, list[np.ndarray]]:
    """Cut one group: the sum of squares that this takes off, and its parts."""
    own = points[inside]
    found = cut(own)
    total = float(((own - own.mean(0)) ** 2).sum())
    if len(own) < 2 or not 0 < found.first.sum() < len(own):
        return 0.0, [inside]
    return total * (1 - float(found.within)), [inside[found.first], inside[~found.first]]


def alike(points: np.ndarray, groups: int, draws: int, rng: np.random.Generator) -> float:
    """Say how alike resampled sets are cut.

    Each set has four fifths of the points [n, d], at least four.

    Returns:
        Share of pairs of points that are together in both, or apart in both: a Rand index, 0 to 1.
    """
    count = max(min(4, len(points)), round(RESAMPLED * len(points)))
    whole = _labels(points, groups)
    above = np.triu_indices(count, 1)
    shares = []
    for _ in range(draws):
        some = rng.permutation(len(points))[:count]
        own, again = whole[some], _labels(points[some], groups)
        same = (own[:, None] == own) == (again[:, None] == again)
        shares.append(same[above].mean())
    return float(np.mean(shares))


def _labels(points: np.ndarray, groups: int) -> np.ndarray:
    labels = np.zeros(len(points), int)
    for number, inside in enumerate(bisect(points, groups)):
        labels[inside] = number
    return labels


@dataclass(frozen=True)
class CutSettings:
    """When a set of points is thought to have groups (docs/senses.md says how they were chosen).

    Attributes:
        most: groups.
        least: points that each must have.
        share: of the points that each must have.
        narrower: deviations by which a cut must be narrower than those of Gaussian sets of the same
            covariance. It may be below 0: in many dimensions a few points are spread more evenly
            than such sets are.
        alike: share of the pairs of points that resampled sets must put together or apart as the
            whole set does.
        draws: Gaussian sets, and resampled ones.
        seed: of all that is drawn.
    """

    most: int = 1
    least: int = 3
    share: float = 0.2
    narrower: float = -2.0
    alike: float = 0.7
    draws: int = 40
    seed: int = 0


def divide(points: np.ndarray, how: CutSettings) -> np.ndarray:
    """Divide points [n, d] into groups.

    Returns:
        int [n], the group of each: all 0 where the points are one group. The order of the points
        changes no group.
    """
    order = np.lexsort(points.T[::-1])
    placed, groups = points[order], np.zeros(len(points), int)
    least = max(how.least, int(np.ceil(how.share * len(points) - TINY)))
    for number in range(how.most, 1, -1):
        if len(points) < number * least:
            continue
        labels = _labels(placed, number)
        if np.bincount(labels, minlength=number).min() >= least and _hold(placed, number, how):
            groups = labels
            break
    return groups[np.argsort(order)]


def _hold(points: np.ndarray, groups: int, how: CutSettings) -> bool:
    """Whether each cut is narrow, and resampled sets are cut alike."""
    rng = np.random.default_rng([how.seed, groups])
    narrow = all(
        narrower(points[np.concatenate(pair)], how.draws, rng) >= how.narrower
        for pair in _pairs(points, groups)
    )
    return narrow and alike(points, groups, how.draws, rng) >= how.alike


def _pairs(points: np.ndarray, groups: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the two parts of every cut."""
    found = []
    for number in range(2, groups + 1):
        before, after = bisect(points, number - 1), bisect(points, number)
        old = {tuple(inside) for inside in before}
        new = [inside for inside in after if tuple(inside) not in old]
        found.append((new[0], new[1]))
    return found
