"""Sheets of exemplars: the best views of a unit in one picture, dimmed where its mask is not."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from milanx.exemplars.store import ExemplarSet, ExemplarStore

SHOWN, COLUMNS = 10, 5
SIDE = 112  # pixels of a view
GAP = 4  # white pixels between views
DIM = 0.35  # of the light of what lies outside a mask
QUALITY = 85  # of the jpeg


def draw_sheet(exemplars: ExemplarSet) -> bytes:
    """Return the best exemplars of a unit as a jpeg, in reading order."""
    views = exemplars.views[:SHOWN].transpose(0, 2, 3, 1)  # [k, H, W, 3]
    light = np.where(exemplars.masks[:SHOWN, ..., None], 1.0, DIM)
    rows = -(-len(views) // COLUMNS)
    step = SIDE + GAP
    size = (min(COLUMNS, len(views)) * step - GAP, rows * step - GAP)
    sheet = Image.new("RGB", size, "white")
    for place, dimmed in enumerate((views * light).astype(np.uint8)):
        picture = Image.fromarray(dimmed).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        sheet.paste(picture, (place % COLUMNS * step, place // COLUMNS * step))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def sheet_of(store: ExemplarStore, row: Mapping[str, Any]) -> bytes | None:
    """Return the sheet of a row of a run's table; None for a unit without exemplars."""
    if not row["images"]:
        return None
    return draw_sheet(store.get(row["layer"], row["unit"], row["sign"]))
