"""Shards of webdataset: what an image's files say, patterns, and tar files that mean harm."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

import milanx
from milanx.errors import InputError
from milanx.images import shards
from milanx.images.probe import open_images
from milanx.images.shards import Shards
from tests.helpers import noise, png, tiny


def write(path: Path, files: dict[str, bytes], extra: list[tarfile.TarInfo] | None = None) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in extra or ():
            tar.addfile(info)
    return path


def some(count: int, seed: int = 0) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for i, picture in enumerate(noise(count, seed=seed)):
        files[f"{i:05d}.png"] = png(picture)
        files[f"{i:05d}.cls"] = str(i % 3).encode()
    return files


def test_images_and_labels_are_read(tmp_path: Path) -> None:
    opened = open_images([write(tmp_path / "a.tar", some(9))])
    assert [r.label for r in opened.records] == [0, 1, 2] * 3
    assert opened.records[2].path == "a.tar/00002.png" and opened.sources[0].kind == "shards"
    for i, picture in enumerate(noise(9)):
        assert (np.asarray(opened.read(i)) == np.asarray(picture)).all()


@pytest.mark.parametrize(("files", "wanted"), [
    ({".cls": b"7\n"}, (7, None, None, None)),
    ({".cls": b"tabby cat"}, (None, "tabby cat", None, None)),
    ({".json": json.dumps({"label": 2, "name": "dog", "group": "g", "wnid": "n01"}).encode()},
     (2, "dog", "g", "n01")),
    ({".json": b'{"name": "dog"}', ".cls": b"4"}, (4, "dog", None, None)),
    ({".txt": b"a dog"}, (None, "a dog", None, None)),
    ({".cls": b"1", ".txt": b"x"}, (1, None, None, None)),
    ({}, (None, None, None, None)), ({".cls": b""}, (None, None, None, None)),
    ({".cls": "\u00e9\u00e8".encode()}, (None, "éè", None, None)),
])  # fmt: skip
def test_what_is_said_of_an_image(
    tmp_path: Path, files: dict[str, bytes], wanted: tuple[object, ...]
) -> None:
    content = {"x.jpg": png(noise(1)[0], "JPEG"), **{f"x{k}": v for k, v in files.items()}}
    for names in (content, dict(reversed(content.items()))):
        (item,) = Shards([write(tmp_path / "a.tar", names)], "a").items()
        assert (item.label, item.name, item.group, item.wnid) == wanted


def test_patterns_name_shards_in_order(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / f"s-{i:03d}.tar", some(2, seed=i))
    for spec in ("s-*.tar", "s-{000..002}.tar", "s-00[0-2].tar"):
        opened = open_images([str(tmp_path / spec)])
        assert [r.path for r in opened.records][::2] == [
            f"s-{i:03d}.tar/00000.png" for i in range(3)
        ]
    with pytest.raises(InputError, match="1 of 4 shards are not there"):
        open_images([str(tmp_path / "s-{000..003}.tar")])
    with pytest.raises(InputError, match="no shards"):
        open_images([str(tmp_path / "t-*.tar")])
    with pytest.raises(InputError, match="too many"):
        open_images([str(tmp_path / "s-{0..99999999}.tar")])
    with pytest.raises(InputError) as caught:
        open_images([tmp_path])
    assert "*.tar" in str(caught.value)


def hostile(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def test_what_means_harm_is_told_and_passed_over(tmp_path: Path) -> None:
    content = png(noise(1)[0])
    path = write(
        tmp_path / "a.tar",
        {**some(3), "../out.png": content, "/etc/abs.png": content, "a/../../b.png": content,
         ".hidden.png": content, "sub/fine.png": png(noise(1, seed=7)[0])},
        [hostile("link.png", tarfile.SYMTYPE, "/etc/passwd"),
         hostile("hard.png", tarfile.LNKTYPE, "00000.png"), hostile("dev.png", tarfile.CHRTYPE),
         hostile("fifo.png", tarfile.FIFOTYPE), hostile("sub", tarfile.DIRTYPE)],
    )  # fmt: skip
    opened = open_images([path])
    assert [r.path for r in opened.records] == [
        "a.tar/00000.png", "a.tar/00001.png", "a.tar/00002.png", "a.tar/sub/fine.png"]  # fmt: skip
    said = {s.path: s.why for s in opened.skipped}
    assert len(said) == 7
    assert said["a.tar/link.png"] == said["a.tar/hard.png"] == "it is a link"
    assert "leads out" in said["a.tar/../out.png"] and "leads out" in said["a.tar//etc/abs.png"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar"]


def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MOST_IMAGE", 30000)
    monkeypatch.setattr(shards, "MOST_SAID", 10)
    files = some(2) | {"big.png": bytes(40000), "00000.json": b'{"label": 12345}'}
    opened = open_images([write(tmp_path / "a.tar", files)])
    assert len(opened) == 2
    assert {s.path: s.why for s in opened.skipped} == {
        "a.tar/big.png": "it has 40000 bytes; at most 30000 are read",
        "a.tar/00000.json": "it has 16 bytes; at most 10 are read"}  # fmt: skip


def test_a_header_that_promises_too_much(tmp_path: Path) -> None:
    info = tarfile.TarInfo("huge.png")
    info.size = 2**40
    path = write(tmp_path / "a.tar", some(2))
    with tarfile.open(path, "a") as tar:
        tar.fileobj.write(info.tobuf())  # type: ignore[union-attr]
    opened = open_images([path])
    assert len(opened) == 2


def test_a_shard_that_was_cut_short_gives_what_is_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", some(6))
    whole = path.read_bytes()
    counts = set()
    for end in range(600, len(whole), 1777):
        path.write_bytes(whole[:end])
        try:
            opened = open_images([path])
        except InputError as error:
            assert "no images" in error.what or "cannot read" in error.what
            continue
        counts.add(len(opened))
        for i in range(len(opened)):
            opened.read(i)
    assert len(counts) > 2 and max(counts) <= 6


def test_random_bytes_change_nothing_unsaid(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = write(tmp_path / "a.tar", some(4))
    whole = bytearray(path.read_bytes())
    for _ in range(60):
        content = bytearray(whole)
        for place in rng.integers(0, len(whole), 8):
            content[place] = rng.integers(0, 256)
        path.write_bytes(content)
        try:
            opened = open_images([path])
        except InputError:
            continue
        assert len(opened) + len(opened.skipped) >= 1


@pytest.mark.parametrize(
    "content", [b"", b"no tar file at all" * 100, gzip.compress(bytes(2048), mtime=0)]
)
def test_what_is_no_tar_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    with pytest.raises(InputError):
        open_images([path])


def test_damaged_json_skips_its_image(tmp_path: Path) -> None:
    files = some(2) | {"00001.json": b'{"label": '}
    opened = open_images([write(tmp_path / "a.tar", files)])
    assert len(opened) == 1 and len(opened.skipped) == 1


def test_two_files_of_one_name_are_two_images(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for picture in noise(2):
            info = tarfile.TarInfo("same.png")
            content = png(picture)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    opened = open_images([path])
    assert [r.path for r in opened.records] == ["a.tar/same.png", "a.tar/same.png#1"]
    assert opened.records[0].fingerprint != opened.records[1].fingerprint


def test_a_shard_is_a_source_as_any(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", some(12))
    store = milanx.extract(tiny(), layers=["conv2"], images=str(path), out=tmp_path / "run")
    assert [r["source"] for r in store.image_table()] == ["a"] * 12
    settings = json.loads((tmp_path / "run" / "run.json").read_text())
    assert settings["images"]["sources"][0]["path"] == str(path)
    pattern = str(tmp_path / "?.tar")
    milanx.extract(tiny(), layers=["conv2"], images=pattern, out=tmp_path / "pattern")
    settings = json.loads((tmp_path / "pattern" / "run.json").read_text())
    assert settings["images"]["sources"][0]["spec"] == pattern
    again = milanx.extract(tiny(), layers=["conv2"], images=str(path), out=tmp_path / "run")
    assert again.fingerprint == store.fingerprint
