"""P2's generator: what pixels show, what is planted, and how descriptions of it are scored."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from milanx.describing.describer import Describer
from milanx.describing.trained import FILE, Trained, TrainedPhoto, group_of
from milanx.errors import InputError
from milanx.evaluate.p2 import protocol
from milanx.evaluate.p2.atoms import KIND_OF, Lettering, lettering, pixel_atoms
from milanx.evaluate.p2.photos import PlantedPhoto, kinds_above, read_photos
from milanx.evaluate.p2.planted import PlantedUnit, SourcePool, generate
from milanx.evaluate.p2.protocol import _parts, plant_units
from milanx.evaluate.p2.texts import attribute_f1, committed_phrases, find_atoms, phrase_table
from milanx.evaluate.p2.variations import read_variations
from milanx.evaluate.protocols import Asked
from milanx.exemplars.planted import Meaning, combine
from milanx.files.kinds import RUN
from milanx.files.replacing import check_content
from milanx.images.near import picture_hash
from milanx.measures.crossing import Crossing
from milanx.report.check import seal
from tests.helpers import noise, png, write_parquet


def flat(*colours: tuple[int, int, int]) -> np.ndarray:
    """A view in horizontal bands of colours."""
    bands = np.array(colours, np.uint8)[:, None, None]
    return np.broadcast_to(bands, (len(colours), 224 // len(colours), 224, 3)).reshape(224, 224, 3)


@pytest.mark.parametrize(("colour", "name"), [
    ((200, 20, 30), "red"), ((30, 150, 40), "green"), ((30, 60, 200), "blue"),
    ((230, 215, 30), "yellow"), ((240, 140, 20), "orange color"), ((250, 250, 250), "white"),
    ((5, 5, 5), "black"), ((128, 128, 128), "grey"),
])  # fmt: skip
def test_colours(colour: tuple[int, int, int], name: str) -> None:
    found = {a for a in pixel_atoms(flat(colour)) if KIND_OF[a] == "colour"}
    assert found == {name}


def test_places_and_lines() -> None:
    found = pixel_atoms(flat((255, 255, 255), (100, 90, 80)))
    assert "bright things at the top" in found
    assert "bright things at the bottom" not in found
    assert found["bright areas"][:7].all()
    assert not found["bright areas"][7:].any()
    stripes = np.zeros((224, 224, 3), np.uint8)
    stripes[:, ::8] = 255
    assert "vertical lines" in pixel_atoms(stripes)
    assert "horizontal lines" not in pixel_atoms(stripes)
    assert "horizontal lines" in pixel_atoms(np.ascontiguousarray(stripes.transpose(1, 0, 2)))


def test_lettering_changes_its_box_alone() -> None:
    rng = np.random.default_rng(0)
    view = rng.integers(0, 255, (224, 224, 3), dtype=np.uint8)
    for _ in range(10):
        text = lettering(rng, 224)
        changed = (text.draw(view) != view).any(2)
        x0, y0, x1, y1 = text.box()
        inside = np.zeros((224, 224), bool)
        inside[max(y0 - 3, 0) : y1 + 4, max(x0 - 3, 0) : x1 + 4] = True
        assert changed[inside].mean() > 0.1
        assert not changed[~inside].any()
        assert text.cells(224).any()
    assert Lettering("AB", 40, 0, 0, (0, 0, 0)).cells(224)[:, 10:].sum() == 0


def test_the_committed_phrases_cover_every_atom_of_the_rules() -> None:
    known = committed_phrases()
    assert KIND_OF.keys() <= known.keys()
    assert kinds_above().keys() <= known.keys()


def test_atoms_in_a_text() -> None:
    table = phrase_table({"car", "sports car", "cars", "text", "red", "goldfish"})
    assert find_atoms("red sports cars without writing", table) == {
        "red": False, "sports car": False, "text": True}  # fmt: skip
    sports = Meaning(("sports car",))
    assert attribute_f1("sports cars", sports, table) == 1
    assert attribute_f1("sports cars, vehicles", sports, table) == 1
    assert attribute_f1("sports cars with text", sports, table) == pytest.approx(2 / 3)
    both = Meaning(("goldfish", "text"), "and-not")
    assert attribute_f1("goldfish without text", both, table) == 1
    assert attribute_f1("goldfish and text", both, table) == pytest.approx(0.5)


@pytest.fixture(scope="module")
def photos() -> list[PlantedPhoto]:
    rng = np.random.default_rng(0)
    made = []
    whole = np.ones((14, 14), np.float32)
    names = ["goldfish", "tench", "koala", "lion", "ox", "bee"]
    for number in range(240):
        atoms = {names[number % 6]: whole}
        for colour in ("red", "green", "blue"):
            if rng.random() < 0.4:
                y, x = rng.integers(0, 8, 2)
                cells = np.zeros((14, 14), np.float32)
                cells[y : y + 6, x : x + 6] = 1
                atoms[colour] = cells
        picture = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        made.append(PlantedPhoto(picture, atoms, "val", "class"))
        if rng.random() < 0.5:
            text = lettering(rng, 224)
            lettered = {**atoms, "text": text.cells(224)}
            made.append(PlantedPhoto(picture, lettered, "val", "class", text))
    return made


@pytest.fixture(scope="module")
def units(photos: list[PlantedPhoto]) -> list[PlantedUnit]:
    return generate(photos, 48, 0)


def test_units_mean_what_they_say(photos: list[PlantedPhoto], units: list[PlantedUnit]) -> None:
    again = generate(photos, 12, 0)
    assert [u.meaning for u in units[:12]] == [u.meaning for u in again]
    kinds = [u.meaning.connective for u in units]
    for kind, n in (("single", 24), ("and", 8), ("or", 8), ("and-not", 8)):
        assert abs(kinds.count(kind) - n) <= 1
    empty = np.zeros((14, 14), np.float32)
    for unit in units:
        maps = {a: np.stack([p.atoms.get(a, empty) for p in photos]) for a in unit.meaning.atoms}
        true = combine(maps, unit.meaning).max((1, 2)) >= 0.5
        there = unit.images[unit.images >= 0]
        assert true[there].mean() >= 0.65
        assert len(set(unit.choices)) == 5
        assert len({len(c.atoms) for c in unit.choices}) == 1
        assert unit.outside not in {c.phrase for c in unit.choices}
        assert (unit.activations[there] >= 0.9).all()
        silent = ~true
        silent[there] = False
        assert unit.activations[true].min() > unit.activations[silent].max()
        if "text" not in unit.meaning.atoms:
            assert all(photos[i].text is None for i in there)
    assert any(len({tuple(sorted(c.atoms)) for c in u.choices}) < 5 for u in units)


def test_pairs_can_be_told_from_their_parts(photos: list[PlantedPhoto]) -> None:
    pool = SourcePool(photos, "val", 0)
    assert {k for k, found in pool.meanings.items() if found} == {"single", "and", "or", "and-not"}
    assert Meaning(("goldfish", "tench"), "and") not in pool.meanings["and"]
    for meaning in pool.meanings["and"]:
        answer = pool.activation(meaning).max((1, 2)) >= 0.5
        for atom in meaning.atoms:
            alone = pool.activation(Meaning((atom,))).max((1, 2)) >= 0.5
            assert (alone & ~answer).sum() >= 4


def test_store_has_activations_and_views_for_contrast(
    photos: list[PlantedPhoto], units: list[PlantedUnit], tmp_path: Path
) -> None:
    store = plant_units(tmp_path / "planted", units, photos, 0)
    maxima = store.maxima("planted")
    assert maxima.shape == (len(photos), 48)
    assert store.means("planted").shape == maxima.shape
    held = store.view_indices()
    shown = {int(i) for u in units for i in u.images if i >= 0}
    assert shown < set(held.tolist())
    for number, unit in enumerate(units):
        low = maxima[held, number] < np.median(maxima[:, number])
        assert low.sum() >= 5
        if unit.meaning.connective == "and-not":
            first, second = unit.meaning.atoms
            assert any(first in photos[i].atoms and second in photos[i].atoms
                       for i in held[low])  # fmt: skip
    check_content(store.root, RUN)
    with pytest.raises(InputError, match="is not overwritten"):
        plant_units(store.root, units[:5], photos, 0)
    (store.root / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds 'notes\.txt'"):
        plant_units(store.root, units[:5], photos, 0, overwrite=True)
    assert store.maxima("planted").shape == (len(photos), 48)
    (store.root / "notes.txt").unlink()
    fewer = plant_units(store.root, units[:5], photos, 0, overwrite=True)
    assert fewer.maxima("planted").shape == (len(photos), 5)
    assert [p.name for p in tmp_path.iterdir()] == ["planted"]


@pytest.mark.parametrize("name", ["other", "tiny_imagenet_val", "regions"])
def test_what_the_folder_tells_as_trained_on_is_left_out_whatever_the_file(
    name: str, tmp_path: Path
) -> None:
    pictures = noise(60, side=64)
    path = write_parquet(tmp_path / f"{name}.parquet", pictures, name=["Tabby"] * 60,
                         wnid=["n02123045"] * 60)  # fmt: skip
    groups = [group_of("0.png", png(picture)) for picture in pictures]
    by_bytes = [TrainedPhoto(groups[i], f"{2**i:016x}") for i in range(20)]
    smaller = [picture.resize((40, 52)) for picture in pictures[20:35]]
    by_look = [TrainedPhoto("another file's", picture_hash(picture)) for picture in smaller]

    def left(trained: Trained | None, **more: Any) -> list[PlantedPhoto]:
        return [p for p in read_photos([path], trained, **more) if p.text is None]

    found = left(Trained((*by_bytes, *by_look)))
    assert [p.group for p in found] == groups[35:]
    assert {"tabby", "cats"} <= found[0].atoms.keys()
    assert len(left(None)) == len(left(Trained(()))) == 60
    assert [p.group for p in left(None, apart=lambda g: g in groups[:50])] == groups[50:]
    assert len(left(None, per_file=12)) == 12
    every = read_photos([path], None)
    lettered = [p for p in every if "text" in p.atoms]
    assert 10 < len(lettered) < 40
    assert {p.group for p in lettered} <= set(groups)  # one photograph, with and without
    with pytest.raises(InputError, match="were trained on"):
        read_photos([path], Trained(tuple(TrainedPhoto(g, "0" * 16) for g in groups)))


def test_one_photograph_in_several_files_is_one_group(tmp_path: Path) -> None:
    pictures = noise(12, side=64)
    again = [picture.resize((50, 44)) for picture in reversed(pictures[:5])]
    first = write_parquet(tmp_path / "a.parquet", pictures, name=["Tabby"] * 12)
    second = write_parquet(tmp_path / "b.parquet", [*again, *noise(4, seed=5)], name=["Cat"] * 9)
    found = [p for p in read_photos([first, second], None) if p.text is None]
    groups = [p.group for p in found]
    assert len(set(groups)) == 16
    assert groups[12:17] == groups[:5][::-1]


def test_a_describer_that_tells_nothing_is_refused_in_words(
    describer: Describer, tmp_path: Path
) -> None:
    """Unless the user says of every file that no training read it."""
    assert describer.root is not None
    shutil.copytree(describer.root, tmp_path / "older")
    (tmp_path / "older" / FILE).unlink()
    seal(tmp_path / "older")
    older = Describer.load(tmp_path / "older")
    path = write_parquet(tmp_path / "p.parquet", noise(20, side=64), name=["Tabby"] * 20)
    with pytest.raises(InputError, match="does not tell which photos"):
        protocol.evaluate(older, protocol.Planting((path,), count=5))
    with pytest.raises(InputError, match="too few photos"):  # these are read
        protocol.evaluate(older, protocol.Planting((path,), (path,), count=5))


def test_intervals_are_over_units_and_the_photographs_that_they_share(
    photos: list[PlantedPhoto], units: list[PlantedUnit]
) -> None:
    texts = [u.meaning.atoms[0] for u in units]
    alike = [[u.meaning.connective] for u in units]  # units of one connective show one photograph
    own = [[str(number)] for number in range(len(units))]
    reports = [protocol._report(units, protocol._Said(texts, texts, {}), set(), Crossing(shown), 0)
               for shown in (alike, own)]  # fmt: skip
    shared, apart = (r["rows"]["description"]["attribute F1"] for r in reports)
    assert shared["estimate"] == apart["estimate"]
    assert np.diff(shared["interval"])[0] > 1.5 * np.diff(apart["interval"])[0]
    assert reports[0]["notes"][0] != reports[1]["notes"][0]


def test_another_setting_has_a_row_of_its_own(
    photos: list[PlantedPhoto], units: list[PlantedUnit]
) -> None:
    texts = [u.meaning.phrase for u in units]
    half = [t if i % 2 else "" for i, t in enumerate(texts)]
    said = protocol._Said(texts, texts, {"response=0": half})
    row = protocol._report(units, said, set(), Crossing([[i] for i in range(48)]), 0)["rows"]
    assert row["with response=0"]["attribute F1"]["estimate"] == pytest.approx(0.5)
    less = row["with response=0"]["description less this"]
    assert less["estimate"] == pytest.approx(0.5)
    assert 0.1 < less["interval"][0] < 0.5 < less["interval"][1] < 0.9


def test_settings_are_read_by_their_kinds_and_others_refused(describer: Describer) -> None:
    read = read_variations(["response=0", "classes=2", "method=argmax"])
    assert [v.value for v in read] == [0.0, 2, "argmax"]
    assert [str(v) for v in read] == ["response=0.0", "classes=2", "method=argmax"]
    assert read[1].of(describer).classes == 2
    assert read[1].of(describer) == describer.search_defaults(classes=2)
    for given, match in (("respond=0", "did you mean|response"), ("classes=some", "some"),
                         ("classes", "no value"), ("lam=", "could not")):  # fmt: skip
        with pytest.raises(InputError) as error:
            read_variations([given])
        assert re.search(match, f"{error.value}{error.value.why}{error.value.ways_out}")
    with pytest.raises(InputError):
        read_variations(["lam=nan"])[0].of(describer)
    with pytest.raises(InputError, match="p2 alone"):
        Asked(Path("run"), ("p3",), vary=("lam=0",))


def test_parts_are_reported_apart(units: list[PlantedUnit]) -> None:
    parts = dict(_parts(units, {"goldfish"}))
    assert parts["single"].sum() + sum(parts[c].sum() for c in ("and", "or", "and-not")) == 48
    with_goldfish = sum("goldfish" in u.meaning.atoms for u in units)
    assert parts["with a class that training never named"].sum() == with_goldfish


PARTS = [name for part in ("ear", "leg", "tail", "eye", "nose") for name in (part, f"dog {part}")]


def test_parts_and_materials_of_files_that_tell_them(tmp_path: Path) -> None:
    """Each source by itself, and the fifth of the groups that no training reads, halved."""
    pictures = noise(120, side=56)
    mask, small = np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint8)
    mask[8:60, 8:60], small[10:30, 10:30] = 255, 255
    regions = [
        [{"name": n, "mask": png(Image.fromarray(m)), "part_of": owner} for n, m, owner in
         ((a, mask, None), (f"{a} ear", small, a), ("shirt", small, None))]
        for a in ("dog", "cat")
    ]  # fmt: skip
    regions[0] += [
        {**regions[0][1], "name": f"dog {part}"} for part in ("leg", "tail", "eye", "nose")
    ]
    both = [write_parquet(
        tmp_path / f"{name}.parquet", pictures, group=[f"g/{i}" for i in range(120)],
        source=["one" if i % 4 else "two" for i in range(120)], **more,
    ) for name, more in (("parts", {"regions": [regions[i % 2] for i in range(120)]}),
                         ("facts", {"name": ["Metal" if i % 2 else "night"
                                             for i in range(120)]}))]  # fmt: skip
    found = [p for p in read_photos([both[0]], None, reported=True) if p.text is None]
    other = [p for p in read_photos([both[0]], None, reported=False) if p.text is None]
    every = [p for p in read_photos([both[0]], None) if p.text is None]
    assert len(every) == 120 and min(len(found), len(other)) > 4
    assert 12 < len(found) + len(other) < 36
    assert not {p.group for p in found} & {p.group for p in other}
    assert {p.source for p in found} == {"parts: one", "parts: two"}
    dog = next(p for p in found if "dog" in p.atoms)
    assert dog.kinds == dict.fromkeys(PARTS, "part")
    assert (dog.atoms["ear"] == dog.atoms["dog ear"]).all() and "shirt" in dog.atoms
    pool = SourcePool(every, "parts: one", 0)
    assert pool.kinds["cat ear"] == pool.kinds["ear"] == "part" and pool.kinds["dog"] == "region"
    assert not {("dog", "dog ear"), ("ear", "cat ear")} & {m.atoms for m in pool.meanings["and"]}
    facts = [p for p in read_photos([both[1]], None) if p.text is None]
    metal = next(p for p in facts if "metal" in p.atoms)
    assert metal.kinds == {"metal": "material"} and 0 < metal.atoms["metal"].mean() < 0.5
    assert {"night"} == {a for p in facts if p is not metal for a in p.kinds} - {"metal"}
    atoms = {"dog ear", "cat ear", "ear", "dog", "cat", "metal"}
    table = phrase_table(atoms)
    for atom in atoms:
        assert attribute_f1(atom, Meaning((atom,)), table) == 1
    for text in ("ears of dogs", "dog ears", "an ear of a dog", "ears"):
        assert attribute_f1(text, Meaning(("dog ear",)), table) == 1
    for text in ("cat ears", "dogs", "ears of cats"):
        assert attribute_f1(text, Meaning(("dog ear",)), table) == 0
    chosen = generate(every, 12, 0, ["part"])
    assert {u.kinds for u in chosen} == {("part",)}
    with pytest.raises(InputError, match="no photos show material"):
        generate(every, 12, 0, ["material"])
