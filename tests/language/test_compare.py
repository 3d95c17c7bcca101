"""Texts compared: whole words in one form, phrases, sentence vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from milanx.language.compare import Sentences, contains, find_all, find_phrase, lemmas, nouns


@pytest.mark.parametrize(("text", "phrase", "found"), [
    ("white texts", "text", True), ("Text, of a kind", "texts", True), ("texture", "text", False),
    ("context", "text", False), ("a dog's faces", "dog", True), ("faces of dogs", "face", True),
    ("cell phones on desks", "cell phone", True), ("cell phone cases", "cell phones", True),
    ("phone cell", "cell phone", False), ("cell", "cell phone", False),
    ("leaves", "leaf", True), ("women's hats", "woman", True), ("grasses", "grass", True),
    ("kiwis", "kiwi", True), ("selfie", "selfies", True), ("tvs on walls", "tv", True),
    ("bedding", "bed", False), ("herring", "her", False), ("signing", "sign", False),
    ("short hair", "shorts", False), ("a new car", "news", False), ("they run", "she", False),
    ("text", "...", False), ("", "text", False),
])  # fmt: skip
def test_words_that_are_looked_for_are_whole_and_in_either_number(
    text: str, phrase: str, found: bool
) -> None:
    assert contains(text, (phrase,), nouns) is found


def test_lemmas_take_verbs_too() -> None:
    assert contains("dogs running", ["run"]) and not contains("dogs running", ["run"], nouns)
    assert contains("a cat or dogs", ["horse", "dog"])
    assert not contains("a cat", [])


WORDS = st.lists(st.sampled_from("abc"), max_size=8)


@given(WORDS, WORDS)
def test_places_of_a_phrase_against_a_plain_search(text: list[str], phrase: list[str]) -> None:
    # Every word is one letter, so that it stands at every other sign of the joined text.
    joined, wanted = " ".join(text), " ".join(phrase)
    plain = [i for i in range(len(text)) if phrase and joined[2 * i :].startswith(wanted)]
    assert list(find_all(text, phrase)) == plain
    assert find_phrase(text, phrase) == (plain[0] if plain else -1)


def test_both_forms_fold_alike() -> None:
    assert len(nouns("Two School-Buses, parked!")) == len(lemmas("Two School-Buses, parked!")) == 4
    assert nouns("buses") == nouns("BUS") and nouns("") == []


def test_sentences_are_embedded_once_and_alone_as_in_a_batch() -> None:
    state = torch.random.get_rng_state()
    embed = Sentences()
    assert embed([]).shape == (0, 384)
    alone = embed(["written words"])
    both = Sentences()(["a very long text about other things that is padded to", "written words"])
    np.testing.assert_allclose(both[1], alone[0], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(both, axis=1), 1, atol=1e-5)
    again = embed(["letters", "written words"])
    assert np.array_equal(again[1], alone[0])  # not computed anew, among others
    assert torch.equal(torch.random.get_rng_state(), state)
