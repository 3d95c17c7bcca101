"""Brightness, contrast, elastic, pixelate, jpeg. Parameters: ``make_imagenet_c.py``."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.color import hsv2rgb, rgb2hsv

from milanx.act.corruptions.shared import Floats, Pixels, to_pixels

# By severity, 1 to 5.
BRIGHTNESS = (0.1, 0.2, 0.3, 0.4, 0.5)  # added to the value of HSV, in [0, 1]
CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)  # what stays of the distance to the mean
ELASTIC = (  # amount, sigma, corners' wander; in units of ELASTIC_SIDE pixels
    (2, 0.7, 0.1),
    (2, 0.08, 0.2),
    (0.05, 0.01, 0.02),
    (0.07, 0.01, 0.02),
    (0.12, 0.01, 0.02),
)
PIXELATE = (0.6, 0.5, 0.4, 0.3, 0.25)  # share of the sides that stays
JPEG_QUALITY = (25, 18, 15, 10, 7)

REFERENCE_SIDE = 224  # pixels, of the published images
ELASTIC_SIDE = 244  # pixels; the published code remarks that 224 was meant
TRUNCATE = 3  # deviations, where the elastic fields' Gaussian ends
POSITION_BITS, STEP_BITS = 10, 5  # of OpenCV's warpAffine: positions to 1 / 32 of a pixel
RELEASED_QUALITY = 85  # of the JPEG files of the released ImageNet-C


def brightness(image: Pixels, severity: int, generator: np.random.Generator) -> Pixels:
    """Raise the value of every pixel in HSV."""
    hsv = rgb2hsv(image / 255.0)
    hsv[..., 2] = np.clip(hsv[..., 2] + BRIGHTNESS[severity - 1], 0, 1)
    return to_pixels(hsv2rgb(hsv))


def contrast(image: Pixels, severity: int, generator: np.random.Generator) -> Pixels:
    """Draw every value towards its channel's mean."""
    x = image / 255.0
    mean = x.mean(axis=(0, 1), keepdims=True)
    return to_pixels((x - mean) * CONTRAST[severity - 1] + mean)


def elastic_transform(image: Pixels, severity: int, generator: np.random.Generator) -> Pixels:
    """Move three points apart by an affine map, then every pixel by a smooth random field.

    Lengths are published for 224 x 224 and grow with the shorter side.
    """
    height, width = image.shape[:2]
    unit = ELASTIC_SIDE * min(height, width) / REFERENCE_SIDE
    amount, sigma, wander = (value * unit for value in ELASTIC[severity - 1])
    rows, columns = _affine_positions(height, width, wander, generator)
    x = image.astype(np.float32) / 255
    x = _sample(x, rows, columns, mode="mirror")

    def field() -> Floats:
        noise = generator.uniform(-1, 1, size=(height, width))
        smooth = ndimage.gaussian_filter(noise, sigma, mode="reflect", truncate=TRUNCATE)
        return (smooth * amount).astype(np.float32)

    right, down = field(), field()
    rows, columns = np.arange(height)[:, None] + down, np.arange(width) + right
    return to_pixels(_sample(x, rows, columns, mode="reflect"))


def _affine_positions(
    height: int, width: int, wander: float, generator: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the rows and columns [h, w] that an affine map of wandering points reads from.

    Positions are rounded as OpenCV's ``warpAffine`` rounds them, to 1 / 32 of a pixel.
    """
    middle = np.array([width // 2, height // 2], dtype=np.float32)
    side = min(height, width) // 3
    points = np.float32(middle + np.array([[side, side], [side, -side], [-side, -side]]))
    moved = points + generator.uniform(-wander, wander, size=points.shape).astype(np.float32)
    corners = np.column_stack([moved, np.ones(3)]).astype(np.float64)
    inverse = np.linalg.solve(corners, points.astype(np.float64))  # [x, y, 1] -> x, y
    x, y = np.arange(width), np.arange(height)[:, None]
    positions = []
    for of_x, of_y, shift in inverse.T:
        along = np.rint(of_x * x * 2**POSITION_BITS).astype(np.int64)
        across = np.rint((of_y * y + shift) * 2**POSITION_BITS).astype(np.int64)
        half = 1 << (POSITION_BITS - STEP_BITS - 1)
        positions.append(((along + across + half) >> (POSITION_BITS - STEP_BITS)) / 2**STEP_BITS)
    return positions[1], positions[0]


def _sample(x: Floats, rows: NDArray[Any], columns: NDArray[Any], mode: str) -> Floats:
    """Read an image [h, w, c] at fractional positions, linearly."""
    at = np.broadcast_arrays(rows, columns)
    channels = [
        ndimage.map_coordinates(x[..., channel], at, order=1, mode=mode)
        for channel in range(x.shape[-1])
    ]
    return np.stack(channels, axis=-1)


def pixelate(image: Pixels, severity: int, generator: np.random.Generator) -> Pixels:
    """Shrink to a share of the sides and enlarge again, by the mean of boxes."""
    height, width = image.shape[:2]
    share = PIXELATE[severity - 1]
    small = (max(1, int(width * share)), max(1, int(height * share)))
    shrunk = Image.fromarray(image).resize(small, Image.Resampling.BOX)
    return np.array(shrunk.resize((width, height), Image.Resampling.BOX))


def jpeg_compression(image: Pixels, severity: int, generator: np.random.Generator) -> Pixels:
    """Write and read the image as JPEG of low quality."""
    return _through_jpeg(image, quality=JPEG_QUALITY[severity - 1])


def as_released(image: Pixels) -> Pixels:
    """Return a corrupted image as the released files hold it: once more through JPEG."""
    return _through_jpeg(image, quality=RELEASED_QUALITY)


def _through_jpeg(image: Pixels, quality: int) -> Pixels:
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as file:
        return np.array(file)
