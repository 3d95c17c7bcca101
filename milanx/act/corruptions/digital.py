"""Brightness, contrast, elastic, pixelate, jpeg. Parameters: ``make_imagenet_c.py``."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from scipy.fft import dctn, idctn

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
FAR = 32  # pixels of a Gaussian's reach from which cosine transforms are faster
POSITION_BITS, STEP_BITS = 10, 5  # of OpenCV's warpAffine: positions to 1 / 32 of a pixel
RELEASED_QUALITY = 85  # of the JPEG files of the released ImageNet-C


def brightness(image: Pixels, severity: int, generator: np.random.Generator) -> Pixels:
    """Raise the value of every pixel in HSV, where hue and saturation stay as they are.

    Bit by bit what scikit-image's ``rgb2hsv`` and ``hsv2rgb`` give with the value raised in
    between, in a third of their time: whole planes, and no picture for each sixth of the circle.
    """
    red, green, blue = planes = np.moveaxis(image / 255.0, -1, 0).copy()
    value = planes.max(0)
    span = value - planes.min(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        saturation = np.where(span == 0, 0.0, span / value)
        hue = np.where(
            value == blue, 4.0 + (red - green) / span,
            np.where(value == green, 2.0 + (blue - red) / span, (green - blue) / span),
        )  # fmt: skip
    turn = np.where(span == 0, 0.0, (hue / 6.0) % 1.0) * 6
    value = np.clip(value + BRIGHTNESS[severity - 1], 0, 1)
    sixth = np.floor(turn)
    part = turn - sixth
    low = value * (1 - saturation)
    # Towards the next corner of the circle in odd sixths, away from the last one in even ones.
    middle = value * (1 - np.where(sixth % 2 == 1, part, 1 - part) * saturation)
    sixth %= 6
    channels = []
    for high, least in (((0, 5), (2, 3)), ((1, 2), (4, 5)), ((3, 4), (0, 1))):
        at_high = (sixth == high[0]) | (sixth == high[1])
        at_low = (sixth == least[0]) | (sixth == least[1])
        channels.append(np.where(at_high, value, np.where(at_low, low, middle)))
    return to_pixels(np.stack(channels, -1))


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
        return (smooth(noise, sigma) * amount).astype(np.float32)

    right, down = field(), field()
    rows, columns = np.arange(height)[:, None] + down, np.arange(width) + right
    return to_pixels(_sample(x, rows, columns, mode="reflect"))


def smooth(noise: Floats, sigma: float) -> Floats:
    """Smooth noise [h, w] with a Gaussian that ends at `TRUNCATE` deviations, mirrored outside.

    A Gaussian that reaches far is applied by cosine transforms, whose functions go on beyond the
    border as ``mode="reflect"`` does: the same sum but for rounding (1e-16), at a fiftieth of the
    work for the 1,025 terms of severity 1.
    """
    reach = int(TRUNCATE * sigma + 0.5)
    if reach < FAR:
        return ndimage.gaussian_filter(noise, sigma, mode="reflect", truncate=TRUNCATE)
    height, width = (_response(side, reach, sigma) for side in noise.shape)
    return idctn(dctn(noise) * height[:, None] * width)


@lru_cache(maxsize=4)
def _response(side: int, reach: int, sigma: float) -> Floats:
    """Return by what a Gaussian multiplies each cosine of ``side`` points."""
    steps = np.arange(1, reach + 1)
    weights = np.exp(-0.5 / sigma**2 * steps**2)
    waves = np.cos(np.pi / side * np.outer(np.arange(side), steps))
    return (1 + 2 * (waves * weights).sum(1)) / (1 + 2 * weights.sum())


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
