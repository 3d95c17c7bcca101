"""Parquet files: columns of every type, rows without an image, damage."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from milanx.errors import InputError
from milanx.images.probe import open_images
from milanx.images.sources import open_source
from tests.helpers import noise, png, write_parquet

PICTURES = noise(6, seed=7)
BYTES = [png(p) for p in PICTURES]


def written(path: Path, image: pa.Array | list, column: str = "image", **others: list) -> Path:
    pq.write_table(pa.table({column: image, **others}), path)
    return path


def taken(path: Path) -> list[np.ndarray]:
    images = open_images([path])
    return [np.asarray(images.read(i)) for i in range(len(images))]


@pytest.mark.parametrize(
    "image",
    [
        pa.array(BYTES, pa.binary()), pa.array(BYTES, pa.large_binary()),
        pa.array(BYTES, pa.binary()).dictionary_encode(),
        pa.array([{"bytes": b, "path": None} for b in BYTES]),
        pa.array([{"bytes": b} for b in BYTES]),
        pa.array([{"bytes": b, "path": "x.png"} for b in BYTES],
                 pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())])),
        pa.array([{"path": f"in/{i}.png"} for i in range(6)]),
        pa.array([{"bytes": None, "path": f"in/{i}.png"} for i in range(6)]),
        pa.array([f"in/{i}.png" for i in range(6)]),
        pa.array([f"in/{i}.png" for i in range(6)], pa.large_string()),
        pa.array([f"in/{i}.png" for i in range(6)]).dictionary_encode(),
    ],
    ids=lambda a: str(a.type),
)  # fmt: skip
def test_columns_that_are_read(tmp_path: Path, image: pa.Array) -> None:
    (tmp_path / "in").mkdir()
    for i, content in enumerate(BYTES):
        (tmp_path / "in" / f"{i}.png").write_bytes(content)
    found = taken(written(tmp_path / "p.parquet", image))
    assert len(found) == 6
    for one, picture in zip(found, PICTURES, strict=True):
        assert np.array_equal(one, np.asarray(picture))
    items = open_source(str(tmp_path / "p.parquet"), "x").items()
    assert [i.fingerprint for i in items] == [hashlib.sha256(b).hexdigest()[:16] for b in BYTES]


def test_whole_paths_and_another_name_of_the_column(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(BYTES[0])
    path = written(tmp_path / "p", [str(tmp_path / "a.png")])  # parquet by its first bytes
    assert np.array_equal(taken(path)[0], np.asarray(PICTURES[0]))
    path = written(tmp_path / "q.PARQUET", BYTES, "img", label=list(range(6)))
    assert len(taken(path)) == 6
    path = written(tmp_path / "two.parquet", BYTES, "img", mask=BYTES)
    with pytest.raises(InputError, match="its columns are img, mask"):
        open_images([path])


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ([[1, 2]] * 3, "lists of images or numbers"),
        ([[b] for b in BYTES], "lists of images or numbers"),
        ([[[[0, 1, 2]]]] * 3, "lists of images or numbers"),
        ([1, 2], "it holds int64, which is no image"),
        ([1.5], "it holds double, which is no image"),
        ([{"array": [1], "shape": [1]}], "without bytes or path of an image"),
        ([{"bytes": [1, 2], "path": "x"}], "without bytes or path of an image"),
        (pa.nulls(3), "it is empty in every row"),
    ],
)
def test_columns_that_are_refused_in_words(tmp_path: Path, image: list, said: str) -> None:
    with pytest.raises(InputError) as caught:
        open_images([written(tmp_path / "p.parquet", image)])
    assert caught.value.what.startswith("the column image of")
    assert said in caught.value.why
    assert "struct(bytes, path), bytes, or paths" in caught.value.ways_out[0]


def test_rows_without_an_image_are_skipped_and_counted(tmp_path: Path) -> None:
    rows = [
        {"bytes": BYTES[0], "path": "a"}, None, {"bytes": None, "path": None},
        {"bytes": b"", "path": "../no.png"}, {"bytes": b"none", "path": "b.png"},
        {"bytes": None, "path": "https://example.org/a.png"}, {"bytes": BYTES[1], "path": None},
    ]  # fmt: skip
    images = open_images([written(tmp_path / "p.parquet", pa.array(rows))])
    assert [r.path for r in images.records] == ["a", "6"]
    assert [(s.path, s.why) for s in images.skipped] == [
        ("1", "the row holds no image"),
        ("2", "the row holds no image"),
        ("../no.png", "there is no such file"),
        ("b.png", "it is no image that can be read"),
        ("https://example.org/a.png", "it is an address, and nothing is downloaded"),
    ]
    assert images.notes[0].startswith("skipped 5 that cannot be read: 1 (the row holds no image)")
    assert images.notes[0].endswith(", and 2 more")


def test_addresses_alone_are_refused_in_words(tmp_path: Path) -> None:
    path = written(tmp_path / "p.parquet", ["https://example.org/1.jpg", "s3://bucket/2.jpg"])
    with pytest.raises(InputError, match="nothing is downloaded"):
        open_images([path])


def test_labels_of_every_kind(tmp_path: Path) -> None:
    for label, wanted in (
        ([0, 1, 2, 3, 4, None], [0, 1, 2, 3, 4, None]),
        ([0.0, 1.0, 2.0, 3.0, float("nan"), None], [0, 1, 2, 3, None, None]),
        (["cat", "dog", "", "x", "y", None], [None] * 6),
    ):
        path = write_parquet(tmp_path / "p.parquet", PICTURES, label=label, group=[1.5] * 6,
                             wnid=[7] * 6)  # fmt: skip
        records = open_images([path]).records
        assert [r.label for r in records] == wanted
        assert {r.wnid for r in records} == {"7"}
        assert {r.group for r in records} == {"1.5"}
        if label[0] == "cat":
            assert [r.name for r in records][:2] == ["cat", "dog"]


@pytest.mark.parametrize("kind", ["short", "text", "bits", "empty", "no rows"])
def test_damaged_files_are_said_in_words(tmp_path: Path, kind: str) -> None:
    path = write_parquet(tmp_path / "p.parquet", noise(40))
    content = path.read_bytes()
    if kind == "short":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "text":
        path.write_text("hello")
    elif kind == "bits":
        path.write_bytes(content[:50] + b"\xff" * 4000 + content[4050:])
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        written(path, pa.array([], pa.binary()))
    with pytest.raises(InputError, match=r"cannot read|no images in"):
        open_images([path])
