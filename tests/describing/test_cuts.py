"""Sets of points are cut where they have groups, and left whole where they have none."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from milanx.describing.cuts import CutSettings, alike, cut, divide, narrower

TWO, THREE = CutSettings(2), CutSettings(3)


def blobs(sizes: tuple[int, ...], apart: float, seed: int, dims: int = 40) -> np.ndarray:
    """Round groups of deviation 1 a dimension, their centres so many deviations from each other."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((len(sizes), dims))
    centres, _ = np.linalg.qr(centres.T)
    return np.concatenate([rng.standard_normal((n, dims)) + apart / 2**0.5 * centres[:, i]
                           for i, n in enumerate(sizes)])  # fmt: skip


def of_one(labels: np.ndarray) -> set[frozenset[int]]:
    """The groups, whatever their numbers."""
    return {frozenset(np.flatnonzero(labels == name).tolist()) for name in set(labels.tolist())}


def best_by_trying(points: np.ndarray) -> float:
    """The least sum of squares of any two parts, as a share of the whole."""
    total = ((points - points.mean(0)) ** 2).sum()
    shares = []
    for count in range(1, len(points) // 2 + 1):
        for chosen in combinations(range(len(points)), count):
            first = np.isin(np.arange(len(points)), chosen)
            parts = points[first], points[~first]
            shares.append(sum(((part - part.mean(0)) ** 2).sum() for part in parts) / total)
    return min(shares)


def test_a_cut_is_nearly_the_best_of_all_and_says_what_is_left_within() -> None:
    for seed in range(5):
        points = blobs((5, 4), 6.0, seed, 5)
        found = cut(points)
        parts = points[found.first], points[~found.first]
        within = sum(((part - part.mean(0)) ** 2).sum() for part in parts)
        assert found.within == pytest.approx(within / ((points - points.mean(0)) ** 2).sum())
        assert found.within == pytest.approx(best_by_trying(points), abs=0.02)


def test_many_sets_are_cut_as_each_alone() -> None:
    points = np.stack([blobs((8, 7), 5.0, seed) for seed in range(6)])
    together = cut(points)
    for one, first, within in zip(points, together.first, together.within, strict=True):
        alone = cut(one)
        assert (alone.first == first).all()
        assert alone.within == pytest.approx(within)


@pytest.mark.parametrize("sizes", [(8, 7), (11, 4)])
def test_groups_far_apart_are_found(sizes: tuple[int, int]) -> None:
    truth = np.repeat([0, 1], sizes)
    for seed in range(20):
        assert of_one(divide(blobs(sizes, 14.0, seed), TWO)) == of_one(truth)


def test_three_groups_are_found_where_three_are_asked_for() -> None:
    truth = np.repeat([0, 1, 2], (7, 7, 6))
    for seed in range(10):
        points = blobs((7, 7, 6), 16.0, seed)
        assert of_one(divide(points, THREE)) == of_one(truth)


def test_one_group_is_seldom_cut_by_the_strict_test_of_spread() -> None:
    """Of sets as the test draws them a share is cut that its bound in deviations allows: 2.5 %."""
    strict = CutSettings(3, narrower=2.0)
    rng = np.random.default_rng(0)
    spread = 1 / np.arange(1, 15)
    sets = rng.standard_normal((200, 15, 14)) * spread
    assert np.mean([len(of_one(divide(points, strict))) > 1 for points in sets]) <= 0.06


def test_order_and_sign_of_points_change_nothing() -> None:
    rng = np.random.default_rng(1)
    for seed in range(10):
        points = blobs((7, 5), 8.0, seed)
        order = rng.permutation(len(points))
        groups = divide(points, TWO)
        assert of_one(divide(points[order], TWO)) == of_one(groups[order])
        assert (cut(points).within, cut(-points).within) == pytest.approx([cut(points).within] * 2)


def test_few_points_and_points_that_are_one_are_one_group() -> None:
    assert not divide(blobs((2, 3), 30.0, 0), TWO).any()
    assert not divide(np.ones((12, 5)), TWO).any()
    assert not divide(np.zeros((0, 5)), TWO).any()
    assert narrower(np.ones((8, 3)), 10, np.random.default_rng(0)) == -np.inf


def test_a_group_of_fewer_than_its_share_is_none() -> None:
    points = blobs((17, 3), 20.0, 0)
    assert not divide(points, TWO).any()
    assert divide(points, CutSettings(2, share=0.15)).any()


def test_resampled_sets_agree_where_there_are_groups() -> None:
    rng = np.random.default_rng(0)
    assert alike(blobs((8, 7), 14.0, 0), 2, 40, rng) > 0.99
    assert alike(blobs((6, 5, 5), 16.0, 0), 3, 40, rng) > 0.99
    assert alike(blobs((15,), 0.0, 0), 2, 40, rng) < 0.8
