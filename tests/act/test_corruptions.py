"""The corruptions of ImageNet-C: what all share, oracles, and the authors' own pictures."""

from __future__ import annotations

import hashlib
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from skimage import data
from skimage.color import hsv2rgb, rgb2hsv

from milanx.act.corruptions import (
    CORRUPTIONS,
    SEVERITIES,
    as_released,
    corrupt,
    generator_for,
    ice,
    read_frost,
)
from milanx.act.corruptions.blur import GLASS, MOTION, glass_sources
from milanx.act.corruptions.digital import BRIGHTNESS, smooth
from milanx.act.corruptions.shared import Pixels, enlarged, motion, plasma
from milanx.errors import InputError
from tests.act.draws import legacy

PHOTOS = [data.astronaut()[30:254, 120:344], data.coffee()[60:284, 150:374],
          data.chelsea()[40:264, 60:284]]  # fmt: skip
# Without randomness: two generators give the same.
FIXED = {"defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"}
# The severities over which a corruption grows stronger in every number that changes, so that the
# picture moves away from the clean one; all five unless said. Frost takes from the picture what
# it adds of the ice: its weights are tested below.
GROWING = {name: SEVERITIES for name in CORRUPTIONS if name != "frost"} | {
    "glass_blur": (1, 4, 5),  # rounds are traded for reach in between
    "snow": (3, 4, 5),  # the sizes of flakes go up and down
    "fog": (1, 2, 3, 5),  # 4 has the amount of 3
    "elastic_transform": (3, 4, 5),  # 1 and 2 bend the whole, the others ripple
}


def made(image: Pixels, name: str, severity: int, key: str = "a") -> Pixels:
    return corrupt(image, name, severity, generator_for(0, key, name, severity))


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("size", [(224, 224), (32, 32), (37, 90), (130, 61), (8, 8), (9, 300)])
def test_shape_stays_and_draws_repeat(name: str, size: tuple[int, int]) -> None:
    image = np.ascontiguousarray(data.astronaut()[: size[0], 100 : 100 + size[1]])
    image.setflags(write=False)
    for severity in SEVERITIES:
        first = made(image, name, severity)
        assert first.shape == image.shape and first.dtype == np.uint8
        assert first.flags.writeable
        assert not np.array_equal(first, image)
        assert np.array_equal(first, made(image, name, severity))
        if min(size) >= 32:
            assert np.array_equal(first, made(image, name, severity, "b")) == (name in FIXED)


def distance(name: str, severity: int) -> float:
    """Mean distance to the clean picture; all severities have the same draws."""
    pairs = [(photo, corrupt(photo, name, severity, np.random.default_rng(seed)).astype(float))
             for photo in PHOTOS for seed in range(4)]  # fmt: skip
    return float(np.mean([np.abs(corrupted - photo).mean() for photo, corrupted in pairs]))


@pytest.mark.parametrize("name", GROWING)
def test_severity_moves_away_from_the_clean_picture(name: str) -> None:
    distances = [distance(name, severity) for severity in GROWING[name]]
    assert (np.diff(distances) > 0).all(), distances


def digests(names: list[str]) -> list[str]:
    return [hashlib.sha256(made(PHOTOS[0], name, 3).tobytes()).hexdigest() for name in names]


def test_neither_order_nor_process_nor_global_state_matters() -> None:
    names = list(CORRUPTIONS)
    np.random.seed(5)
    state = np.random.get_state()[1].tolist()
    here = digests(names)
    assert np.random.get_state()[1].tolist() == state
    assert digests(names[::-1])[::-1] == here
    code = ("from tests.act.test_corruptions import CORRUPTIONS, digests\n"
            "print(*digests(list(CORRUPTIONS)[::-1])[::-1])")  # fmt: skip
    root = Path(__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == here


def test_generators_differ_in_every_part() -> None:
    parts = [(0, "a", "snow", 1), (1, "a", "snow", 1), (0, "b", "snow", 1), (0, "a", "fog", 1),
             (0, "a", "snow", 2)]  # fmt: skip
    assert len({generator_for(*part).integers(2**60) for part in parts}) == len(parts)
    first, again = generator_for(*parts[0]), generator_for(*parts[0])
    assert first.integers(2**60) == again.integers(2**60)


# What the authors' make_imagenet_c.py gives: uint8 [13 corruptions, 5 severities, 15, 15, 3],
# every fifteenth pixel of PHOTOS[0] after np.random.seed(100 * corruption + severity). Made with
# imagenet-c 0.0.3 (arguments that newer libraries renamed replaced), OpenCV 4.5.5, Wand 0.7.2,
# ImageMagick 6.9.11 Q16, scikit-image 0.20. Left out: impulse_noise, which no seed of np.random
# governs there, and frost, for its photos.
PUBLISHED = Path(__file__).with_name("published.npy")
IN_FILE = [name for name in CORRUPTIONS if name not in ("impulse_noise", "frost")]
FLOAT32 = {"defocus_blur", "elastic_transform"}  # OpenCV computes in float32


@pytest.mark.parametrize("name", IN_FILE)
def test_equals_the_pictures_of_the_published_code(name: str) -> None:
    place = IN_FILE.index(name)
    published = np.load(PUBLISHED, allow_pickle=False)[place]
    for severity, expected in zip(SEVERITIES, published, strict=True):
        found = corrupt(PHOTOS[0], name, severity, legacy(100 * place + severity))[::15, ::15]
        apart = np.abs(found.astype(int) - expected)
        if name in FLOAT32:
            assert apart.max() <= 1 and (apart > 0).mean() < 0.002
        else:
            assert apart.max() == 0


def copied_in_a_loop(image: Pixels, steps: np.ndarray, delta: int) -> Pixels:
    """The published loop over views of pixels."""
    x, turn = image.copy(), iter(steps.reshape(-1, 2))
    for h in range(x.shape[0] - delta, delta, -1):
        for w in range(x.shape[1] - delta, delta, -1):
            dx, dy = next(turn)
            x[h, w], x[h + dy, w + dx] = x[h + dy, w + dx], x[h, w]
    return x


@given(st.integers(1, 4), st.integers(9, 30), st.integers(9, 30), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_glass_copies_as_the_loop_does(delta: int, rows: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = np.arange(rows * columns * 3).reshape(rows, columns, 3)  # every pixel unlike others
    steps = rng.integers(-delta, delta, size=(rows - 2 * delta, columns - 2 * delta, 2))
    sources = glass_sources(rows, columns, steps)
    found = image.reshape(-1, 3)[sources].reshape(image.shape)
    assert np.array_equal(found, copied_in_a_loop(image, steps, delta))


def test_glass_of_the_reference_size_is_the_loop() -> None:
    delta = max(delta for _, delta, _ in GLASS)
    steps = np.random.default_rng(0).integers(-delta, delta, size=(216, 216, 2))
    image = PHOTOS[1]
    found = image.reshape(-1, 3)[glass_sources(224, 224, steps)].reshape(image.shape)
    assert np.array_equal(found, copied_in_a_loop(image, steps, delta))


def moved_by_hand(layer: Pixels, radius: int, sigma: float, angle: float) -> Pixels:
    """One pixel and one tap after the other."""
    taps = range(2 * radius + 1)
    weights = [math.exp(-i * i / (2 * sigma * sigma)) for i in taps]
    out = np.zeros_like(layer)
    for place in np.ndindex(layer.shape):
        total = 0.0
        for i in taps:
            x = place[1] + math.ceil(i * math.cos(math.radians(angle)) - 0.5)
            y = place[0] + math.ceil(i * math.sin(math.radians(angle)) - 0.5)
            x, y = min(max(x, 0), layer.shape[1] - 1), min(max(y, 0), layer.shape[0] - 1)
            total += weights[i] / sum(weights) * int(layer[y, x])
        out[place] = math.floor(total * 257 + 0.5) // 257
    return out


@pytest.mark.parametrize("angle", [-130.0, -90.0, -52.5, -31.0, 0.0, 12.3, 44.9])
def test_motion_is_a_half_gaussian_along_a_line(angle: float) -> None:
    layer = PHOTOS[0][100:114, 50:73, 0]
    radius, sigma = MOTION[1]
    assert np.array_equal(motion(layer, radius, sigma, angle),
                          moved_by_hand(layer, radius, sigma, angle))  # fmt: skip


@pytest.mark.skipif(
    shutil.which("convert-im6.q16") is None, reason="needs ImageMagick 6, 16 bits (Debian's)"
)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_motion_equals_imagemagick(severity: int, tmp_path: Path) -> None:
    radius, sigma = MOTION[severity - 1]
    Image.fromarray(PHOTOS[2]).save(tmp_path / "clean.png")
    for angle in (-120.0, -44.5, 0.0, 17.25, 45.0):
        subprocess.run(
            ["convert-im6.q16", tmp_path / "clean.png", "-motion-blur",
             f"{radius}x{sigma}{angle:+}", "-depth", "8", tmp_path / "moved.png"],
            check=True,
        )  # fmt: skip
        with Image.open(tmp_path / "moved.png") as file:
            assert np.array_equal(motion(PHOTOS[2], radius, sigma, angle), np.array(file))


@given(st.integers(1, 60), st.integers(1, 60), st.floats(1, 5), st.sampled_from(["f4", "f8"]),
       st.integers(0, 2**32 - 1))  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_enlarging_is_scipys_bit_by_bit(
    rows: int, columns: int, factor: float, kind: str, seed: int
) -> None:
    layer = np.random.default_rng(seed).random((rows, columns, 2)).astype(kind)
    expected = [ndimage.zoom(layer[..., i], factor, order=1) for i in range(2)]
    assert np.array_equal(enlarged(layer, factor), np.stack(expected, -1))
    assert np.array_equal(enlarged(layer[..., 0], factor), expected[0])


def test_where_rounding_puts_the_last_place_outside_enlarging_is_scipys_too() -> None:
    layer = np.ones((30, 31))
    expected = ndimage.zoom(layer, 1.19, order=1)
    assert (expected[-1] == 0).all()  # what SciPy makes of it
    assert np.array_equal(enlarged(layer, 1.19), expected)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_brightness_is_scikit_images_for_colours_of_all_kinds(severity: int) -> None:
    few = np.r_[0:256:15, 1, 2, 127, 128, 254]
    colours = np.stack(np.meshgrid(few, few, few), -1).reshape(len(few), -1, 3).astype(np.uint8)
    hsv = rgb2hsv(colours / 255.0)
    hsv[..., 2] = np.clip(hsv[..., 2] + BRIGHTNESS[severity - 1], 0, 1)
    expected = (np.clip(hsv2rgb(hsv), 0, 1) * 255).astype(np.uint8)
    assert np.array_equal(made(colours, "brightness", severity), expected)


@pytest.mark.parametrize("sigma", [2.44, 12.0, 19.52, 170.8])
@pytest.mark.parametrize("shape", [(224, 224), (9, 40)])
def test_cosines_smooth_as_the_sum_does(sigma: float, shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, shape)
    expected = ndimage.gaussian_filter(noise, sigma, mode="reflect", truncate=3)
    assert np.abs(smooth(noise, sigma) - expected).max() < 1e-15


@pytest.mark.parametrize("side", [2, 8, 64])
def test_plasma_spans_zero_to_one_and_is_smooth_when_it_decays(side: int) -> None:
    cloud = plasma(side, 2.0, np.random.default_rng(0))
    assert cloud.shape == (side, side)
    assert (cloud.min(), cloud.max()) == (0, 1)
    if side == 64:
        roughness = [
            np.abs(np.diff(plasma(side, decay, np.random.default_rng(0)), axis=0)).mean()
            for decay in (1.2, 2.0, 3.0)
        ]
        assert roughness[0] > roughness[1] > roughness[2]


def test_black_pictures_have_their_corruptions() -> None:
    black = np.zeros((40, 40, 3), dtype=np.uint8)
    for name in CORRUPTIONS:
        assert made(black, name, 5).shape == black.shape
    assert (made(black, "fog", 5) == 0).all()  # its brightest value is nought
    assert (made(black, "brightness", 5) == 127).all()


def test_released_pictures_went_through_jpeg_once_more(tmp_path: Path) -> None:
    noisy = made(PHOTOS[0], "gaussian_noise", 3)
    Image.fromarray(noisy).save(tmp_path / "as.jpg", quality=85, optimize=True)
    with Image.open(tmp_path / "as.jpg") as file:
        assert np.array_equal(as_released(noisy), np.array(file))


def test_own_ice_is_as_bright_as_it_says() -> None:
    pictures = ice.textures()
    assert len({picture.tobytes() for picture in pictures}) == len(ice.LOOKS)
    for picture, (mean, deviation) in zip(pictures, ice.LOOKS, strict=True):
        assert picture.shape == (ice.SIDE, ice.SIDE, 3)
        grey = picture.mean(-1)
        assert grey.mean() == pytest.approx(mean, abs=2)  # what is clipped moves it a little
        assert grey.std() == pytest.approx(deviation, abs=2)


@pytest.mark.parametrize(
    ("severity", "of_image", "of_ice"),
    [(1, 50, 60), (2, 40, 90), (3, 35, 105), (4, 32.5, 105), (5, 30, 112.5)],
)
def test_frost_mixes_pictures_of_any_size(severity: int, of_image: float, of_ice: float) -> None:
    red = np.zeros((5, 9, 3), dtype=np.uint8)
    red[..., 0] = 150
    image = np.full((60, 40, 3), 50, dtype=np.uint8)
    found = corrupt(image, "frost", severity, np.random.default_rng(0), frost=[red])
    assert (found[..., 0] == int(of_image + of_ice + 1e-9)).all()
    assert (found[..., 1:] == int(of_image + 1e-9)).all()


def test_frost_is_read_from_a_folder(tmp_path: Path) -> None:
    for number in range(1, 7):
        name = f"frost{number}.{'png' if number < 4 else 'jpg'}"
        Image.new("L", (4, 4), 10 * number).save(tmp_path / name)
    assert [p[0, 0].tolist() for p in read_frost(tmp_path)] == [[10 * n] * 3 for n in range(1, 6)]
    Image.new("RGB", (4, 4), (70, 0, 0)).save(tmp_path / "own.png")  # no longer the published six
    assert len(read_frost(tmp_path)) == 7
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"broken\.png"):
        read_frost(tmp_path)
    with pytest.raises(InputError, match="no pictures of ice"):
        read_frost(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("image", "name", "severity", "says"),
    [
        (PHOTOS[0], "fogg", 1, "did you mean fog"),
        (PHOTOS[0], "fog", 0, "severity 0"),
        (PHOTOS[0], "fog", 6, "severity 6"),
        (PHOTOS[0] / 255.0, "fog", 1, r"float64 \[224, 224, 3\]"),
        (PHOTOS[0][..., 0], "fog", 1, r"uint8 \[224, 224\]"),
        (PHOTOS[0][:7], "fog", 1, "7 x 224"),
    ],
)
def test_what_cannot_be_corrupted_says_so(
    image: np.ndarray, name: str, severity: int, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        corrupt(image, name, severity, np.random.default_rng(0))
