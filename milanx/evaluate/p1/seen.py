"""What networks see in the exemplar sets of units, a mean a set, kept in the cache.

Views are looked at a few at a time and added up, so that memory does not grow with them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from milanx.evaluate.p1.logits import Logits
from milanx.exemplars.store import ExemplarStore
from milanx.files import cache_dir, fingerprint
from milanx.files.arrays import keep_arrays, kept_arrays

if TYPE_CHECKING:
    from milanx.features.encoder import Encoder
    from milanx.targets.zoo import Target

VIEWS_AT_ONCE = 256  # whose dense features are in memory: 50 MB of the bundled encoder's
BATCH = 32  # views of a forward pass
MEANS = "means"  # of the kept file


@dataclass(frozen=True)
class Sets:
    """The exemplar sets of some units.

    Attributes:
        store: where they are.
        units: (layer, unit, sign) of each, u.
    """

    store: ExemplarStore
    units: tuple[tuple[str, int, str], ...]

    @classmethod
    def of(cls, store: ExemplarStore, logits: Logits) -> Sets:
        """Return those of the logits that P1 scores."""
        return cls(store, tuple((r["layer"], r["unit"], r["sign"]) for r in logits.rows))

    @cached_property
    def _places(self) -> list[tuple[str, int]]:
        """Each unit's layer, and its row there."""
        rows = {layer: {unit: row for row, unit in enumerate(self.store.units(layer))}
                for layer in {layer for layer, _, _ in self.units}}  # fmt: skip
        return [(layer, rows[layer][unit, sign]) for layer, unit, sign in self.units]

    @cached_property
    def images(self) -> np.ndarray:
        """The images of each, int64 [u, k]; -1 where there are fewer."""
        return np.stack([self.store.images(layer)[row] for layer, row in self._places])

    @cached_property
    def views(self) -> list[int]:
        """The images of them all, ascending."""
        return sorted(set(self.images[self.images >= 0].tolist()))

    def mask_weights(self, side: int) -> np.ndarray:
        """Shares of a grid's cells that the masks cover, float32 [u, k, side, side]."""
        return np.concatenate([self.store.mask_weights(layer, [row], (side, side))
                               for layer, row in self._places])  # fmt: skip

    def means(self, total: np.ndarray) -> np.ndarray:
        """Divide what was added up over each set, float32 [u, n], by its size."""
        return total / (self.images >= 0).sum(1, keepdims=True).clip(1)


def pooled_means(sets: Sets, encoder: Encoder) -> np.ndarray:
    """Mean over each set of its exemplars' pooled features, float32 [u, 2 d].

    First those under the masks, then those of whole views, as `exemplar_features` has them.

    Args:
        sets: of ``u`` units.
        encoder: of the features.
    """
    return _kept(sets, ("pooled", encoder.fingerprint()), lambda: _pooled(sets, encoder))


def logit_means(sets: Sets, target: Target) -> np.ndarray:
    """Mean over each set of what a classifier says of its views, float32 [u, classes].

    Args:
        sets: of ``u`` units.
        target: a classifier, which is shown whole views at its own size.
    """
    return _kept(sets, ("logits", target.fingerprint), lambda: _logits(sets, target))


def _kept(sets: Sets, seer: tuple[str, str], see: Callable[[], np.ndarray]) -> np.ndarray:
    """Return what the cache has of the sets and who sees them, or else see and keep it."""
    path = cache_dir("p1", f"{fingerprint(sets.store.fingerprint, seer, sets.units)}.safetensors")
    known = kept_arrays(path)
    if known is None:
        known = {MEANS: see().astype(np.float32)}
        keep_arrays(path, known)
    return known[MEANS]


@torch.inference_mode()
def _pooled(sets: Sets, encoder: Encoder) -> np.ndarray:
    from milanx.features.encoder import encode_views, exemplar_features, tells_shown, view_maps

    images, k = sets.images.ravel(), sets.images.shape[1]
    weights = sets.mask_weights(encoder.spec.grid)
    weights = weights.reshape(-1, 1, *weights.shape[2:])
    total: torch.Tensor | None = None
    for start in range(0, len(sets.views), VIEWS_AT_ONCE):
        views = sets.views[start : start + VIEWS_AT_ONCE]
        features = encode_views(encoder, sets.store, views)
        maps = view_maps(features) if tells_shown(encoder) else None
        here = np.flatnonzero(np.isin(images, views))
        found, _ = exemplar_features(features, images[here, None], weights[here], maps)
        rows = found.flatten(1)
        if total is None:
            total = torch.zeros(len(sets.units), rows.shape[1])
        total.index_add_(0, torch.from_numpy(here // k), rows)
    return np.zeros((len(sets.units), 0)) if total is None else sets.means(total.numpy())


@torch.inference_mode()
def _logits(sets: Sets, target: Target) -> np.ndarray:
    target.model.to(memory_format=torch.channels_last)
    said = []
    for start in range(0, len(sets.views), BATCH):
        batch = sets.views[start : start + BATCH]
        views = torch.from_numpy(np.stack([sets.store.view(i) for i in batch])).float()
        views = torch.nn.functional.interpolate(
            views, target.preprocess.size, mode="bilinear", antialias=True
        )
        inputs = target.preprocess.normalise(views.round().to(torch.uint8))
        out = target.model(inputs.contiguous(memory_format=torch.channels_last))
        said.append(out.numpy())
    logits = np.concatenate(said)
    places = np.searchsorted(sets.views, sets.images)
    there = (sets.images >= 0)[..., None]
    return sets.means(np.stack([(logits[p * t[:, 0]] * t).sum(0)
                                for p, t in zip(places, there, strict=True)]))  # fmt: skip
