"""Views are torchvision's, bit for bit; extreme shapes cost no more than what is seen of them."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import functional as T

from milanx.images import resizing
from milanx.images.preprocess import Preprocess
from milanx.images.resizing import resized_size

FILTERS = ["nearest", "bilinear", "bicubic", "lanczos"]


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """A smooth picture with some noise."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (max(height // 8, 1), max(width // 8, 1), 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    return Image.fromarray((smooth // 2 + rng.integers(0, 99, smooth.shape)).astype(np.uint8))


def torchvision(image: Image.Image, made: Preprocess) -> np.ndarray:
    if made.resize is not None:
        size = made.resize if isinstance(made.resize, int) else list(made.resize)
        image = T.resize(image, size, getattr(T.InterpolationMode, made.interpolation.upper()))
    return np.asarray(T.center_crop(image, list(made.size)))


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize(
    ("size", "resize"),
    [((224, 224), 256), ((224, 224), 224), ((256, 128), (256, 128)), ((64, 96), 40),
     ((32, 32), None), ((60, 60), (80, 50))],
)  # fmt: skip
@pytest.mark.parametrize(
    "shape",
    [(500, 375), (375, 500), (256, 256), (31, 40), (1, 1), (900, 120), (7, 60), (1201, 999)],
)
def test_ordinary_views_are_those_of_torchvision(
    shape: tuple[int, int], size: tuple[int, int], resize: int | None, interpolation: str
) -> None:
    made = Preprocess(size, resize, interpolation)
    image = picture(*shape)
    assert np.array_equal(made.view(image), torchvision(image, made))


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 700), height=st.integers(1, 700), short=st.integers(16, 64),
    view=st.integers(16, 80), interpolation=st.sampled_from(FILTERS),
)  # fmt: skip
def test_any_view_is_torchvisions_to_two_levels(
    width: int, height: int, short: int, view: int, interpolation: str
) -> None:
    made = Preprocess((view, view), short, interpolation)
    image = picture(width, height, width)
    found, wanted = made.view(image).astype(int), torchvision(image, made).astype(int)
    assert found.shape == wanted.shape
    ordinary = max(width, height) <= 8 * min(width, height) and view >= short
    assert np.abs(found - wanted).max() <= (
        0 if ordinary else 2 if interpolation != "nearest" else 255
    )
    if interpolation == "nearest":  # a pixel may be the next one where the place lies between two
        assert (found != wanted).mean() < 0.05


@pytest.mark.parametrize("shape", [(43, 40), (40, 43), (500, 375), (6, 400), (400, 6)])
def test_crops_may_begin_where_transformers_begins_them(shape: tuple[int, int]) -> None:
    image = picture(*shape)
    made = Preprocess((32, 32), 40, "bicubic", rounds_down=True)
    width, height = resized_size(shape, 40)
    left, top = (width - 32) // 2, (height - 32) // 2
    whole = image.resize((width, height), Image.Resampling.BICUBIC)
    wanted = np.asarray(whole.crop((left, top, left + 32, top + 32))).astype(int)
    assert np.abs(made.view(image).astype(int) - wanted).max() <= (2 if min(shape) == 6 else 0)
    assert "rounds_down" in made.to_dict()
    assert "rounds_down" not in Preprocess().to_dict()


@given(width=st.integers(1, 5000), height=st.integers(1, 5000), short=st.integers(1, 600))
def test_sizes_are_torchvisions(width: int, height: int, short: int) -> None:
    wanted = T._compute_resized_output_size((height, width), [short])
    assert list(resized_size((width, height), short)) == wanted[::-1]


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("resize", [256, (224, 224)])
@pytest.mark.parametrize("shape", [(6000, 1), (1, 6000), (20_000, 5), (2, 300_000), (2_000_000, 1)])
def test_extreme_shapes_cost_what_is_seen(
    shape: tuple[int, int], resize: int | tuple[int, int], interpolation: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    made: list[int] = []
    resize_one = Image.Image.resize

    def watched(image: Image.Image, size: tuple[int, int], *args: object, **options: object):
        made.append(size[0] * max(size[1], image.height))
        return resize_one(image, size, *args, **options)

    image = Image.new("RGB", shape, (9, 9, 200))
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "resize", watched)
        view = Preprocess(resize=resize, interpolation=interpolation).view(image)
    assert (view == (9, 9, 200)).all()
    assert view.shape == (224, 224, 3)
    assert max(made) <= max(resizing.ROOM * 224 * 224, 3 * shape[0] * shape[1])


def test_the_middle_of_a_long_strip_is_seen() -> None:
    strip = Image.new("RGB", (20_001, 10), (255, 255, 255))
    strip.paste((0, 0, 0), (10_000, 0, 10_001, 10))  # one black column in the middle
    view = Preprocess(interpolation="nearest").view(strip)
    dark = np.flatnonzero((view == 0).all((0, 2)))
    assert len(dark) == pytest.approx(25.6, abs=1)
    assert dark.mean() == pytest.approx(111.5, abs=1)


def test_no_python_memory_is_taken_for_a_hairline() -> None:
    image = Image.new("RGB", (6000, 1))
    Preprocess().view(image)
    tracemalloc.start()
    Preprocess().view(image)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**21
