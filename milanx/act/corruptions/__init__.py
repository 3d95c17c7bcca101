"""The fifteen corruptions of ImageNet-C, made on the fly: pictures in, corrupted pictures out.

Hendrycks and Dietterich 2019 (1903.12261), by the definitions and numbers of the authors'
``make_imagenet_c.py``, on NumPy, SciPy, scikit-image and Pillow alone; ``makers`` lets processes
make many. With the same random draws at 224 x 224 the pictures equal those of the authors' code
byte for byte, but for:

- defocus_blur, elastic_transform: OpenCV's float32 arithmetic; one grey level, in less than one
  value of a thousand.
- impulse_noise: the same distribution; scikit-image draws it otherwise than in 2018.
- motion_blur, snow: as ImageMagick 6.9.11 (16 bits) blurs; other versions may round otherwise.
- frost: milanx's own pictures of ice, unless a folder of others is read (`read_frost`).

What differs by intention:

- Draws come from a NumPy generator made from a seed, the picture's key, the corruption's name and
  the severity (`generator_for`), so that neither the order of pictures nor the number of workers
  changes anything; the authors' draws cannot be repeated, nobody knows their seed.
- Pictures of any size from 8 x 8 on: zoom and glass_blur treat each side by itself, fog takes the
  next power of two for its cloud (256 for 224), elastic_transform's lengths grow with the shorter
  side, a picture of ice that is too small is enlarged. All other lengths stay in pixels, so a
  blur of radius 10 hits a small picture harder.
- The released files are JPEG of quality 85, after the corruption; `as_released` does that as
  well. The released ImageNet-C is to be preferred where it is at hand: figures of pictures made
  here are not figures on ImageNet-C, and AlexNet's errors do not normalise them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from milanx.act.corruptions import blur, digital, noise, weather
from milanx.act.corruptions.digital import as_released
from milanx.act.corruptions.ice import read_frost
from milanx.act.corruptions.shared import Pixels
from milanx.errors import InputError, did_you_mean

__all__ = [
    "CORRUPTIONS",
    "SEVERITIES",
    "Corruption",
    "Pixels",
    "as_released",
    "check_severities",
    "corrupt",
    "generator_for",
    "read_frost",
]

Corruption = Callable[[Pixels, int, np.random.Generator], Pixels]
SEVERITIES = (1, 2, 3, 4, 5)
LEAST_SIDE = 8  # pixels; smaller pictures leave nothing to zoom into

# In the order of the paper: noise, blur, weather (with brightness), digital.
CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "defocus_blur": blur.defocus_blur,
    "glass_blur": blur.glass_blur,
    "motion_blur": blur.motion_blur,
    "zoom_blur": blur.zoom_blur,
    "snow": weather.snow,
    "frost": weather.frost,
    "fog": weather.fog,
    "brightness": digital.brightness,
    "contrast": digital.contrast,
    "elastic_transform": digital.elastic_transform,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
}


def check_severities(severities: Sequence[int]) -> None:
    """Refuse what are no severities.

    Raises:
        InputError: there are none, or others than 1 to 5.
    """
    if not severities or not set(severities) <= set(SEVERITIES):
        raise InputError(f"severities {list(severities)}", "severities are 1, 2, 3, 4 and 5",
                         "--severities 1,3,5")  # fmt: skip


def corrupt(
    image: Pixels,
    name: str,
    severity: int,
    generator: np.random.Generator,
    frost: Sequence[Pixels] | None = None,
) -> Pixels:
    """Return a corrupted copy of a picture, of the same size.

    Args:
        image: uint8 [h, w, 3], RGB; at least 8 x 8.
        name: one of `CORRUPTIONS`.
        severity: 1 to 5.
        generator: where the randomness comes from; see `generator_for`.
        frost: pictures of ice for ``frost``, uint8 [h, w, 3]; by default milanx's own.

    Raises:
        InputError: for another name, severity or kind of picture.
    """
    _check(image, name, severity)
    if name == "frost":
        return weather.frost(image, severity, generator, frost)
    return CORRUPTIONS[name](image, severity, generator)


def generator_for(seed: int, key: str, name: str, severity: int) -> np.random.Generator:
    """Return the generator for one corrupted picture.

    Args:
        seed: of the whole study.
        key: what the picture is known by, such as its fingerprint; not its place in a list.
        name: of the corruption.
        severity: 1 to 5.
    """
    words = "\n".join((str(seed), name, str(severity), key))
    digest = hashlib.sha256(words.encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def _check(image: Pixels, name: str, severity: int) -> None:
    if name not in CORRUPTIONS:
        raise InputError(
            f"no corruption is named {name!r}",
            did_you_mean(name, CORRUPTIONS),
            f"take one of {', '.join(CORRUPTIONS)}",
        )
    if severity not in SEVERITIES:
        raise InputError(
            f"severity {severity!r} of {name}",
            "severities are 1, 2, 3, 4 and 5",
            "take one of them",
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(
            f"cannot corrupt an array of {image.dtype} {list(image.shape)}",
            "corruptions take RGB pictures, uint8 [h, w, 3]",
            "convert it, for instance with Pillow's convert('RGB')",
        )
    if min(image.shape[:2]) < LEAST_SIDE:
        raise InputError(
            f"cannot corrupt a picture of {image.shape[0]} x {image.shape[1]} pixels",
            f"the least side is {LEAST_SIDE}",
            "enlarge it first",
        )
