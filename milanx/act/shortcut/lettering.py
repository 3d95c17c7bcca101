"""Words written over images: how, is drawn from a seed; where, is known to the pixel.

The font is Aileron Regular (CC0 1.0), which Pillow brings. Size, place and colours of an image's
writing are drawn from the seed and the image alone, so the true name, a wrong one, and any share of
written images use the same hand on the same photo.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from milanx.errors import InputError

VERSION = 1
FONT = "Aileron Regular of Pillow (CC0 1.0)"
SMALLEST = 6  # pixels of a letter's height, below which no word is readable
MARGIN = 1  # pixels kept free at the image's edge
COLOURS: tuple[tuple[int, int, int], ...] = (
    (250, 250, 250), (15, 15, 15), (220, 30, 40), (250, 220, 40), (40, 90, 220), (40, 170, 70),
)  # fmt: skip
LIGHT = 128  # grey value above which letters get a black edge, below it a white one

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Style:
    """Among what hands are drawn.

    Attributes:
        sizes: smallest and largest letter height, of the image's side.
        roam: how far from the upper left corner a word begins at most, of the free room: 0 is
            always in the corner, where the paper writes, 1 anywhere.
        colours: how many of `COLOURS` letters have, the first ones.
    """

    sizes: tuple[float, float] = (0.19, 0.23)
    roam: float = 0.0
    colours: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.sizes[0] <= self.sizes[1] <= 1:
            raise InputError(f"no letters of {self.sizes} of the image's side",
                             "smallest and largest lie between 0 and 1")  # fmt: skip
        if not 0 <= self.roam <= 1:
            raise InputError(f"letters cannot roam {self.roam} of the free room",
                             "it lies between 0 and 1", "--roam 1")  # fmt: skip
        if not 1 <= self.colours <= len(COLOURS):
            raise InputError(f"no {self.colours} colours", f"there are 1 to {len(COLOURS)}")


@dataclass(frozen=True)
class Hand:
    """How one image is written on.

    Attributes:
        size: letter height, of the image's side.
        across: where between the left and the right edge, 0 to 1.
        down: where between the top and the bottom edge, 0 to 1.
        colour: of the letters; their edge of one pixel is black or white.
    """

    size: float
    across: float
    down: float
    colour: tuple[int, int, int]


def hand(seed: int, image: str, style: Style) -> Hand:
    """Draw the hand of an image.

    Args:
        seed: of the experiment.
        image: hexadecimal digits that stand for the image.
        style: among what.
    """
    rng = np.random.default_rng([VERSION, seed, int(image, 16)])
    size, across, down = rng.uniform(*style.sizes), *(style.roam * rng.random(2))
    return Hand(float(size), float(across), float(down), COLOURS[int(rng.integers(style.colours))])


def write(image: Image.Image, word: str, how: Hand) -> tuple[Image.Image, Box]:
    """Write a word over a copy of an image.

    A word of several parts that is too wide for one line gets a line a part; what is still too
    wide is written smaller.

    Returns:
        The copy, and the box (left, top, right, bottom) outside of which no pixel changed.
    """
    room = (image.width - 2 * MARGIN, image.height - 2 * MARGIN)
    letters = _letters(word, round(how.size * image.height), room, how.colour)
    left = MARGIN + round(how.across * (room[0] - letters.width))
    top = MARGIN + round(how.down * (room[1] - letters.height))
    written = image.copy()
    written.paste(letters, (left, top), letters)
    return written, (left, top, left + letters.width, top + letters.height)


@lru_cache(maxsize=4096)
def _letters(
    word: str, size: int, room: tuple[int, int], colour: tuple[int, int, int]
) -> Image.Image:
    """Render a word on nothing, cut to what is drawn; at most ``room`` (width, height) large."""
    text = word
    if _render(text, size, colour).width > room[0]:
        text = word.replace(" ", "\n")
    drawn = _render(text, size, colour)
    while (drawn.width > room[0] or drawn.height > room[1]) and size > SMALLEST:
        size -= 1
        drawn = _render(text, size, colour)
    return drawn.crop((0, 0, min(room[0], drawn.width), min(room[1], drawn.height)))


def _render(text: str, size: int, colour: tuple[int, int, int]) -> Image.Image:
    font = ImageFont.load_default(size=float(size))
    grey = (299 * colour[0] + 587 * colour[1] + 114 * colour[2]) / 1000
    edge = (0, 0, 0) if grey > LIGHT else (255, 255, 255)
    space = Image.new("RGBA", (size * (len(text) + 2), size * 2 * (text.count("\n") + 2)))
    ImageDraw.Draw(space).multiline_text(
        (size // 2, size // 2), text, fill=colour, font=font, spacing=0, align="center",
        stroke_width=1, stroke_fill=edge,
    )  # fmt: skip
    return space.crop(space.getbbox())
