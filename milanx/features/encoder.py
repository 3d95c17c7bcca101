"""What an encoder is: dense features of views, pooled under masks, and texts in the same space.

Every encoder is an `Encoder`: `milanx.features.smallclip` is the bundled one,
`milanx.features.openclip` any model of open_clip. Like MILAN's pyramid encoder (Hernandez et al.
2022, section 3) they look at several depths: pixels, middle stages and the last feature map, all
brought to one grid, so that one pooling serves them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from milanx.features.pixels import CHANNELS, EDGE_CHANNELS, PIXEL_CHANNELS, SHOWN, shown_maps
from milanx.features.shares import Shares
from milanx.workers import ALONE, Workers, workers

if TYPE_CHECKING:
    from accelerate import PartialState

    from milanx.exemplars.store import ExemplarStore

GEOMETRY = 4  # numbers of `geometry`, which follow the pooled features
MASKED, WHOLE = 0, 1  # places along f in features [u, k, f, d]


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """What defines an encoder, whatever its towers.

    Attributes:
        image_size: side of the square that views are resized to, in pixels.
        stages: middle stages whose feature maps are used, as indices of
            ``forward_intermediates``.
        grid: side of the grid that all depths are brought to, in cells.
        joint: width of the space shared with the text tower.
        edges: whether a cell also tells how strong its edges are in four orientations.
    """

    image_size: int
    stages: tuple[int, ...] = ()
    grid: int
    joint: int
    edges: bool

    @property
    def pixel_channels(self) -> int:
        """How many of the last channels of a dense feature come from pixels alone."""
        return PIXEL_CHANNELS + EDGE_CHANNELS * self.edges

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read what `dataclasses.asdict` wrote."""
        return cls(**{**values, "stages": tuple(values["stages"])})


class Encoder(Protocol):
    """Views in, dense features out; features and texts into one joint space.

    Nothing of it is trained but its ``projection``, and that only where it is one
    (`milanx.features.smallclip.Projection`).
    """

    @property
    def spec(self) -> EncoderSpec:
        """What defines it."""

    @property
    def projection(self) -> nn.Module:
        """What was trained of it; an identity where the towers come with all that they need."""

    @property
    def last_channels(self) -> int:
        """Channels of the last feature map, the first of each dense feature."""

    @property
    def width(self) -> int:
        """d, the channels of a dense feature: last map, middle stages, pixels."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    def to(self, device: torch.device | str, /) -> Self:
        """Bring it to a device."""

    def fingerprint(self) -> str:
        """16 hex digits that stand for the dense features (not the projection)."""

    def dense(self, views: torch.Tensor) -> torch.Tensor:
        """Encode ``views`` uint8 [b, 3, H, W] to dense features float32 [b, grid, grid, d].

        A view is resized as a whole: nothing is cropped away, so a cell of the grid is the same
        part of the view as the cell of a mask.
        """

    def joint(self, features: torch.Tensor) -> torch.Tensor:
        """Bring features [..., d] (or their first ``last_channels``) to unit rows [..., joint]."""

    def texts(
        self, texts: Sequence[str], batch_size: int = 256, workers: Workers = ALONE
    ) -> torch.Tensor:
        """Encode ``texts`` to unit rows [n, joint]; ``workers`` share out the batches."""


def read_width(encoder: Encoder) -> int:
    """Return how many features of a mask or view a set encoder reads (`exemplar_features`)."""
    return encoder.width + read_pixels(encoder) - encoder.spec.pixel_channels


def read_pixels(encoder: Encoder) -> int:
    """Return how many of them, the last ones, come from pixels and the mask alone."""
    return encoder.spec.pixel_channels + SHOWN * tells_shown(encoder) + GEOMETRY


def tells_shown(encoder: Encoder) -> bool:
    """Whether an encoder's features hold all that `milanx.features.pixels.shown_maps` needs."""
    return encoder.spec.pixel_channels == CHANNELS


def on_grid(maps: Sequence[torch.Tensor], pixels: torch.Tensor, spec: EncoderSpec) -> torch.Tensor:
    """Bring feature maps and what pixels tell to one grid: dense features [b, grid, grid, d].

    Args:
        maps: [b, c, h, w] each, of any size: the last one's, then those of the stages.
        pixels: [b, 3, H, W] in 0..1.
        spec: of the encoder.
    """
    grid = spec.grid
    mean = F.adaptive_avg_pool2d(pixels, grid)
    square = F.adaptive_avg_pool2d(pixels.square(), grid)
    deviation = (square - mean.square()).clamp_min(0).sqrt()
    parts = [F.adaptive_avg_pool2d(m, grid) for m in maps] + [mean, deviation]
    if spec.edges:
        parts.append(edge_strengths(pixels, grid))
    return torch.cat(parts, dim=1).permute(0, 2, 3, 1)


def edge_strengths(pixels: torch.Tensor, grid: int) -> torch.Tensor:
    """Measure edges of ``pixels`` [b, 3, H, W] in 0..1 in each cell of a grid.

    Returns:
        [b, 4, grid, grid]: root mean square of the brightness' difference across horizontal,
        across vertical, and across the two diagonal directions.
    """
    grey = pixels.mean(1, keepdim=True)
    right = grey[..., :-1, 1:] - grey[..., :-1, :-1]
    down = grey[..., 1:, :-1] - grey[..., :-1, :-1]
    directions = torch.cat(
        [right, down, (right + down) * 0.5**0.5, (right - down) * 0.5**0.5], dim=1
    )
    return F.adaptive_avg_pool2d(directions.square(), grid).sqrt()


def normalised(weights: torch.Tensor) -> torch.Tensor:
    """Masks [n, g, g] as rows that sum to one [n, g * g]; a mask of zeros is the whole view."""
    share = weights.flatten(1)
    share = torch.where(share.sum(1, keepdim=True) > 0, share, torch.ones_like(share))
    return share / share.sum(1, keepdim=True)


def pool(dense: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Pool dense features under masks.

    Args:
        dense: [n, g, g, d].
        weights: [n, g, g], the share of each cell that the mask covers; a row of zeros counts
            as the whole view.

    Returns:
        [n, 2, d]: the mean under the mask, the mean over the whole view.
    """
    flat = dense.flatten(1, 2)
    masked = torch.einsum("np,npd->nd", normalised(weights.to(flat)), flat)
    return torch.stack([masked, flat.mean(1)], dim=1)


def geometry(weights: torch.Tensor) -> torch.Tensor:
    """Say where masks lie, which pooled features do not.

    Args:
        weights: [n, g, g], the share of each cell that the mask covers; a row of zeros counts
            as the whole view.

    Returns:
        [n, 4]: row and column of the mask's centre and its mean distance from the view's centre,
        in sides of the view, and the share of the view that it covers, 0 for the whole view:
        what is not masked is no large mask.
    """
    side = weights.shape[-1]
    along = (torch.arange(side, dtype=weights.dtype, device=weights.device) + 0.5) / side
    row, column = torch.meshgrid(along, along, indexing="ij")
    away = ((row - 0.5) ** 2 + (column - 0.5) ** 2).sqrt()
    places = torch.stack([row, column, away]).flatten(1)
    area = weights.flatten(1).mean(1, keepdim=True)
    centre = normalised(weights) @ places.T
    return torch.cat([centre, torch.where(area < 1, area, 0.0)], 1)


def encode_views(
    encoder: Encoder,
    store: ExemplarStore,
    views: Iterable[int] | None = None,
    *,
    batch_size: int = 32,
    advance: Callable[[int], None] = lambda n: None,
    process: PartialState | None = None,
) -> dict[int, np.ndarray]:
    """Encode each distinct view of a store once; of several processes each encodes its share.

    Args:
        encoder: what encodes.
        store: whose views.
        views: images of those that are wanted; all when None.
        batch_size: views of a forward pass.
        advance: told how many more are done.
        process: what is known of the processes that call this together, with the same store and
            views; None encodes all here.

    Returns:
        image index -> dense features float16 [g, g, d]; all of them in every process.
    """
    features: dict[int, np.ndarray] = {}
    wanted = store.view_indices() if views is None else sorted(set(views))
    shares = Shares([int(i) for i in wanted], batch_size, process)

    def encode(batch: list[int]) -> torch.Tensor:
        return encoder.dense(torch.from_numpy(np.stack([store.view(i) for i in batch]))).half()

    with workers(encoder.device) as threads:
        for batch, dense in shares.gathered(threads.map(encode, shares.own)):
            features.update(zip(batch, dense.cpu().numpy(), strict=True))
            advance(len(batch))
    return features


def with_shown(dense: np.ndarray) -> np.ndarray:
    """Put what cells show by their pixels behind dense features [n, g * g, d], float32."""
    maps = shown_maps(dense[..., -CHANNELS:])
    return np.concatenate([np.asarray(dense, np.float32), maps], -1)


def view_maps(features: dict[int, np.ndarray], at_once: int = 512) -> dict[int, np.ndarray]:
    """Say what the cells of views show by their pixels: image index -> float32 [g, g, 27].

    Args:
        features: what `encode_views` returned.
        at_once: views.
    """
    found: dict[int, np.ndarray] = {}
    places = list(features)
    for start in range(0, len(places), at_once):
        part = places[start : start + at_once]
        pixels = np.stack([features[i][..., -CHANNELS:] for i in part])
        maps = shown_maps(pixels.reshape(len(part), -1, CHANNELS))
        found.update(zip(part, maps.reshape(*pixels.shape[:3], SHOWN), strict=True))
    return found


def exemplar_features(
    features: dict[int, np.ndarray],
    images: np.ndarray,
    weights: np.ndarray,
    maps: dict[int, np.ndarray] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pool the features of exemplar sets.

    Args:
        features: what `encode_views` returned.
        images: int64 [u, k], -1 where a set has fewer than k exemplars.
        weights: float32 [u, k, g, g], mask share of each cell.
        maps: what `view_maps` returned, to be pooled behind the features.

    Returns:
        features [u, k, 2, d + 27 + 4], the masks' `geometry` last, and which exemplars there are,
        bool [u, k]; without ``maps`` d + 4.
    """
    valid = images >= 0
    some = next(iter(features.values()))
    width = some.shape[-1] + SHOWN * bool(maps)
    out = torch.zeros(*images.shape, 2, width + GEOMETRY)
    places = np.flatnonzero(valid)
    if not len(places):
        return out, torch.from_numpy(valid)
    rows = out.flatten(0, 1)
    masks = torch.from_numpy(weights.reshape(-1, *weights.shape[2:])[places])
    rows[places, MASKED, width:] = geometry(masks)
    rows[places, WHOLE, width:] = geometry(torch.ones(1, *weights.shape[2:]))
    shares = normalised(masks)
    # A view at a time, for all the units that it excites: its features are read once.
    order = np.argsort(images.ravel()[places], kind="stable")
    views, starts = np.unique(images.ravel()[places[order]], return_index=True)
    for view, here in zip(views.tolist(), np.split(order, starts[1:]), strict=True):
        parts = [features[view]] if maps is None else [features[view], maps[view]]
        dense = torch.cat([torch.from_numpy(p).float().flatten(0, 1) for p in parts], 1)
        rows[places[here], MASKED, :width] = shares[here] @ dense
        rows[places[here], WHOLE, :width] = dense.mean(0)
    return out, torch.from_numpy(valid)
