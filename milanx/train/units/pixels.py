"""Meanings that are computed from pixels: colours, brightness, plainness, lines, places."""

from __future__ import annotations

import numpy as np

from milanx.features.pixels import CHANNELS, PLACES, SMALL, pixel_cells, place_cells, placed_cells
from milanx.train.data.photos import PhotoFeatures
from milanx.train.units.meanings import MIN_POSITIVES, Meaning

MAX_PIXEL_PHOTOS = 400  # that show one pixel meaning
LARGE = 0.9  # share of the view up to which a photo shows a pixel meaning in some place


def shown_cells(photos: PhotoFeatures, kept: np.ndarray) -> dict[tuple[str, ...], np.ndarray]:
    """Find what pixels show in the views ``kept``: ways to say it -> bool [len(kept), g * g]."""
    return pixel_cells(np.stack([photos.dense[i][:, -CHANNELS:] for i in kept]))


def place_meanings(photos: PhotoFeatures, keep: np.ndarray, seed: int) -> list[Meaning]:
    """Parts of the view, whatever they show, and bright or dark cells that lie in one of them."""
    kept = np.flatnonzero(keep)
    side = round(photos.dense.shape[1] ** 0.5)
    rng = np.random.default_rng([seed, 8])
    found = []
    for place, inside in place_cells(side).items():
        if not inside.any():  # on a coarse grid
            continue
        shown = rng.choice(kept, min(len(kept), MAX_PIXEL_PHOTOS), replace=False)
        grids = np.tile((255 * inside).astype(np.uint8), (len(shown), 1))
        found.append(Meaning(PLACES[place], "pixel", shown, grids, countable=False))
    for texts, cells in placed_cells(shown_cells(photos, kept)).items():
        there = cells.sum(1)
        if (there > 0).sum() >= MIN_POSITIVES:
            shown = np.flatnonzero(there)
            shown = shown[np.argsort(-there[shown])][:MAX_PIXEL_PHOTOS]
            grids = (255 * cells[shown]).astype(np.uint8)
            found.append(Meaning(texts, "pixel", kept[shown], grids, countable=False))
    return found


def pixel_meanings(photos: PhotoFeatures, keep: np.ndarray, seed: int) -> list[Meaning]:
    """Colours, brightness, plainness and lines as meanings.

    Of the views that show one, half are those that show most of it, half are drawn.
    """
    kept = np.flatnonzero(keep)
    rng = np.random.default_rng([seed, 9])
    found = []
    for texts, cells in shown_cells(photos, kept).items():
        share = cells.mean(1)
        shown = np.flatnonzero((share > SMALL) & (share < LARGE))
        if len(shown) < MIN_POSITIVES:
            continue
        shown = shown[np.argsort(-share[shown])]
        most, rest = shown[: MAX_PIXEL_PHOTOS // 2], shown[MAX_PIXEL_PHOTOS // 2 :]
        shown = np.concatenate([most, rng.permutation(rest)[: MAX_PIXEL_PHOTOS // 2]])
        grids = (cells[shown] * 255).astype(np.uint8)
        found.append(Meaning(texts, "pixel", kept[shown], grids, countable=False))
    return found
