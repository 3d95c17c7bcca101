"""Probe images: sources, unreadable ones, groups, the split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from milanx.errors import InputError
from milanx.images.probe import NEAR, ImageRecord, ProbeImages, _grouped, open_images
from tests.helpers import PREPROCESS, noise, png, write_parquet


def folder(path: Path, count: int = 6, seed: int = 0) -> Path:
    for i, image in enumerate(noise(count, seed=seed)):
        inside = path / ("cats" if i % 2 else "dogs")
        inside.mkdir(parents=True, exist_ok=True)
        image.save(inside / f"{i}.png")
    return path


def test_folder_and_parquet_keep_their_names(tmp_path: Path) -> None:
    a = folder(tmp_path / "mine")
    b = write_parquet(
        tmp_path / "mine.parquet", noise(5, seed=3), wnid=["n1"] * 5, label=list(range(5))
    )
    images = open_images([a, b])
    assert [s.name for s in images.sources] == ["mine", "mine-2"]
    assert len(images) == 11
    assert images.records[0].name == "cats"
    assert images.records[-1].wnid == "n1"
    assert images.records[-1].label == 4
    assert np.array_equal(np.asarray(images.read(10)), np.asarray(noise(5, seed=3)[4]))


def test_truncated_jpeg_among_good_ones_is_skipped_and_listed(tmp_path: Path) -> None:
    path = folder(tmp_path / "p")
    good = png(noise(1, side=200, seed=9)[0], "JPEG")
    (path / "broken.jpg").write_bytes(good[: len(good) // 2])
    (path / "text.jpg").write_text("hello")
    (path / "notes.txt").write_text("hello")
    images = open_images([path])
    assert len(images) == 6
    assert {s.path for s in images.skipped} == {"broken.jpg", "text.jpg"}
    assert all(s.why for s in images.skipped)


@pytest.mark.parametrize("kind", ["empty", "text", "missing", "broken", "file", "columns"])
def test_sources_that_cannot_be_used(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "p"
    if kind == "text":
        path.mkdir()
        (path / "a.txt").write_text("x")
    elif kind == "empty":
        path.mkdir()
    elif kind == "broken":
        path.mkdir()
        (path / "a.jpg").write_text("x")
    elif kind == "file":
        path.write_text("x")
    elif kind == "columns":
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = tmp_path / "p.parquet"
        pq.write_table(pa.table({"x": [1]}), path)
    said = {"empty": "the folder is empty", "text": "none of its 1 files is an image",
            "missing": "there is no such file", "broken": "1 were tried",
            "file": "a single file", "columns": "its columns are x"}  # fmt: skip
    with pytest.raises(InputError) as caught:
        open_images([path])
    assert said[kind] in caught.value.why


def test_near_duplicates_are_one_group_across_sources(tmp_path: Path) -> None:
    image = noise(1, side=120, seed=5)[0]
    a, b = tmp_path / "a", folder(tmp_path / "b")
    a.mkdir()
    image.save(a / "x.png")
    image.resize((90, 100)).save(b / "small.jpg", quality=80)
    images = open_images([a, b])
    groups = {r.path: r.group for r in images.records}
    assert groups["x.png"] == groups["small.jpg"]
    assert len(set(groups.values())) == len(images) - 1


@settings(max_examples=50, deadline=None)
@given(
    groups=st.lists(st.sampled_from([None, "own"]), min_size=1, max_size=60),
    seed=st.integers(0, 99),
)
def test_chains_of_near_duplicates_are_one_group(groups: list[str | None], seed: int) -> None:
    """A chain of pairs that are near holds together, whatever lies between its ends."""
    rng = np.random.default_rng(seed)
    hashes = [int(h) << 8 for h in rng.integers(0, 2**14, len(groups))]
    records = [
        ImageRecord(i, "s", str(i), "", own or f"hash:{h:016x}")
        for i, (h, own) in enumerate(zip(hashes, groups, strict=True))
    ]
    found = [r.group for r in _grouped(records)]
    for i, own in enumerate(groups):
        if own:
            assert found[i] == "own"
            continue
        chain, fresh = set(), {i}
        while fresh:
            chain |= fresh
            fresh = {
                b for a in fresh for b, other in enumerate(groups)
                if other is None and (hashes[a] ^ hashes[b]).bit_count() <= NEAR
            } - chain  # fmt: skip
        assert found[i] == f"s/{min(chain)}"


def test_a_group_column_wins(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "v.parquet", noise(12), group=[f"clip{i // 4}" for i in range(12)]
    )
    images = open_images([path])
    assert {r.group for r in images.records} == {"clip0", "clip1", "clip2"}


@settings(max_examples=50, deadline=None)
@given(groups=st.lists(st.integers(0, 12), min_size=1, max_size=80), seed=st.integers(0, 99))
def test_no_group_is_on_both_sides(groups: list[int], seed: int) -> None:
    records = [ImageRecord(i, "s", str(i), str(i), str(g)) for i, g in enumerate(groups)]
    images = ProbeImages(records, [], [], [])
    chosen = images.split(0.2, seed)
    assert (images.split(0.2, seed) == chosen).all()
    kept = {g for g, c in zip(groups, chosen, strict=True) if c}
    aside = {g for g, c in zip(groups, chosen, strict=True) if not c}
    assert not kept & aside
    assert kept


def test_iterate_gives_views_in_order(tmp_path: Path) -> None:
    images = open_images([write_parquet(tmp_path / "p.parquet", noise(23))])
    seen = []
    for views, indices in images.iterate(list(range(3, 23)), PREPROCESS, 6):
        assert views.shape == (len(indices), 3, 32, 32)
        for view, index in zip(views, indices, strict=True):
            expected = PREPROCESS.view(images.read(int(index))).transpose(2, 0, 1)
            assert np.array_equal(view.numpy(), expected)
        seen += indices.tolist()
    assert seen == list(range(3, 23))


def test_limit_and_fingerprints(tmp_path: Path) -> None:
    path = folder(tmp_path / "p", 10)
    some = open_images([path], limit=4)
    assert len(some) == 4
    assert open_images([path], limit=4).fingerprint == some.fingerprint
    assert open_images([path]).fingerprint != some.fingerprint
    before = open_images([path]).sources[0].fingerprint
    Image.new("RGB", (50, 50)).save(path / "dogs" / "0.png")
    assert open_images([path]).sources[0].fingerprint != before


def test_exif_orientation_is_respected(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "p").mkdir()
    image.save(tmp_path / "p" / "a.jpg", exif=exif)
    assert open_images([tmp_path / "p"]).read(0).size == (20, 40)


def test_many_threads_read_one_parquet_file(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    pictures = noise(64)
    images = open_images([write_parquet(tmp_path / "p.parquet", pictures)])
    order = np.random.default_rng(0).integers(0, 64, 400).tolist()
    with ThreadPoolExecutor(8) as pool:
        for index, found in zip(order, pool.map(images.read, order), strict=True):
            assert np.array_equal(np.asarray(found), np.asarray(pictures[index]))
