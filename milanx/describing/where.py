"""Where units look, beside where texts say: what pixels show and parts of the view, cell by cell.

Whole views tell that a unit answers to photos with much white in them, not that it looks at the
white, nor that it looks at the right edge whatever is there. Masks tell both: the correlation, over
the cells of each exemplar, of the mask with what a text says of the cells. Such texts are told
exactly; others meet the space of images and texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from milanx.features.pixels import PLACES, SHOWN, TONES, place_cells, shown_texts

if TYPE_CHECKING:
    from milanx.features.evidence import LayerGatherer

# Most of what units look at lies about the middle: readers found one such text in four right.
SIDES = tuple(place for place in PLACES if place != "in the center")
BUSY = "busy textures"
FEW = 3  # photographs that tell nothing, counted beside those of a unit's exemplars
FEW_UNITS = 8  # likewise, beside a layer's units
FLAT = 1e-6  # standard deviation below which nothing varies


@lru_cache(maxsize=1)
def located_texts() -> Mapping[str, int]:
    """Return the texts that cells tell, and which of `cell_maps` tells each.

    Of all ways to say what pixels show the plainest: light backgrounds are more than bright cells.
    That something is busy is not told: so is lettering, and much else that has a better name.
    """
    tones = [ways[0] for ways in shown_texts()[:TONES]]
    both = [f"{tone} {place}" for tone in tones for place in SIDES]
    texts = [*tones, *(PLACES[place][0] for place in SIDES), *both]
    return {text: column for column, text in enumerate(texts) if not text.startswith(BUSY)}


def cell_maps(shown: np.ndarray) -> np.ndarray:
    """Say which cells show what each text says: float32 [..., c, texts], 1 where they do.

    Args:
        shown: what pixels show, [..., c, `SHOWN`] (`milanx.features.pixels.shown_maps`).

    Returns:
        The tones among these, the parts of the view, and each tone in each part.
    """
    side = round(shown.shape[-2] ** 0.5)
    cells = place_cells(side)
    places = np.stack([cells[place] for place in SIDES], -1).astype(np.float32)
    everywhere = np.broadcast_to(places, (*shown.shape[:-1], places.shape[-1]))
    tones = shown[..., :TONES]
    both = tones[..., None] * places[:, None]
    return np.concatenate([tones, everywhere, both.reshape(*tones.shape[:-1], -1)], -1)


def cell_correlations(weights: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Correlate masks with maps over cells, mean over exemplars.

    Args:
        weights: [k, c], the share of each cell under each exemplar's mask.
        maps: [k, c, t].

    Returns:
        float32 [t]: the mean over k of Pearson's r; 0 where a mask or a map is the same all over.
    """
    across = (weights - weights.mean(1, keepdims=True))[..., None]
    towards = maps - maps.mean(1, keepdims=True)
    spread = across.std(1) * towards.std(1)
    together = (across * towards).mean(1)
    each = np.where(spread > FLAT, together / np.maximum(spread, FLAT), 0)
    return each.mean(0) if len(each) else np.zeros(maps.shape[-1], np.float32)


def located(gatherer: LayerGatherer, rows: Sequence[int]) -> torch.Tensor:
    """Say how well what each text says of cells covers what units look at: [u, `cell_maps`].

    Args:
        gatherer: of a layer, with what cells show of each view.
        rows: places of units in the layer.

    Returns:
        Correlations, shrunk by `FEW` photographs.
    """
    maps, photos = gatherer.maps or {}, gatherer.store.photos
    images, weights = gatherer.store.images(gatherer.layer)[rows], gatherer.weights(rows)
    found: list[np.ndarray] = []
    for row, masks in zip(images, weights, strict=True):
        there = row >= 0
        if not there.any():
            found.append(np.zeros(TONES + len(SIDES) * (1 + TONES), np.float32))
            continue
        shown = np.stack([maps[int(i)].reshape(-1, SHOWN) for i in row[there]])
        distinct = len(set(photos[row[there]].tolist()))
        told = cell_correlations(masks[there].reshape(len(shown), -1), cell_maps(shown))
        found.append(told * distinct / (distinct + FEW))
    return torch.from_numpy(np.stack(found)).float()


def usual_cells(gatherer: LayerGatherer, rows: Sequence[int]) -> torch.Tensor:
    """Return what cells tell of a layer's mean unit [`cell_maps`], given some of its units.

    `FEW_UNITS` that look nowhere are counted among them: of few units little is known.
    """
    return located(gatherer, rows).sum(0) / (len(rows) + FEW_UNITS)


@dataclass(frozen=True)
class Located:
    """What cells tell of texts, for some units.

    Attributes:
        values: [u, maps], correlations beyond those of the layer's mean unit, as they count.
    """

    values: torch.Tensor

    def of(self, texts: Sequence[str]) -> tuple[list[int], torch.Tensor]:
        """Return which of some texts cells tell, and what they tell of these [u, told]."""
        known = located_texts()
        told = [place for place, text in enumerate(texts) if text in known]
        return told, self.values[:, [known[texts[place]] for place in told]]

    def beside(self, named: Sequence[Sequence[str]], count: int) -> list[list[str]]:
        """Return each unit's texts of ``named``, where there are any, and its `best`."""
        best = self.best(count)
        return [[*a, *b] for a, b in zip(named or [[]] * len(best), best, strict=True)]

    def best(self, count: int) -> list[list[str]]:
        """Return the texts that cover best what each unit looks at."""
        if not count:
            return [[] for _ in range(len(self.values))]
        texts = [*located_texts()]
        told = self.values[:, [*located_texts().values()]]
        order = told.topk(min(count, len(texts))).indices
        return [[texts[place] for place in row] for row in order.tolist()]


def look(
    gatherer: LayerGatherer, rows: Sequence[int], usual: torch.Tensor | None, share: float
) -> Located | None:
    """Ask cells about some units of a layer; None where they are not asked.

    Args:
        gatherer: of the layer.
        rows: places of the units in it.
        usual: of `usual_cells`.
        share: what is told counts.
    """
    return None if usual is None else Located(share * (located(gatherer, rows) - usual))
