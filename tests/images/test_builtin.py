"""The built-in images: what they are, their groups, their credits."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import imagehash
import numpy as np
import pytest

import milanx
from milanx.images import builtin, composed
from milanx.images.near import NEAR
from milanx.images.photos import LICENCES, photos
from milanx.images.probe import open_images

ASSET = Path(milanx.__file__).parent / "assets" / "probe"
OURS = [photo for photo in photos() if photo.content]


def test_what_they_are() -> None:
    kinds = Counter(view.kind for view in builtin.views())
    assert len(OURS) == 256
    assert kinds["whole"] == kinds["crop"] == kinds["detail"] == len(photos()) == 273
    assert kinds["composed"] == len(composed.names()) == 100
    assert kinds["composed"] <= len(builtin.views()) / 5
    images = open_images(["builtin:probe"])
    assert len(images) == len(builtin.views()) == len({r.path for r in images.records}) == 919
    assert len({r.fingerprint for r in images.records}) == 919
    assert {r.source for r in images.records} == {"builtin:probe"}
    assert images.sources[0].demonstration
    assert images.sources[0].concepts == builtin.CONCEPTS


def test_every_part_of_them_holds_some_of_each_kind() -> None:
    """A limit takes every n-th image: no kind may be left out by it."""
    for count in (40, 150):
        records = open_images(["builtin:probe"], limit=count).records
        kinds = Counter(record.path.partition("/")[0] for record in records)
        assert len(kinds) == 4, kinds
        assert kinds["composed"] <= count / 5


def test_crops_and_series_are_never_on_both_sides() -> None:
    images = open_images(["builtin:probe"])
    chosen = images.split()
    sides: dict[str, set[bool]] = {}
    photos_aside = set()
    for record, kept in zip(images.records, chosen.tolist(), strict=True):
        kind, _, name = record.path.partition("/")
        thing = composed.group(name) if kind == "composed" else name
        sides.setdefault(thing, set()).add(kept)
        if not kept and kind != "composed":
            photos_aside.add(name)
    assert all(len(side) == 1 for side in sides.values())
    assert (~chosen).mean() == pytest.approx(0.2, abs=0.02)
    assert len(photos_aside) >= 50
    assert len({record.group for record in images.records}) >= 256
    series = [p.group for p in OURS if p.author == "91360966@N06" and p.title == "pole vaulting"]
    assert len(series) == 7
    assert len(set(series)) == 1


def test_photos_of_two_groups_are_no_near_duplicates() -> None:
    hashes = np.array([int(str(imagehash.dhash(p.open())), 16) for p in photos()], np.uint64)
    close = np.argwhere(np.bitwise_count(hashes[:, None] ^ hashes[None]) <= 2 * NEAR)
    assert [(photos()[i].name, photos()[j].name) for i, j in close if i < j] == []


def test_every_photo_opens_and_is_credited() -> None:
    table = (ASSET / "CREDITS.md").read_text()
    for photo in photos():
        image = photo.open()
        assert image.mode == "RGB"
        if photo.content:
            assert 229 <= min(image.size) <= 288
            assert photo.licence in ("CC BY 2.0", "CC BY-SA 2.0")
            assert photo.author or photo.source == "COCO"
        assert photo.page.startswith("http")
        line = next(line for line in table.splitlines() if f"| {photo.name} |" in line)
        assert f"[{photo.licence}]({LICENCES[photo.licence]})" in line
        assert photo.page in line
        assert (photo.author or "see page").replace("|", "\\|") in line
        assert (photo.title or "") in line
    assert table.count("\n| ") == len(photos()) + 2  # two heads
    assert sum(p.stat().st_size for p in ASSET.iterdir()) < 9e6


DIGEST = """
import hashlib
from milanx.images import builtin
from milanx.images.sources import open_source
digest = hashlib.sha256()
for view in builtin.views()[::9]:
    digest.update(view.path.encode() + view.group.encode() + view.read().tobytes())
print(digest.hexdigest(), open_source("builtin:probe", "x").info.fingerprint)
"""


def test_two_processes_see_the_same() -> None:
    found = [
        subprocess.run([sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True,
                       env=os.environ | {"PYTHONHASHSEED": seed}).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert found[0] == found[1]


def test_views_are_read_without_any_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "socket", refuse)
    photos.cache_clear()
    builtin.views.cache_clear()
    for view in builtin.views()[:40]:
        view.read()


def test_crops_lie_inside_their_photo_and_are_parts_of_it() -> None:
    whole = {view.photo.name: view for view in builtin.views() if view.photo is not None}
    for view in builtin.views()[::7]:
        if view.photo is None or view.kind == "whole":
            continue
        least, most = builtin.CROPS[view.kind]
        short = min(whole[view.photo.name].photo.open().size)
        width, height = view.read().size
        assert width == height
        assert least * short - 1 <= width <= most * short + 1
        left, top, right, bottom = builtin._box(view.photo.open().size, view.kind, view.path)
        assert 0 <= left < right <= view.photo.open().width
        assert 0 <= top < bottom <= view.photo.open().height


def test_composed_views_show_what_their_names_say() -> None:
    for name in composed.names():
        pixels = np.asarray(composed.draw(name))
        assert pixels.shape == (composed.SIDE, composed.SIDE, 3)
        shown = name.rpartition("-")[0]
        colours = len(set(map(bytes, pixels.reshape(-1, 3))))
        if shown in composed.COLOURS:
            colour = np.array(composed.COLOURS[shown])
            near = pixels.reshape(-1, 3).mean(0)
            assert np.abs(near / max(near.max(), 1) - colour / colour.max()).max() < 0.1
        elif shown in composed.WORDS:
            ground = pixels[0, 0]
            ink = (pixels != ground).any(2)
            margin = composed.MARGIN - 2  # glyphs may stand a pixel over their box
            assert ink[margin:-margin, margin:-margin].sum() == ink.sum() > 0.01 * ink.size
        elif shown != "gradient":
            assert colours == 2
