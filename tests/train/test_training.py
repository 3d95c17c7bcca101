"""Training: what is held out stays out, training units are what they say, the smoke recipe."""

import gzip
import io
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageDraw

from milanx.errors import InputError
from milanx.features.encoder import GEOMETRY
from milanx.features.pixels import SHOWN, colour_cells
from milanx.images.splits import held_out, photo_group
from milanx.train.data.photos import Photo, PhotoFeatures, Region
from milanx.train.data.splits import HELD_OUT_CALTECH
from milanx.train.recipe import BaseSettings, CriticSettings, Recipe
from milanx.train.stages.critic import new_set_encoder, targets, train_critic
from milanx.train.stages.source_leak import told_apart
from milanx.train.units.corpus import Corpus, Unit
from milanx.train.units.grounded import correlations
from milanx.train.units.joined import attributes, joined_meanings
from milanx.train.units.meanings import (
    Meaning,
    Views,
    named_meanings,
    region_meanings,
    training_photos,
)
from milanx.train.units.phrases import clean_name, held_out_names, mentions, whole_words
from milanx.train.units.pixels import pixel_meanings
from milanx.train.units.pretraining import near_duplicates
from milanx.train.units.table import Table, build_table
from milanx.train.units.vocabulary import auroc, person_phrases, sentence_phrases
from tests.train.tiny import desk_for

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
    keep = training_photos(photos, 0.1, 0.2)
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


def test_names_are_cleaned() -> None:
    assert clean_name("wall-other-merged") == "wall"
    assert clean_name("sea_horse") == "sea horse"
    assert clean_name("playingfield") == "playing field"
    words = whole_words(held_out_names())
    assert mentions("three llamas stand", words)
    assert mentions("a goldfish", words)
    assert not mentions("a fish and a hen", words)


def _encoder() -> Any:
    """An encoder whose joint space is the first four channels of its features."""
    spec = SimpleNamespace(grid=8, joint=4, pixel_channels=10)
    return SimpleNamespace(
        spec=spec, width=16, last_channels=6, device=torch.device("cpu"),
        joint=lambda x: torch.nn.functional.normalize(x[..., :4], dim=-1),
        texts=lambda texts: torch.nn.functional.normalize(
            torch.tensor([[len(t) % 3 + 0.1, t.count("a"), t.count("e"), 1.0] for t in texts]),
            dim=-1,
        ),
    )  # fmt: skip


def _table(
    tmp_path: Path, photos: PhotoFeatures, meanings: list[Meaning], held: Sequence[int] = ()
) -> Table:
    everything, checked = np.ones(len(photos), bool), np.zeros(len(photos), bool)
    checked[list(held)] = True
    build_table(_encoder(), Views(photos, everything, checked), meanings, tmp_path, seed=0)
    return Table(tmp_path)


def test_meanings_and_units(tmp_path: Path) -> None:
    grid, other = tuple([255] * 4 + [0] * 60), tuple([0] * 60 + [255] * 4)
    photos = [_photo("s", str(i), name="apple" if i % 2 else "tree-merged",
                     regions=(Region("sky", grid), Region("sea", other))[: 1 + i % 2])
              for i in range(40)]  # fmt: skip
    features = _fake(photos, 16)
    keep = np.arange(40) >= 4
    meanings = named_meanings(features, keep) + region_meanings(features, keep)
    names = {m.texts[0]: m for m in meanings}
    assert {"apple", "tree", "fruit", "sky", "sea"} == names.keys()
    known = [a for a in attributes(features, keep, []) if a.family == "region"]
    joined = joined_meanings(known, seed=0)
    assert [(m.kind, len(m.photos)) for m in joined] == [("both", 18), ("without", 18)]
    both, without = joined
    assert all(set(t.split(" and ")) <= {"sky", "skies", "sea", "seas"} for t in both.texts)
    assert all(t.split(" without ")[0] in ("sky", "skies") for t in without.texts)
    assert set(both.photos % 2) == {1}
    assert set(without.photos % 2) == {0}
    assert set(without.contrast % 2) == {1}
    assert all(m.photos.min() >= 4 for m in [*meanings, *joined])
    assert (both.grids == np.maximum(np.array(grid), np.array(other))).all()
    table = _table(tmp_path, features, [names["apple"], names["sky"], without])
    corpus = Corpus(table, exemplars=7)
    batch = corpus.batch(60, np.random.default_rng(0))
    assert batch.evidence.features.shape == (60, 7, 2, 16 + SHOWN + GEOMETRY)
    assert batch.evidence.joint.shape == (60, 7, 2, 4)
    assert batch.evidence.valid[:, :6].all()
    assert len(set(batch.texts)) > 4
    for text in batch.texts:
        assert set(text.split(" or ")) <= {"apple", "apples", "sky", "skies", *without.texts}
    again = corpus.batch(60, np.random.default_rng(0))
    assert again.texts == batch.texts
    assert (again.evidence.features == batch.evidence.features).all()


def test_training_and_check_share_no_photo(tmp_path: Path) -> None:
    features = _fake([_photo(group=str(i)) for i in range(60)], 16)
    grids = np.full((20, 64), 255, np.uint8)
    meanings = [Meaning(("a",), "class", np.arange(20), grids),
                Meaning(("b",), "region", np.arange(20, 40), grids),
                Meaning(("c",), "region", np.arange(40, 60), grids)]  # fmt: skip
    table = _table(tmp_path, features, meanings, held=[*range(0, 60, 4), 41])
    seen: dict[bool, set[int]] = {False: set(), True: set()}
    rng = np.random.default_rng(0)
    for check, shown in seen.items():
        corpus = Corpus(table, check=check)
        for _ in range(80):
            unit = corpus.unit(rng)
            shown |= set((unit.rows if unit.whole else table.photo[unit.rows]).tolist())
            if not check:  # contrast views of a check carry no word
                shown |= set(unit.contrast.tolist())
    assert not seen[False] & seen[True]
    assert len(seen[True]) > 10
    assert sum(Corpus(table).frequencies().values()) == pytest.approx(1)


def _hashed(text: str) -> torch.Tensor:
    """A text's vector, near to that of its plural."""
    own, other = (
        torch.randn(4, generator=torch.Generator().manual_seed(zlib.crc32(t.encode())))
        for t in (text.rstrip("s"), text)
    )
    return torch.nn.functional.normalize(own + 0.1 * other, dim=0)


def test_critic_learns_which_text_agrees(tmp_path: Path) -> None:
    photos = [_photo(group=str(i)) for i in range(120)]
    features = _fake(photos, 16)
    words = ["one", "fourteen", "apples and pears", "sea"]
    grids = np.full((30, 64), 255, np.uint8)
    meanings = []
    for i, word in enumerate(words):
        features.dense[30 * i : 30 * (i + 1), :, 4 + i] += 8
        meanings.append(Meaning((word,), "region", np.arange(30 * i, 30 * (i + 1)), grids,
                                countable=False))  # fmt: skip
    table = _table(tmp_path, features, meanings, held=range(0, 120, 5))
    critic = CriticSettings(width=32, steps=300, batch_size=64, learning_rate=1e-2)
    recipe = Recipe(base=BaseSettings(width=16, heads=2), critic=critic)
    corpus = Corpus(table, min_purity=0.9)
    check = Corpus(table, min_purity=0.9, check=True)
    encoder = _encoder()
    encoder.texts = lambda texts: torch.stack([_hashed(t) for t in texts])
    set_encoder = new_set_encoder(recipe, encoder, corpus, words)
    facts = train_critic(desk_for(tmp_path, recipe, encoder), set_encoder, corpus, check)
    right = facts["first_right"]["region"][0]
    assert right > 0.9
    assert dict(facts["held_out"])[facts["best_step"]] < 0.8  # two senses cannot be told for sure


def test_the_least_loss_on_the_check_is_kept(tmp_path: Path) -> None:
    """Of few photographs known by heart the last weights are not the best."""
    features = _fake([_photo(group=str(i)) for i in range(60)], 16)
    grids = np.full((20, 64), 255, np.uint8)
    meanings = [Meaning((w,), "region", np.arange(20 * i, 20 * (i + 1)), grids, countable=False)
                for i, w in enumerate(("one", "fourteen", "sea"))]  # fmt: skip
    table = _table(tmp_path, features, meanings, held=range(0, 60, 4))
    corpus, check = Corpus(table), Corpus(table, check=True)
    encoder = _encoder()
    base = BaseSettings(width=16, heads=2)
    critic = CriticSettings(width=64, steps=250, batch_size=32, learning_rate=1e-2)
    recipe = Recipe(base=base, critic=critic)
    set_encoder = new_set_encoder(recipe, encoder, corpus, ["one", "fourteen", "sea"])
    desk = desk_for(tmp_path, recipe, encoder)
    facts = train_critic(desk, set_encoder, corpus, check)
    losses = dict(facts["held_out"])
    assert [*losses] == [100, 200, 250]
    assert losses[facts["best_step"]] == min(losses.values()) < losses[250]
    still = replace(recipe, critic=replace(critic, steps=1, learning_rate=1e-12))
    again = train_critic(desk_for(tmp_path / "again", still, encoder), set_encoder, corpus, check)
    assert again["held_out"] == [[1, pytest.approx(min(losses.values()), abs=1e-3)]]


def test_meanings_of_few_photographs_are_left_out(tmp_path: Path) -> None:
    """Twelve views of two photographs say nothing that could be learned."""
    features = _fake([_photo(group=str(i // 6 if i < 12 else i)) for i in range(40)], 16)
    grids = np.full((12, 64), 255, np.uint8)
    meanings = [Meaning((w,), "region", np.arange(start, start + 12), grids)
                for w, start in (("two photographs", 0), ("twelve photographs", 12))]  # fmt: skip
    corpus = Corpus(_table(tmp_path, features, meanings))
    assert [e.texts for e in corpus.by_kind["region"]] == [("twelve photographs",)]
    assert corpus.vocabulary() == ["twelve photographs"]


def test_sources_that_look_apart_are_told(tmp_path: Path) -> None:
    """Sources of other brightness are told by features, and by texts where the critic errs."""
    photos = [_photo(source="ab"[i % 2], group=str(i)) for i in range(160)]
    features = _fake(photos, 16)
    grids = np.full((80, 64), 255, np.uint8)
    either = [Meaning((w,), "phrase", np.arange(80) + 80 * i, grids, countable=False)
              for i, w in enumerate(("one", "fourteen"))]  # fmt: skip
    corpora = {}
    for name, shift in (("alike", 0), ("apart", 9)):
        moved = PhotoFeatures.__new__(PhotoFeatures)
        moved.photos, moved.dense = photos, features.dense.copy()
        moved.dense[1::2, :, :6] += shift
        (tmp_path / name).mkdir()
        table = _table(tmp_path / name, moved, either, held=range(0, 160, 3))
        corpora[name] = Corpus(table), Corpus(table, check=True)
    encoder = _encoder()
    found = {}
    for name, (corpus, check) in corpora.items():
        words = corpus.vocabulary()
        set_encoder = new_set_encoder(Recipe(base=BaseSettings(width=16, heads=2)), encoder,
                                      corpus, words)  # fmt: skip
        found[name] = told_apart(set_encoder, corpus, check, words)
    assert found["apart"]["chance"] == 0.5 and found["apart"]["units"] > 300
    assert found["apart"]["from_features"] == 1 and found["apart"]["each"] == {0: 1, 1: 1}
    assert found["alike"]["from_features"] < 0.75
    assert 0 <= found["apart"]["from_texts"] <= 1
    one = Corpus(_table(tmp_path, _fake([_photo(group=str(i)) for i in range(20)], 16),
                        [Meaning(("x",), "phrase", np.arange(20), grids[:20])]))  # fmt: skip
    assert told_apart(set_encoder, one, one, ["x"]) == {}


def test_targets_share_what_is_right() -> None:
    none = np.zeros(0, np.int64)
    one = Unit(none, False, none, "dogs", "class", (("dog",),))
    two = Unit(none, False, none, "dogs or a lake", "class", (("dog",), ("lake", "pond")))
    found = targets([one, two], {"dog": 0, "lake": 1, "pond": 2}, {"dogs or a lake": 0, "x": 1})
    assert found.tolist() == [[1, 0, 0, 0, 0], [0.25, 0.125, 0.125, 0.5, 0]]


def test_contrast_views_do_not_show_the_meaning(tmp_path: Path) -> None:
    features = _fake([_photo(group=str(i)) for i in range(30)], 16)
    meaning = Meaning(("thing",), "class", np.arange(10), np.full((10, 64), 255, np.uint8))
    table = _table(tmp_path, features, [meaning])
    assert len(table.entries[0].near) >= 5
    assert not set(table.entries[0].near.tolist()) & set(range(10))


def test_pure_sets_are_pooled_where_the_region_is(tmp_path: Path) -> None:
    grid = np.zeros((6, 64), np.uint8)
    grid[:, :8] = 255
    features = _fake([_photo(group=str(i)) for i in range(6)], 16)
    features.dense[:, :8] = 1
    features.dense[:, 8:] = 0
    meaning = Meaning(("top",), "region", np.arange(6), grid, countable=False)
    corpus = Corpus(_table(tmp_path, features, [meaning]), exemplars=6, min_purity=1.0)
    evidence = corpus.batch(16, np.random.default_rng(0)).evidence
    masked, whole = evidence.features[evidence.valid][..., :16].mean((0, 2))
    assert abs(float(whole) - 8 / 64) < 0.01
    assert masked > 0.4  # loosened masks still lie mostly on the region


def test_a_unit_of_one_source_shows_no_other(tmp_path: Path) -> None:
    """Meaning, impurities and contrast come from the source that was drawn."""
    sources = ["a", "b", "c"]
    features = _fake([_photo(source=sources[i % 3], group=str(i)) for i in range(60)], 16)
    shown = np.arange(0, 60, 2)  # of all three
    meaning = Meaning(("thing",), "class", shown, np.full((len(shown), 64), 255, np.uint8))
    alone = Meaning(("other",), "class", np.arange(0, 60, 3), np.full((20, 64), 255, np.uint8))
    corpus = Corpus(_table(tmp_path, features, [meaning, alone]), exemplars=9)
    rng = np.random.default_rng(0)
    mixed, joined = [], set()
    for _ in range(300):
        unit = corpus.unit(rng)
        views = unit.rows if unit.whole else corpus.table.photo[unit.rows]
        there = {int(s) for s in corpus.table.source[[*views, *unit.contrast]]}
        mixed.append(len(there) > 1)
        if len(unit.senses) == 2 and len(there) == 1:
            joined |= there if {s[0] for s in unit.senses} == {"thing", "other"} else set()
    assert 0.25 < np.mean(mixed) < 0.55  # ONE_SOURCE of them are not
    assert joined == {0}  # the only source that shows both


def test_basic_colours() -> None:
    said = {
        (200, 30, 40): "red", (240, 140, 20): "orange", (100, 60, 30): "brown",
        (230, 210, 40): "yellow", (50, 130, 60): "green", (120, 180, 80): "green",
        (40, 80, 180): "blue", (120, 180, 230): "blue", (110, 40, 130): "purple",
        (240, 150, 180): "pink", (250, 250, 250): "white", (128, 128, 128): "gray",
        (15, 15, 15): "black",
    }  # fmt: skip
    shown = colour_cells(np.array(list(said), np.float32) / 255)
    for i, name in enumerate(said.values()):
        assert [n for n, cells in shown.items() if cells[i]] == [name]


def test_colours_and_lines_are_read_off_pixels() -> None:
    features = _fake([_photo(group=str(i)) for i in range(20)], 16)
    features.dense[:, :, -10:] = 0.5
    features.dense[:, :, -4:] = 0.01
    features.dense[:8, :20, -10:-7] = (0.75, 0.12, 0.12)
    features.dense[12:, :30, -4] = 0.2
    found = {m.texts[0]: m for m in pixel_meanings(features, np.ones(20, bool), seed=0)}
    assert sorted(found["red areas"].photos) == list(range(8))
    assert (found["red areas"].grids[:, :20] == 255).all()
    assert (found["red areas"].grids[:, 20:] == 0).all()
    assert "blue areas" not in found
    assert sorted(found["vertical lines"].photos) == list(range(12, 20))
    assert "horizontal lines" not in found


def test_phrases_are_taken_from_sentences() -> None:
    found = sentence_phrases("A large brown dog is chasing a ball in the snow .")
    assert {"dog", "brown dog", "ball", "snow", "chasing ball"} <= found
    assert not {"a", "is", "in the"} & found


def test_people_say_only_what_can_be_seen() -> None:
    texts = ["a red dog", "objects", "dogs on grass", "quantum fields", "the dog"]
    found = person_phrases(texts, {"dog", "dogs", "grass"})
    assert sorted(found) == ["dog", "dogs on grass", "red dog"]


def test_correlations_equal_the_plain_version() -> None:
    rng = np.random.default_rng(0)
    peaks, shares = rng.random((60, 3), np.float32), rng.random((60, 2), np.float32)
    views, texts = rng.standard_normal((60, 4)), torch.randn(5, 4)
    sources = np.array(["a"] * 20 + ["b"] * 40)
    found = correlations(peaks, shares, views, texts, sources)
    told = np.concatenate([shares, views @ texts.numpy().T], 1)
    for c in range(3):
        for t in range(7):
            plain = [np.corrcoef(peaks[sources == s, c], told[sources == s, t])[0, 1] for s in "ab"]
            assert found[c, t] == pytest.approx(plain[0] / 3 + 2 * plain[1] / 3, abs=1e-4)


def test_auroc_counts_ordered_pairs() -> None:
    rng = np.random.default_rng(0)
    scores, positive = rng.random(40), rng.random(40) < 0.3
    pairs = [a > b for a in scores[positive] for b in scores[~positive]]
    assert abs(auroc(scores, positive) - np.mean(pairs)) < 1e-12


def test_smoke_recipe_makes_a_describer(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from milanx.describing.describer import Describer
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
    before = (out / "describer.json").stat().st_ino
    with pytest.raises(InputError, match="is there already"):
        train("smoke", [f"data.root={data}"], out=out)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds 'notes\.txt'"):
        train("smoke", [f"data.root={data}"], out=out, overwrite=True)
    assert (out / "describer.json").stat().st_ino == before
    (out / "notes.txt").unlink()
    train("smoke", [f"data.root={data}"], out=out, overwrite=True)
    assert (out / "describer.json").stat().st_ino != before
    assert {p.name for p in tmp_path.iterdir()} <= {"cache", "made", "again"}, "no leftovers"
