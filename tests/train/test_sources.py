"""Photos in every layout that is read, each written here by the plainest code."""

from __future__ import annotations

import csv
import io
import json
import os
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from milanx.errors import InputError
from milanx.files import cache_dir, fingerprint, fingerprint_file
from milanx.train.data.coco import run_length_mask, run_lengths, segmentation_mask
from milanx.train.data.photos import PhotoSource, photo_features
from milanx.train.data.sources import fingerprint_source, photo_rows

KEYS = {"image", "path", "name", "wnid", "captions", "regions", "group", "origin"}


def photo(path: Path, size: tuple[int, int] = (20, 12), seed: int = 0) -> bytes:
    """Write a photo of ``size`` (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path.read_bytes()


def rows_of(path: Path) -> list[dict[str, Any]]:
    rows = list(photo_rows(path))
    for row in rows:
        assert set(row) == KEYS and isinstance(row["image"], bytes)
        Image.open(io.BytesIO(row["image"])).load()
    return rows


def mask_of(region: dict[str, Any]) -> np.ndarray:
    pixels = np.asarray(Image.open(io.BytesIO(region["mask"])))
    assert set(np.unique(pixels)) <= {0, 255}
    return pixels > 0


def plain_run_lengths(mask: np.ndarray) -> list[int]:
    flat = mask.T.ravel().tolist()
    runs = [(value, len(list(group))) for value, group in groupby(flat)]
    return ([0] if flat[0] else []) + [length for _, length in runs]


def compressed(counts: list[int]) -> str:
    """``rleToString`` of cocoapi, for the tests."""
    text = ""
    for i, count in enumerate(counts):
        x = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            bits = x & 31
            x >>= 5
            more = x != -1 if bits & 16 else x != 0
            text += chr(48 + bits + 32 * more)
    return text


def test_run_lengths_by_hand() -> None:
    assert run_lengths("414") == [4, 1, 4]
    assert run_lengths("T3") == [100]  # 100 = 3 * 32 + 4
    assert run_lengths(b"4142") == [4, 1, 4, 3]  # the fourth is 1 + 2
    mask = run_length_mask([1, 2, 3], (2, 3))
    assert mask.tolist() == [[False, True, False], [True, False, False]]
    with pytest.raises(ValueError, match="7 pixels for 2 x 3"):
        run_length_mask([4, 3], (2, 3))


@settings(max_examples=60, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 60), st.integers(1, 60))))
def test_run_lengths_come_back(mask: np.ndarray) -> None:
    counts = plain_run_lengths(mask)
    assert run_lengths(compressed(counts)) == counts
    size = list(mask.shape)
    for form in (counts, compressed(counts)):
        found = segmentation_mask({"counts": form, "size": size}, mask.shape)
        np.testing.assert_array_equal(found, mask)


def test_polygons_hold_the_pixels_whose_centres_they_hold() -> None:
    box = [2.0, 1.0, 6.0, 1.0, 6.0, 4.0, 2.0, 4.0]
    expected = np.zeros((8, 10), bool)
    expected[1:4, 2:6] = True
    np.testing.assert_array_equal(segmentation_mask([box], (8, 10)), expected)
    far = [8.0, 6.0, 30.0, 6.0, 30.0, 20.0, 8.0, 20.0]  # beyond the photo
    expected[6:, 8:] = True
    np.testing.assert_array_equal(segmentation_mask([box, far], (8, 10)), expected)
    triangle = segmentation_mask([[0.0, 0.0, 100.0, 0.0, 0.0, 100.0]], (100, 100))
    y, x = np.mgrid[:100, :100] + 0.5
    assert (triangle != (x + y < 100)).sum() <= 100  # the diagonal alone is open


def test_parquet(tmp_path: Path) -> None:
    content = [photo(tmp_path / f"{i}.png", seed=i) for i in range(3)]
    region = {"name": "sky", "mask": content[0], "crowd": True}
    table = pa.table({
        "image": [{"bytes": c, "path": f"x/{i}.png"} for i, c in enumerate(content)],
        "name": ["cat", None, "dog"], "wnid": ["n02121808", None, None],
        "captions": [["one", "two"], None, []], "regions": [[region], [], None], "other": [1, 2, 3],
    })  # fmt: skip
    pq.write_table(table, tmp_path / "a.parquet")
    rows = rows_of(tmp_path / "a.parquet")
    assert [r["image"] for r in rows] == content
    assert [r["name"] for r in rows] == ["cat", None, "dog"]
    assert [r["captions"] for r in rows] == [["one", "two"], [], []]
    assert rows[0]["regions"] == [region] and rows[0]["wnid"] == "n02121808"
    assert rows[2]["path"] == "x/2.png"


def test_parquet_of_plain_bytes_and_class_labels_in_a_folder(tmp_path: Path) -> None:
    content = [photo(tmp_path / "photos" / f"{i}.png", seed=i) for i in range(2)]
    info = {"info": {"features": {"label": {"names": ["ant", "bee"], "_type": "ClassLabel"}}}}
    table = pa.table({"image": content, "label": [1, 0], "caption": ["a", "b"]})
    table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    (tmp_path / "data").mkdir()
    pq.write_table(table.slice(0, 1), tmp_path / "data" / "train-0.parquet")
    pq.write_table(table.slice(1), tmp_path / "data" / "train-1.parquet")
    rows = rows_of(tmp_path)
    assert [(r["name"], r["captions"]) for r in rows] == [("bee", ["a"]), ("ant", ["b"])]
    assert len({r["path"] for r in rows}) == 2


def test_class_folders(tmp_path: Path) -> None:
    root = tmp_path / "train"
    first = photo(root / "n02121808" / "images" / "a.png")
    photo(root / "n09999999" / "b.jpg", seed=1)
    photo(root / "zebra" / "c.webp", seed=2)
    photo(root / "loose.png", seed=3)
    photo(root / "zebra" / ".hidden.png", seed=4)
    (root / "zebra" / "notes.txt").write_text("no photo")
    (tmp_path / "words.txt").write_text("n02121808\tdomestic cat, house cat\n")
    found = {r["path"]: (r["name"], r["wnid"]) for r in rows_of(root)}
    assert found == {
        "loose.png": (None, None),
        "n02121808/images/a.png": ("domestic cat", "n02121808"),
        "n09999999/b.jpg": ("n09999999", "n09999999"),
        "zebra/c.webp": ("zebra", None),
    }
    assert next(r["image"] for r in rows_of(root) if r["wnid"] == "n02121808") == first


@pytest.mark.parametrize("kind", ["metadata.jsonl", "metadata.csv", "mine.jsonl"])
def test_captions_beside_photos(tmp_path: Path, kind: str) -> None:
    photo(tmp_path / "deep" / "a.png")
    photo(tmp_path / "b.png", seed=1)
    lines = [("deep/a.png", "one"), ("b.png", "two, and more"), ("deep/a.png", "three")]
    with (tmp_path / kind).open("w", newline="") as file:
        if kind.endswith("csv"):
            csv.writer(file).writerows([("file_name", "caption"), *lines])
        else:
            file.writelines(json.dumps({"file_name": f, "text": t}) + "\n" for f, t in lines)
    rows = rows_of(tmp_path / kind if kind == "mine.jsonl" else tmp_path)
    assert [(r["path"], r["captions"]) for r in rows] == [
        ("deep/a.png", ["one", "three"]), ("b.png", ["two, and more"])]  # fmt: skip


def write_coco(root: Path) -> dict[str, np.ndarray]:
    """Write three photos, one of them absent, with all kinds of annotations."""
    photo(root / "val2017" / "1.jpg", (20, 12))
    photo(root / "val2017" / "2.jpg", (16, 16), seed=1)
    images = [{"id": i, "file_name": f"{i}.jpg", "width": w, "height": h}
              for i, w, h in ((7, 9, 9), (2, 16, 16), (1, 20, 12))]  # fmt: skip
    rng = np.random.default_rng(0)
    crowd, thing = rng.random((12, 20)) < 0.4, rng.random((16, 16)) < 0.5
    kinds = [{"id": 5, "name": "dog"}, {"id": 90, "name": "sky-other"}]
    shapes = [
        {"image_id": 1, "category_id": 5, "iscrowd": 0, "segmentation": [[3, 2, 9, 2, 9, 6, 3, 6]]},
        {"image_id": 1, "category_id": 5, "iscrowd": 1,
         "segmentation": {"counts": plain_run_lengths(crowd), "size": [12, 20]}},
        {"image_id": 2, "category_id": 90,
         "segmentation": {"counts": compressed(plain_run_lengths(thing)), "size": [16, 16]}},
        {"image_id": 7, "category_id": 5, "segmentation": [[0, 0, 1, 0, 1, 1]]},
        {"image_id": 2, "category_id": 5, "segmentation": []},
    ]  # fmt: skip
    texts = [{"image_id": i, "caption": t} for i, t in ((1, "a  dog\n"), (2, "sky"), (1, "two"))]
    (root / "annotations").mkdir()
    for name, of in (("instances", shapes), ("captions", texts)):
        content = {"images": images, "annotations": of, "categories": kinds}
        (root / "annotations" / f"{name}_val2017.json").write_text(json.dumps(content))
    return {"crowd": crowd, "thing": thing}


def test_coco(tmp_path: Path) -> None:
    masks = write_coco(tmp_path)
    one, two = rows_of(tmp_path)
    assert (one["path"], one["captions"]) == ("1.jpg", ["a dog", "two"])
    assert (two["path"], two["captions"]) == ("2.jpg", ["sky"])
    dog, dogs = one["regions"]
    box = np.zeros((12, 20), bool)
    box[2:6, 3:9] = True
    np.testing.assert_array_equal(mask_of(dog), box)
    np.testing.assert_array_equal(mask_of(dogs), masks["crowd"])
    assert [(r["name"], r["crowd"]) for r in one["regions"]] == [("dog", False), ("dog", True)]
    (sky,) = two["regions"]
    np.testing.assert_array_equal(mask_of(sky), masks["thing"])
    alone = rows_of(tmp_path / "annotations" / "captions_val2017.json")
    assert [r["captions"] for r in alone] == [["a dog", "two"], ["sky"]]
    assert not any(r["regions"] for r in alone)


def test_coco_panoptic(tmp_path: Path) -> None:
    photo(tmp_path / "1.jpg", (20, 12))
    numbers = np.zeros((12, 20), int)
    numbers[:5], numbers[5:, 10:] = 70_000, 300
    colours = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], -1)
    (tmp_path / "panoptic_val").mkdir()
    Image.fromarray(colours.astype(np.uint8)).save(tmp_path / "panoptic_val" / "1.png")
    segments = [{"id": 70_000, "category_id": 2, "iscrowd": 0}, {"id": 300, "category_id": 1}]
    content = {"images": [{"id": 1, "file_name": "1.jpg", "width": 20, "height": 12}],
               "annotations": [{"image_id": 1, "file_name": "1.png", "segments_info": segments}],
               "categories": [{"id": 1, "name": "road"}, {"id": 2, "name": "sky"}]}  # fmt: skip
    (tmp_path / "panoptic_val.json").write_text(json.dumps(content))
    (row,) = rows_of(tmp_path)
    found = {r["name"]: mask_of(r) for r in row["regions"]}
    np.testing.assert_array_equal(found["sky"], numbers == 70_000)
    np.testing.assert_array_equal(found["road"], numbers == 300)


def test_errors_are_said_in_words(tmp_path: Path) -> None:
    def said(path: Path, words: str) -> None:
        with pytest.raises(InputError, match=words):
            list(photo_rows(path))

    said(tmp_path / "nowhere", "there is no such file or folder")
    said(tmp_path, "the folder is empty")
    (tmp_path / "a.txt").write_text("x")
    said(tmp_path, "none of its 1 files is one")
    said(tmp_path / "a.txt", "is no source of photos")
    (tmp_path / "a.parquet").write_bytes(b"x")
    said(tmp_path / "a.parquet", "cannot read")
    pq.write_table(pa.table({"picture": [b"x"]}), tmp_path / "b.parquet")
    said(tmp_path / "b.parquet", "its columns are picture")
    pq.write_table(pa.table({"image": [{"bytes": None, "path": "x"}]}), tmp_path / "c.parquet")
    said(tmp_path / "c.parquet", "row 0 of .* has no image")
    (tmp_path / "l.jsonl").write_text('{"file_name": "gone.png", "text": "x"}\n')
    said(tmp_path / "l.jsonl", "line 1 of .* names gone.png")
    (tmp_path / "l.jsonl").write_text('\n{"text": "x"}\n')
    said(tmp_path / "l.jsonl", "line 2 of .* names no photo")
    (tmp_path / "l.jsonl").write_text("{")
    said(tmp_path / "l.jsonl", "is not json")
    coco = tmp_path / "coco"
    write_coco(coco)
    file = coco / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in content.items() if k != "images"}))
    said(file, "it lacks 'images'")
    file.write_text(json.dumps({**content, "images": [{**content["images"][2], "width": 21}],
                                "annotations": []}))  # fmt: skip
    said(file, "is 20 x 12 pixels")
    file.write_text(json.dumps({**content, "images": [], "annotations": []}))
    said(file, "none of the 0 photos")


def _encoder() -> Any:
    """Dense features that are a view's own colours."""
    return SimpleNamespace(
        spec=SimpleNamespace(grid=2, image_size=8), width=3, fingerprint=lambda: "colours",
        dense=lambda views: torch.nn.functional.adaptive_avg_pool2d(views.float(), 2)
        .permute(0, 2, 3, 1),
    )  # fmt: skip


def test_training_photos_of_a_folder_are_encoded_once(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for i in range(5):
        photo(root / ("oak" if i < 3 else "pond") / f"{i}.png", seed=i)
    photo(root / "loose.png", seed=9)
    source = PhotoSource(root, per_class=2, views=2)
    told: list[int] = []
    found = photo_features(_encoder(), [source], advance=told.append)
    names = [p.name for p in found.photos]
    assert names == [None, None, "oak", "oak", "oak", "oak", "pond", "pond", "pond", "pond"]
    assert {p.source for p in found.photos} == {"photos"} and found.dense.shape == (10, 4, 3)
    assert len({p.group for p in found.photos}) == 5
    photo_features(_encoder(), [source], advance=told.append)
    assert sum(told) == 10
    photo(root / "pond" / "5.png", seed=7)
    photo_features(_encoder(), [PhotoSource(root)], advance=told.append)
    assert sum(told) == 17
    with pytest.raises(InputError, match="not found"):
        photo_features(_encoder(), [PhotoSource(tmp_path / "none")])


def test_fingerprints_of_sources(tmp_path: Path) -> None:
    table = tmp_path / "t.parquet"
    pq.write_table(pa.table({"image": [b"x"]}), table)
    assert fingerprint_source(table) == fingerprint_file(table)
    photo(tmp_path / "coco/train/1.png")
    listed = tmp_path / "coco/annotations/captions.json"
    listed.parent.mkdir()
    listed.write_text("{}")
    before = [fingerprint_source(p) for p in (tmp_path / "coco", listed)]
    assert before == [fingerprint_source(p) for p in (tmp_path / "coco", listed)]
    photo(tmp_path / "coco/train/2.png")
    after = [fingerprint_source(p) for p in (tmp_path / "coco", listed)]
    assert not set(before) & set(after) and len({*before, *after}) == 4


def test_a_source_is_known_by_its_bytes_wherever_and_whenever_it_was_written(
    tmp_path: Path,
) -> None:
    for copy in ("one", "two"):
        photo(tmp_path / copy / "photos/dog/1.png")
        (tmp_path / copy / "photos/metadata.csv").write_text("file_name,text\ndog/1.png,a dog\n")
    one, two = (tmp_path / copy / "photos" for copy in ("one", "two"))
    assert fingerprint_source(one) == fingerprint_source(two)
    before, file = fingerprint_source(one), one / "metadata.csv"
    stat = file.stat()
    file.write_text(file.read_text().replace("a dog", "a cat"))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same name, size and time
    assert fingerprint_source(one) != before
    (memo,) = (
        m for m in cache_dir("digests").iterdir() if fingerprint(str(one.resolve())) in m.name
    )
    memo.write_bytes(memo.read_bytes()[:-40])  # a damaged cache is none
    file.write_text(file.read_text().replace("a cat", "a dog"))
    assert fingerprint_source(one) == before
