"""Contrast views: near a unit's exemplars, and evidence of what it is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from milanx.exemplars.store import ExemplarStore


def contrast_views(
    store: ExemplarStore,
    layer: str,
    rows: Sequence[int],
    features: dict[int, np.ndarray],
    count: int,
) -> np.ndarray:
    """Find views that are near a unit's exemplars and leave the unit below its median.

    Only views that the store holds can be found: those that are exemplars of some unit. Near is
    by the cosine of whole-view features, averaged over the exemplars. The median is that over the
    images that were searched: those kept aside take no part in any text.

    Returns:
        int64 [rows, count], nearest first; -1 where there are fewer.
    """
    found = np.full((len(rows), count), -1, np.int64)
    if not count or not store.has_maxima(layer):
        return found
    shown = np.array(sorted(features), np.int64)
    whole = np.stack([features[int(i)].astype(np.float32).mean((0, 1)) for i in shown])
    whole = (whole - whole.mean(0)) / (whole.std(0) + 1e-3)
    whole /= np.linalg.norm(whole, axis=1, keepdims=True) + 1e-6
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
        scores = np.where(low, whole @ whole[own].mean(0), -np.inf)
        scores[own] = -np.inf
        nearest = np.argsort(-scores, kind="stable")[:count]
        nearest = nearest[scores[nearest] > -np.inf]
        found[out, : len(nearest)] = shown[nearest]
    return found
