"""What several corruptions are made of: cut to bytes, clipped zoom, motion blur, plasma."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Floats = NDArray[Any]
QUANTUM = 257  # ImageMagick's 16 bits for one step of 8: 65535 / 255
FIRST_WOBBLE = 100.0  # of the plasma, in its own units: it is scaled to [0, 1] at the end


def to_pixels(x: Floats) -> Pixels:
    """Turn floats in [0, 1] into bytes; cut, not rounded, as the published ``np.uint8`` does."""
    return (np.clip(x, 0, 1) * 255).astype(np.uint8)


def clipped_zoom(layer: Floats, factor: float) -> Floats:
    """Enlarge the middle of a layer to the layer's own size.

    The published function takes squares; here each axis is cut by itself, which is the same for
    a square.

    Args:
        layer: [h, w] or [h, w, c].
        factor: at least 1.
    """
    sides = layer.shape[:2]
    crops = [int(np.ceil(side / factor)) for side in sides]
    (top, left) = ((side - crop) // 2 for side, crop in zip(sides, crops, strict=True))
    large = enlarged(layer[top : top + crops[0], left : left + crops[1]], factor)
    (top, left) = ((big - side) // 2 for big, side in zip(large.shape[:2], sides, strict=True))
    return large[top : top + sides[0], left : left + sides[1]]


def enlarged(layer: Floats, factor: float) -> Floats:
    """Enlarge a layer linearly: what ``ndimage.zoom(layer, factor, order=1)`` gives, bit by bit.

    It takes the same products and sums in the same order, a plane at a time, at a third of the
    work, since a row's and a column's weights are made once and not for every pixel.

    Args:
        layer: [h, w] or [h, w, c].
        factor: at least 1.
    """
    above, below, *of_rows = _neighbours(layer.shape[0], factor)
    left, right, near, far = _neighbours(layer.shape[1], factor)
    up, down = (weights[:, None] for weights in of_rows)
    planes = layer.reshape(*layer.shape[:2], -1)
    out = np.empty((len(above), len(left), planes.shape[2]), layer.dtype)
    upper, lower = np.empty((2, len(above), layer.shape[1]))
    total, part = np.empty((2, len(above), len(left)))
    for i in range(planes.shape[2]):
        plane = planes[..., i].astype(np.float64)
        np.multiply(np.take(plane, above, 0, upper, "clip"), up, upper)
        np.multiply(np.take(plane, below, 0, lower, "clip"), down, lower)
        np.multiply(np.take(upper, left, 1, total, "clip"), near, total)
        for rows, columns, weights in ((upper, right, far), (lower, left, near),
                                       (lower, right, far)):  # fmt: skip
            np.multiply(np.take(rows, columns, 1, part, "clip"), weights, part)
            total += part
        out[..., i] = total
    return out.reshape(*out.shape[:2], *layer.shape[2:])


def _neighbours(side: int, factor: float) -> tuple[NDArray[Any], ...]:
    """Return, for each place of an enlarged side, the two places it lies between, and weights.

    Where rounding puts a place beyond the last, SciPy reads nothing there: both weights are 0.
    """
    large = round(side * factor)
    at = np.arange(large) * ((side - 1) / (large - 1) if large > 1 else 1.0)
    first = np.minimum(at.astype(int), side - 1)
    near = np.where(at > side - 1, 0.0, 1.0 - (at - first))
    far = np.where(at > side - 1, 0.0, 1.0 - near)
    return first, np.minimum(first + 1, side - 1), near, far


def motion(layer: Pixels, radius: int, sigma: float, angle: float) -> Pixels:
    """Blur along a line, as ImageMagick 6 (16 bits) does with ``-motion-blur``.

    The kernel is half a Gaussian of ``2 radius + 1`` taps that begins at the pixel; tap i lies i
    pixels away along the angle, rounded to whole pixels; beyond the border the edge is repeated
    (MagickCore/effect.c, MotionBlurImage).

    Args:
        layer: uint8 [h, w] or [h, w, c].
        radius: pixels.
        sigma: of the Gaussian, pixels.
        angle: degrees, clockwise from the right.
    """
    taps = np.arange(2 * radius + 1)
    kernel = np.exp(-(taps**2) / (2.0 * sigma**2))
    kernel /= kernel.sum()
    right = np.ceil(taps * np.cos(np.deg2rad(angle)) - 0.5).astype(int)
    down = np.ceil(taps * np.sin(np.deg2rad(angle)) - 0.5).astype(int)
    height, width = layer.shape[:2]
    edge = len(taps)
    padding = [(edge, edge), (edge, edge), *[(0, 0)] * (layer.ndim - 2)]
    padded = np.pad(layer, padding, mode="edge").astype(np.float64) * QUANTUM
    total = np.zeros(layer.shape)
    for weight, x, y in zip(kernel, right + edge, down + edge, strict=True):
        total += weight * padded[y : y + height, x : x + width]
    # Rounded to 16 bits, then cut to 8: so ImageMagick 6.9.11 writes its PNG.
    return (np.floor(total + 0.5) // QUANTUM).astype(np.uint8)


def plasma(side: int, decay: float, generator: np.random.Generator) -> Floats:
    """Return a cloud [side, side] in [0, 1] by the diamond-square algorithm, which wraps around.

    The published fog scales its noise twice (a wobble times a uniform number in plus or minus
    the wobble), and so does this one.

    Args:
        side: a power of two, at least 2.
        decay: by which the wobble falls with each halving of the step.
        generator: makes the wobble.
    """
    heights = np.zeros((side, side))
    wobble = FIRST_WOBBLE
    step = side

    def wobbled(four: Floats) -> Floats:
        return four / 4 + wobble * generator.uniform(-wobble, wobble, four.shape)

    while step >= 2:
        half = step // 2
        corners = heights[::step, ::step]
        below = corners + np.roll(corners, -1, axis=0)
        beside = corners + np.roll(corners, -1, axis=1)
        centres = wobbled(below + np.roll(below, -1, axis=1))
        heights[half::step, half::step] = centres
        heights[::step, half::step] = wobbled(centres + np.roll(centres, 1, axis=0) + beside)
        heights[half::step, ::step] = wobbled(centres + np.roll(centres, 1, axis=1) + below)
        step = half
        wobble /= decay
    heights -= heights.min()
    return heights / heights.max()
