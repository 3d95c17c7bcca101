"""Scores against hand-made cases; intervals against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from milanx.evaluate.common.names import ClassNamer, accepted_names
from milanx.evaluate.common.rows import constant, shuffled
from milanx.evaluate.p2.photos import PlantedPhoto
from milanx.evaluate.p2.planted import generate
from milanx.evaluate.p2.texts import attribute_f1, connective_of
from milanx.exemplars.planted import Meaning, combine
from milanx.language.compare import Sentences, contains, lemma, lemmas
from milanx.measures.intervals import bootstrap, crossed, holm, paired, wilson


def test_bootstrap_interval_is_the_normal_one_for_many_units() -> None:
    values = np.random.default_rng(1).normal(2, 3, 2000)
    found = bootstrap(values)
    half = 1.96 * values.std() / np.sqrt(2000)
    assert found["estimate"] == pytest.approx(values.mean())
    assert found["interval"] == pytest.approx(
        [values.mean() - half, values.mean() + half], abs=0.02
    )
    assert bootstrap(values) == found


def test_paired_is_narrower_than_unpaired() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 5, 300)
    difference = paired(hard + 1 + rng.normal(0, 0.1, 300), hard)
    low, high = difference["interval"]
    assert low > 0.9
    assert high < 1.1


def test_crossed_is_wider_where_images_are_shared() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (1, 30)) + rng.normal(0, 0.1, (200, 30))
    low, high = crossed(values)["interval"]
    narrow = bootstrap(values.mean(1))["interval"]
    assert high - low > 5 * (narrow[1] - narrow[0])


def test_wilson_and_holm() -> None:
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-3)
    assert wilson(81, 100) == pytest.approx((0.7222, 0.8749), abs=1e-3)
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


@pytest.mark.parametrize(("many", "one"), [
    ("dogs", "dog"), ("buses", "bus"), ("grass", "grass"), ("women", "woman"),
    ("puppies", "puppy"), ("churches", "church"), ("running", "run"), ("boxes", "box"),
    ("octopus", "octopus"), ("glasses", "glass"),
])  # fmt: skip
def test_lemmas(many: str, one: str) -> None:
    assert lemma(many) == lemma(one)


def test_phrases_match_whole_words_alone() -> None:
    assert contains("Two School-Buses, parked", ["school bus"])
    assert not contains("a cart", ["car"])
    assert lemmas("  A  Dog! ") == ["a", "dog"]


def test_class_names() -> None:
    table = accepted_names()
    assert len(table) == 1000
    cranes = [w for w, names in table.items() if "crane" in names]
    assert len(cranes) == 2
    ball, tie, bee = "n02802426", "n02883205", "n02206856"
    namer = ClassNamer([ball, tie, bee, *cranes])
    assert namer.right("basketballs", ball)
    assert namer.right("bees and basketballs", bee)
    assert not namer.right("bees and basketballs", ball)
    assert not namer.right("bees, basketballs and bow ties", bee)
    assert not namer.right("animals", bee)
    assert all(namer.right("a crane", w) for w in cranes)


def test_rows_are_what_they_say() -> None:
    texts = ["a"] * 40 + ["b"] * 10

    def score(unit: int, text: str) -> float:
        return float(text == texts[unit])

    assert constant(score, texts).mean() == pytest.approx(0.8)
    assert shuffled(score, texts).mean() == pytest.approx(0.8**2 + 0.2**2, abs=0.03)


TABLE = {"dog": [["dog"]], "cat": [["cat"]], "car": [["car"]]}


@pytest.mark.parametrize(("text", "meaning", "expected"), [
    ("dogs", Meaning(("dog",)), 1.0),
    ("dogs and cats", Meaning(("dog",)), 2 / 3),
    ("dogs", Meaning(("dog", "cat"), "and"), 2 / 3),
    ("cars", Meaning(("dog",)), 0.0),
    ("dogs without cats", Meaning(("dog", "cat"), "and-not"), 1.0),
    ("dogs and cats", Meaning(("dog", "cat"), "and-not"), 0.5),
    ("dogs on grass", Meaning(("dog",)), 1.0),
])  # fmt: skip
def test_attribute_f1(text: str, meaning: Meaning, expected: float) -> None:
    assert attribute_f1(text, meaning, TABLE) == pytest.approx(expected)


def test_connectives() -> None:
    assert [connective_of(t) for t in ("dogs", "dogs and cats", "a or b", "x without y")] == [
        "single", "and", "or", "and-not"]  # fmt: skip


def test_combining_atoms() -> None:
    a, b = np.zeros((3, 2, 2), np.float32), np.zeros((3, 2, 2), np.float32)
    a[0, 0, 0] = a[1, 0, 0] = b[1, 1, 1] = b[2, 1, 1] = 1
    maps = {"a": a, "b": b}
    assert combine(maps, Meaning(("a", "b"), "or")).sum((1, 2)).tolist() == [1, 2, 1]
    assert combine(maps, Meaning(("a", "b"), "and")).sum((1, 2)).tolist() == [0, 2, 0]
    assert combine(maps, Meaning(("a", "b"), "and-not")).sum((1, 2)).tolist() == [1, 0, 0]


def test_generated_units_are_as_impure_as_stated() -> None:
    rng = np.random.default_rng(0)
    names = ["sky", "dog", "road", "tree", "car", "boat"]
    photos = []
    for _ in range(240):
        shown = rng.choice(names, 2, replace=False)
        atoms = {str(n): np.zeros((14, 14), np.float32) for n in shown}
        for value in atoms.values():
            y, x = rng.integers(0, 8, 2)
            value[y : y + 6, x : x + 6] = 1
        photos.append(PlantedPhoto(np.zeros((224, 224, 3), np.uint8), atoms))
    units = generate(photos, 60, 0)
    again = generate(photos, 60, 0)
    assert [u.meaning for u in units] == [u.meaning for u in again]
    empty = np.zeros((14, 14), np.float32)
    maps = {n: np.stack([p.atoms.get(n, empty) for p in photos]) for n in names}
    assert {u.meaning.connective for u in units} == {"single", "and", "or", "and-not"}
    for unit in units:
        assert unit.meaning in unit.choices
        assert len(set(unit.choices)) == 5
        there = unit.images[unit.images >= 0]
        shows = combine(maps, unit.meaning)[there].max((1, 2)) >= 0.5
        assert shows.mean() >= 0.65
        assert (unit.maps[unit.images >= 0] > 0.5).any((1, 2)).all()
    assert 0.15 < np.mean([u.choices.index(u.meaning) == 0 for u in units]) < 0.4


def test_sentence_similarity() -> None:
    rows = Sentences()(["a dog", "puppies", "steel bridge"])
    assert rows[0] @ rows[1] > rows[0] @ rows[2] + 0.2
