"""Training units: exemplar sets drawn from meanings, as impure and loose as real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from milanx.encode import pool
from milanx.train.meanings import Meaning
from milanx.train.photos import PhotoFeatures
from milanx.train.phrases import plural, vary

# How often each kind of meaning is drawn.
SHARES = {"class": 0.34, "kind": 0.08, "region": 0.17, "texture": 0.04, "word": 0.27, "pixel": 0.10}
TWO_SENSES = 0.1  # share of units that mean "A and B"
WHOLE_VIEW = 0.25  # share of sets whose masks are whole views, as those of logits are
MIN_EXEMPLARS = 6


@dataclass(frozen=True)
class Batch:
    """Training units.

    Attributes:
        features: float32 [u, k, 2, d].
        valid: bool [u, k].
        texts: one description a unit.
    """

    features: torch.Tensor
    valid: torch.Tensor
    texts: list[str]


def _blob(rng: np.random.Generator, grid: int) -> np.ndarray:
    """A loose mask somewhere near the middle, [g * g] in 0..1."""
    centre = rng.normal(0.5, 0.15, 2) * grid - 0.5
    radius = rng.uniform(0.15, 0.45, 2) * grid
    y, x = np.mgrid[:grid, :grid]
    distance = ((y - centre[0]) / radius[0]) ** 2 + ((x - centre[1]) / radius[1]) ** 2
    return np.clip(1.5 - distance, 0, 1).ravel().astype(np.float32)


def _loosen(mask: np.ndarray, rng: np.random.Generator, grid: int) -> np.ndarray:
    """Displace, widen or cut a mask, as real units' maps do; never empty it."""
    shaped = mask.reshape(grid, grid)
    if rng.random() < 0.5:  # by at most one cell, 12 % of the side
        shaped = np.roll(shaped, tuple(rng.integers(-1, 2, 2)), (0, 1))
    if rng.random() < 0.4:
        padded = np.pad(shaped, 1, mode="edge")
        windows = [padded[y : y + grid, x : x + grid] for y in range(3) for x in range(3)]
        shaped = np.maximum(shaped, 0.7 * np.max(windows, axis=0))
    if rng.random() < 0.4:
        shaped = shaped * (rng.random((grid, grid)) < 0.6)
    return shaped.ravel() if shaped.sum() > 0.25 else mask


class Corpus:
    """Draws training units from meanings.

    Args:
        photos: encoded photos.
        meanings: what units can mean.
        keep: bool [n], the views that may be drawn as impurities.
        exemplars: k.
        min_purity: least share of a set that shows its meaning.
    """

    def __init__(
        self,
        photos: PhotoFeatures,
        meanings: Sequence[Meaning],
        keep: np.ndarray,
        exemplars: int = 15,
        min_purity: float = 0.6,
    ) -> None:
        self.photos = photos
        self.exemplars = exemplars
        self.min_purity = min_purity
        self.grid = int(photos.dense.shape[1] ** 0.5)
        self.others = np.flatnonzero(keep)
        self.by_kind: dict[str, list[Meaning]] = {}
        for meaning in meanings:
            self.by_kind.setdefault(meaning.kind, []).append(meaning)
        self.kinds = sorted(self.by_kind)
        shares = np.array([SHARES[kind] for kind in self.kinds])
        self.shares = shares / shares.sum()
        # Within a kind the square root of the count: frequent meanings lead, rare ones are met.
        self.weights = {}
        for kind, group in self.by_kind.items():
            counts = np.sqrt([min(len(m.photos), 100) for m in group])
            self.weights[kind] = counts / counts.sum()

    def _meaning(self, rng: np.random.Generator) -> Meaning:
        kind = str(rng.choice(self.kinds, p=self.shares))
        group = self.by_kind[kind]
        return group[int(rng.choice(len(group), p=self.weights[kind]))]

    def _phrase(self, meaning: Meaning, rng: np.random.Generator) -> str:
        text = str(rng.choice(meaning.texts))
        return vary(text, rng) if meaning.countable else text

    def text(self, rng: np.random.Generator) -> str:
        """Draw one description alone, with the frequencies of `batch`."""
        first = self._meaning(rng)
        if rng.random() < TWO_SENSES:
            return f"{self._phrase(first, rng)} and {self._phrase(self._meaning(rng), rng)}"
        return self._phrase(first, rng)

    def all_texts(self) -> list[str]:
        """Return every phrase that `text` can draw of a single meaning."""
        found: list[str] = []
        for group in self.by_kind.values():
            for meaning in group:
                found += meaning.texts
                if meaning.countable:
                    found += [plural(text) for text in meaning.texts]
        return found

    def _unit(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, str]:
        """Draw one unit: photo of each exemplar [k], masks [k, g * g], its description."""
        first = self._meaning(rng)
        senses = [first]
        if rng.random() < TWO_SENSES:
            senses.append(self._meaning(rng))
        k = (
            self.exemplars
            if rng.random() < 0.7
            else int(rng.integers(MIN_EXEMPLARS, 1 + self.exemplars))
        )
        pure = rng.random(k) < rng.uniform(self.min_purity, 1)
        which = rng.integers(0, len(senses), k)
        whole = all(m.grids is None for m in senses) and rng.random() < WHOLE_VIEW
        rows = np.empty(k, np.int64)
        masks = np.ones((k, self.grid**2), np.float32)
        drawn = [rng.permutation(len(m.photos)) for m in senses]
        for j in range(k):
            meaning = senses[which[j]]
            if not pure[j]:
                rows[j] = rng.choice(self.others)
                mask = _blob(rng, self.grid)
            else:
                at = drawn[which[j]][j % len(meaning.photos)]
                rows[j] = meaning.photos[at]
                if meaning.grids is None:
                    mask = _blob(rng, self.grid)
                else:
                    mask = _loosen(meaning.grids[at].astype(np.float32) / 255, rng, self.grid)
            if not whole:
                masks[j] = mask
        text = " and ".join(dict.fromkeys(self._phrase(m, rng) for m in senses))
        return rows, masks, text

    def batch(self, size: int, rng: np.random.Generator) -> Batch:
        """Draw ``size`` units."""
        d = self.photos.dense.shape[-1]
        features = torch.zeros(size, self.exemplars, 2, d)
        valid = torch.zeros(size, self.exemplars, dtype=torch.bool)
        texts = []
        for u in range(size):
            rows, masks, text = self._unit(rng)
            dense = torch.from_numpy(self.photos.dense[rows]).float()
            grid = dense.unflatten(1, (self.grid, self.grid))
            weights = torch.from_numpy(masks).unflatten(1, (self.grid, self.grid))
            features[u, : len(rows)] = pool(grid, weights)
            valid[u, : len(rows)] = True
            texts.append(text)
        return Batch(features, valid, texts)
