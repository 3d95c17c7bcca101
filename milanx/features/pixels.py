"""What pixels show, in words: basic colours, brightness, plainness, lines, and where they lie.

Colours are the basic ones of English (Berlin and Kay 1969), told apart in CIELAB by lightness,
chroma and hue angle, which follow what people see better than red, green and blue do.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

PIXEL_CHANNELS = 6  # mean and deviation of R, G, B in each cell
EDGE_CHANNELS = 4  # strength of edges in four orientations in each cell
CHANNELS = PIXEL_CHANNELS + EDGE_CHANNELS  # the last of a dense feature
TONES = 19  # of these: colours, brightness, plainness and lines, wherever they lie
SHOWN = 27  # maps of `shown_maps`
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
# Parts of the view -> ways to say them.
PLACES: dict[str, tuple[str, ...]] = {
    "at the top": ("top of the image", "upper edge of the image", "things at the top"),
    "at the bottom": ("bottom of the image", "lower edge of the image", "things at the bottom"),
    "on the left": ("left side of the image", "left edge of the image", "things on the left"),
    "on the right": ("right side of the image", "right edge of the image", "things on the right"),
    "in the center": ("center of the image", "middle of the image"),
    "at the edges": ("borders of the image", "edges of the image"),
    "in the corners": ("corners of the image", "image corners"),
}
SMALL = 0.06  # share of the view from which on something counts as shown
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


def pixel_cells(pixels: np.ndarray) -> dict[tuple[str, ...], np.ndarray]:
    """Find colours, brightness, plainness and lines in each cell's colours and edges.

    Args:
        pixels: [n, g * g, `CHANNELS`], the last channels of an encoder's dense features.

    Returns:
        Ways to say it -> bool [n, g * g], the cells that show it.
    """
    pixels = np.asarray(pixels, np.float32)
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


def halves(side: int) -> dict[str, np.ndarray]:
    """Halves of a view of side * side cells: name -> bool [side * side]."""
    along = (np.arange(side) + 0.5) / side
    row, column = (g.ravel() for g in np.meshgrid(along, along, indexing="ij"))
    return {"at the top": row < 0.5, "at the bottom": row > 0.5, "on the left": column < 0.5,
            "on the right": column > 0.5}  # fmt: skip


def place_cells(side: int) -> dict[str, np.ndarray]:
    """Divide a view of side * side cells: a place of `PLACES` -> bool [side * side]."""
    along = (np.arange(side) + 0.5) / side
    row, column = (g.ravel() for g in np.meshgrid(along, along, indexing="ij"))
    from_middle = np.abs(row - 0.5), np.abs(column - 0.5)
    inside = (
        row < 0.3, row > 0.7, column < 0.3, column > 0.7, np.maximum(*from_middle) < 0.25,
        np.maximum(*from_middle) > 0.4, np.minimum(*from_middle) > 0.3,
    )  # fmt: skip
    return dict(zip(PLACES, inside, strict=True))


@lru_cache(maxsize=1)
def place_texts() -> frozenset[str]:
    """Return the texts that say a part of the view, and nothing of what is there."""
    return frozenset(text for ways in PLACES.values() for text in ways)


def placed_cells(cells: dict[tuple[str, ...], np.ndarray]) -> dict[tuple[str, ...], np.ndarray]:
    """Find bright and dark cells in views where nearly all of them lie in one half.

    Args:
        cells: what `pixel_cells` returned.

    Returns:
        Ways to say it -> bool [n, g * g].
    """
    found: dict[tuple[str, ...], np.ndarray] = {}
    for tone, known in (("bright", BRIGHT_TEXTS), ("dark", DARK_TEXTS)):
        shows = cells[known]
        total = shows.sum(1)
        for place, inside in halves(round(shows.shape[1] ** 0.5)).items():
            there = (shows & inside).sum(1)
            enough = (there >= ONE_SIDE * total) & (there > SMALL * shows.shape[1])
            texts = (f"{tone} areas {place}", f"{tone} parts {place}")
            found[texts] = shows & inside & enough[:, None]
    return found


def shown_maps(pixels: np.ndarray) -> np.ndarray:
    """Say which cells show which colour, brightness, line or place, for a set encoder to read.

    The mean colour under a loose mask is a mixture; the share of its cells that are blue is not.

    Args:
        pixels: [n, g * g, `CHANNELS`], the last channels of an encoder's dense features.

    Returns:
        float32 [n, g * g, `SHOWN`], 1 where a cell shows it, in the order of `pixel_cells` and
        `placed_cells`.
    """
    cells = pixel_cells(pixels)
    return np.stack([*cells.values(), *placed_cells(cells).values()], -1).astype(np.float32)


@lru_cache(maxsize=1)
def shown_texts() -> tuple[tuple[str, ...], ...]:
    """Return the ways to say what each map of `shown_maps` shows, in its order."""
    cells = pixel_cells(np.zeros((1, 4, CHANNELS), np.float32))
    return (*cells, *placed_cells(cells))
