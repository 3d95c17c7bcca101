"""The images of ``builtin:probe``: real photos cut at many scales, and scenes composed over them.

All are made here, from photos that scikit-image and scikit-learn ship, and are the same at every
call. What each scene shows, and where, is known exactly. They are a demonstration: a thousand
pictures over two dozen photos hold few concepts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from milanx.files import fingerprint as _fingerprint

COUNT = 1000
SIDE = 256
VERSION = 1
PHOTO_SHARE = 0.45  # share of the images that are crops of photos, with nothing added

# Photo -> (package, folder, file, what it shows).
PHOTOS: dict[str, tuple[str, str, str]] = {
    "astronaut": ("skimage", "data/astronaut.png", "woman in an orange suit"),
    "cat": ("skimage", "data/chelsea.png", "cat face"),
    "coffee": ("skimage", "data/coffee.png", "cup of coffee"),
    "rocket": ("skimage", "data/rocket.jpg", "rocket on a launch pad"),
    "motorcycle": ("skimage", "data/motorcycle_left.png", "motorcycle in a workshop"),
    "temple": ("sklearn", "datasets/images/china.jpg", "chinese temple"),
    "flower": ("sklearn", "datasets/images/flower.jpg", "flower"),
    "stars": ("skimage", "data/hubble_deep_field.jpg", "stars and galaxies"),
    "coins": ("skimage", "data/coins.png", "coins"),
    "page": ("skimage", "data/page.png", "page of text"),
    "handwriting": ("skimage", "data/text.png", "handwriting"),
    "cameraman": ("skimage", "data/camera.png", "man with a camera"),
    "brick": ("skimage", "data/brick.png", "brick wall"),
    "grass": ("skimage", "data/grass.png", "grass"),
    "gravel": ("skimage", "data/gravel.png", "gravel"),
    "moon": ("skimage", "data/moon.png", "moon surface"),
    "tissue": ("skimage", "data/ihc.png", "stained tissue"),
    "retina": ("skimage", "data/retina.jpg", "retina"),
    "clock": ("skimage", "data/clock_motion.png", "blurred clock"),
    "cell": ("skimage", "data/cell.png", "cell"),
}
LETTERING = frozenset({"page", "handwriting"})  # never mirrored
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 35, 35), "orange": (240, 140, 30), "yellow": (245, 215, 40),
    "green": (45, 150, 60), "blue": (40, 80, 200), "purple": (130, 50, 160),
    "pink": (240, 140, 180), "brown": (120, 75, 40), "white": (245, 245, 245),
    "black": (20, 20, 20),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
PATTERNS = ("stripes", "checkers", "dots", "grid", "waves", "gradient")
WORDS = ("STOP", "OPEN", "SALE", "milanx", "TAXI", "CAFE", "EXIT", "HELLO", "42", "NEWS", "ZOO")
CONCEPTS = [
    *(shown for _, _, shown in PHOTOS.values()),
    *(f"{colour} shapes" for colour in COLOURS),
    *(f"{shape}s" if shape != "cross" else "crosses" for shape in SHAPES),
    *PATTERNS,
    "words",
]


@dataclass(frozen=True)
class Atom:
    """One thing that a scene shows.

    Attributes:
        name: such as ``red``, ``circle``, ``stripes``, ``text``, ``cat face``.
        kind: ``photo``, ``colour``, ``shape``, ``pattern`` or ``text``.
        mask: bool [H, W], where; None for the whole image.
    """

    name: str
    kind: str
    mask: np.ndarray | None


@dataclass(frozen=True)
class Scene:
    """An image uint8 [H, W, 3], the photo underneath, and what it shows."""

    image: np.ndarray
    group: str
    atoms: tuple[Atom, ...]


def fingerprint() -> str:
    """Return 16 hex digits that stand for all images: recipe, photos and libraries."""
    from importlib.metadata import version

    return _fingerprint("scenes", VERSION, COUNT, version("pillow"), version("scikit-image"),
                        version("scikit-learn"))  # fmt: skip


def group(i: int) -> str:
    """Return the photo underneath image ``i``."""
    names = list(PHOTOS)
    return names[(i * 7 + i // len(names)) % len(names)]


@lru_cache(maxsize=len(PHOTOS))
def _photo(name: str) -> Image.Image:
    package, path, _ = PHOTOS[name]
    with resources.as_file(resources.files(package).joinpath(path)) as file:
        return Image.open(Path(file)).convert("RGB")


def _crop(photo: Image.Image, rng: np.random.Generator, mirror: bool) -> Image.Image:
    """A crop at a random scale and place, sometimes mirrored, with a little change of light."""
    short = min(photo.size)
    side = int(short * math.exp(rng.uniform(math.log(0.3), 0)))
    left = int(rng.integers(0, photo.width - side + 1))
    top = int(rng.integers(0, photo.height - side + 1))
    view = photo.crop((left, top, left + side, top + side))
    view = view.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    if mirror and rng.random() < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    light = rng.uniform(0.75, 1.2)
    return view.point(lambda v: min(255, int(v * light)))


def _shape_mask(shape: str, rng: np.random.Generator) -> Image.Image:
    """A shape of random size and place, drawn at four times the size so that its edge is smooth."""
    scale = 4
    mask = Image.new("L", (SIDE * scale, SIDE * scale))
    draw = ImageDraw.Draw(mask)
    radius = rng.uniform(0.1, 0.32) * SIDE * scale
    x, y = rng.uniform(0.25, 0.75, 2) * SIDE * scale
    turn = rng.uniform(0, 2 * math.pi)
    box = (x - radius, y - radius, x + radius, y + radius)

    def around(count: int, radii: tuple[float, ...]) -> list[tuple[float, float]]:
        angles = [turn + 2 * math.pi * i / count for i in range(count)]
        return [(x + radii[i % len(radii)] * math.cos(a), y + radii[i % len(radii)] * math.sin(a))
                for i, a in enumerate(angles)]  # fmt: skip

    if shape == "circle":
        draw.ellipse(box, 255)
    elif shape == "ring":
        draw.ellipse(box, outline=255, width=int(radius * 0.35))
    elif shape == "square":
        draw.polygon(around(4, (radius,)), 255)
    elif shape == "triangle":
        draw.polygon(around(3, (radius,)), 255)
    elif shape == "star":
        draw.polygon(around(10, (radius, radius * 0.42)), 255)
    else:
        arm = radius * 0.3
        for w, h in ((radius, arm), (arm, radius)):
            draw.rectangle((x - w, y - h, x + w, y + h), fill=255)
    return mask.resize((SIDE, SIDE), Image.Resampling.BOX)


def _pattern(kind: str, rng: np.random.Generator) -> np.ndarray:
    """A pattern in two colours, uint8 [H, W, 3]."""
    names = rng.choice(list(COLOURS), 2, replace=False)
    one, other = (np.array(COLOURS[str(n)], np.float32) for n in names)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    turn = rng.uniform(0, math.pi)
    u, v = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    step = rng.uniform(12, 44)
    if kind == "stripes":
        share = (np.sin(2 * math.pi * u / step) > 0).astype(np.float32)
    elif kind == "checkers":
        share = ((u // step + v // step) % 2).astype(np.float32)
    elif kind == "dots":
        share = (np.hypot(u % step - step / 2, v % step - step / 2) < step * 0.28).astype(
            np.float32
        )
    elif kind == "grid":
        share = np.maximum(u % step < step * 0.14, v % step < step * 0.14).astype(np.float32)
    elif kind == "waves":
        share = (np.sin(2 * math.pi * (u + 9 * np.sin(v / 14)) / step) > 0).astype(np.float32)
    else:
        share = (u - u.min()) / (u.max() - u.min())
    return (one * share[..., None] + other * (1 - share[..., None])).astype(np.uint8)


def _add_shape(
    image: Image.Image, rng: np.random.Generator, filled: bool
) -> tuple[Image.Image, list[Atom]]:
    """Lay a shape over an image, of one colour or filled with a pattern."""
    shape = str(rng.choice(SHAPES))
    mask = _shape_mask(shape, rng)
    where = np.asarray(mask) > 127
    if filled:
        pattern = str(rng.choice(PATTERNS))
        paint = Image.fromarray(_pattern(pattern, rng))
        atoms = [Atom(pattern, "pattern", where), Atom(shape, "shape", where)]
    else:
        colour = str(rng.choice(list(COLOURS)))
        shade = np.clip(np.array(COLOURS[colour]) * rng.uniform(0.85, 1.1), 0, 255).astype(int)
        paint = Image.new("RGB", (SIDE, SIDE), tuple(int(c) for c in shade))
        atoms = [Atom(colour, "colour", where), Atom(shape, "shape", where)]
    return Image.composite(paint, image, mask), atoms


def _add_word(image: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, list[Atom]]:
    """Write a word over an image, on a plate or bare."""
    word = str(rng.choice(WORDS))
    font = ImageFont.load_default(size=float(rng.integers(34, 78)))
    left, top, right, bottom = ImageDraw.Draw(image).textbbox((0, 0), word, font=font)
    width, height = int(right - left), int(bottom - top)
    x = int(rng.integers(4, max(5, SIDE - width - 4)))
    y = int(rng.integers(4, max(5, SIDE - height - 4)))
    names = [str(n) for n in rng.choice(list(COLOURS), 2, replace=False)]
    written = image.copy()
    draw = ImageDraw.Draw(written)
    if rng.random() < 0.6:
        draw.rectangle((x - 8, y - 8, x + width + 8, y + height + 8), fill=COLOURS[names[1]])
    draw.text((x - left, y - top), word, font=font, fill=COLOURS[names[0]])
    mask = np.zeros((SIDE, SIDE), bool)
    mask[max(0, y) : y + height, max(0, x) : x + width] = True
    return written, [Atom("text", "text", mask)]


def scene(i: int) -> Scene:
    """Make image ``i`` (0 to `COUNT` - 1).

    Raises:
        IndexError: no such image.
    """
    if not 0 <= i < COUNT:
        raise IndexError(f"scene {i} of {COUNT}")
    rng = np.random.default_rng([VERSION, i])
    name = group(i)
    image = _crop(_photo(name), rng, name not in LETTERING)
    covered = np.zeros((SIDE, SIDE), bool)
    atoms: list[Atom] = []
    kind = rng.random()
    if kind >= PHOTO_SHARE:
        if kind > 0.85:  # a pattern over most of the photo
            pattern = str(rng.choice(PATTERNS))
            image = Image.blend(
                image, Image.fromarray(_pattern(pattern, rng)), rng.uniform(0.7, 0.9)
            )
            atoms.append(Atom(pattern, "pattern", None))
            covered[:] = True
        for _ in range(int(rng.integers(0 if kind > 0.85 else 1, 4))):
            draw = rng.random()
            if draw < 0.28:
                image, new = _add_word(image, rng)
            else:
                image, new = _add_shape(image, rng, filled=draw > 0.75)
            where = new[0].mask
            assert where is not None
            atoms = [_less(atom, where) for atom in atoms] + new
            covered |= where
    shown = None if not covered.any() else ~covered
    if shown is None or shown.any():
        atoms.insert(0, Atom(PHOTOS[name][2], "photo", shown))
    return Scene(np.asarray(image), name, tuple(a for a in atoms if a.mask is None or a.mask.any()))


def _less(atom: Atom, covered: np.ndarray) -> Atom:
    """What is left of an atom when something lies over it."""
    mask = ~covered if atom.mask is None else atom.mask & ~covered
    return Atom(atom.name, atom.kind, mask)
