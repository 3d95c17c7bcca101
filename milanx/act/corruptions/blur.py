"""Defocus, glass, motion and zoom blur. Parameters: ImageNet-C, ``make_imagenet_c.py``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.signal import fftconvolve

from milanx.act.corruptions.shared import Floats, Pixels, clipped_zoom, motion, to_pixels

# By severity, 1 to 5; lengths in pixels.
DEFOCUS = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))  # radius, sigma of its soft edge
GLASS = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))  # sigma, delta, rounds
MOTION = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))  # radius, sigma
MOTION_ANGLES = (-45.0, 45.0)  # degrees
ZOOM = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))  # end, step

LEAST_REACH = 8  # of the disk's window; a larger disk has a larger window and a wider soft edge


def defocus_kernel(radius: int, sigma: float) -> Floats:
    """Return the disk of a lens out of focus, with a soft edge.

    As published, the disk is softened within its own window, mirrored at the window's border:
    the disks of radius 8 and 10, which touch it, sum to 1.01, not 1.
    """
    reach = max(LEAST_REACH, radius)
    axis = np.arange(-reach, reach + 1)
    disk = (axis[:, None] ** 2 + axis**2 <= radius**2).astype(np.float32)
    disk /= disk.sum()
    half = 1 if radius <= LEAST_REACH else 2
    soft = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * sigma**2))
    soft /= soft.sum()
    for axis_index in (0, 1):
        disk = ndimage.correlate1d(disk, soft, axis=axis_index, mode="mirror")
    return disk.astype(np.float64)  # a Fourier transform in float32 would lose flat areas' values


def defocus_blur(image: Pixels, severity: int, generator: np.random.Generator) -> Pixels:
    """Blur with a disk, the image being mirrored about its border pixels."""
    kernel = defocus_kernel(*DEFOCUS[severity - 1])
    edge = len(kernel) // 2
    padded = np.pad(image / 255.0, ((edge, edge), (edge, edge), (0, 0)), mode="reflect")
    return to_pixels(fftconvolve(padded, kernel[..., None], mode="valid", axes=(0, 1)))


def glass_sources(rows: int, columns: int, steps: NDArray[Any]) -> NDArray[Any]:
    """Say where each pixel comes from after one round of copies among neighbours.

    The published loop goes from the last pixel to the first and means to swap each with a
    neighbour; NumPy's views make it a copy: pixel p takes the value that its neighbour q has at
    that moment. That is q's own new value if q was visited before, its old value if not. So each
    new value points at another new value or at an old one; following all pointers at once,
    doubling their reach each time, gives what the loop gives.

    Args:
        rows: of the image.
        columns: of the image.
        steps: int [rows - 2 delta, columns - 2 delta, 2], the neighbour's step right and down,
            in the order of the loop.

    Returns:
        int [rows * columns], flat indices into the image before the round.
    """
    delta = (rows - steps.shape[0]) // 2
    pixels = rows * columns
    h = np.arange(rows - delta, delta, -1)[:, None]
    w = np.arange(columns - delta, delta, -1)
    here = (h * columns + w).ravel()
    there = ((h + steps[..., 1]) * columns + w + steps[..., 0]).ravel()
    visit = np.full(pixels, here.size)  # when; those of the border never
    visit[here] = np.arange(here.size)
    pointer = np.arange(2 * pixels)  # new values, then old ones, which point at themselves
    pointer[:pixels] += pixels
    pointer[here] = np.where(visit[there] < visit[here], there, there + pixels)
    while not np.array_equal(further := pointer[pointer], pointer):
        pointer = further
    return pointer[:pixels] - pixels


def glass_blur(image: Pixels, severity: int, generator: np.random.Generator) -> Pixels:
    """Blur, copy pixels among neighbours at random, blur again."""
    sigma, delta, rounds = GLASS[severity - 1]
    rows, columns, channels = image.shape
    smooth = {"sigma": (sigma, sigma, 0), "mode": "nearest"}
    x = to_pixels(ndimage.gaussian_filter(image / 255.0, **smooth))
    inner = (max(rows - 2 * delta, 0), max(columns - 2 * delta, 0))
    for steps in generator.integers(-delta, delta, size=(rounds, *inner, 2)):
        x = x.reshape(-1, channels)[glass_sources(rows, columns, steps)].reshape(image.shape)
    return to_pixels(ndimage.gaussian_filter(x / 255.0, **smooth))


def motion_blur(image: Pixels, severity: int, generator: np.random.Generator) -> Pixels:
    """Blur along a line that is nearer to the horizontal than to the vertical."""
    radius, sigma = MOTION[severity - 1]
    return motion(image, radius, sigma, generator.uniform(*MOTION_ANGLES))


def zoom_blur(image: Pixels, severity: int, generator: np.random.Generator) -> Pixels:
    """Average the image with zooms into its middle."""
    end, step = ZOOM[severity - 1]
    factors = np.arange(1, end, step)  # by rounding 12, 16, 11, 13 and 11 of them
    x = (image / 255.0).astype(np.float32)
    total = np.zeros_like(x)
    for factor in factors:
        total += clipped_zoom(x, factor)
    return to_pixels((x + total) / (len(factors) + 1))
