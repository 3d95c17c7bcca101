"""Pictures of ice for frost: milanx's own textures, or a folder of the user's.

The photos that ImageNet-C mixes in state neither origin nor licence, so none are shipped here.
The textures are made: grains of parallel needles over a cloud, as bright and as uneven as those
photos are. Who has the photos, or better ones, hands in their folder.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from scipy.spatial import cKDTree

from milanx.act.corruptions.shared import Floats, Pixels, plasma
from milanx.errors import InputError

SIDE = 512  # pixels
# Mean and deviation of each texture's grey, of 255. Those of the five photos that the published
# code draws from are 131, 207, 207, 152 and 123, with 43, 23, 23, 31 and 44.
LOOKS = ((131, 43), (207, 23), (207, 23), (152, 31), (123, 44))
TINT = np.array([-14.0, 2.0, 12.0])  # ice is bluish: added to red, green, blue
DIRECTIONS = 12  # of needles, over 180 degrees
NEEDLE = 33  # pixels, the length of a needle
GRAINS = 220  # areas of parallel needles
NEEDLES_SHARE = 0.45  # of the variance; the rest is cloud
CLOUD_DECAY = 1.7  # as the fog of severity 3
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
PUBLISHED = {f"frost{n}.{'png' if n < 4 else 'jpg'}" for n in range(1, 7)}
NEVER_DRAWN = "frost6.jpg"  # the published code draws one of the first five, ``randint(5)``


@lru_cache(maxsize=1)
def textures() -> tuple[Pixels, ...]:
    """Return milanx's own pictures of ice, uint8 [512, 512, 3]; the same at every call."""
    made = tuple(_texture(number, *look) for number, look in enumerate(LOOKS))
    for picture in made:
        picture.setflags(write=False)
    return made


def _texture(seed: int, mean: float, deviation: float) -> Pixels:
    generator = np.random.default_rng(seed)
    needles = _needles(generator)
    cloud = plasma(SIDE, CLOUD_DECAY, generator)
    grey = np.sqrt(NEEDLES_SHARE) * _standard(needles)
    grey += np.sqrt(1 - NEEDLES_SHARE) * _standard(cloud)
    levels = mean + deviation * _standard(grey)
    return np.clip(levels[..., None] + TINT, 0, 255).astype(np.uint8)


def _needles(generator: np.random.Generator) -> Floats:
    """Return noise [side, side] that is drawn out along the direction of each grain."""
    noise = generator.normal(size=(SIDE, SIDE))
    middles = generator.uniform(0, SIDE, size=(GRAINS, 2))
    direction = generator.integers(DIRECTIONS, size=GRAINS)
    positions = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij"), axis=-1)
    grain = cKDTree(middles, boxsize=SIDE).query(positions)[1]  # boxsize: it wraps around
    along = direction[grain]
    drawn = np.zeros_like(noise)
    reach = np.arange(NEEDLE) - NEEDLE // 2
    for number in range(DIRECTIONS):
        angle = np.pi * number / DIRECTIONS
        steps = zip(
            np.rint(reach * np.sin(angle)).astype(int),
            np.rint(reach * np.cos(angle)).astype(int),
            strict=True,
        )
        line = sum(np.roll(noise, step, axis=(0, 1)) for step in steps)
        drawn = np.where(along == number, line, drawn)
    return drawn


def _standard(layer: Floats) -> Floats:
    return (layer - layer.mean()) / layer.std()


def read_frost(folder: Path) -> tuple[Pixels, ...]:
    """Read a folder of pictures of ice, in the order of their names.

    Of the six photos of ImageNet-C the sixth is left out: the published code never draws it.

    Raises:
        InputError: when the folder holds no picture, or one that cannot be read.
    """
    paths = sorted(p for p in folder.glob("*") if p.suffix.lower() in SUFFIXES)
    if {p.name for p in paths} == PUBLISHED:
        paths = [p for p in paths if p.name != NEVER_DRAWN]
    if not paths:
        raise InputError(
            f"no pictures of ice in {folder}",
            f"the folder is missing or holds no file that ends in {', '.join(sorted(SUFFIXES))}",
            ("give a folder of pictures", "leave it out to use milanx's own textures"),
        )
    return tuple(_read(path) for path in paths)


def _read(path: Path) -> Pixels:
    try:
        with Image.open(path) as file:
            return np.asarray(file.convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(
            f"cannot read the picture {path}", str(error), "remove it from the folder of ice"
        ) from error
