"""Masks of exemplars: where a unit's map lies above its quantile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

# float16 maps of a saturated unit hold its maximum to half a unit in the last place.
SATURATED = 1e-3
# Share of a class-activation map's maximum above which its mask lies (Zhou et al. 2016,
# https://arxiv.org/abs/1512.04150, section 3.2).
CLASS_MAP = 0.2


@dataclass(frozen=True)
class LayerRecord:
    """What the store must know of a layer: masks, and which images excite nothing of it.

    Attributes:
        name: its address.
        kind: of its units.
        map_size: of the maps that are kept.
        rectified: values are never below zero.
        upper: the most that a value can be.
        off: the value of units that are off; None where there is none.
        pooled: the maps show where logits come from, whose values and statistics are others.
    """

    name: str
    kind: str
    map_size: tuple[int, int]
    rectified: bool
    upper: float | None
    off: float | None = None
    pooled: bool = False


def make_masks(
    maps: torch.Tensor,
    stats: dict[str, np.ndarray],
    signs: Sequence[str],
    record: LayerRecord,
    view_size: tuple[int, int],
) -> torch.Tensor:
    """Make masks from maps.

    A map is upsampled bilinearly to the view (``align_corners=False``); the mask is where it lies
    strictly above the unit's quantile and, after a rectifier, above zero. Where the quantile is
    the unit's maximum, as in saturating units, it is where the map reaches it. A mask that would
    be empty is the peak of its map. Vectors have the whole view, and so have logits unless they are
    averages of class-activation maps: then it is where such a map lies above a fifth of its peak.

    Args:
        maps: float32 [r, k, h, w].
        stats: quantile, low_quantile, median, maximum and minimum, float32 [r].
        signs: of each row; ``-`` turns the map around its median.
        record: the layer.
        view_size: (H, W).

    Returns:
        bool [r, k, H, W].
    """
    rows, k = maps.shape[:2]
    if tuple(record.map_size) == (1, 1):
        return torch.ones(rows, k, *view_size, dtype=torch.bool)
    if record.pooled:
        up = _up(torch.where(_minus(signs), -maps, maps), view_size)
        highest = up.flatten(2).amax(2)[..., None, None]
        return torch.where(highest > 0, up > CLASS_MAP * highest, up >= highest)
    turned, threshold, saturated = _above(maps, stats, signs, record)
    up = _up(turned, view_size)
    masks = _active(up, threshold, saturated)
    empty = ~masks.flatten(2).any(2)
    peak = up >= up.flatten(2).amax(2)[..., None, None]
    return torch.where(empty[..., None, None], peak, masks)


def _up(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


def _minus(signs: Sequence[str]) -> torch.Tensor:
    """Which rows have the sign ``-``, bool [r, 1, 1, 1]."""
    return torch.tensor([s == "-" for s in signs])[:, None, None, None]


def active_cells(
    maps: torch.Tensor,
    stats: dict[str, np.ndarray],
    signs: Sequence[str],
    record: LayerRecord,
    size: tuple[int, int],
) -> torch.Tensor:
    """Say where maps lie above their units' thresholds, on a grid over the view.

    As `make_masks`, but for any image: what excites a unit nowhere has no cell.

    Args:
        maps: float32 [r, k, h, w].
        stats: as of `make_masks`, and so the next two.
        signs: of the rows.
        record: the layer.
        size: (h, w) of the grid.

    Returns:
        bool [r, k, h, w] of the grid.
    """
    turned, threshold, saturated = _above(maps, stats, signs, record)
    if turned.shape[-1] > size[1] or turned.shape[-2] > size[0]:
        up = F.adaptive_avg_pool2d(turned, size)
    else:
        up = F.interpolate(turned, size, mode="bilinear", align_corners=False)
    return _active(up, threshold, saturated)


def _active(up: torch.Tensor, threshold: torch.Tensor, saturated: torch.Tensor) -> torch.Tensor:
    """Say where maps [r, k, h, w] lie above their thresholds [r], or reach them if saturated."""
    limit = threshold[:, None, None, None]
    reached = saturated[:, None, None, None] & (up > 0) & (up >= limit * (1 - SATURATED))
    return (up > limit) | reached


def _above(
    maps: torch.Tensor, stats: dict[str, np.ndarray], signs: Sequence[str], record: LayerRecord
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return maps turned by their sign, the threshold of each row, and which rows are saturated."""
    flip = torch.tensor([s == "-" for s in signs])
    column = {n: torch.from_numpy(np.ascontiguousarray(v)).float() for n, v in stats.items()}
    threshold = torch.where(flip, column["median"] - column["low_quantile"], column["quantile"])
    top = torch.where(flip, column["median"] - column["minimum"], column["maximum"])
    turned = torch.where(
        flip[:, None, None, None], column["median"][:, None, None, None] - maps, maps
    )
    if record.rectified:
        threshold = torch.where(flip, threshold, threshold.clamp_min(0))
    return turned, threshold, threshold >= top * (1 - SATURATED)


def mask_shares(
    maps: torch.Tensor,
    stats: dict[str, np.ndarray],
    signs: Sequence[str],
    record: LayerRecord,
    view_size: tuple[int, int],
    size: tuple[int, int],
) -> torch.Tensor:
    """Say how much of each cell of a grid the masks of `make_masks` cover.

    The usual mask, above a threshold, is made in place of its map and never kept; those of
    saturated units and those that would be empty are made anew.

    Args:
        maps: as of `make_masks`, and so the next four.
        stats: of the rows.
        signs: of the rows.
        record: the layer.
        view_size: (H, W).
        size: (h, w) of the grid.

    Returns:
        float32 [r, k, h, w], in 0..1.
    """
    if tuple(record.map_size) == (1, 1):
        return torch.ones(*maps.shape[:2], *size)
    if record.pooled:
        masks = make_masks(maps, stats, signs, record, view_size)
        return F.adaptive_avg_pool2d(masks.float(), size)
    turned, threshold, saturated = _above(maps, stats, signs, record)
    up = F.interpolate(turned, view_size, mode="bilinear", align_corners=False)
    shares = F.adaptive_avg_pool2d(up.gt_(threshold[:, None, None, None]), size)
    empty = (shares.flatten(2).amax(2) <= 0).any(1)
    rest = (saturated | empty).nonzero().flatten().tolist()
    if rest:
        some = {name: column[rest] for name, column in stats.items()}
        masks = make_masks(maps[rest], some, [signs[i] for i in rest], record, view_size)
        shares[rest] = F.adaptive_avg_pool2d(masks.float(), size)
    return shares
