"""Training: what is held out stays out, training units are what they say, the smoke recipe."""

import gzip
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from milanx.splits import held_out, photo_group
from milanx.train.corpus import Corpus
from milanx.train.meanings import Meaning, named_meanings, pixel_meanings, training_photos
from milanx.train.photos import Photo, PhotoFeatures
from milanx.train.phrases import clean_name, held_out_names, mentions, plural, whole_words
from milanx.train.splits import HELD_OUT_CALTECH
from milanx.train.text import near_duplicates

COLOURS = {"apple": (200, 30, 30), "leaf": (40, 140, 30), "lake": (30, 60, 190)}


def _png(image: Image.Image, mode: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, mode)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of training data in the layout that recipes name."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(48):
        name = list(COLOURS)[i % 3]
        image = Image.fromarray(
            rng.integers(90, 160, (96, 120, 3), dtype=np.uint8).astype(np.uint8)
        )
        box = (20, 10, 80, 70)
        ImageDraw.Draw(image).ellipse(box, COLOURS[name])
        mask = Image.new("L", image.size)
        ImageDraw.Draw(mask).ellipse(box, 255)
        rows.append({
            "image": {"bytes": _png(image), "path": f"{i}.png"}, "name": name,
            "captions": [f"a {name} number {i}", f"the {name} on a grey wall"],
            "regions": [{"name": name, "mask": _png(mask), "crowd": False}],
        })  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), root / "photos.parquet")
    with gzip.open(root / "captions.txt.gz", "wt") as file:
        file.writelines(f"a {n} next to {m} number {i}\n" for i in range(40)
                        for n in COLOURS for m in ("a wall", "two dogs"))  # fmt: skip
    with gzip.open(root / "descriptions.csv.gz", "wt") as file:
        file.write("kind,model,layer,unit,description\n")
        file.writelines(f"human,net,layer1,{i},red round things {i}\n" for i in range(30))
    return root


def _fake(photos: list[Photo], d: int = 10) -> PhotoFeatures:
    made = PhotoFeatures.__new__(PhotoFeatures)
    made.photos = photos
    made.dense = np.random.default_rng(0).random((len(photos), 64, d)).astype(np.float16)
    return made


def _photo(source: str = "s", group: str = "g", name: str | None = None, wnid: str | None = None,
           captions: tuple[str, ...] = (), regions: tuple = ()) -> Photo:  # fmt: skip
    return Photo(source, group, name, wnid, captions, regions)


def test_groups_of_one_photograph_and_one_video() -> None:
    assert photo_group("coco_val2017_000000223959.webp", "x") == photo_group(
        "a/000000223959.webp", "y"
    )
    assert photo_group("camvid_0006R0_f01440.webp", "x") == photo_group(
        "camvid_0006R0_f00930.webp", "y"
    )
    assert photo_group("349889354_4b2889a9bd.webp", "x") == "x"


def test_held_out_share() -> None:
    share = np.mean([held_out(str(i), 0.2) for i in range(5000)])
    assert 0.18 < share < 0.22


def test_held_out_meanings_and_groups_are_not_trained_on() -> None:
    groups = [f"g{i}" for i in range(400)]
    photos = [_photo("captions", g, captions=("a dog",)) for g in groups]
    photos += [_photo("regions", g) for g in groups]  # the same photographs in another file
    photos += [_photo("caltech101", "h1", name=HELD_OUT_CALTECH[0]),
               _photo("tiny_imagenet_train", "h2", name="goldfish", wnid="n01443537"),
               _photo("captions", "h3", captions=("two llamas on a hill",)),
               _photo("caltech101", "h4", name="panda")]  # fmt: skip
    keep = training_photos(_fake(photos), 0.1, 0.2)
    assert keep[-4:].tolist() == [False, False, False, keep[-1]]
    assert keep[-1]
    kept = {p.group for p, k in zip(photos, keep, strict=True) if k}
    left = {p.group for p, k in zip(photos, keep, strict=True) if not k}
    assert not kept & left
    assert 0.1 < len([g for g in left if g.startswith("g")]) / 400 < 0.3


def test_near_duplicates_equal_the_plain_version() -> None:
    held = ["A dog runs in the snow.", "two men play football", "red"]
    sentences = ["a dog runs in the snow", "a dog runs in snow", "two men play", "Red!", "blue",
                 "the snow in a dog runs", "two men play football together"]  # fmt: skip

    def plain(a: str, b: str) -> float:
        x = set(a.lower().replace(".", "").replace("!", "").split())
        y = set(b.lower().replace(".", "").replace("!", "").split())
        return len(x & y) / len(x | y)

    expected = [any(plain(s, h) >= 0.8 for h in held) for s in sentences]
    assert near_duplicates(sentences, held).tolist() == expected
    assert sum(expected) == 5
    assert not near_duplicates(sentences, []).any()


def test_names_are_cleaned_and_pluralised() -> None:
    assert clean_name("wall-other-merged") == "wall"
    assert clean_name("sea_horse") == "sea horse"
    assert clean_name("playingfield") == "playing field"
    assert plural("bus") == "buses"
    assert plural("grass") == "grass"
    assert plural("traffic light") == "traffic lights"
    words = whole_words(held_out_names())
    assert mentions("three llamas stand", words)
    assert mentions("a goldfish", words)
    assert not mentions("a fish and a hen", words)


def test_meanings_and_units() -> None:
    grid = tuple([255] * 4 + [0] * 60)
    photos = [_photo("s", str(i), name="apple" if i % 2 else "tree-merged",
                     regions=(("sky", grid),)) for i in range(40)]  # fmt: skip
    features = _fake(photos)
    keep = np.arange(40) >= 4
    meanings = named_meanings(features, keep)
    names = {m.texts[0]: m for m in meanings}
    assert {"apple", "tree", "sky"} <= names.keys()
    assert all(m.photos.min() >= 4 for m in meanings)
    assert names["sky"].grids is not None
    corpus = Corpus(features, [names["apple"], names["sky"]], keep, exemplars=7)
    batch = corpus.batch(20, np.random.default_rng(0))
    assert batch.features.shape == (20, 7, 2, 10)
    assert batch.valid[:, :6].all()
    for text in batch.texts:
        assert set(text.split(" and ")) <= {"apple", "apples", "sky", "skies"}
    again = corpus.batch(20, np.random.default_rng(0))
    assert again.texts == batch.texts
    assert (again.features == batch.features).all()


def test_pure_sets_are_pooled_where_the_region_is() -> None:
    grid = np.zeros((6, 64), np.uint8)
    grid[:, :8] = 255
    features = _fake([_photo(group=str(i)) for i in range(6)])
    features.dense[:, :8] = 1
    features.dense[:, 8:] = 0
    meaning = Meaning(("top",), "region", np.arange(6), grid, countable=False)
    corpus = Corpus(features, [meaning], np.ones(6, bool), exemplars=6, min_purity=1.0)
    batch = corpus.batch(16, np.random.default_rng(0))
    masked, whole = (
        batch.features[batch.valid][:, 0].mean(),
        batch.features[batch.valid][:, 1].mean(),
    )
    assert abs(float(whole) - 8 / 64) < 0.01
    assert masked > 0.4  # loosened masks still lie mostly on the region


def test_colours_are_read_off_pixels() -> None:
    photos = [_photo(group=str(i)) for i in range(20)]
    features = _fake(photos)
    features.dense[:, :, -6:] = 0.5
    features.dense[:8, :20, -6:-3] = (0.75, 0.12, 0.12)
    found = {m.texts[0]: m for m in pixel_meanings(features, np.ones(20, bool))}
    assert sorted(found["red areas"].photos) == list(range(8))
    assert (found["red areas"].grids[:, :20] == 255).all()
    assert (found["red areas"].grids[:, 20:] == 0).all()
    assert "blue areas" not in found


def test_smoke_recipe_makes_a_describer(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from milanx.describer import Describer
    from milanx.train.loop import train

    monkeypatch.setenv("MILANX_CACHE", str(tmp_path / "cache"))
    out = train("smoke", [f"data.root={data}"], out=tmp_path / "made")
    describer = Describer.load(out)
    assert describer.name == "smoke"
    assert len(describer.prior(["red things", "a lake"])) == 2
    assert str(tmp_path) not in (out / "describer.json").read_text()
    assert "Data and its terms" in (out / "README.md").read_text()
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("stage.json")}
    again = train("smoke", [f"data.root={data}"], out=tmp_path / "again")
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("stage.json")} == stamps
    assert (again / "describer.json").read_bytes() == (out / "describer.json").read_bytes()
