"""Probe images: sources, unreadable ones, groups, the split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from milanx.errors import InputError
from milanx.files import fingerprint
from milanx.images.probe import FEW, ImageRecord, ProbeImages, open_images
from milanx.images.sources import place_of
from tests.helpers import PREPROCESS, noise, png, write_parquet

ASIDE = "63ce350b90d53aa3"  # fingerprint of the built-in images' names kept aside at seed 0


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


def test_many_threads_read_one_parquet_file(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    pictures = noise(64)
    images = open_images([write_parquet(tmp_path / "p.parquet", pictures)])
    order = np.random.default_rng(0).integers(0, 64, 400).tolist()
    with ThreadPoolExecutor(8) as pool:
        for index, found in zip(order, pool.map(images.read, order), strict=True):
            assert np.array_equal(np.asarray(found), np.asarray(pictures[index]))


def test_forty_copies_and_three_photos_are_said_in_words(tmp_path: Path) -> None:
    (one,) = noise(1, side=90, seed=1)
    copies = tmp_path / "copies"
    copies.mkdir()
    for i in range(40):
        one.save(copies / f"{i}.jpg", quality=95 - i)
    images = open_images([copies])
    assert (len(images), images.distinct) == (40, 1)
    assert images.split().all()
    assert images.notes[0].startswith("40 images show 1 distinct photo; near-duplicates")
    assert images.notes[1].startswith("few images: 1 distinct photo;")
    three = open_images([folder(tmp_path / "three", 3)])
    assert three.distinct == 3
    assert three.notes[0].startswith("few images: 3 distinct photos;")
    enough = open_images([write_parquet(tmp_path / "p.parquet", noise(FEW))])
    assert enough.notes == ()
    assert open_images(["builtin:probe"]).notes == ()


def test_what_is_half_copies_of_one_photo_keeps_them_among_the_exemplars(tmp_path: Path) -> None:
    """Kept aside, the copies would leave a third of the images to learn from, or less."""
    path = tmp_path / "half"
    path.mkdir()
    for i, image in enumerate([*noise(1, side=90, seed=1) * 22, *noise(18, side=90, seed=2)]):
        image.save(path / f"{i:02d}.png")
    images = open_images([path])
    for seed in range(30):
        chosen = images.split(seed=seed)
        assert chosen[:22].all()
        assert 1 <= (~chosen).sum() <= 8


def test_a_photo_of_one_source_is_on_the_side_of_its_likeness_in_another(tmp_path: Path) -> None:
    """Groups of one's own and likeness are united, through images of both kinds."""
    film = noise(12, side=90, seed=3)
    clips = write_parquet(tmp_path / "clips.parquet", film, group=[f"c{i // 3}" for i in range(12)])
    mine = tmp_path / "mine"
    mine.mkdir()
    film[4].save(mine / "from-clip-1.jpg", quality=85)
    film[5].resize((70, 80)).save(mine / "also-clip-1.png")
    noise(1, side=90, seed=8)[0].save(mine / "other.png")
    for order in ([clips, mine], [mine, clips]):
        images = open_images(order)
        group = {r.path: r.group for r in images.records}
        assert len({group[p] for p in ("3.png", "4.png", "5.png", "from-clip-1.jpg",
                                       "also-clip-1.png")}) == 1  # fmt: skip
        assert len(set(group.values())) == 5
        for seed in range(20):
            chosen = images.split(0.3, seed)
            sides: dict[str, bool] = {}
            for record, kept in zip(images.records, chosen.tolist(), strict=True):
                assert sides.setdefault(record.group, kept) == kept


def a_source(
    root: Path, pictures: dict[int, Image.Image], rng: np.random.Generator
) -> tuple[Path, dict[str, int]]:
    """Write some photos as one data set may hold them, and say which file shows which photo.

    A folder or a parquet file, with groups of its own or without, in any order; every photo at
    another size, often squashed, as PNG or JPEG.
    """
    root.mkdir()
    files, shows = [], {}
    for number in rng.permutation(list(pictures)).tolist():
        size = tuple(int(v) for v in rng.integers(60, 130, 2))
        small = pictures[number].resize(size, Image.Resampling.BICUBIC)
        kind = ("PNG", "JPEG")[int(rng.integers(2))]
        files.append((f"{len(files)}.{kind.lower()}", png(small, kind), number))
        shows[files[-1][0]] = number
    if rng.random() < 0.5:
        for name, content, _ in files:
            (root / name).write_bytes(content)
        return root, shows
    rows = {"image": [{"bytes": content, "path": name} for name, content, _ in files]}
    if rng.random() < 0.5:  # clips of three photos
        rows["group"] = [f"{root.name}-{n // 3}" for _, _, n in files]
    path = root / f"{root.name}.parquet"
    pq.write_table(pa.table(rows), path, row_group_size=5)
    return path, shows


@pytest.mark.parametrize("seed", range(12))
def test_no_photo_of_several_sources_is_ever_on_both_sides(seed: int, tmp_path: Path) -> None:
    """Two to four sources that share photos, named in any order, all of them or a sample."""
    rng = np.random.default_rng(seed)
    pictures = dict(enumerate(noise(40, side=110, seed=seed)))
    shows: dict[tuple[str, str], int] = {}
    specs = []
    for number in range(int(rng.integers(2, 5))):
        some = rng.permutation(40)[: int(rng.integers(12, 30))].tolist()
        path, files = a_source(tmp_path / f"s{number}", {i: pictures[i] for i in some}, rng)
        specs.append(path)
        shows |= {(f"s{number}", name): photo for name, photo in files.items()}
    order = [specs[i] for i in rng.permutation(len(specs))]
    for limit in (None, 45):
        images = open_images(order, limit=limit)
        shown = [shows[record.source, record.path] for record in images.records]
        group: dict[int, str] = {}
        for record, number in zip(images.records, shown, strict=True):
            assert group.setdefault(number, record.group) == record.group
        assert images.distinct == len(group)
        for split in range(15):
            kept = images.split(0.3, split)
            sides = [{n for n, k in zip(shown, kept, strict=True) if k == side}
                     for side in (True, False)]  # fmt: skip
            assert not sides[0] & sides[1]
            assert sides[0]


@pytest.mark.parametrize("specs", [("mine", "mine"), ("mine", "copy"), ("mine", "mine.parquet")])
def test_a_source_that_is_named_twice_is_one_photo_each(
    specs: tuple[str, str], tmp_path: Path
) -> None:
    pictures = noise(20, side=80, seed=4)
    for name in ("mine", "copy"):
        (tmp_path / name).mkdir()
        for i, picture in enumerate(pictures):
            picture.save(tmp_path / name / f"{'x' * (name == 'copy')}{i}.png")
    write_parquet(tmp_path / "mine.parquet", pictures, group=[f"g{i}" for i in range(20)])
    images = open_images([tmp_path / spec for spec in specs])
    assert (len(images), images.distinct) == (40, 20)
    assert len({r.group for r in images.records}) == 20
    for seed in range(10):
        sides: dict[str, bool] = {}
        for record, kept in zip(images.records, images.split(0.3, seed).tolist(), strict=True):
            assert sides.setdefault(record.fingerprint, kept) == kept


def test_a_built_in_photo_among_ones_own_is_on_its_side(tmp_path: Path) -> None:
    from milanx.images import builtin

    shown = next(view for view in builtin.views() if view.kind == "whole")
    mine = folder(tmp_path / "mine")
    shown.read().save(mine / "same.png")
    images = open_images([mine, "builtin:probe"])
    group = {(r.source, r.path): r.group for r in images.records}
    assert group["mine", "same.png"] == group["builtin:probe", shown.path]


def test_the_built_in_split_stays_as_it_is() -> None:
    images = open_images(["builtin:probe"])
    aside = [r.path for r, kept in zip(images.records, images.split(), strict=True) if not kept]
    assert len(aside) == 186
    assert fingerprint(aside) == ASIDE


def test_an_image_that_goes_away_is_said_in_words(tmp_path: Path) -> None:
    path = folder(tmp_path / "p")
    images = open_images([path])
    (path / "dogs" / "0.png").unlink()
    place = [r.path for r in images.records].index("dogs/0.png")
    with pytest.raises(InputError, match=r"dogs/0\.png of p cannot be read any more"):
        list(images.iterate(range(len(images)), PREPROCESS, 4))
    with pytest.raises(InputError) as caught:
        images.read(place)
    assert caught.value.why == "there is no such file"


@pytest.mark.parametrize("spec", ["phtos", "nowhere/at/all", "photos/*.jpg"])
def test_a_missing_path_says_what_is_near_it(tmp_path: Path, spec: str) -> None:
    folder(tmp_path / "photos")
    with pytest.raises(InputError) as caught:
        open_images([tmp_path / spec])
    assert "photos" in caught.value.why or "cats, dogs" in caught.value.why
    said = {"phtos": "did you mean photos?", "photos/*.jpg": "without * and ?"}
    assert said.get(spec, "give a folder") in str(caught.value)


def test_home_is_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path / "photos", 4)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    images = open_images(["~/photos"])
    assert len(images) == 4
    assert images.sources[0].name == "photos"
    assert place_of("~/photos") == {"path": str((tmp_path / "photos").resolve())}
    folder(tmp_path / "~" / "photos", 5)  # what has the very name goes first
    assert len(open_images(["~/photos"])) == 5
    with pytest.raises(InputError, match="no images at ~nobody-here/photos"):
        open_images(["~nobody-here/photos"])


def test_images_are_checked_before_the_target_is_loaded(tmp_path: Path) -> None:
    from milanx.exemplars.inputs import open_inputs
    from milanx.exemplars.request import Request

    for spec in (tmp_path / "missing", tmp_path):
        request = Request(target="tests.helpers:absent", layers=("x",), images=(str(spec),))
        with pytest.raises(InputError, match="no images"):
            open_inputs(request)
