"""AlexNet's errors on ImageNet-C, which normalise the mean corruption error.

In % of the 50,000 released images, by severity 1 to 5: torchvision's AlexNet as the benchmark's
authors measured it (hendrycks/robustness, ``ImageNet-C/test.py``); the means over the severities
are those of google-research/augmix, ``ALEXNET_ERR``. Keyed by name, since lists in another order
give a wrong mCE. They hold for the released images, all fifteen corruptions, all five severities.
"""

from __future__ import annotations

ALEXNET_ERRORS: dict[str, tuple[float, ...]] = {
    "gaussian_noise": (69.528, 82.542, 93.554, 98.138, 99.452),
    "shot_noise": (71.224, 85.108, 93.574, 98.182, 99.146),
    "impulse_noise": (78.374, 89.808, 94.870, 98.720, 99.548),
    "defocus_blur": (65.624, 73.202, 85.036, 91.364, 94.714),
    "glass_blur": (64.308, 75.054, 88.806, 91.622, 93.344),
    "motion_blur": (58.430, 70.048, 82.108, 89.750, 92.638),
    "zoom_blur": (70.008, 76.992, 80.784, 84.198, 87.198),
    "snow": (71.726, 88.392, 86.468, 91.870, 94.952),
    "frost": (61.390, 79.734, 88.790, 89.942, 93.430),
    "fog": (67.474, 76.050, 84.378, 87.260, 94.500),
    "brightness": (45.140, 48.502, 54.048, 62.166, 72.440),
    "contrast": (64.548, 76.150, 88.874, 97.760, 99.270),
    "elastic_transform": (52.596, 70.116, 55.686, 64.076, 80.554),
    "pixelate": (52.218, 54.620, 73.728, 87.092, 91.262),
    "jpeg_compression": (51.002, 54.718, 57.294, 65.458, 74.778),
}
ALEXNET_MEANS: dict[str, float] = {
    name: sum(errors) / len(errors) for name, errors in ALEXNET_ERRORS.items()
}
ALEXNET_CLEAN = 43.478  # %, torchvision's ``AlexNet_Weights.IMAGENET1K_V1``: acc@1 56.522
