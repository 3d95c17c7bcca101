"""Texts are found by the search, and ranked beside those that are retrieved."""

from __future__ import annotations

import pytest
import torch

from milanx.describing import search
from milanx.describing.ranker import Ranker
from milanx.describing.search import Finder, is_sound
from milanx.describing.settings import SearchSettings
from milanx.language.gpt2 import build_gpt2, train_tokenizer
from milanx.language.prior import Prior
from milanx.workers import workers
from tests.oracles import log_p

TEXTS = ["red dogs", "blue sky over water", "striped cats"] * 4


def finder(words: frozenset[str] = frozenset(), positions: int = 64) -> Finder:
    tokenizer = train_tokenizer(TEXTS, 300)
    torch.manual_seed(1)
    model = build_gpt2(len(tokenizer), layers=1, width=16, heads=2, positions=positions).eval()
    return Finder(model, Prior(model, tokenizer), words)


@pytest.mark.parametrize("strategy", ["beam", "diverse", "nucleus"])
def test_units_of_several_batches_have_their_own_texts(
    monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    how = SearchSettings(beam=6, samples=6, groups=2, max_tokens=5, strategy=strategy)
    made, prefixes = finder(), torch.randn(5, 2, 16)
    each = 4 * 6 * made.decoder.config.vocab_size  # bytes of a unit's logits
    monkeypatch.setitem(search.LOGITS, "cpu", 2 * each + 1)
    assert made.units_at_once(how, prefixes.device) == 2
    units = made.find(prefixes, how)
    assert len(units) == 5
    for prefix, found in zip(prefixes, units, strict=True):
        for h in found:
            ids = made.prior.tokenizer(h.text, add_special_tokens=False)["input_ids"]
            if len(ids) + 1 == h.tokens:  # spelled as it was found
                assert h.log_p_given_exemplars == pytest.approx(
                    log_p(made.decoder, ids, prefix), abs=1e-4
                )
            assert h.log_p_prior == pytest.approx(log_p(made.prior.model, ids), abs=1e-4)
        ranked = Ranker().rank(found, how)
        assert not found or ranked[0].pmi == max(c.pmi for c in ranked)
    assert sum(map(bool, units)) > 2


def test_retrieved_texts_are_ranked_where_the_model_can_read_them() -> None:
    short, long = "red dogs", " or ".join(["blue sky over water"] * 8)
    how, made = SearchSettings(beam=3, max_tokens=8), finder(positions=16)
    prefixes = torch.randn(2, 2, 16)
    units = made.find(prefixes, how, [[short, long], [long]])
    assert not any(h.text == long for found in units for h in found)
    (added,) = [h for h in units[0] if h.text == short]
    ids = made.prior.tokenizer(short, add_special_tokens=False)["input_ids"]
    assert added.tokens == len(ids) + 1
    expected = log_p(made.decoder, ids, prefixes[0])
    assert added.log_p_given_exemplars == pytest.approx(expected, abs=1e-4)


def test_words_that_do_not_exist_are_left_out_unless_nothing_else_is_left() -> None:
    how, prefixes = SearchSettings(beam=20, max_tokens=4), torch.randn(1, 2, 16)
    (plain,) = finder().find(prefixes, how)
    known = frozenset(plain[0].text.lower().split())
    (kept,) = finder(known).find(prefixes, how)
    assert kept and all(set(h.text.lower().split()) <= known for h in kept)
    (all_of_them,) = finder(frozenset({"nothing-of-this"})).find(prefixes, how)
    assert [h.text for h in all_of_them] == [h.text for h in plain]


def test_what_says_a_thing_twice_is_not_sound() -> None:
    words = frozenset({"dog", "dogs", "on", "a", "or", "cats"})
    assert is_sound("dogs or cats", words) and is_sound("a dog on a", words)
    assert not is_sound("dogs or dog", words) and not is_sound("dogs on a dog", words)
    assert not is_sound("horses", words) and is_sound("horses", frozenset())
    assert not is_sound("", words) and not is_sound("", frozenset())


def test_nobody_is_called_by_a_colour_by_what_is_found_or_retrieved() -> None:
    assert not is_sound("black person", frozenset()) and is_sound("black hats", frozenset())
    made, asked = finder(), [["black person", "red dogs", "cats or white women"]]
    found = made.find(torch.randn(1, 2, 16), SearchSettings(beam=2, max_tokens=3), asked)[0]
    texts = {h.text for h in found}
    assert "red dogs" in texts and not texts & {"black person", "cats or white women"}


def test_shared_out_over_threads_units_have_the_texts_that_they_have_alone() -> None:
    """Whatever units are found together, by however many threads, and in whatever order."""
    how = SearchSettings(beam=6, max_tokens=5)
    made, prefixes = finder(), torch.randn(7, 2, 16)
    asked = [["red dogs"], [], ["striped cats", "blue sky"], [], ["red dogs"], ["cats"], []]
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with workers(torch.device("cpu")) as shared:
            assert torch.get_num_threads() == 1
            together = made.find(prefixes, how, asked, shared)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    for unit in reversed(range(7)):
        (alone,) = finder().find(prefixes[unit : unit + 1], how, asked[unit : unit + 1])
        assert [h.text for h in alone] == [h.text for h in together[unit]]
        for a, b in zip(alone, together[unit], strict=True):
            assert a.log_p_given_exemplars == pytest.approx(b.log_p_given_exemplars, abs=1e-4)
            assert a.log_p_prior == pytest.approx(b.log_p_prior, abs=1e-4)
