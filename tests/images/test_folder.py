"""Folders: which files are images, links and loops, hidden ones, names of every kind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from milanx.errors import InputError
from milanx.images import folder as module
from milanx.images.item import one_line, plain_name
from milanx.images.probe import open_images
from milanx.images.sources import open_source
from tests.helpers import noise, png

PICTURE = noise(1, seed=2)[0]


def place(path: Path, content: bytes | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(PICTURE) if content is None else content)
    return path


def paths(root: Path) -> list[str]:
    return [item.path for item in open_source(str(root), "x").items()]


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    place(root / "cat" / "a.png")
    place(outside / "dog" / "b.png")
    (root / "linked").symlink_to(outside)
    (root / "cat" / "self").symlink_to(".")
    (root / "cat" / "up").symlink_to(tmp_path)  # the folder lies in it
    (root / "top").symlink_to("/")
    (outside / "back").symlink_to(root)
    (root / "again").symlink_to(root / "cat")
    (root / "photo.png").symlink_to(outside / "dog" / "b.png")
    assert paths(root) == ["cat/a.png", "linked/dog/b.png", "photo.png"]
    (tmp_path / "way").symlink_to(root)
    assert len(paths(tmp_path / "way")) == 3


def test_many_links_among_folders_are_no_explosion(tmp_path: Path) -> None:
    for i in range(12):
        place(tmp_path / f"{i}" / "a.png")
        for j in range(12):
            (tmp_path / f"{i}" / f"to{j}").symlink_to(tmp_path / f"{j}")
    assert len(paths(tmp_path)) == 12


def test_links_to_nothing_are_listed(tmp_path: Path) -> None:
    place(tmp_path / "a.png")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "round").symlink_to("round")
    images = open_images([tmp_path])
    assert {(s.path, s.why) for s in images.skipped} == {
        ("gone.png", "it is a link to nothing"), ("round", "it is a link that leads to itself"),
    }  # fmt: skip
    assert images.notes[0].startswith("skipped 2 that cannot be read: ")


def test_what_is_hidden_is_not_read(tmp_path: Path) -> None:
    place(tmp_path / ".all" / "cat" / "a.png")
    for hidden in (".thumbnails/a.png", ".b.png", "__MACOSX/cat/._a.png", "cat/.c/d/e.png"):
        place(tmp_path / ".all" / hidden)
    assert paths(tmp_path / ".all") == ["cat/a.png"]  # which was named itself
    with pytest.raises(InputError, match="all in it is hidden"):
        open_images([tmp_path])


def test_whatever_pillow_opens_is_read_and_the_rest_is_counted(tmp_path: Path) -> None:
    Image.init()
    kinds = {".jpg": "JPEG", ".JPEG": "JPEG", ".jfif": "JPEG", ".jpe": "JPEG", ".PNG": "PNG",
             ".apng": "PNG", ".TIFF": "TIFF", ".tga": "TGA", ".pgm": "PPM", ".pnm": "PPM",
             ".dib": "DIB", ".ico": "ICO", ".gif": "GIF", ".pcx": "PCX", ".sgi": "SGI",
             ".im": "IM", ".jp2": "JPEG2000", ".webp": "WEBP", ".avif": "AVIF", ".qoi": "QOI",
             "": "JPEG", ".jpg_large": "JPEG", ".1": "PNG", ". Copy": "WEBP"}  # fmt: skip
    made = set()
    for number, (suffix, kind) in enumerate(kinds.items()):
        try:
            PICTURE.resize((32, 32)).save(tmp_path / f"{number}{suffix}", kind)
            made.add(f"{number}{suffix}")
        except (KeyError, OSError, ValueError):  # this Pillow does not write it
            (tmp_path / f"{number}{suffix}").unlink(missing_ok=True)
    assert len(made) >= 20
    for name in ("a.txt", "b.TXT", "c.json", "Thumbs.db", "README", "d.heic", "e.pdf"):
        place(tmp_path / name, b"none")
    place(tmp_path / "broken.webp", b"none")
    images = open_images([tmp_path])
    assert {r.path for r in images.records} == made
    assert [s.path for s in images.skipped] == ["broken.webp"]
    assert images.notes[1] == ("ignored 7 files that are no images: 2 .txt, 1 .db, 1 .heic, "
                               "1 .json, 1 .pdf, 1 no suffix")  # fmt: skip


@pytest.mark.parametrize(
    ("names", "said"),
    [(["a.heic", "b.heic", "c.txt"], "none of its 3 files is an image that can be read (2 .heic"),
     (["a.parquet"], "name the .parquet file itself")],
)  # fmt: skip
def test_a_folder_without_images_says_what_it_holds(
    tmp_path: Path, names: list[str], said: str
) -> None:
    for name in names:
        place(tmp_path / name, b"none")
    with pytest.raises(InputError) as caught:
        open_images([tmp_path])
    assert said in str(caught.value)


def test_a_single_image_is_told_from_other_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it is a single image"):
        open_images([place(tmp_path / "a.png")])
    with pytest.raises(InputError, match="it is a single file, and no parquet"):
        open_images([place(tmp_path / "a.csv", b"1,2")])
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="neither folder nor file"):
        open_images([tmp_path / "pipe"])
    assert paths(tmp_path) == ["a.png"]  # nobody waits for the pipe


def test_images_are_in_the_order_of_their_folders(tmp_path: Path) -> None:
    names = ["b/a.png", "a/z.png", "a.png", "a/b/c.png", "a b/x.png", "a-b.png", "Z.png"]
    for name in names:
        place(tmp_path / name)
    assert paths(tmp_path) == [p.relative_to(tmp_path).as_posix()
                               for p in sorted(tmp_path.rglob("*.png"))]  # fmt: skip


ODD = ["with space.png", "日本語 🐈.png", "new\nline.png", "tab\t.PNG", "<b>.png", "quote'\".png",
       "%20%s{}.png", "-rf.png", "#hash?.png", "back\\slash.png", "x" * 240 + ".png",
       "\u202eright.png", " lead.png"]  # fmt: skip


def test_names_of_every_kind_are_read(tmp_path: Path) -> None:
    for name in ODD:
        place(tmp_path / "class \n 猫" / name)
    raw = os.fsencode(tmp_path) + b"/caf\xe9/na\xefve.png"
    os.makedirs(os.path.dirname(raw))
    shutil.copy(tmp_path / "class \n 猫" / ODD[0], raw)
    images = open_images([tmp_path])
    assert {r.path for r in images.records} == {
        *(f"class \n 猫/{name}" for name in ODD), "caf\\xe9/na\\xefve.png",
    }  # fmt: skip
    assert {r.name for r in images.records} == {"class \n 猫", "caf\\xe9"}
    for index in range(len(images)):
        assert images.read(index).size == PICTURE.size
    assert one_line("a\nb\udce9") == "a\\nb\\xe9"
    assert plain_name("日本\udce9") == "日本\\xe9"


LOCALE = """
import json, sys, numpy as np
from pathlib import Path
from milanx.exemplars.extract import _write_images
from milanx.files import write_json
from milanx.images.probe import open_images
images = open_images([sys.argv[1]])
out = Path(sys.argv[2])
_write_images(out, images, np.ones(len(images), bool))
skipped = [s.path for s in images.skipped]
write_json(out / "run.json", "x", 1, {"path": sys.argv[1], "skipped": skipped})
print(images.fingerprint, *images.notes, file=sys.stderr)
"""


def test_names_survive_json_parquet_and_every_locale(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path) + b"/d\xe9p\xf4t"
    os.makedirs(root)
    for number, name in enumerate((b"caf\xe9.png", "日本 🐈.png".encode(), b"a.png")):
        noise(1, seed=number)[0].save(tmp_path / "x.png")
        shutil.copy(tmp_path / "x.png", root + b"/" + name)
    for name in (b"no\xe9.jpg", "なし\n.jpg".encode()):
        shutil.copy(__file__, root + b"/" + name)
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "PYTHON", "LANG"))}
    found = []
    for number, change in enumerate((
        {"LC_ALL": "C.UTF-8"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"},
    )):  # fmt: skip
        out = tmp_path / f"out{number}"
        out.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", LOCALE, root, str(out)], capture_output=True,
            env=plain | change | {"MILANX_CACHE": str(tmp_path / "cache")},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        table = pq.read_table(out / "images.parquet").to_pylist()
        written = json.loads((out / "run.json").read_text("utf-8"))
        assert [r["path"] for r in table] == ["a.png", "caf\\xe9.png", "日本 🐈.png"]
        assert {r["source"] for r in table} == {"d\\xe9p\\xf4t"}
        assert written["skipped"] == ["no\\xe9.jpg", "なし\n.jpg"]
        assert os.fsencode(written["path"]) == root or number
        found.append(done.stderr.split()[0])
    assert len(set(found)) == 1


def test_a_folder_that_cannot_be_entered_and_a_file_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the system refuses them; root, who may do all, is refused here by hand."""
    place(tmp_path / "in" / "a.png")
    place(tmp_path / "in" / "shut.png").chmod(0)
    place(tmp_path / "in" / "shut" / "b.png").parent.chmod(0)
    scandir, real = os.scandir, open

    def refuse(path: str, *args: object, **options: object):
        if str(path).endswith(("shut", "shut.png")):
            raise PermissionError(13, "Permission denied", path)
        return (real if args or options else scandir)(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "scandir", refuse)
        patch.setattr("builtins.open", refuse)
        images = open_images([tmp_path / "in"])
    assert [r.path for r in images.records] == ["a.png"]
    assert {(s.path, s.why) for s in images.skipped} == {
        ("shut", "reading it is not permitted"), ("shut.png", "reading it is not permitted"),
    }  # fmt: skip
    for shut in (tmp_path / "in" / "shut", tmp_path / "in" / "shut.png"):
        shut.chmod(0o755)
    assert len(open_images([tmp_path / "in"])) == 3  # nothing of it was kept
