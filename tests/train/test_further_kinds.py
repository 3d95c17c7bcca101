"""Meanings that a recipe can ask for: parts, colours of regions, materials, light, kinds."""

import csv
import gzip
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageDraw

from milanx.errors import InputError
from milanx.features.classes import ClassHead
from milanx.language.people import says_colour_of_people
from milanx.train.data.above import classes_below
from milanx.train.data.kinds import Kind, read_kinds, read_words
from milanx.train.data.photos import Photo, PhotoFeatures, Region
from milanx.train.data.stacked import Stacked
from milanx.train.recipe import KINDS, Data, KindShare, PhotoData, load_recipe
from milanx.train.units import recognised
from milanx.train.units.coloured import coloured_meanings
from milanx.train.units.corpus import SHARES, Corpus, kind_shares
from milanx.train.units.division import divide
from milanx.train.units.facts import (
    caption_meanings,
    claimed,
    disk,
    light_meanings,
    material_meanings,
    scene_meanings,
)
from milanx.train.units.ground import below, ground_meanings
from milanx.train.units.hypernyms import hypernym_meanings, many_of
from milanx.train.units.meanings import FURTHER, Meaning
from milanx.train.units.parts import part_meanings
from milanx.train.units.phrases import (
    held_out_names,
    mentions,
    whole_words,
)
from tests.train.test_draws import encoder, png, units_of

SIDE = 4
EMPTY = Photo("s", "g", None, None, (), ())
ALL = KindShare("class", 0.2), *(KindShare(kind, 0.1) for kind in FURTHER)


def cells(*places: int) -> tuple[int, ...]:
    """Cells of a grid of 4 x 4 that are filled."""
    return tuple(255 * (i in places) for i in range(SIDE**2))


def features(photos: Sequence[Photo], brightness: float = 0.5) -> PhotoFeatures:
    made: Any = PhotoFeatures.__new__(PhotoFeatures)
    made.photos = [replace(p, group=str(i)) for i, p in enumerate(photos)]
    made.dense = np.full((len(photos), SIDE**2, 12), brightness, np.float16)
    return made


def texts_of(meanings: Sequence[Meaning]) -> dict[str, Meaning]:
    return {text: m for m in meanings for text in m.texts}


def everything(photos: PhotoFeatures) -> np.ndarray:
    return np.ones(len(photos), bool)


def test_stacked_arrays_are_read_as_one() -> None:
    rng = np.random.default_rng(0)
    one = rng.random((11, 3, 4)).astype(np.float16)
    several = Stacked([one[:4], one[4:5], one[5:]])
    assert several.shape == one.shape and len(several) == 11
    rows = np.array([10, 0, 4, 4, 7])
    indices = [3, -1, np.int64(5), slice(2, 9, 3), slice(3, 3), rows, one[:, 0, 0] > 0.5,
               (slice(2, 9), slice(None), slice(1, 3)), (rows, slice(0, 2)), (4, 1)]  # fmt: skip
    for index in indices:
        np.testing.assert_array_equal(several[index], one[index])
    with pytest.raises(IndexError):
        several[11]


def test_parts_are_said_of_their_things_and_of_all() -> None:
    def animal(name: str, *shown: int) -> Photo:
        regions = [Region(name, cells(*range(12)))]
        regions += [Region(f"{name} ear", cells(*shown), name)] if shown else []
        return replace(EMPTY, regions=tuple(regions))

    street = (
        Region("car door", cells(5)),
        Region("car", cells(4, 5)),
        Region("wheel", cells(13)),
        Region("person hand", cells(6), "person"),
        Region("car hood", cells(7), "car"),
    )
    photos = features([animal("dog", 1)] * 7 + [animal("cat", 2)] * 6 + [animal("dog")] * 2 +
                      [replace(EMPTY, regions=street)] * 6)  # fmt: skip
    found = texts_of(part_meanings(photos, everything(photos)))
    assert {m.kind for m in found.values()} == {"part"}
    assert {"dog ears", "ear of a dog", "ears of dogs", "cat ears", "ears", "ears of animals",
            "animal ears", "car doors", "door of a car", "hands of people",
            "human hands"} <= found.keys()  # fmt: skip
    assert "wheels" not in found and "dogs" not in found  # of one thing alone; no part at all
    assert found["dog ears"].photos.tolist() == [*range(7)]
    assert (found["dog ears"].grids == np.array(cells(1))).all()
    against = found["dog ears"].contrast
    assert against is not None and sorted(against.tolist()) == [*range(7, 15)]
    assert found["ears"].photos.tolist() == [*range(13)]
    assert sorted(np.asarray(found["ears"].contrast).tolist()) == [13, 14]


def test_colours_of_regions_are_told_from_other_colours() -> None:
    shirts = [Region("shirt", cells(5), colour="red"), Region("shirt", cells(6), colour="blue"),
              Region("shirt", cells(7))]  # fmt: skip
    grass = Region("grass-merged", cells(12, 13), colour="green")
    photos = features([replace(EMPTY, regions=(shirts[i % 3], grass)) for i in range(24)])
    found = texts_of(coloured_meanings(photos, everything(photos)))
    assert found.keys() == {"red shirts", "red shirt", "blue shirts", "blue shirt"}
    red = found["red shirt"]
    assert set(red.photos % 3) == {0} and set(np.asarray(red.contrast) % 3) == {1, 2}
    assert "green grass" not in found  # all of it is green: nothing is said


@pytest.mark.parametrize(
    ("name", "owner"),
    [("person", ""), ("pedestrian", ""), ("skin", ""), ("nose", "human face"), ("arm", "person"),
     ("person legs", ""), ("horse leg", ""), ("ear", "dog")],
)  # fmt: skip
def test_no_colour_is_said_of_people_and_of_what_boxes_cut_out(name: str, owner: str) -> None:
    one = [Region(name, cells(5), owner, colour=c) for c in ("black", "gray")]
    hat = [Region("hat", cells(2), colour=c) for c in ("black", "gray")]
    photos = features([replace(EMPTY, regions=(one[i % 2], hat[i % 2])) for i in range(24)])
    found = texts_of(coloured_meanings(photos, everything(photos)))
    assert found.keys() == {"black hats", "black hat", "gray hats", "gray hat"}


@pytest.mark.parametrize(
    ("text", "says"),
    [("a black man", True), ("Skin of white people", True), ("dark-skinned woman", True),
     ("two white elderly ladies", True), ("a man in a black shirt", False), ("white dogs", False),
     ("black manhole covers", False), ("brown skin", True), ("a white childhood", False)],
)  # fmt: skip
def test_nobody_learns_to_call_people_by_a_colour(text: str, says: bool) -> None:
    assert says_colour_of_people(text) == says


def test_a_region_is_of_the_colour_inside_its_mask(tmp_path: Path) -> None:
    rows = []
    for i in range(6):
        image, inside, box = Image.new("RGB", (64, 64), (40, 140, 30)), *(
            Image.new("L", (64, 64)) for _ in range(2))  # fmt: skip
        ImageDraw.Draw(image).ellipse((20, 20, 44, 44), (200, 30, 30))
        ImageDraw.Draw(inside).ellipse((20, 20, 44, 44), 255)
        ImageDraw.Draw(box).rectangle((20, 20, 44, 44), 255)
        regions = [{"name": "ball", "mask": png(inside), "part_of": None},
                   {"name": "ball top", "mask": png(box), "part_of": "ball"}]  # fmt: skip
        rows.append({"image": {"bytes": png(image), "path": f"{i}.png"}, "regions": regions,
                     "source": "made", "group": f"made/{i}"})  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "parts.parquet")
    from milanx.train.data.photos import PhotoSource, photo_features

    found = photo_features(encoder(), [PhotoSource(tmp_path / "parts.parquet")])
    for i, photo in enumerate(found.photos):
        assert (photo.origin, photo.group) == ("made", f"made/{i}")
        told = [(r.name, r.part_of, r.colour) for r in photo.regions]
        assert told == [("ball", "", "red"), ("ball top", "ball", "")]


def test_what_lies_below_things() -> None:
    cow, grass = Region("cow", cells(5, 6)), Region("grass", cells(8, 9, 10, 12, 13, 14, 15))
    under = below([cow], grass).reshape(SIDE, SIDE) > 0
    assert under.tolist() == np.array([[0] * 4, [0] * 4, [0, 1, 1, 0], [0, 1, 1, 0]], bool).tolist()
    assert not below([Region("cow", cells(14, 15))], Region("grass", cells(0, 1))).any()
    field = replace(EMPTY, regions=(cow, grass))
    bare = replace(EMPTY, regions=(grass,))
    photos = features([field] * 6 + [bare] * 3)
    found = texts_of(ground_meanings(photos, everything(photos)))
    assert {"grass under animals", "ground under animals"} <= found.keys()
    assert found["grass under animals"].photos.tolist() == [*range(6)]
    assert sorted(np.asarray(found["grass under animals"].contrast).tolist()) == [6, 7, 8]
    assert (found["ground under animals"].grids > 0).sum() == 6 * 4


def test_facts_about_whole_photos() -> None:
    names = ["metal"] * 6 + ["forest"] * 6 + ["night"] * 7 + ["daylight"] * 6 + ["crow"] * 6
    photos = features([replace(EMPTY, name=name) for name in names])
    made = texts_of(material_meanings(photos, everything(photos)))
    assert made["metal"].photos.tolist() == [*range(6)]
    assert (np.asarray(made["metal"].grids) == disk(16)).all()
    assert disk(16).reshape(4, 4)[0, 0] == 0 < disk(16).reshape(4, 4)[1, 1]
    scenes = texts_of(scene_meanings(photos, everything(photos)))
    assert scenes.keys() == {"forests", "forest scenes", "woods"}
    light = texts_of(light_meanings(photos, everything(photos), 0))
    assert sorted(np.asarray(light["night"].contrast).tolist()) == [*range(19, 25)]
    assert "dark scenes" not in light
    dim = features([EMPTY] * 6, brightness=0.1)
    assert light_meanings(dim, everything(dim), 0)[0].texts[1] == "dark scenes"
    assert claimed(SHARES) == frozenset()
    shares = kind_shares([KindShare("light", 0.1)])
    assert {"night", "daylight"} <= claimed(shares) and "metal" not in claimed(shares)


def test_captions_that_photos_have_in_common_are_facts() -> None:
    said = [("striped clothes",), ("fruit, kiwi, delicious",), ("a dog and a man on a beach",),
            ("delicious",), ("two men", "a smile and white"),
            ("bacon, garlic, cream",)]  # fmt: skip
    photos = features([replace(EMPTY, captions=said[i % 6]) for i in range(42)])
    found = {m.texts[0]: (m.kind, m.photos.tolist()) for m in
             caption_meanings(photos, everything(photos))}  # fmt: skip
    assert found["striped clothes"] == ("attribute", [*range(0, 42, 6)])
    assert found["kiwis"] == ("dish", [*range(1, 42, 6)])
    assert found.keys() == {"striped clothes", "kiwis", "fruit", "bacon", "garlic"}


def kind(wnid: str, name: str, above: str, **more: Any) -> Kind:
    listed = tuple(above.split("|"))
    return Kind(wnid, name, more.get("lemmas", (name,)), listed, more.get("parts", ()),
                more.get("sure", True))  # fmt: skip


KNOWN = (
    kind("n01", "hawk", "bird of prey|bird|animal|entity"),
    kind("n02", "owl", "bird of prey|bird|animal|entity"),
    kind("n03", "robin", "oscine|bird|animal|entity"),
    kind("n04", "oboe", "musical instrument|device|entity"),
    kind("n05", "harp", "musical instrument|device|entity"),
    kind("n06", "crane", "bird of prey|bird", sure=False),
)


def test_kinds_above_classes_come_from_a_dictionary() -> None:
    names = [k.name for k in KNOWN for _ in range(6)]
    wnids = [k.wnid if k.name != "harp" else None for k in KNOWN for _ in range(6)]
    photos = features([replace(EMPTY, name=n, wnid=w) for n, w in zip(names, wnids, strict=True)])
    found = texts_of(hypernym_meanings(photos, everything(photos), KNOWN))
    # The dictionary is not sure of the crane; nobody says device; animal holds what bird holds.
    assert found.keys() == {"birds of prey", "birds", "musical instruments"}
    assert found["birds of prey"].photos.tolist() == [*range(12)]
    assert found["musical instruments"].photos.tolist() == [*range(18, 30)]
    assert many_of("wind instrument") == "wind instruments"


def test_classes_and_kinds_that_a_classifier_recognises(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("hawk", "owl", "eagle", "oboe", "harp")
    head = ClassHead(torch.eye(5, 12) * 20, torch.zeros(5), names)
    monkeypatch.setattr(recognised, "class_head", lambda encoder: head)
    photos = features([EMPTY] * 29, brightness=0.0)
    for i in range(29):  # six views of each class but the last, which has five
        photos.dense[i, :, i % 5] = 1.0
    birds = tuple(kind(f"n{i}", n, "bird of prey|bird|animal|entity")
                  for i, n in enumerate(("hawk", "owl", "eagle")))  # fmt: skip
    rest = tuple(kind(f"m{i}", n, "device|entity") for i, n in enumerate(("oboe", "harp")))
    found = texts_of(recognised.recognised_meanings(
        encoder(), photos, everything(photos), (*birds, *rest), {"owl"}))  # fmt: skip
    assert found.keys() == {"hawk", "eagle", "oboe", "birds of prey"}
    assert found["oboe"].photos.tolist() == [*range(3, 29, 5)]
    assert found["birds of prey"].photos.tolist() == [i for i in range(29) if i % 5 < 3]
    kept = everything(photos)
    kept[3] = False  # five views are too few
    assert "oboe" not in texts_of(recognised.recognised_meanings(encoder(), photos, kept, (), ()))


def test_tables_of_kinds_and_words(tmp_path: Path) -> None:
    table, words = tmp_path / "kinds.csv.gz", tmp_path / "words.csv"
    with gzip.open(table, "wt", newline="") as file:
        csv.writer(file).writerows([
            ("wnid", "name", "lemmas", "hypernyms", "parts", "candidates"),
            ("n01", "Hawk", "hawk|bird hawk", "bird", "", "1"), ("n02", "crane", "", "", "", "3"),
        ])  # fmt: skip
    one, two = read_kinds(table)
    assert one == Kind("n01", "hawk", ("hawk", "bird hawk"), ("bird",), (), sure=True)
    assert not two.sure and two.parts == ()
    words.write_text("kind,word\nobject,Red  box\npart,-\nobject,t-shirt\nobject,red box\n")
    assert read_words(words) == ["red box"]
    with pytest.raises(InputError, match="lacks the column wnid, name, lemmas"):
        read_kinds(words)
    with pytest.raises(InputError, match="is missing"):
        read_words(tmp_path / "none.csv")


def test_a_held_out_meaning_is_held_out_with_synonyms_kinds_and_parts() -> None:
    known = (kind("n01443537", "goldfish", "fish", lemmas=("goldfish", "carassius auratus")),
             kind("n0", "comet goldfish", "goldfish|fish", lemmas=("comet goldfish", "comet")),
             kind("n1", "hedgehog", "mammal", parts=("quill", "foot")),
             kind("n2", "fox", "mammal", parts=("foot",)),
             kind("n3", "ferry", "boat", lemmas=("ferry", "ferryboat"), sure=False))  # fmt: skip
    added = set(held_out_names(known)) - set(held_out_names())
    assert {"comet goldfish", "comet", "quill"} <= added
    assert not {"foot", "fox", "fish", "ferryboat"} & added


def _photos(root: Path) -> Data:
    """Write two files that show some of the same photographs, and one of photos to be left out."""
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (8, 9, 3), np.uint8)).resize(
        (72, 64), Image.Resampling.BICUBIC) for _ in range(90)]  # fmt: skip

    def row(i: int, smaller: int = 0, **more: Any) -> dict[str, Any]:
        image = images[i].resize((72 - smaller, 64 - smaller))
        return {"image": {"bytes": png(image), "path": f"{i}-{smaller}.png"}, **more}

    mask = Image.new("L", (72, 64))
    ImageDraw.Draw(mask).rectangle((8, 8, 30, 30), 255)

    def regions(i: int) -> list[dict[str, Any]]:
        owner = "llama" if i % 10 == 9 else "dog" if i % 2 else "cat"
        return [{"name": owner, "mask": png(mask), "part_of": None},
                {"name": f"{owner} ear", "mask": png(mask), "part_of": owner}]  # fmt: skip

    parts = [row(i, regions=regions(i), group=f"made/{i}", source="ab"[i % 2]) for i in range(60)]
    facts = [row(i, 4, name="glass" if i % 2 else "wood", captions=["red llamas" if i == 89 else
             "striped clothes"], group=f"other/{i}") for i in range(40, 90)]  # fmt: skip
    kept = [row(i, 2) for i in (3, 50, 80)]
    for name, rows in (("parts", parts), ("facts", facts), ("kept", kept)):
        pq.write_table(pa.Table.from_pylist(rows), root / f"{name}.parquet")
    return Data(
        root=str(root), sentences="", descriptions="", without=("kept.parquet",),
        near_duplicates=True, shares=ALL, photos=(
            PhotoData("parts.parquet", views=2, held_out=0.2, by_origin=True),
            PhotoData("facts.parquet", held_out=0.2)),
    )  # fmt: skip


def test_what_is_held_out_is_held_out_in_every_file(tmp_path: Path) -> None:
    data = replace(_photos(tmp_path), shares=tuple(s for s in ALL if s.kind != "hypernym"))
    units, table = units_of(tmp_path, data)
    photos, keep = units.photos.photos, units.views.keep
    names = [int(p.group.split("/")[1]) for p in photos]
    kept = {n for n, k in zip(names, keep, strict=True) if k}
    left = {n for n, k in zip(names, keep, strict=True) if not k}
    assert not kept & left  # 40 to 59 stand in both files, in two sizes
    assert {3, 50, 80, 89} <= left
    assert {p.source for p in photos} == {"parts: a", "parts: b", "facts"}
    assert 8 < len(left) < 40
    again = [replace(p, group=q.group) for p, q in zip(units.photos.photos, photos, strict=True)]
    loose = divide(again, replace(data, without=()))
    assert {3, 50, 80} - {n for n, k in zip(names, loose.keep, strict=True) if not k}
    # No text says a held-out meaning, not even as the owner of a part.
    words = whole_words(held_out_names())
    texts = {text for entry in table.entries for text in entry.texts}
    assert {"dog ears", "ears", "wood", "striped clothes"} <= texts
    assert not [text for text in texts if mentions(text, words)]
    shown = {int(i) for entry in table.entries for i in
             table.photo[entry.start : entry.start + entry.photos * entry.variants]}  # fmt: skip
    assert shown <= set(np.flatnonzero(keep).tolist())


def test_kinds_are_drawn_as_often_as_a_recipe_says(tmp_path: Path) -> None:
    data = replace(_photos(tmp_path), shares=(KindShare("part", 0.5), KindShare("material", 0.5)))
    _, table = units_of(tmp_path, data)
    made = {entry.kind for entry in table.entries}
    assert {"part", "material"} <= made and not {"ground", "attribute", "light"} & made
    only = {**dict.fromkeys(SHARES, 0.0), "part": 0.3, "material": 0.1}
    corpus = Corpus(table, shares=only)
    assert corpus.kinds == ["material", "part"]
    rng = np.random.default_rng(0)
    drawn = [corpus.unit(rng).kind for _ in range(600)]
    assert drawn.count("part") / 600 == pytest.approx(0.75, abs=0.06)
    assert {"dog ears", "wood"} <= set(corpus.vocabulary())


def test_a_recipe_says_shares_and_files(tmp_path: Path) -> None:
    assert set(KINDS) == SHARES.keys() - {"annotated"}
    path = tmp_path / "r.yaml"
    path.write_text("data:\n  photos: [{file: a.parquet, held_out: 0.2}]\n"
                    "  shares: [{kind: parts, share: 0.1}, "
                    "{kind: hypernym, share: 0.1}]\n")  # fmt: skip
    with pytest.raises(InputError) as error:
        load_recipe(path)
    assert "data.shares has no kind 'parts'; did you mean part, phrase?" in str(error.value.why)
    assert "data.shares of hypernym needs data.kinds" in str(error.value.why)
    fine = load_recipe(path, ["data.shares=[{kind: part, share: 0.1}]"])
    assert kind_shares(fine.data.shares)["part"] == 0.1
    assert kind_shares(fine.data.shares)["class"] == SHARES["class"]


def test_kinds_above_classes_leave_out_what_may_mean_another_thing() -> None:
    def kind(name: str, *above: str, sure: bool = True) -> Kind:
        return Kind(name, name, (name,), above, (), sure)

    rows = [kind("tree frog", "frog", "animal", sure=False), kind("bullfrog", "frog", "animal"),
            kind("newt", "animal"), kind("crane", "machine", sure=False),
            kind("plow", "machine"), kind("tailed frog", "frog", "frog", "animal")]  # fmt: skip
    assert classes_below(rows) == {"animal": [0, 1, 2, 5], "frog": [0, 1, 5]}
