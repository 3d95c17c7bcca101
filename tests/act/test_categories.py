"""Kinds of words against a lexicon that is read here, held-out words, and hand-tagged texts."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import yaml

from milanx.act import categories as c
from milanx.language.compare import Sentences

HERE = Path(__file__).parent
TAGS = {"n": "noun", "v": "verb", "a": "adjective", "p": "preposition", "o": None}


@lru_cache(maxsize=1)
def sentences() -> Sentences:
    return Sentences()


def kinds(text: str) -> list[str]:
    return [n.kind for n in c.Categories(embed=sentences())([text])[0]]


def test_the_lexicon_names_each_word_once_and_enough_of_them() -> None:
    content = yaml.safe_load(Path(c.__file__).with_name("lexicon.yaml").read_text())
    words = [w.strip() for part in content.values() for w in part.split(",")]
    assert len(words) == len(set(words))
    assert set(content) == {*c.KINDS, c.GENERIC}
    assert len(c.Lexicon.load()) >= 1000
    assert min(len(part.split(",")) for part in content.values()) >= 50


@pytest.mark.parametrize(("text", "expected"), [
    ("red areas", ["colour", "generic"]),
    ("stripes", ["pattern"]),
    ("Furry dogs", ["texture", "animal"]),
    ("vertical lines and walls", ["shape", "shape", "part"]),
    ("traffic lights", ["object"]),  # a phrase goes before its words
    ("fishing", ["action"]),  # what is said so goes before what shares its form
    ("fish", ["animal"]),
    ("white letters on wood", ["colour", "text", "material"]),
    ("women at the beach", ["people", "scene"]),
    ("left edge of the image", ["place"]),
    ("objects without people", ["generic"]),
    ("", []),
])  # fmt: skip
def test_kinds_of_known_words(text: str, expected: list[str]) -> None:
    assert [kind for kind in kinds(text) if kind != c.UNSURE] == expected


def test_similarity_places_words_that_the_lexicon_lacks() -> None:
    (sprinting,), (nephews,) = c.Categories(embed=sentences())(["sprinting", "nephews"])
    assert (sprinting.kind, sprinting.way) == ("action", "similarity")
    assert (nephews.kind == c.UNSURE) == (nephews.probability < c.SURE)


def test_what_the_cache_gives_is_what_is_fitted() -> None:
    fitted = c.Categories(embed=sentences())(["sprinting", "nephews"])
    first = c.Categories()(["sprinting", "nephews"])  # learns and keeps
    kept = c.Categories()(["sprinting", "nephews"])
    assert first == kept
    for (mine,), (theirs,) in zip(fitted, kept, strict=True):
        assert mine.kind == theirs.kind
        assert mine.probability == pytest.approx(theirs.probability, abs=1e-5)


def test_what_fits_no_kind_is_unsure() -> None:
    (named,) = c.Categories(embed=sentences())(["blorptastic"])[0]
    assert named.kind == c.UNSURE
    assert named.probability < c.SURE


def test_held_out_words_are_placed_as_often_as_is_said() -> None:
    found = c.held_out(c.Lexicon.load(), sentences())
    sure = [(kind, given) for _, kind, given, probability in found if probability >= c.SURE]
    assert len(sure) / len(found) == pytest.approx(0.57, abs=0.03)
    assert np.mean([a == b for a, b in sure]) == pytest.approx(0.89, abs=0.02)


def test_parts_of_speech_of_hand_tagged_descriptions() -> None:
    right = total = 0
    for line in (HERE / "tagged.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        words, tags = zip(*(token.rsplit("/", 1) for token in line.split()), strict=True)
        found = c.parts_of_speech(" ".join(words))
        assert [w for w, _ in found] == list(words)
        right += sum(part in [TAGS[t] for t in tag.split("|")]
                     for (_, part), tag in zip(found, tags, strict=True))  # fmt: skip
        total += len(words)
    assert right == 220
    assert total == 222


def test_which_descriptions_name_nothing() -> None:
    from milanx.act.analyze import NOTHING, named_kinds

    generic, unsure = c.Named("areas", c.GENERIC), c.Named("x", c.UNSURE, "similarity", 0.2)
    colour = c.Named("red", "colour")
    assert named_kinds([generic]) == {NOTHING}
    assert named_kinds([generic, unsure]) == {c.UNSURE}
    assert named_kinds([colour, unsure, generic]) == {"colour"}
