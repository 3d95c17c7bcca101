"""Views that are composed here, of what the photos lack: lettering, patterns, plain colours."""

from __future__ import annotations

import math
import random
from itertools import combinations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE = 256
VERSION = 2
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 35, 35), "orange": (240, 140, 30), "yellow": (245, 215, 40),
    "green": (45, 150, 60), "blue": (40, 80, 200), "purple": (130, 50, 160),
    "pink": (240, 140, 180), "brown": (120, 75, 40), "white": (245, 245, 245),
    "black": (20, 20, 20),
}  # fmt: skip
PATTERNS = ("stripes", "checkers", "dots", "grid", "waves", "gradient")
WORDS = (
    "OPEN", "SALE", "TAXI", "CAFE", "EXIT", "HELLO", "2042", "NEWS", "ZOO", "HOTEL", "MENU",
    "milanx", "welcome", "garden", "street", "museum",
)  # fmt: skip
WAYS_OF_A_WORD = 2  # the same word in other colours and sizes: one group
WAYS_OF_A_PATTERN = 8
WAYS_OF_A_COLOUR = 2  # lighter and darker: one group
LINES = (1, 2, 3)  # how often a word may stand below itself
MARGIN = 28  # pixels around lettering: targets cut the edge off
CONTRAST = 60  # grey levels between two colours that are used together, at least
Colour = tuple[int, int, int]


def names() -> list[str]:
    """Return the names of all of them, such as ``stripes-3``."""
    kinds = ((WORDS, WAYS_OF_A_WORD), (PATTERNS, WAYS_OF_A_PATTERN), (COLOURS, WAYS_OF_A_COLOUR))
    return [f"{name}-{way}" for kind, ways in kinds for name in kind for way in range(ways)]


def group(name: str) -> str:
    """Return the group of a view: those of one word or colour belong together."""
    shown = name.rpartition("-")[0]
    return name if shown in PATTERNS else shown


def draw(name: str) -> Image.Image:
    """Make the view of a name, RGB, the same at every call."""
    shown, _, number = name.rpartition("-")
    way, rng = int(number), random.Random(f"{VERSION}/{name}")
    if shown in PATTERNS:
        return _pattern(shown, _two_colours(shown, way), rng)
    if shown in WORDS:
        return _lettering(shown, _two_colours(shown, way), rng)
    return _plain(COLOURS[shown], way, rng)


def _two_colours(shown: str, way: int) -> tuple[Colour, Colour]:
    """Two colours that stand out from one another; other ones for every way of a thing."""
    rng = random.Random(f"{VERSION}/{shown}")
    pairs = [
        p for p in combinations(COLOURS.values(), 2) if abs(_grey(p[0]) - _grey(p[1])) > CONTRAST
    ]
    one, other = sorted(pairs, key=lambda _: rng.random())[way]
    return (one, other) if way % 2 else (other, one)


def _grey(colour: Colour) -> float:
    """How bright a colour is, 0 to 255 (luma of ITU-R BT.601)."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def _turned(rng: random.Random) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates u, v [SIDE, SIDE] of the view's pixels, turned by a random angle."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    turn = rng.uniform(0, math.pi)
    return x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)


def _mixed(one: Colour, other: Colour, share: np.ndarray) -> Image.Image:
    """A view that has ``share`` [SIDE, SIDE] of one colour and the rest of another."""
    weights = share.astype(np.float32)[..., None]
    return Image.fromarray((np.array(one) * weights + np.array(other) * (1 - weights)).astype("u1"))


def _pattern(kind: str, colours: tuple[Colour, Colour], rng: random.Random) -> Image.Image:
    """A pattern in two colours over the whole view."""
    u, v = _turned(rng)
    step = rng.uniform(12, 44)
    share: np.ndarray
    if kind == "stripes":
        share = np.sin(2 * math.pi * u / step) > 0
    elif kind == "checkers":
        share = (u // step + v // step) % 2
    elif kind == "dots":
        share = np.hypot(u % step - step / 2, v % step - step / 2) < step * 0.28
    elif kind == "grid":
        share = np.maximum(u % step < step * 0.14, v % step < step * 0.14)
    elif kind == "waves":
        share = np.sin(2 * math.pi * (u + 9 * np.sin(v / 14)) / step) > 0
    else:
        share = (u - u.min()) / (u.max() - u.min())
    return _mixed(*colours, share)


def _lettering(word: str, colours: tuple[Colour, Colour], rng: random.Random) -> Image.Image:
    """A word on a plain ground, once or in some lines, with a margin."""
    ink, ground = colours
    view = Image.new("RGB", (SIDE, SIDE), ground)
    draw, room = ImageDraw.Draw(view), SIDE - 2 * MARGIN
    text = "\n".join([word] * LINES[int(rng.random() * len(LINES))])
    size = rng.uniform(48, 80)
    left, top, right, bottom = draw.multiline_textbbox((0, 0), text, ImageFont.load_default(size))
    font = ImageFont.load_default(size * min(1, room / (right - left), room / (bottom - top)))
    left, top, right, bottom = draw.multiline_textbbox((0, 0), text, font)
    place = (MARGIN - left + rng.random() * max(0, room - right + left),
             MARGIN - top + rng.random() * max(0, room - bottom + top))  # fmt: skip
    draw.multiline_text(place, text, ink, font)
    return view


def _plain(colour: Colour, way: int, rng: random.Random) -> Image.Image:
    """A plain colour, the second way darker, under light that falls off a little."""
    shade = (1.0, 0.7)[way]
    u, _ = _turned(rng)
    light = 0.92 + 0.08 * (u - u.min()) / (u.max() - u.min())
    return _mixed(colour, (0, 0, 0), light * shade)
