"""The corruptions beside imagecorruptions-imaug 1.1.5, with the same random draws.

Equal: the noises, glass and zoom blur, frost with its photos, brightness, contrast, pixelate and
jpeg. It differs from the published code, and so from milanx, in: motion_blur and snow (floats
where ImageMagick has 16 bits, flakes not cut to bytes and blurred before the extra row is
trimmed), fog (a cloud in float32), frost (six photos, all enlarged by a tenth), elastic_transform
(another corruption: no affine map, other numbers). OpenCV's own functions stand beside
defocus_blur and elastic_transform.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates
from skimage import data

from milanx.act.corruptions import SEVERITIES, corrupt
from milanx.act.corruptions.blur import DEFOCUS, GLASS, defocus_kernel
from milanx.act.corruptions.digital import ELASTIC
from milanx.act.corruptions.shared import Pixels
from tests.act.draws import given, legacy

WHY = "needs imagecorruptions-imaug, of the extra dev, with OpenCV and numba"
cv2 = pytest.importorskip("cv2", reason=WHY, exc_type=ImportError)
numba = pytest.importorskip("numba", reason=WHY, exc_type=ImportError)
theirs = pytest.importorskip("imagecorruptions", reason=WHY, exc_type=ImportError)

PHOTOS = [data.astronaut()[30:254, 120:344], data.coffee()[60:284, 150:374]]


def apart(found: Pixels, expected: Any) -> Any:
    return np.abs(found.astype(int) - expected.astype(int))


def pairs(name: str, severity: int) -> list[tuple[Pixels, Pixels]]:
    """Return milanx's and their pictures after the same seed."""
    both = []
    for number, photo in enumerate(PHOTOS):
        seed = 10 * severity + number
        np.random.seed(seed)
        both.append((corrupt(photo, name, severity, legacy(seed)),
                     theirs.corrupt(photo, severity, name)))  # fmt: skip
    return both


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize(
    "name",
    ["gaussian_noise", "shot_noise", "zoom_blur", "brightness", "contrast", "pixelate",
     "jpeg_compression"],
)  # fmt: skip
def test_same_draws_same_bytes(name: str, severity: int) -> None:
    for found, expected in pairs(name, severity):
        assert apart(found, expected).max() == 0


@pytest.mark.parametrize("severity", SEVERITIES)
def test_impulse_noise(severity: int) -> None:
    found = corrupt(PHOTOS[0], "impulse_noise", severity, np.random.default_rng(3))
    expected = theirs.corrupt(PHOTOS[0], severity, "impulse_noise", seed=3)
    assert apart(found, expected).max() == 0


@pytest.fixture(scope="module")
def numba_draws() -> Any:
    """Draw as their compiled loop draws: numba's random state is its own."""

    @numba.njit
    def draws(seed: int, delta: int, count: int) -> Any:
        np.random.seed(seed)
        steps = np.empty((count, 2), dtype=np.int64)
        for i in range(count):
            steps[i] = np.random.randint(-delta, delta, size=(2,))
        return steps

    return draws


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("size", [(224, 224), (61, 90)])
def test_glass_blur(severity: int, size: tuple[int, int], numba_draws: Any) -> None:
    photo = np.ascontiguousarray(PHOTOS[1][: size[0], : size[1]])
    _, delta, rounds = GLASS[severity - 1]
    shape = (rounds, size[0] - 2 * delta, size[1] - 2 * delta, 2)
    steps = numba_draws(7, delta, int(np.prod(shape[:3]))).reshape(shape)
    found = corrupt(photo, "glass_blur", severity, given(steps))
    expected = theirs.corrupt(photo, severity, "glass_blur", seed=7)
    assert apart(found, expected).max() == 0


@pytest.mark.parametrize("severity", SEVERITIES)
def test_frost_with_their_photos(severity: int) -> None:
    folder = resources.files("imagecorruptions") / "frost"
    ice = []
    for number in range(1, 7):
        name = f"frost{number}.{'png' if number < 4 else 'jpg'}"
        photo = cv2.imread(str(folder / name))
        size = tuple(int(np.ceil(side * 1.1)) for side in photo.shape[1::-1])
        ice.append(cv2.resize(photo, size, interpolation=cv2.INTER_CUBIC)[..., ::-1])
    for seed in range(8):  # meets several photos
        np.random.seed(seed)
        found = corrupt(PHOTOS[0], "frost", severity, legacy(seed), frost=ice)
        assert apart(found, theirs.corrupt(PHOTOS[0], severity, "frost")).max() == 0


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", ["motion_blur", "fog", "defocus_blur"])
def test_within_a_grey_level(name: str, severity: int) -> None:
    for found, expected in pairs(name, severity):
        assert apart(found, expected).max() <= 1


@pytest.mark.parametrize("severity", SEVERITIES)
def test_snow_but_for_rounding_and_the_trimmed_edge(severity: int) -> None:
    for found, expected in pairs("snow", severity):
        edge = 25  # pixels that the longest motion reaches
        assert apart(found, expected)[edge:-edge, edge:-edge].max() <= 2


@pytest.mark.parametrize("severity", SEVERITIES)
def test_defocus_kernel_is_softened_as_opencv_does(severity: int) -> None:
    radius, sigma = DEFOCUS[severity - 1]
    reach, taps = (8, 3) if radius <= 8 else (radius, 5)
    x, y = np.meshgrid(*[np.arange(-reach, reach + 1)] * 2)
    disk = np.float32(x * x + y * y <= radius * radius)
    expected = cv2.GaussianBlur(disk / disk.sum(), (taps, taps), sigmaX=sigma)
    assert np.abs(defocus_kernel(radius, sigma) - expected).max() < 1e-8


def bent_by_opencv(image: Pixels, severity: int, draws: np.random.Generator) -> Pixels:
    """The published elastic transform for squares of 224, with OpenCV's affine warp."""
    amount, sigma, wander = (244 * value for value in ELASTIC[severity - 1])
    points = np.float32([[112 + 74, 112 + 74], [112 + 74, 112 - 74], [112 - 74, 112 - 74]])
    moved = points + np.float32(draws.uniform(-wander, wander, size=(3, 2)))
    affine = cv2.getAffineTransform(points, moved)
    x = cv2.warpAffine(np.float32(image) / 255, affine, (224, 224),
                       borderMode=cv2.BORDER_REFLECT_101)  # fmt: skip
    right, down = (
        np.float32(amount * gaussian_filter(draws.uniform(-1, 1, size=(224, 224)), sigma,
                                            mode="reflect", truncate=3))
        for _ in range(2)
    )  # fmt: skip
    rows, columns = np.mgrid[:224, :224]
    bent = [map_coordinates(x[..., i], (rows + down, columns + right), order=1, mode="reflect")
            for i in range(3)]  # fmt: skip
    return np.uint8(np.clip(np.stack(bent, -1), 0, 1) * 255)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_elastic_transform(severity: int) -> None:
    """Newer OpenCV warps at exact positions, the published one at 1 / 32 of a pixel."""
    for photo in PHOTOS:
        found = corrupt(photo, "elastic_transform", severity, legacy(severity))
        expected = bent_by_opencv(photo, severity, legacy(severity))
        assert apart(found, expected).max() < 8  # two axes x 255 levels x 1 / 64 of a pixel
        assert (apart(found, expected) > 1).mean() < 0.01
