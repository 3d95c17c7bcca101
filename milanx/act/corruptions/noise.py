"""Gaussian, shot and impulse noise. Parameters: ImageNet-C, ``make_imagenet_c.py``."""

from __future__ import annotations

import numpy as np
from skimage.util import random_noise

from milanx.act.corruptions.shared import Pixels, to_pixels

# By severity, 1 to 5; images in [0, 1].
GAUSSIAN_SIGMA = (0.08, 0.12, 0.18, 0.26, 0.38)
SHOT_PHOTONS = (60, 25, 12, 5, 3)  # that white stands for
IMPULSE_SHARE = (0.03, 0.06, 0.09, 0.17, 0.27)  # of the values that turn black or white


def gaussian_noise(image: Pixels, severity: int, generator: np.random.Generator) -> Pixels:
    """Add normal noise to every value."""
    noise = generator.normal(size=image.shape, scale=GAUSSIAN_SIGMA[severity - 1])
    return to_pixels(image / 255.0 + noise)


def shot_noise(image: Pixels, severity: int, generator: np.random.Generator) -> Pixels:
    """Replace every value by a Poisson count of photons."""
    photons = SHOT_PHOTONS[severity - 1]
    return to_pixels(generator.poisson(image / 255.0 * photons) / photons)


def impulse_noise(image: Pixels, severity: int, generator: np.random.Generator) -> Pixels:
    """Turn a share of the values, channel by channel, black or white."""
    amount = IMPULSE_SHARE[severity - 1]
    return to_pixels(random_noise(image / 255.0, mode="s&p", rng=generator, amount=amount))
