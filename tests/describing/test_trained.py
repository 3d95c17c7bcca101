"""What a describer's folder tells of its training: round trip, near-duplicates, damage."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import milanx
from milanx.describing.describer import Describer
from milanx.describing.trained import (
    FILE,
    Trained,
    TrainedPhoto,
    group_of,
    held_out,
    read_trained,
    write_trained,
)
from milanx.errors import FormatError, InputError
from milanx.files.digests import Listing
from milanx.images.near import picture_hash
from milanx.images.splits import held_out as in_share
from milanx.report.check import check, seal
from milanx.train.data.splits import HELD_OUT_CALTECH, HELD_OUT_TINY
from tests.helpers import noise, png


def again(image: Image.Image, quality: int, size: tuple[int, int]) -> bytes:
    """The same photo, as another data set may hold it."""
    buffer = io.BytesIO()
    image.resize(size).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def told(path: str, image: Image.Image, **more: object) -> TrainedPhoto:
    return TrainedPhoto(group_of(path, png(image)), picture_hash(image), **more)  # type: ignore[arg-type]


def test_groups_are_numbers_of_photographs_videos_or_bytes() -> None:
    assert group_of("a/000000223959.jpg", b"x") == group_of("coco_val2017_000000223959.webp", b"y")
    assert group_of("camvid_0006R0_f1.png", b"x") == group_of("camvid_0006R0_f2.png", b"y")
    assert group_of("a.png", b"x") == group_of("b.png", b"x") == group_of(None, b"x")
    assert group_of("a.png", b"x") != group_of("a.png", b"y")


@pytest.mark.parametrize("seed", range(4))
def test_what_was_trained_on_is_known_under_any_name_and_size(seed: int) -> None:
    rng = np.random.default_rng(seed)
    photos = noise(60, side=96, seed=seed)
    trained = Trained(tuple(told(f"{i}.png", photos[i]) for i in range(30)))
    groups, pictures, expected = [], [], []
    for i in rng.permutation(60).tolist():
        size = tuple(int(v) for v in rng.integers(48, 160, 2))
        content = again(photos[i], int(rng.integers(60, 95)), size)
        groups.append(group_of(f"renamed-{i}.jpg", content))
        pictures.append(picture_hash(Image.open(io.BytesIO(content)).convert("RGB")))
        expected.append(i < 30)
    assert trained.seen(groups, pictures).tolist() == expected
    assert not trained.has(groups).any()  # other bytes
    same = [group_of("other.png", png(photos[i])) for i in range(60)]
    assert trained.has(same).tolist() == [i < 30 for i in range(60)]
    assert not Trained(()).seen(groups, pictures).any()


def test_a_frame_of_a_video_that_was_trained_on_is_seen() -> None:
    first, second, third = noise(3, side=90, seed=9)
    trained = Trained((told("camvid_0001_f1.png", first),))
    frames = [
        group_of(f"camvid_{v}_f9.png", png(i)) for v, i in (("0001", second), ("0002", third))
    ]
    assert trained.seen(frames, [picture_hash(i) for i in (second, third)]).tolist() == [
        True,
        False,
    ]


def test_it_is_read_as_it_was_written_and_damage_is_said(tmp_path: Path) -> None:
    photos = [told(f"{i}.png", image, name="Cat", wnid="n1", checked=i % 3 == 0)
              for i, image in enumerate(noise(12))]  # fmt: skip
    write_trained(tmp_path, [*photos, *photos])
    training = {"held_out_wnids": ["n2"], "held_out_classes": ["okapi"]}
    found = read_trained(Listing.of(tmp_path, [FILE]), training)
    assert set(found.photos) == set(photos) and len(found.photos) == 12
    assert found.held_out == {"n2", "okapi"} and found.classes == {"Cat", "n1"}
    assert {p.checked for p in found.only_checked().photos} == {False}
    listing = Listing.of(tmp_path, [FILE])
    content = bytearray((tmp_path / FILE).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / FILE).write_bytes(bytes(content))
    with pytest.raises(FormatError, match="is damaged"):
        read_trained(listing, training)
    write_trained(tmp_path, [TrainedPhoto("g", "no hash")])
    with pytest.raises(FormatError, match=FILE):
        read_trained(Listing.of(tmp_path, [FILE]), training)
    assert held_out({}) is None and held_out({"held_out_wnids": []}) == frozenset()


def test_a_folder_that_tells_nothing(describer: milanx.Describer, tmp_path: Path) -> None:
    assert describer.root is not None
    shutil.copytree(describer.root, tmp_path / "older")
    (tmp_path / "older" / FILE).unlink()
    with pytest.raises(FormatError, match="does not exist"):
        check(tmp_path / "older").require()
    seal(tmp_path / "older")
    older = Describer.load(tmp_path / "older")
    assert older.fingerprint == describer.fingerprint  # no text depends on it
    with pytest.raises(InputError, match="does not tell which photos") as caught:
        _ = older.trained
    assert any("--held-out-all" in way for way in caught.value.ways_out)


def test_the_bundled_describer_tells_its_training(describer: milanx.Describer) -> None:
    """By the rule of the split no group of the least share is told, and no class held out."""
    trained = describer.trained
    assert trained.held_out == {*HELD_OUT_TINY, *HELD_OUT_CALTECH}
    assert not trained.classes & trained.held_out
    assert len({p.wnid for p in trained.photos if p.wnid}) == 180
    coco = {p.group for p in trained.photos if p.group.startswith(("coco:", "camvid:"))}
    assert len(coco) > 300 and not any(in_share(group, 0.1) for group in coco)
    groups = {p.group: p.checked for p in trained.photos}
    assert 0.06 < np.mean([*groups.values()]) < 0.1
    check("builtin").require()
