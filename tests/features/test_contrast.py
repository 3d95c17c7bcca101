"""Contrast views: near, and below what the unit does on most of the images that were searched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from milanx.exemplars.planted import LAYER, MAP, VIEW_SIZE, plant
from milanx.exemplars.store import ExemplarStore
from milanx.features.contrast import contrast_views, whole_views

IMAGES, SHOWN, K = 60, 30, 4


def make(root: Path, activations: np.ndarray, aside: list[int]) -> ExemplarStore:
    """A store of planted units whose exemplars are their best searched images."""
    sides = ["aside" if i in aside else "exemplars" for i in range(IMAGES)]
    searched = [i for i in range(IMAGES) if i not in aside]
    images = [np.array(sorted(searched, key=lambda i: -unit[i])[:K]) for unit in activations.T]
    views = ((i, np.full((*VIEW_SIZE, 3), i, np.uint8)) for i in searched[:SHOWN])
    maps = [np.ones((K, MAP, MAP), np.float32)] * len(images)
    records = [{"index": i, "split": side, "source": "s"} for i, side in enumerate(sides)]
    return plant(root, images, maps, views, records, activations=activations)


def plain(
    activations: np.ndarray, aside: list[int], own: set[int], features: dict[int, np.ndarray]
) -> list[int]:
    """Views that a unit answers to below its median over searched images, nearest first."""
    searched = [i for i in range(IMAGES) if i not in aside]
    middle = np.median([activations[i] for i in searched])
    shown = sorted(features)
    whole = np.stack([features[i].astype(np.float64).mean((0, 1)) for i in shown])
    whole = (whole - whole.mean(0)) / (whole.std(0) + 1e-3)
    whole /= np.linalg.norm(whole, axis=1, keepdims=True)
    centre = np.mean([whole[shown.index(i)] for i in own], 0)
    near = sorted(shown, key=lambda i: -float(whole[shown.index(i)] @ centre))
    return [i for i in near if activations[i] < middle and i not in own]


@pytest.mark.parametrize("level", [-50.0, 0.0, 50.0])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.45])
def test_images_kept_aside_move_no_median(level: float, share: float, tmp_path: Path) -> None:
    """Whatever they do, the same views are found, those of the plain version."""
    rng = np.random.default_rng(0)
    aside = rng.permutation(np.arange(5, IMAGES))[: round(share * IMAGES)].tolist()
    activations = rng.normal(size=(IMAGES, 6)).astype(np.float32)
    searched = [i for i in range(IMAGES) if i not in aside][:SHOWN]
    hidden = np.setdiff1d(np.arange(IMAGES), searched)  # these views are not in the store
    activations[hidden] -= 3  # so that exemplars are among the stored views
    activations[aside] += level
    features = {i: rng.normal(size=(2, 2, 5)).astype(np.float32) for i in searched}
    store = make(tmp_path / "run", activations, aside)
    assert store.searched.tolist() == [i for i in range(IMAGES) if i not in aside]
    found = contrast_views(store, LAYER, range(6), whole_views(features), 20)
    some = 0
    for unit, row in enumerate(found):
        own = {int(i) for i in store.images(LAYER)[unit]}
        expected = plain(activations[:, unit], aside, own, features)[:20]
        assert row[row >= 0].tolist() == expected
        some += len(expected)
    assert some >= 6
