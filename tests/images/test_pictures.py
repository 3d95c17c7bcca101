"""Images that a program hands over: any sequence, any iterator, labels, and what is no picture."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import milanx
from milanx.errors import InputError
from milanx.images.decoding import decode
from milanx.images.pictures import Pictures, digest_of
from milanx.images.probe import open_images
from milanx.images.sources import given_sources
from tests.helpers import noise, png, tiny


def turned() -> Image.Image:
    """A picture of 4 x 2 that its EXIF data turn, loaded from a file."""
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    noise(1)[0].resize((4, 2)).save(buffer, "JPEG", exif=exif)
    return Image.open(io.BytesIO(buffer.getvalue()))


def test_a_run_of_pictures_is_that_of_their_files(tmp_path: Path) -> None:
    pictures = noise(20)
    for i, picture in enumerate(pictures):
        picture.save(tmp_path / f"{i:02d}.png")
    one = milanx.extract(tiny(), layers=["conv2"], images=pictures, out=tmp_path / "one")
    two = milanx.extract(tiny(), layers=["conv2"], images=tmp_path, out=tmp_path / "two", limit=20)
    assert [r["source"] for r in one.image_table()] == ["images"] * 20
    split = [[r["split"] for r in store.image_table()] for store in (one, two)]
    if split[0] == split[1]:  # groups have other names, so the draw may be another
        assert (one.images("conv2") == two.images("conv2")).all()
    assert all((one.view(i) == two.view(i)).all()
               for i in set(one.view_indices()) & set(two.view_indices()))  # fmt: skip


def test_the_same_pictures_are_served_again(tmp_path: Path) -> None:
    said: list[str] = []
    for order in (1, 1, -1):
        store = milanx.extract(tiny(), layers=["conv2"], images=noise(12)[::order],
                               out=tmp_path / f"r{order}")  # fmt: skip
        said.append(store.fingerprint)
    assert said[0] == said[1] != said[2]


@pytest.mark.parametrize("form", ["list", "tuple", "generator", "iterator", "array", "dataset"])
def test_any_sequence_or_iterable_is_taken(form: str) -> None:
    pictures = [p.resize((8, 8)) for p in noise(6)]

    class Data:
        def __len__(self) -> int:
            return 6

        def __getitem__(self, i: int) -> tuple[Image.Image, int]:
            return pictures[i], i % 2

    def one_by_one() -> Iterator[Image.Image]:
        yield from pictures

    given: Any = {
        "list": pictures, "tuple": tuple(pictures), "generator": one_by_one(),
        "iterator": iter(pictures), "array": np.stack([np.asarray(p) for p in pictures]),
        "dataset": Data(),
    }[form]  # fmt: skip
    opened = open_images(given_sources(given))
    assert len(opened) == 6 and opened.sources[0].kind == "pictures"
    assert [r.fingerprint for r in opened.records] == [digest_of(p) for p in pictures]
    for i, picture in enumerate(pictures):
        assert (np.asarray(opened.read(i)) == np.asarray(picture)).all()
    labels = [r.label for r in opened.records]
    assert labels == ([0, 1] * 3 if form == "dataset" else [None] * 6)


@pytest.mark.parametrize(("label", "number", "name"), [
    (3, 3, None), ("cat", None, "cat"), (np.int64(2), 2, None), (np.array(1), 1, None),
    (None, None, None), ({"boxes": []}, None, None), (1.5, None, None), (True, 1, None),
])  # fmt: skip
def test_labels_are_numbers_or_names(label: Any, number: int | None, name: str | None) -> None:
    (item,) = Pictures("x", [(noise(1)[0], label)]).items()
    assert (item.label, item.name, item.why) == (number, name, "")


def test_rows_say_more() -> None:
    row = {"image": noise(1)[0], "label": 7, "name": "dog", "group": 5, "wnid": "n1"}
    (item,) = Pictures("x", [row]).items()
    assert (item.label, item.name, item.group, item.wnid) == (7, "dog", "5", "n1")
    opened = open_images(given_sources([{"image": p, "group": "g"} for p in noise(4)]))
    assert {r.group for r in opened.records} == {"g"}


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I", "F", "I;16"])
def test_odd_modes_are_shown_as_in_files(mode: str) -> None:
    grey = noise(1)[0].convert("L")
    array = np.asarray(grey).astype(np.uint16) * 200
    picture = Image.fromarray(array) if mode == "I;16" else noise(1)[0].convert(
        mode if mode not in ("I", "F") else "L").convert(mode)  # fmt: skip
    opened = Pictures("x", [picture])
    shown = opened.read(0)
    assert shown.mode == "RGB" and shown.size == picture.size
    if mode in ("1", "L", "LA", "P", "RGBA", "I;16"):
        assert shown.tobytes() == decode(png(picture)).tobytes()


def test_exif_turns_a_picture_once() -> None:
    opened = Pictures("x", [turned()])
    assert opened.read(0).size == opened.read(0).size == (2, 4)


@pytest.mark.parametrize(("value", "said"), [
    ("a.jpg", "a str is no picture"), (None, "a NoneType is no picture"),
    (b"no picture", "no image"), (np.zeros((2, 3, 4, 5), np.uint8), "no picture"),
    (np.zeros((3, 8, 8), np.float32), "no picture"), (np.zeros((0, 8, 3), np.uint8), "no picture"),
    (np.full((8, 8), np.nan), "finite"), ({"label": 3}, "without an image"),
    (np.zeros((8, 8, 3), np.float64), "no picture in colours"), (np.array([["a"]]), "no picture"),
    ([1, 2, 3], "a list is no picture"), (Image.new("RGB", (0, 5)), "no pixels"),
])  # fmt: skip
def test_what_is_no_picture_is_skipped_and_told(value: Any, said: str) -> None:
    opened = open_images([Pictures("mine", [*noise(3), value])])
    assert len(opened) == 3
    (skipped,) = opened.skipped
    assert said in skipped.why and (skipped.source, skipped.path) == ("mine", "3")
    assert any("skipped 1 that cannot be read" in note for note in opened.notes)


def test_a_sequence_may_raise_for_one_of_its_images() -> None:
    class Data(list):
        def __getitem__(self, i: Any) -> Any:
            if i == 1:
                raise RuntimeError("the disk is gone")
            return super().__getitem__(i)

    opened = open_images([Pictures("mine", Data(noise(3)))])
    assert [s.why for s in opened.skipped] == ["the disk is gone"]


@pytest.mark.parametrize(("given", "said"), [
    ([], "no probe images"), (iter(()), "it is empty"), ({"a": 1}, "no order"),
    ({1, 2}, "no order"), (5, "cannot be gone through"), (None, "cannot be gone through"),
    ([[]], "no image of images can be read"), ([3, 4], "no image of images can be read"),
])  # fmt: skip
def test_what_is_no_source_is_refused(given: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        milanx.extract(tiny(), layers=["conv2"], images=given, out=tmp_path / "run")
    assert said in str(caught.value) and not (tmp_path / "run").exists()


def test_random_pictures_are_told() -> None:
    class Random:
        def __len__(self) -> int:
            return 3

        def __getitem__(self, i: int) -> Image.Image:
            rng = np.random.default_rng()
            return Image.fromarray(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8))

    source = Pictures("x", Random())
    source.items()
    with pytest.raises(ValueError, match="random"):
        source.read(0)


def test_pictures_go_with_other_sources(tmp_path: Path) -> None:
    noise(1, seed=5)[0].save(tmp_path / "a.png")
    opened = open_images(given_sources([tmp_path, noise(3), noise(2, seed=9)]))
    assert [s.name for s in opened.sources] == [tmp_path.name, "images", "images-2"]
    assert [r.source for r in opened.records].count("images-2") == 2


def test_copies_are_one_group() -> None:
    opened = open_images(given_sources([*noise(3), *noise(3)]))
    assert len({r.group for r in opened.records}) == 3 and opened.distinct == 3
