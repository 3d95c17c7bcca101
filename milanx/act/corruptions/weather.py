"""Snow, frost and fog. Parameters: ImageNet-C, ``make_imagenet_c.py``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from milanx.act.corruptions.ice import textures
from milanx.act.corruptions.shared import Pixels, clipped_zoom, motion, plasma, to_pixels

# By severity, 1 to 5: mean, deviation, zoom, threshold, motion radius and sigma (pixels), mix.
SNOW = (
    (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
    (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
    (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
)
SNOW_ANGLES = (-135.0, -45.0)  # degrees
FROST = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))  # of the image, of the ice
FOG = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))  # amount, decay of the plasma

LUMA = (0.299, 0.587, 0.114)  # of red, green, blue: ITU-R BT.601
WHITER = (1.5, 0.5)  # factor and offset of the grey that snow light turns an image to


def snow(image: Pixels, severity: int, generator: np.random.Generator) -> Pixels:
    """Whiten the image, then add flakes that fall, and the same flakes turned by 180 degrees."""
    mean, deviation, zoom, threshold, radius, sigma, mix = SNOW[severity - 1]
    x = image.astype(np.float32) / 255
    flakes = generator.normal(size=image.shape[:2], loc=mean, scale=deviation)
    flakes = clipped_zoom(flakes, zoom)
    flakes[flakes < threshold] = 0
    angle = generator.uniform(*SNOW_ANGLES)
    layer = motion(to_pixels(flakes), int(radius), sigma, angle)[..., None] / 255.0
    factor, offset = WHITER
    red, green, blue = LUMA
    grey = red * x[..., :1] + green * x[..., 1:2] + blue * x[..., 2:]
    x = mix * x + (1 - mix) * np.maximum(x, grey * factor + offset)
    return to_pixels(x + layer + np.rot90(layer, k=2))


def frost(
    image: Pixels,
    severity: int,
    generator: np.random.Generator,
    ice: Sequence[Pixels] | None = None,
) -> Pixels:
    """Mix the image with a part of a picture of ice.

    Args:
        image: uint8 [h, w, 3].
        severity: 1 to 5.
        generator: chooses the picture and the part.
        ice: pictures, uint8 [h, w, 3] of any sizes; by default milanx's own textures. One that
            is not larger than the image is enlarged.
    """
    of_image, of_ice = FROST[severity - 1]
    ice = textures() if ice is None else ice
    height, width = image.shape[:2]
    picture = _larger(ice[int(generator.integers(len(ice)))], height + 1, width + 1)
    top = int(generator.integers(0, picture.shape[0] - height))
    left = int(generator.integers(0, picture.shape[1] - width))
    part = picture[top : top + height, left : left + width]
    mixed = of_image * image.astype(np.float64) + of_ice * part
    return np.clip(mixed, 0, 255).astype(np.uint8)


def _larger(picture: Pixels, height: int, width: int) -> Pixels:
    """Enlarge a picture where it is smaller than asked; its proportions stay."""
    factor = max(height / picture.shape[0], width / picture.shape[1])
    if factor <= 1:
        return picture
    size = (
        max(width, round(picture.shape[1] * factor)),
        max(height, round(picture.shape[0] * factor)),
    )
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def fog(image: Pixels, severity: int, generator: np.random.Generator) -> Pixels:
    """Add a cloud and scale back to the image's brightest value."""
    amount, decay = FOG[severity - 1]
    x = image / 255.0
    height, width = image.shape[:2]
    side = 1 << (max(height, width) - 1).bit_length()  # 256 for 224 x 224, as published
    cloud = plasma(side, decay, generator)[:height, :width, None]
    brightest = x.max()
    return to_pixels((x + amount * cloud) * brightest / (brightest + amount))
