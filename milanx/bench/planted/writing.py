"""Lettering over views: what detectors are learned from, and what lies to the model later.

The two share no font and no word. All fonts may be shipped: Pillow brings Aileron (CC0), matplotlib
DejaVu, STIX and Computer Modern.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from milanx.act.shortcut.lettering import LIGHT, MARGIN, SMALLEST, Box, Style, hand

AILERON = ""  # Pillow's own


@dataclass(frozen=True)
class Pen:
    """Among what a word over a view is drawn.

    Attributes:
        fonts: files of matplotlib's, or `AILERON`.
        style: sizes, places and colours.
        seed: told apart from those of other pens.
    """

    fonts: tuple[str, ...]
    style: Style
    seed: int


LEARNED = Pen((AILERON, "DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "STIXGeneralBol"),
              Style((0.10, 0.24), 1.0, 6), 1)  # fmt: skip
LYING = Pen(("DejaVuSansMono-Bold", "DejaVuSerif-BoldItalic", "cmss10", "cmb10", "STIXGeneral"),
            Style((0.12, 0.22), 1.0, 6), 2)  # fmt: skip
# Words that detectors are learned from; none is a name of an ImageNet class.
WORDS = (
    "sale", "Open", "EXIT", "news", "milk", "Nord", "hello", "2019", "No. 27", "lunch", "Monday",
    "Kiosk", "LIVE", "later", "Via Roma", "10 %", "Park", "STOP", "thank you", "Berlin", "zone 4",
    "fresh", "Matin", "WARNING", "Room 12", "www", "CLOSED", "quick", "Jazz", "yes",
    "88:30", "ALTO",
)  # fmt: skip


def write(view: np.ndarray, word: str, image: str, pen: Pen, seed: int) -> tuple[np.ndarray, Box]:
    """Write a word over a copy of a view; how is drawn from the seed and the image alone.

    Args:
        view: uint8 [H, W, 3].
        word: what; written smaller where it is too wide.
        image: hexadecimal digits that stand for the image.
        pen: among what font, size, place and colour are drawn.
        seed: of the experiment.

    Returns:
        The copy, and the box (left, top, right, bottom) outside of which no pixel changed.
    """
    how = hand(seed * 10 + pen.seed, image, pen.style)
    rng = np.random.default_rng([seed, pen.seed, int(image, 16)])
    name = pen.fonts[int(rng.integers(len(pen.fonts)))]
    height, width = view.shape[:2]
    size = max(round(how.size * height), SMALLEST)
    box = _box(word, name, size)
    while box[2] - box[0] > width - 2 * MARGIN and size > SMALLEST:
        size -= 1
        box = _box(word, name, size)
    left = MARGIN + round(how.across * max(width - 2 * MARGIN - (box[2] - box[0]), 0))
    top = MARGIN + round(how.down * max(height - 2 * MARGIN - (box[3] - box[1]), 0))
    grey = (299 * how.colour[0] + 587 * how.colour[1] + 114 * how.colour[2]) / 1000
    written = Image.fromarray(view)
    ImageDraw.Draw(written).text(
        (left - box[0], top - box[1]), word, fill=how.colour, font=_font(name, size),
        stroke_width=1, stroke_fill=(0, 0, 0) if grey > LIGHT else (255, 255, 255),
    )  # fmt: skip
    right, bottom = left + box[2] - box[0], top + box[3] - box[1]
    return np.asarray(written), (left, top, min(right, width), min(bottom, height))


@lru_cache(maxsize=512)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    if name == AILERON:
        return ImageFont.load_default(size=float(size))
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf"), size)


def _box(word: str, name: str, size: int) -> Box:
    """Return left, top, right, bottom of a word that is drawn at 0, 0."""
    left, top, right, bottom = ImageDraw.Draw(Image.new("L", (1, 1))).textbbox(
        (0, 0), word, font=_font(name, size), stroke_width=1
    )
    return int(np.floor(left)), int(np.floor(top)), int(np.ceil(right)), int(np.ceil(bottom))


def cells(box: Box, view: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Return how much of each cell of a map lies in a box, float32 [h, w] in 0..1.

    Args:
        box: in pixels of the view.
        view: its height and width.
        size: the map's.
    """

    def along(low: int, high: int, pixels: int, count: int) -> np.ndarray:
        edges = np.linspace(0, pixels, count + 1)
        inside = np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)
        return np.clip(inside, 0, None) / (pixels / count)

    down, across = along(box[1], box[3], view[0], size[0]), along(box[0], box[2], view[1], size[1])
    return np.outer(down, across).astype(np.float32)
