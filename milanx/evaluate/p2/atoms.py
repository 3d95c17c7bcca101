"""P2's own atoms: what pixels show by rules, and lettering drawn over real photos.

The rules are not those of any training: colours by hue and saturation, lines by the gradients'
energies, places by where the bright or dark part of a view lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from milanx.exemplars.planted import MAP

# Hue in degrees (from, to); saturation and value at least.
HUES: dict[str, tuple[float, float]] = {
    "red": (345, 12), "orange color": (14, 38), "yellow": (44, 66), "green": (75, 165),
    "blue": (190, 255), "purple": (262, 295), "pink": (300, 342),
}  # fmt: skip
SATURATED, LIT = 0.38, 0.25
PALE, WHITE, BLACK = 0.14, 0.82, 0.14
BRIGHT, DARK = 0.78, 0.18  # mean brightness of a cell
LINE_RATIO = 4.0  # energy across a line over energy along it
LINE_ENERGY = 0.002  # mean squared step of brightness between neighbouring pixels
SHARE = 0.5  # of a cell that must show an atom
LEAST = {"colour": 12, "brightness": 16, "lines": 20, "place": 12}  # cells of 196, in a view
ONE_SIDE = 0.85  # share of the bright (dark) cells that lie in one half of the view
TEXT = "text"
WORDS = ("SALE", "open", "Nord", "EXIT 4", "matin", "No. 27", "STOP", "hotel", "Kiosk", "2019",
         "taxi", "Park", "LIVE", "news", "Via Roma", "10 %", "menu", "ALTO")  # fmt: skip
PLACES: dict[str, Any] = {
    "at the top": np.s_[: MAP // 2],
    "at the bottom": np.s_[MAP // 2 :],
    "on the left": np.s_[:, : MAP // 2],
    "on the right": np.s_[:, MAP // 2 :],
}
COLOURS = (*HUES, "white", "black", "grey")
LINES = ("vertical lines", "horizontal lines")
BRIGHTNESS = ("bright areas", "dark areas")
KIND_OF = (
    dict.fromkeys(COLOURS, "colour")
    | dict.fromkeys(LINES, "lines")
    | dict.fromkeys(BRIGHTNESS, "brightness")
    | {f"{tone} things {place}": "place" for tone in ("bright", "dark") for place in PLACES}
    | {TEXT: "text"}
)


@dataclass(frozen=True)
class Lettering:
    """A word drawn over a view.

    Attributes:
        word: what.
        size: of the font, in pixels of a view of 224.
        left: in pixels.
        top: in pixels.
        colour: RGB.
    """

    word: str
    size: int
    left: int
    top: int
    colour: tuple[int, int, int]

    def box(self) -> tuple[int, int, int, int]:
        """Return left, top, right, bottom of the drawn word, in pixels."""
        font = ImageFont.load_default(self.size)
        x0, y0, x1, y1 = font.getbbox(self.word)
        return (self.left + int(x0), self.top + int(y0), self.left + int(x1), self.top + int(y1))

    def draw(self, view: np.ndarray) -> np.ndarray:
        """Draw over a view uint8 [H, W, 3], with an outline that keeps it legible."""
        image = Image.fromarray(view)
        dark = sum(self.colour) > 380
        ImageDraw.Draw(image).text(
            (self.left, self.top), self.word, fill=self.colour,
            font=ImageFont.load_default(self.size), stroke_width=2,
            stroke_fill=(0, 0, 0) if dark else (255, 255, 255),
        )  # fmt: skip
        return np.asarray(image)

    def cells(self, side: int) -> np.ndarray:
        """Return the word's box as a map float32 [14, 14]."""
        x0, y0, x1, y1 = (v * MAP / side for v in self.box())
        cells = np.zeros((MAP, MAP), np.float32)
        cells[int(y0) : max(int(np.ceil(y1)), int(y0) + 1),
              int(x0) : max(int(np.ceil(x1)), int(x0) + 1)] = 1  # fmt: skip
        return cells


def lettering(rng: np.random.Generator, side: int) -> Lettering:
    """Draw a word, a size, a colour and a place for a square view."""
    word = WORDS[int(rng.integers(len(WORDS)))]
    size = int(rng.integers(side // 8, side // 4))
    colour = tuple(int(v) for v in rng.choice([0, 40, 215, 255], 3))
    x1, y1 = Lettering(word, size, 0, 0, (0, 0, 0)).box()[2:]
    left = int(rng.integers(0, max(side - x1, 0) + 1))
    top = int(rng.integers(0, max(side - y1, 0) + 1))
    return Lettering(word, size, left, top, (colour[0], colour[1], colour[2]))


def _cells(pixels: np.ndarray) -> np.ndarray:
    """Mean of each cell: [H, W] to float32 [14, 14]; sides are multiples of 14."""
    height, width = pixels.shape
    blocks = pixels.reshape(MAP, height // MAP, MAP, width // MAP)
    return blocks.mean((1, 3), dtype=np.float32)


def pixel_atoms(view: np.ndarray) -> dict[str, np.ndarray]:
    """Find the atoms that pixels show.

    Args:
        view: uint8 [224, 224, 3].

    Returns:
        atom -> float32 [14, 14]: the share of each cell that shows it, where that is at least
        half; atoms that too few cells show are absent.
    """
    hsv = np.asarray(Image.fromarray(view).convert("HSV"), np.float32)
    hue, saturation, value = hsv[..., 0] * (360 / 255), hsv[..., 1] / 255, hsv[..., 2] / 255
    vivid = (saturation >= SATURATED) & (value >= LIT)
    maps: dict[str, np.ndarray] = {}
    for name, (low, high) in HUES.items():
        inside = (hue >= low) & (hue <= high) if low < high else (hue >= low) | (hue <= high)
        maps[name] = _cells(vivid & inside)
    maps["white"] = _cells((saturation <= PALE) & (value >= WHITE))
    maps["black"] = _cells(value <= BLACK)
    maps["grey"] = _cells((saturation <= PALE) & (value > 0.3) & (value < 0.75))
    grey = view.astype(np.float32).mean(2) / 255
    light = _cells(grey)
    maps["bright areas"] = (light >= BRIGHT).astype(np.float32)
    maps["dark areas"] = (light <= DARK).astype(np.float32)
    across = _cells(np.square(np.diff(grey, axis=1, append=grey[:, -1:])))
    down = _cells(np.square(np.diff(grey, axis=0, append=grey[-1:])))
    maps["vertical lines"] = _lines(across, down)
    maps["horizontal lines"] = _lines(down, across)
    for tone, name in (("bright", "bright areas"), ("dark", "dark areas")):
        total = maps[name].sum()
        for place, half in PLACES.items():
            inside = np.zeros_like(light)
            inside[half] = maps[name][half]
            if total and inside.sum() >= ONE_SIDE * total:
                maps[f"{tone} things {place}"] = inside
    return {name: kept for name, cells in maps.items()
            if ((kept := np.where(cells >= SHARE, cells, 0)) > 0).sum()
            >= LEAST[KIND_OF[name]]}  # fmt: skip


def _lines(over: np.ndarray, along: np.ndarray) -> np.ndarray:
    return ((over >= LINE_ENERGY) & (over >= LINE_RATIO * along)).astype(np.float32)
