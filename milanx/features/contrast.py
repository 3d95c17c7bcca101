"""Contrast views: near a unit's exemplars, and evidence of what it is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from milanx.exemplars.store import ExemplarStore


def whole_views(features: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Return the mean over each whole view of its dense features: image index -> float32 [d]."""
    return {i: dense.astype(np.float32).mean((0, 1)) for i, dense in features.items()}


def contrast_views(
    store: ExemplarStore,
    layer: str,
    rows: Sequence[int],
    whole: Mapping[int, np.ndarray],
    count: int,
) -> np.ndarray:
    """Find views that are near a unit's exemplars and leave the unit below its median.

    Only views that the store holds can be found: those that are exemplars of some unit. Near is
    by the cosine of whole-view features, averaged over the exemplars. The median is that over the
    images that were searched: those kept aside take no part in any text.

    Args:
        store: the exemplars.
        layer: its address.
        rows: places of the units in the layer.
        whole: of every stored view (`whole_views`).
        count: how many.

    Returns:
        int64 [rows, count], nearest first; -1 where there are fewer.
    """
    found = np.full((len(rows), count), -1, np.int64)
    if not count or not store.has_maxima(layer):
        return found
    shown = np.array(sorted(whole), np.int64)
    looks = np.stack([whole[int(i)] for i in shown])
    looks = (looks - looks.mean(0)) / (looks.std(0) + 1e-3)
    looks /= np.linalg.norm(looks, axis=1, keepdims=True) + 1e-6
    units, maxima = store.units(layer), store.maxima(layer)
    place = {int(image): i for i, image in enumerate(shown)}
    for out, row in enumerate(rows):
        unit, sign = units[row]
        values = np.asarray(maxima[:, store.column(layer, unit)], np.float32)
        values = -values if sign == "-" else values
        low = values[shown] < np.median(values[store.searched])
        own = [place[int(i)] for i in store.images(layer)[row] if i >= 0]
        if not own:
            continue
        scores = np.where(low, looks @ looks[own].mean(0), -np.inf)
        scores[own] = -np.inf
        nearest = np.argsort(-scores, kind="stable")[:count]
        nearest = nearest[scores[nearest] > -np.inf]
        found[out, : len(nearest)] = shown[nearest]
    return found
