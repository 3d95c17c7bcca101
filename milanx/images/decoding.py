"""How the bytes of a file become an RGB picture, and why they sometimes do not.

Whatever Pillow opens is read, but for formats that are programs or films (`REFUSED`); formats
without a mark of their own only where the file's suffix says so. Of several frames the first is
taken.

Eight bits a channel are what a target sees. Values of other ranges, of 16 or 32 bits or floats,
are taken over the least of `RANGES` that holds the picture's largest: 0 is black, its end white.
Where that would leave the picture in the darkest sixteenth of the range, or no range holds it, the
largest value itself is white; where values are negative, the lowest is black and the largest white.
What is transparent stands on white. Colour profiles are not applied, as in torchvision.
"""

from __future__ import annotations

import errno
import io
import os
from functools import lru_cache
from pathlib import PurePath
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

MAX_PIXELS = 2**27  # 134 million, 400 MB of RGB: a telephone's 108 megapixels are read
RANGES = (1.0, 255.0, 4095.0, 65535.0)  # floats, and integers of 8, 12 and 16 bits
DARK = 16.0  # times below a range's end a picture would be black in every viewer
WHITE = (255, 255, 255)
# EPS runs Ghostscript, WMF is drawn by Windows alone; the others are films and tables of numbers.
REFUSED = frozenset({"EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5"})
UNMARKED = frozenset({"DIB", "PCX", "CUR"})  # whose first bytes other files may have too
ORIENTATION = 0x0112  # EXIF tag
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
FAULTS = {
    errno.EACCES: "reading it is not permitted",
    errno.EPERM: "reading it is not permitted",
    errno.ENOENT: "there is no such file",
    errno.ELOOP: "it is a link that leads to itself",
    errno.EMFILE: "too many files are open at once",
    errno.ENFILE: "too many files are open at once",
    errno.EIO: "the disk could not read it",
}


@lru_cache(maxsize=1)
def suffixes() -> frozenset[str]:
    """Return the suffixes of images, in lower case, as this Pillow knows them."""
    Image.init()
    known = Image.registered_extensions()
    return frozenset(s for s, kind in known.items() if kind in Image.OPEN and kind not in REFUSED)


@lru_cache(maxsize=256)
def _formats(suffix: str) -> tuple[str, ...]:
    """The formats that a file of a suffix may have: those with a mark, and the suffix's own."""
    Image.init()
    own = Image.registered_extensions().get(suffix.lower())
    marked = [kind for kind in Image.ID if Image.OPEN[kind][1] and kind not in UNMARKED]
    return tuple(
        kind for kind in dict.fromkeys([*marked, *([own] if own in Image.OPEN else [])])
        if kind not in REFUSED
    )  # fmt: skip


def is_image(path: str) -> bool:
    """Whether a file is one of ours: by its suffix, else by how it begins.

    Raises:
        OSError: a file without a known suffix that cannot be opened.
    """
    if PurePath(path).suffix.lower() in suffixes():
        return True
    with open(path, "rb") as file:
        try:
            Image.open(file, formats=_formats("")).close()
        except Exception as error:
            if is_fault(error):
                raise
            return False
    return True


def decode(content: bytes | BinaryIO, suffix: str = "") -> Image.Image:
    """Decode an image fully, as RGB, turned as its EXIF data says.

    Args:
        content: a file's bytes, or the file, opened.
        suffix: of the file's name.

    Raises:
        Exception: whatever Pillow and its formats raise for bytes that are no image, or a part of
            one; `why` says it in words.
    """
    file = io.BytesIO(content) if isinstance(content, bytes) else content
    return shown(Image.open(file, formats=_formats(suffix)))


def shown(image: Image.Image) -> Image.Image:
    """Return an opened image as `decode` does: RGB, turned as its EXIF data says.

    Raises:
        Exception: as of `decode`.
    """
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError
    if not image.width * image.height:
        raise ValueError("it has no pixels")
    image.load()
    turn = TURNS.get(_orientation(image))
    image = _rgb(image)
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """The orientation of its EXIF data; 1 where they are damaged, which spoils no pixel."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    """Bring an image of any mode to RGB."""
    if image.mode[0] in "IF":
        values = np.asarray(image)
        key = image.info.get("transparency")
        grey: np.ndarray = to_eight_bits(values)
        if isinstance(key, int):
            grey[values == key] = WHITE[0]
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        ground = Image.new("RGB", image.size, WHITE)
        ground.paste(layer, mask=layer)
        return ground
    return image if image.mode == "RGB" else image.convert("RGB")


def to_eight_bits(values: np.ndarray) -> np.ndarray:
    """Scale numbers of any range to 0..255 by the rule at the head of this file.

    Args:
        values: [H, W]; what is no number is black, and infinite ones as the finite next to them.

    Returns:
        uint8 [H, W].

    Raises:
        ValueError: none of them is a finite number.
    """
    scaled = values.astype(np.float32)
    finite = np.isfinite(scaled)
    if not finite.any():
        raise ValueError("none of its values is a finite number")
    low = min(float(scaled.min(where=finite, initial=np.inf)), 0.0)
    top = float(scaled.max(where=finite, initial=-np.inf))
    if not finite.all():
        scaled = np.nan_to_num(scaled, nan=low, posinf=top, neginf=low)
    end: float = next((end for end in RANGES if top <= end), top)
    if low < 0 or top < end / DARK:
        end = top
    if end <= low:
        return np.zeros(values.shape, np.uint8)
    scaled -= low
    scaled *= 255 / (end - low)
    return np.rint(scaled, out=scaled).astype(np.uint8)


def is_fault(error: Exception) -> bool:
    """Whether the machine failed, not the image: another time it may be read."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and bool(error.errno))


def why(error: Exception) -> str:
    """Say in one line why an image cannot be read."""
    if isinstance(error, UnidentifiedImageError):
        return "it is no image that can be read"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {MAX_PIXELS // 10**6} million pixels"
    if isinstance(error, MemoryError):
        return "there is too little memory for it"
    if isinstance(error, OSError) and error.errno:
        return FAULTS.get(error.errno, os.strerror(error.errno))
    return (str(error).splitlines() or [""])[0] or type(error).__name__
