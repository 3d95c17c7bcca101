"""Meanings that are computed from pixels: colours, brightness, plainness, lines, places.

Colours are the basic ones of English (Berlin and Kay 1969), told apart in CIELAB by lightness,
chroma and hue angle, which follow what people see better than red, green and blue do.
"""

from __future__ import annotations

import numpy as np

from milanx.encode import EDGE_CHANNELS, PIXEL_CHANNELS
from milanx.train.meanings import MIN_POSITIVES, Meaning
from milanx.train.photos import PhotoFeatures

MAX_PIXEL_PHOTOS = 400  # that show one pixel meaning
SMALL, LARGE = 0.06, 0.9  # shares of the view that a pixel meaning fills in photos that show it
EDGE_STRENGTH = 0.05  # above which a cell has edges, in brightness a pixel
EDGE_RATIO = 1.5  # of the strongest direction over the one across it
VIVID, DULL = 20.0, 9.0  # chroma of a colour at least, of white, black and grey at most
# Hue angles in degrees (from, to) and lightness (from, to) of vivid colours in CIELAB.
COLOURS: dict[str, tuple[float, float, float, float]] = {
    "red": (15, 45, 15, 62), "orange": (45, 76, 52, 95), "brown": (40, 85, 10, 50),
    "yellow": (78, 108, 60, 100), "green": (110, 190, 15, 95), "blue": (215, 308, 10, 95),
    "purple": (308, 340, 10, 75), "pink": (340, 18, 52, 95),
}  # fmt: skip
GREYS: dict[str, tuple[float, float]] = {"white": (84, 101), "gray": (35, 78), "black": (-1, 17)}
BRIGHT_TEXTS = ("bright areas", "light areas", "light backgrounds", "bright lights")
DARK_TEXTS = ("dark areas", "dark parts", "dark backgrounds", "shadows")
ONE_SIDE = 0.8  # share of the bright (dark) cells that lie in one half of the view


def lightness_chroma_hue(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bring colours [..., 3] in 0..1 to CIELAB's lightness 0..100, chroma, hue angle in degrees."""
    from skimage.color import rgb2lab

    lab = rgb2lab(np.clip(rgb, 0, 1))
    hue = np.degrees(np.arctan2(lab[..., 2], lab[..., 1])) % 360
    return lab[..., 0], np.hypot(lab[..., 1], lab[..., 2]), hue


def colour_cells(rgb: np.ndarray) -> dict[str, np.ndarray]:
    """Find the basic colours: name -> bool [...] of colours [..., 3] in 0..1."""
    lightness, chroma, hue = lightness_chroma_hue(rgb)
    found = {}
    for name, (start, end, low, high) in COLOURS.items():
        angle = (hue >= start) & (hue < end) if start < end else (hue >= start) | (hue < end)
        found[name] = (chroma >= VIVID) & angle & (lightness >= low) & (lightness < high)
    for name, (low, high) in GREYS.items():
        found[name] = (chroma <= DULL) & (lightness >= low) & (lightness < high)
    return found


def pixel_cells(photos: PhotoFeatures, kept: np.ndarray) -> dict[tuple[str, ...], np.ndarray]:
    """Find colours, brightness, plainness and lines in each cell's colours and edges.

    Returns:
        Ways to say it -> bool [len(kept), g * g], the cells that show it.
    """
    channels = PIXEL_CHANNELS + EDGE_CHANNELS
    pixels = np.stack([photos.dense[i][:, -channels:] for i in kept]).astype(np.float32)
    mean, deviation = pixels[..., :3], pixels[..., 3:6].mean(-1)
    brightness = mean.mean(-1)
    right, down, falling, rising = np.moveaxis(pixels[..., 6:], -1, 0)
    strength = np.maximum(right, down)

    def lines(along: np.ndarray, across: np.ndarray) -> np.ndarray:
        """Above zero where edges are strong and run one way."""
        return np.minimum(along - EDGE_STRENGTH, along - EDGE_RATIO * across)

    diagonal = lines(np.maximum(falling, rising), np.minimum(falling, rising))
    maps: dict[tuple[str, ...], np.ndarray] = {
        BRIGHT_TEXTS: brightness - 0.8,
        DARK_TEXTS: 0.15 - brightness,
        ("plain smooth surfaces", "smooth backgrounds", "empty areas"): 0.025 - deviation,
        ("busy textures", "fine detail", "cluttered textures"): strength - 0.13,
        ("high contrast areas", "light and dark areas"): deviation - 0.27,
        ("vertical lines", "vertical edges", "upright lines"): lines(right, down),
        ("horizontal lines", "horizontal edges", "level lines"): lines(down, right),
        ("diagonal lines", "diagonal edges", "slanted lines"): diagonal,
    }
    found = {texts: values > 0 for texts, values in maps.items()}
    for name, shown in colour_cells(mean).items():
        found[(f"{name} areas", f"{name} things", f"the color {name}", f"{name} objects")] = shown
    return found


def place_meanings(photos: PhotoFeatures, keep: np.ndarray, seed: int) -> list[Meaning]:
    """Parts of the view, whatever they show, and bright or dark cells that lie in one of them."""
    kept = np.flatnonzero(keep)
    side = round(photos.dense.shape[1] ** 0.5)
    along = (np.arange(side) + 0.5) / side
    row, column = (g.ravel() for g in np.meshgrid(along, along, indexing="ij"))
    away = np.maximum(np.abs(row - 0.5), np.abs(column - 0.5))
    corners = np.minimum(np.abs(row - 0.5), np.abs(column - 0.5))
    halves = {"at the top": 0.5 - row, "at the bottom": row - 0.5, "on the left": 0.5 - column,
              "on the right": column - 0.5}  # fmt: skip
    parts = {
        ("top of the image", "upper edge of the image", "things at the top"): 0.3 - row,
        ("bottom of the image", "lower edge of the image", "things at the bottom"): row - 0.7,
        ("left side of the image", "left edge of the image", "things on the left"): 0.3 - column,
        ("right side of the image", "right edge of the image", "things on the right"): column - 0.7,
        ("center of the image", "middle of the image"): 0.25 - away,
        ("borders of the image", "edges of the image"): away - 0.4,
        ("corners of the image", "image corners"): corners - 0.3,
    }
    rng = np.random.default_rng([seed, 8])
    found = []
    for texts, inside in parts.items():
        if not (inside > 0).any():  # on a coarse grid
            continue
        shown = rng.choice(kept, min(len(kept), MAX_PIXEL_PHOTOS), replace=False)
        grids = np.tile((255 * (inside > 0)).astype(np.uint8), (len(shown), 1))
        found.append(Meaning(texts, "pixel", shown, grids, countable=False))
    cells = pixel_cells(photos, kept)
    tones = {"bright": BRIGHT_TEXTS, "dark": DARK_TEXTS}
    for tone, known in tones.items():
        shows = cells[known]
        total = shows.sum(1)
        for place, inside in halves.items():
            there = (shows & (inside > 0)).sum(1)
            shown = np.flatnonzero((there >= ONE_SIDE * total) & (there > 0.06 * side**2))
            if len(shown) < MIN_POSITIVES:
                continue
            shown = shown[np.argsort(-there[shown])][:MAX_PIXEL_PHOTOS]
            texts = (f"{tone} areas {place}", f"{tone} parts {place}")
            grids = (255 * (shows[shown] & (inside > 0))).astype(np.uint8)
            found.append(Meaning(texts, "pixel", kept[shown], grids, countable=False))
    return found


def pixel_meanings(photos: PhotoFeatures, keep: np.ndarray, seed: int) -> list[Meaning]:
    """Colours, brightness, plainness and lines as meanings.

    Of the views that show one, half are those that show most of it, half are drawn.
    """
    kept = np.flatnonzero(keep)
    rng = np.random.default_rng([seed, 9])
    found = []
    for texts, cells in pixel_cells(photos, kept).items():
        share = cells.mean(1)
        shown = np.flatnonzero((share > SMALL) & (share < LARGE))
        if len(shown) < MIN_POSITIVES:
            continue
        shown = shown[np.argsort(-share[shown])]
        most, rest = shown[: MAX_PIXEL_PHOTOS // 2], shown[MAX_PIXEL_PHOTOS // 2 :]
        shown = np.concatenate([most, rng.permutation(rest)[: MAX_PIXEL_PHOTOS // 2]])
        grids = (cells[shown] * 255).astype(np.uint8)
        found.append(Meaning(texts, "pixel", kept[shown], grids, countable=False))
    return found
