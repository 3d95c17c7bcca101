"""The cache of scans: what is kept, what is never kept, and that nothing depends on it."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from milanx.images import folder as folders
from milanx.images import probe, scan
from milanx.images.probe import open_images
from tests.helpers import noise, png


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six photos and a broken one; the cache beside them."""
    path = tmp_path / "photos"
    path.mkdir()
    for i, image in enumerate(noise(6)):
        image.save(path / f"{i}.png")
    (path / "broken.png").write_bytes(png(noise(1)[0])[:60])
    monkeypatch.setenv("MILANX_CACHE", str(tmp_path / "cache"))
    return path


def looked(run: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> int:
    """Count how many images are decoded for their hash."""
    seen, lock, real = [], threading.Lock(), scan.picture_hash

    def count(image: object) -> str:
        with lock:
            seen.append(1)
        return real(image)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(scan, "picture_hash", count)
        run()
    return len(seen)


def kept(photos: Path) -> Path:
    (path,) = (photos.parent / "cache" / "scans").iterdir()
    return path


def test_a_scan_is_kept(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_images([photos])
    assert looked(lambda: open_images([photos]), monkeypatch) == 0
    again = open_images([photos])
    assert (again.records, again.skipped) == (first.records, first.skipped)
    assert [s.path for s in again.skipped] == ["broken.png"]


def change(content: dict, how: str) -> str:
    if how == "hashes":  # altered by hand
        content["rows"][0], content["rows"][1] = content["rows"][1], content["rows"][0]
    elif how == "made unreadable":
        content["rows"][2] = ["", "it is no image"]
    elif how == "older":
        content = {"format": "milanx-scan", "version": 1, "rows": content["rows"]}
    elif how == "newer":
        content["version"] = 99
    elif how == "fewer":
        content["rows"] = content["rows"][:-1]
        content["digest"] = scan.fingerprint(content["rows"])
    elif how == "other rows":
        content["rows"] = [1, "x", [], None, ["a"], {}, [None, None]]
        content["digest"] = scan.fingerprint(content["rows"])
    elif how == "list":
        return "[1, 2]"
    elif how == "half":
        return json.dumps(content)[:70]
    elif how == "deep":
        return "[" * 100_000
    return json.dumps(content) if how != "empty" else ""


@pytest.mark.parametrize(
    "how",
    ["hashes", "made unreadable", "older", "newer", "fewer", "other rows", "list", "half", "deep",
     "empty", "bytes"],
)  # fmt: skip
def test_a_damaged_altered_or_older_one_is_made_again_once(
    photos: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = open_images([photos])
    path = kept(photos)
    whole = path.read_bytes()
    if how == "bytes":
        path.write_bytes(b"\xff\xfe\x00" * 50)
    else:
        path.write_text(change(json.loads(whole), how))
    found = open_images([photos])
    assert (found.records, found.skipped) == (wanted.records, wanted.skipped)
    assert path.read_bytes() == whole
    assert looked(lambda: open_images([photos]), monkeypatch) == 0


def test_another_pillow_looks_anew(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it cannot open today it may open after an update."""
    open_images([photos])
    monkeypatch.setattr(scan, "__version__", "99.0")
    assert looked(lambda: open_images([photos]), monkeypatch) == 6


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.EACCES, errno.ESTALE, None])
@pytest.mark.parametrize("when", ["listed", "decoded"])
def test_a_fault_of_the_machine_is_never_kept(
    photos: Path, number: int | None, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = open
    opened: dict[str, int] = {}

    def failing(path: object, *args: object, **options: object) -> object:
        name = os.path.basename(str(path))
        opened[name] = opened.get(name, 0) + 1
        if name in ("1.png", "3.png") and opened[name] == (1 if when == "listed" else 2):
            raise MemoryError if number is None else OSError(number, os.strerror(number))
        return real(path, *args, **options)  # type: ignore[call-overload]

    if number is None and when == "listed":
        pytest.skip("little memory is taken to list")
    with monkeypatch.context() as patch:
        patch.setattr(folders, "open", failing, raising=False)
        images = open_images([photos])
    assert {s.path for s in images.skipped} == {"1.png", "3.png", "broken.png"}
    assert len(images) == 4
    again = open_images([photos])
    assert [s.path for s in again.skipped] == ["broken.png"]
    assert len(again) == 6


@pytest.mark.parametrize("kind", ["file", "null", "link", "read-only", "full", "io"])
def test_a_cache_that_cannot_be_written_stops_nothing(
    photos: Path, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wanted = open_images([photos])
    place = tmp_path / "other"
    if kind == "file":
        place.write_text("x")
    elif kind == "null":
        place = Path("/dev/null/cache")
    elif kind == "link":
        place.symlink_to(tmp_path / "nowhere" / "deep")
    else:
        number = {"read-only": errno.EROFS, "full": errno.ENOSPC, "io": errno.EIO}[kind]

        def refuse(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(Path, "write_text", lambda *_, **__: refuse())
    monkeypatch.setenv("MILANX_CACHE", str(place))
    images = open_images([photos, photos])
    assert images.records[:6] == wanted.records
    said = [n for n in images.notes if "looked at again" in n]
    if kind == "link":  # it can be made where the link leads
        assert len(said) <= 1
        return
    assert len(said) == 1
    assert str(place) in said[0]
    assert "MILANX_CACHE" in said[0]
    assert "\n" not in said[0]


def test_no_home_stops_nothing(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: str) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(scan, "cache_dir", nowhere)
    images = open_images([photos])
    assert len(images) == 6
    assert "there is no folder for caches" in images.notes[-1]
    assert probe.FEW > 6
    assert images.notes[-2].startswith("few images")
