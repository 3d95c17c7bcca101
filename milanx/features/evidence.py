"""What a set encoder reads of the units of one layer, gathered from a store and encoded views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from milanx.features.contrast import contrast_views, whole_views
from milanx.features.encoder import MASKED, exemplar_features, geometry
from milanx.workers import ALONE, Workers

if TYPE_CHECKING:
    from milanx.exemplars.store import ExemplarStore
    from milanx.features.encoder import Encoder

UNITS_AT_ONCE = 256  # units whose pooled features are in memory at a time
MASKS_AT_ONCE = 32  # units whose masks are made in one step


@dataclass(frozen=True)
class Evidence:
    """What is known of the exemplar sets of ``u`` units.

    Attributes:
        features: float [u, k, 2, d], pooled under the mask and over the whole view.
        joint: float [u, k, 2, j], the same in the joint image-text space, unit rows.
        valid: bool [u, k], which exemplars there are.
        contrast: float [u, c, d], whole views that are near and leave the unit low.
        contrast_joint: float [u, c, j].
        contrast_valid: bool [u, c].
    """

    features: torch.Tensor
    joint: torch.Tensor
    valid: torch.Tensor
    contrast: torch.Tensor
    contrast_joint: torch.Tensor
    contrast_valid: torch.Tensor

    def __len__(self) -> int:
        return len(self.valid)

    def rows(self, chosen: slice | torch.Tensor) -> Evidence:
        """Return the units ``chosen``."""
        return Evidence(*(getattr(self, f.name)[chosen] for f in fields(self)))

    def to(self, device: torch.device | str) -> Evidence:
        """Return it on a device."""
        return Evidence(*(getattr(self, f.name).to(device) for f in fields(self)))


class LayerGatherer:
    """Pools the exemplars of a layer's units; each unit's masks are brought to the grid once.

    Args:
        encoder: of the features.
        store: the exemplars.
        layer: its address.
        features: of every stored view (`milanx.features.encoder.encode_views`).
        maps: of every stored view (`milanx.features.encoder.view_maps`), where the set encoder
            reads them.
        contrast: how many contrast views are looked at.
        workers: share out the units.

    Attributes:
        alive: places of the units that are not dead.
    """

    def __init__(
        self,
        encoder: Encoder,
        store: ExemplarStore,
        layer: str,
        features: dict[int, np.ndarray],
        maps: dict[int, np.ndarray] | None,
        contrast: int,
        workers: Workers = ALONE,
    ) -> None:
        self.encoder, self.store, self.layer = encoder, store, layer
        self.features, self.maps, self.contrast = features, maps, contrast
        self.alive = [row for row, s in enumerate(store.status(layer)) if s != "dead"]
        self.workers = workers
        self._masks: dict[int, np.ndarray] = {}

    @cached_property
    def whole(self) -> dict[int, np.ndarray]:
        """Means over each whole view of its features, float32 [d]."""
        return whole_views(self.features)

    def weights(self, rows: Sequence[int]) -> np.ndarray:
        """Shares of the grid's cells under masks, float32 [len(rows), k, g, g]."""
        side = self.encoder.spec.grid
        new = [row for row in rows if row not in self._masks]
        parts = [new[i : i + MASKS_AT_ONCE] for i in range(0, len(new), MASKS_AT_ONCE)]

        def weights(here: list[int]) -> np.ndarray:
            return self.store.mask_weights(self.layer, here, (side, side))

        for here, found in zip(parts, self.workers.map(weights, parts), strict=True):
            self._masks.update(zip(here, found, strict=True))
        return np.stack([self._masks[row] for row in rows])

    @torch.inference_mode()
    def evidence(self, rows: Sequence[int]) -> Evidence:
        """Collect what the set encoder reads of some units, given their places in the layer."""
        encoder, device = self.encoder, self.encoder.device
        images = self.store.images(self.layer)[rows]
        pooled, valid = exemplar_features(self.features, images, self.weights(rows), self.maps)
        near = contrast_views(self.store, self.layer, rows, self.whole, self.contrast)
        contrast = torch.zeros(*near.shape, pooled.shape[-1])
        everywhere = geometry(torch.ones(1, encoder.spec.grid, encoder.spec.grid))[0]
        whole = {i: torch.cat([self._whole(i), everywhere]) for i in set(near[near >= 0].tolist())}
        for place in zip(*np.nonzero(near >= 0), strict=True):
            contrast[place] = whole[int(near[place])]
        pooled, contrast = pooled.to(device), contrast.to(device)
        return Evidence(
            pooled, encoder.joint(pooled), valid.to(device),
            contrast, encoder.joint(contrast), torch.from_numpy(near >= 0).to(device),
        )  # fmt: skip

    def _whole(self, view: int) -> torch.Tensor:
        """Mean over a whole view of its features, and of its maps where they are read."""
        parts = [torch.from_numpy(self.whole[view])]
        if self.maps is not None:
            parts.append(torch.from_numpy(self.maps[view]).float().mean((0, 1)))
        return torch.cat(parts)

    @torch.inference_mode()
    def looks(self) -> torch.Tensor:
        """Pool the exemplars of each living unit under their masks: [alive, d]."""
        parts = [torch.zeros(0, 1)]
        for start in range(0, len(self.alive), UNITS_AT_ONCE):
            rows = self.alive[start : start + UNITS_AT_ONCE]
            images = self.store.images(self.layer)[rows]
            pooled, valid = exemplar_features(self.features, images, self.weights(rows))
            share = valid.float()[..., None]
            parts.append((pooled[:, :, MASKED] * share).sum(1) / share.sum(1).clamp_min(1))
        return torch.cat(parts[1:] or parts)
