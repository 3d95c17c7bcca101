"""Forms of words: what is the same word, one and many."""

import json
import subprocess
import sys
from importlib import resources

import pytest

from milanx.language.words import _MANY, _ONE_FORM, normalise_text, plural, singular, stem


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("horse", "horses"),
        ("bus", "buses"),
        ("sky", "skies"),
        ("glass", "glasses"),
        ("cat", "cats"),
    ],
)
def test_stems_of_regular_plurals_agree(one: str, many: str) -> None:
    assert stem(one) == stem(many)
    assert stem(one) != stem("dog")


@pytest.mark.parametrize(("one", "many"), [
    ("dog", "dogs"), ("bus", "buses"), ("cow", "cows"), ("blouse", "blouses"), ("man", "men"),
    ("fireman", "firemen"), ("gentleman", "gentlemen"), ("human", "humans"), ("child", "children"),
    ("person", "people"), ("leaf", "leaves"), ("wolf", "wolves"), ("scarf", "scarves"),
    ("church", "churches"), ("box", "boxes"), ("puppy", "puppies"), ("collie", "collies"),
    ("mantis", "mantises"), ("house", "houses"), ("shoe", "shoes"), ("canoe", "canoes"),
    ("flamingo", "flamingos"), ("potato", "potatoes"), ("lens", "lenses"), ("dress", "dresses"),
])  # fmt: skip
def test_one_and_many(one: str, many: str) -> None:
    assert plural(one) == many
    assert singular(many) == one
    assert singular(one) == one
    assert plural(f"striped {one}") == f"striped {many}"


def test_exceptions_hold_both_ways() -> None:
    assert not _ONE_FORM & _MANY.keys()
    for word in _ONE_FORM:
        assert plural(word) == singular(word) == word
    for one, forms in _MANY.items():
        assert plural(one) == forms[0]
        assert {singular(form) for form in forms} == {one} == {singular(one)}


def test_what_is_no_plural_stays() -> None:
    assert [singular(w) for w in ("gas", "its", "circus", "specimen", "this")] == [
        "gas", "its", "circus", "specimen", "this",
    ]  # fmt: skip
    assert plural("swimming trunks") == "swimming trunks"
    assert plural("1950") == "1950s"
    assert plural("") == ""


def test_names_of_classes_come_back_from_their_plurals() -> None:
    """A text that names a class in the plural is found, for every name that is counted."""
    text = resources.files("milanx.evaluate.common").joinpath("imagenet_names.json").read_text()
    names = {w for names in json.loads(text).values() for name in names
             for w in normalise_text(name).split()[-1:] if w.isalpha()}  # fmt: skip
    lost = {n for n in names if singular(plural(n)) != singular(n)}
    assert len(names) > 1000
    # Latin names of species, letters, and a few that are spelled in two ways ("hanky").
    assert lost <= {"ai", "bandeau", "cohoe", "cuvieri", "geoffroyi", "hankie", "jean", "kingi",
                    "mini", "rv", "semi", "t", "trui", "tzu", "v"}  # fmt: skip


def test_describing_loads_no_rules() -> None:
    code = ("import sys, milanx.describing.describer\n"
            "from milanx.language.words import stem\n"
            "stem('dogs'); sys.exit('inflect' in sys.modules)")  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
