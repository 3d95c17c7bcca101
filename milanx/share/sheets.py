"""Sheets of exemplars: the best views of a unit in one picture, dimmed where its mask is not."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from milanx.exemplars.store import ExemplarStore

SHOWN, COLUMNS = 10, 5
SIDE = 112  # pixels of a view
GAP = 4  # white pixels between views
CELLS = 28  # side of the grid on which masks are weighed; between its cells light changes smoothly
DIM = 0.57  # of the light of what lies outside a mask
QUALITY = 85  # of the jpeg


class Sheets:
    """Draws the sheets of a run.

    Args:
        store: its exemplars.
    """

    def __init__(self, store: ExemplarStore) -> None:
        self._store = store
        self._small = lru_cache(maxsize=4096)(self._scaled)
        self._places = lru_cache(maxsize=8)(self._rows_of)

    def draw(self, rows: Sequence[Mapping[str, Any]]) -> list[bytes | None]:
        """Return a jpeg for each row of the run's table; None for a unit without exemplars."""
        made: list[bytes | None] = [None] * len(rows)
        layers = dict.fromkeys(row["layer"] for row in rows)
        for layer in layers:
            here = [i for i, row in enumerate(rows) if row["layer"] == layer and row["images"]]
            places = [self._places(layer)[rows[i]["unit"], rows[i]["sign"]] for i in here]
            weights = self._store.mask_weights(layer, places, (CELLS, CELLS))  # [rows, k, h, w]
            for i, masks in zip(here, weights, strict=True):
                made[i] = self._sheet(rows[i]["images"][:SHOWN], masks)
        return made

    def _rows_of(self, layer: str) -> dict[tuple[int, str], int]:
        return {pair: row for row, pair in enumerate(self._store.units(layer))}

    def _scaled(self, image: int) -> np.ndarray:
        """Return a view, uint8 [SIDE, SIDE, 3]."""
        picture = Image.fromarray(self._store.view(image).transpose(1, 2, 0))
        return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS))

    def _sheet(self, images: Sequence[int], masks: np.ndarray) -> bytes:
        """Return a jpeg of views, in reading order, with their masks' weights [k, h, w]."""
        step, rows = SIDE + GAP, -(-len(images) // COLUMNS)
        size = (min(COLUMNS, len(images)) * step - GAP, rows * step - GAP)
        sheet = Image.new("RGB", size, "white")
        for place, (image, mask) in enumerate(zip(images, masks, strict=False)):
            wide = Image.fromarray(mask.astype(np.float32))
            light = DIM + (1 - DIM) * np.asarray(wide.resize((SIDE, SIDE)))[..., None]
            dimmed = (self._small(int(image)) * light.clip(0, 1)).astype(np.uint8)
            corner = (place % COLUMNS * step, place // COLUMNS * step)
            sheet.paste(Image.fromarray(dimmed), corner)
        buffer = io.BytesIO()
        sheet.save(buffer, "JPEG", quality=QUALITY)
        return buffer.getvalue()
