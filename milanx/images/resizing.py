"""How a picture is resized for a centre crop without ever being larger than it need be."""

from __future__ import annotations

import math

from PIL import Image

ROOM = 16  # times the crop's pixels that a resized picture may have, else only the crop is made
REACH = 3  # pixels, of the larger scale, over which the widest filter (Lanczos) looks to each side


def resized_size(size: tuple[int, int], short: int) -> tuple[int, int]:
    """Return (width, height) of a picture whose short side becomes ``short``, as torchvision."""
    width, height = size
    if width <= height:
        return short, int(short * height / width)
    return int(short * width / height), short


def resized(
    image: Image.Image,
    wanted: tuple[int, int],
    crop: tuple[int, int],
    resample: Image.Resampling,
    *,
    rounds_down: bool = False,
) -> Image.Image:
    """Resize a picture, at least that part of it which a centre crop will keep.

    The whole is made, as Pillow makes it, unless it, or what lies between its two passes, is far
    larger than the crop and than the picture itself: a line of 6,000 x 1 pixels whose short side
    becomes 256 would have 400 million.

    Args:
        image: RGB or L.
        wanted: (width, height) of the whole.
        crop: (width, height) of the centre crop.
        resample: the filter.
        rounds_down: how the crop begins where an odd number of pixels is cut off.
    """
    if image.size == wanted:
        return image
    largest = wanted[0] * max(wanted[1], image.height)  # the first pass goes along the rows
    if largest <= max(ROOM * crop[0] * crop[1], image.width * image.height):
        return image.resize(wanted, resample)
    shares = [c / s for c, s in zip(crop, image.size, strict=True)]
    for axis in sorted((0, 1), key=lambda a: shares[a]):  # what shrinks most goes first
        kept = min(crop[axis], wanted[axis])
        cut = wanted[axis] - kept  # halved as torchvision's centre crop does it, or transformers'
        first = cut // 2 if rounds_down else round(cut / 2)
        image = _along(image, axis, wanted[axis], (first, kept), resample)
    return image


def _along(
    image: Image.Image, axis: int, wanted: int, kept: tuple[int, int], resample: Image.Resampling
) -> Image.Image:
    """Resize along one axis to ``wanted`` pixels, of which only ``kept``: the first, how many."""
    first, crop = kept
    length = image.size[axis]
    scale = length / wanted
    start, end = first * scale, min((first + crop) * scale, length)
    # Pillow keeps boxes as float32: near the place itself they are exact.
    margin = math.ceil(REACH * max(scale, 1)) + 1
    near = max(math.floor(start) - margin, 0)
    far = min(math.ceil(end) + margin, length)
    box, size = [0.0, 0.0, *map(float, image.size)], list(image.size)
    cut = [0, 0, *image.size]
    cut[axis], cut[axis + 2] = near, far
    box[axis], box[axis + 2] = start - near, end - near
    size[axis] = crop
    x0, y0, x1, y1 = cut
    return image.crop((x0, y0, x1, y1)).resize(
        (size[0], size[1]), resample, box=(box[0], box[1], box[2], box[3])
    )
