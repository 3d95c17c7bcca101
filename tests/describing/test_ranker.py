"""Log-probabilities, beam and weighted PMI against enumeration and the plainest versions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from milanx.describing.ranker import SearchSettings, beam_search, rerank, search
from milanx.language.gpt2 import (
    build_gpt2,
    encode_texts,
    log_probabilities,
    normalise_text,
    train_tokenizer,
)

TEXTS = ["red dogs", "a red dog", "blue sky over water", "dogs and cats", "striped cats"] * 4


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Many tiny computations: threads would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    made = build_gpt2(7, layers=2, width=16, heads=2, positions=16).eval()
    for parameter in made.parameters():
        parameter.data *= 6  # a peaked distribution, as trained ones are
    return made


def plain_log_p(model: torch.nn.Module, tokens: list[int], prefix: torch.Tensor | None) -> float:
    """One text at a time, one token at a time, no padding."""
    wte = model.get_input_embeddings()
    total, seen = 0.0, [0]
    for token in [*tokens, 0]:
        embedded = wte(torch.tensor([seen]))
        if prefix is not None:
            embedded = torch.cat([prefix[None], embedded], 1)
        with torch.inference_mode():
            total += float(
                model(inputs_embeds=embedded).logits[0, -1].double().log_softmax(0)[token]
            )
        seen.append(token)
    return total


@pytest.mark.parametrize("with_prefix", [False, True])
def test_log_probabilities_are_exact_and_independent_of_padding(
    model: torch.nn.Module, with_prefix: bool
) -> None:
    rows = [[1, 2], [3], [4, 5, 6, 1, 2], []]
    ids, mask = torch.zeros(4, 6, dtype=torch.long), torch.zeros(4, 6, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row) + 1] = True
    prefix = torch.randn(4, 3, 16) if with_prefix else None
    for budget in (8192, 1):
        found = log_probabilities(model, ids, mask, prefix, batch_tokens=budget)
        for i, row in enumerate(rows):
            expected = plain_log_p(model, row, None if prefix is None else prefix[i])
            assert found[i] == pytest.approx(expected, abs=1e-4)


def test_beam_equals_enumeration_when_it_is_wide_enough(model: torch.nn.Module) -> None:
    prefixes = torch.randn(2, 2, 16)
    found = beam_search(model, prefixes, SearchSettings(beam=400, max_tokens=4))
    every = [t for n in range(4) for t in itertools.product(range(1, 7), repeat=n)]
    for unit in range(2):
        expected = sorted(((plain_log_p(model, list(t), prefixes[unit]), t) for t in every),
                          reverse=True)  # fmt: skip
        assert len(found[unit]) == len(every)
        known = {tokens: p for p, tokens in expected}
        for (tokens, score), (p, _) in zip(found[unit], expected, strict=True):
            assert score == pytest.approx(p, abs=1e-4)
            assert score == pytest.approx(known[tokens], abs=1e-4)


def test_a_narrow_beam_is_a_plain_beam(model: torch.nn.Module) -> None:
    prefix = torch.randn(1, 2, 16)
    beam, longest = 3, 5
    alive: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    finished: list[tuple[float, tuple[int, ...]]] = []
    for _ in range(longest):
        grown = []
        for _, tokens in alive:
            finished.append((plain_log_p(model, list(tokens), prefix[0]), tokens))
            for token in range(1, 7):
                text = [*tokens, token]
                ended = plain_log_p(model, text, prefix[0])
                with torch.inference_mode():
                    embedded = model.get_input_embeddings()(torch.tensor([[0, *text]]))
                    last = model(inputs_embeds=torch.cat([prefix, embedded], 1)).logits[0, -1]
                grown.append((ended - float(last.log_softmax(0)[0]), tuple(text)))
        alive = sorted(grown, reverse=True)[:beam]
    expected = sorted(finished, reverse=True)[:beam]
    found = beam_search(model, prefix, SearchSettings(beam=beam, max_tokens=longest))[0]
    assert [t for t, _ in found] == [t for _, t in expected]


def test_a_unit_is_the_same_alone_and_in_a_batch(model: torch.nn.Module) -> None:
    prefixes = torch.randn(6, 2, 16)
    how = SearchSettings(beam=8, max_tokens=8)
    batch = beam_search(model, prefixes, how)
    for unit in range(6):
        alone = beam_search(model, prefixes[unit : unit + 1], how)[0]
        assert [t for t, _ in alone] == [t for t, _ in batch[unit]]
        assert [s for _, s in alone] == pytest.approx([s for _, s in batch[unit]], abs=1e-4)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["Dogs", "dogs", "dogs.", "cats", "red", "...", " "]),
                  st.floats(-9, -0.1)), min_size=1, max_size=12, unique_by=lambda p: p[0]),
    st.floats(0, 1),
    st.sampled_from(["pmi", "argmax"]),
)  # fmt: skip
def test_rerank_equals_the_plain_version(
    found: list[tuple[str, float]], lam: float, method: str
) -> None:
    before = {"Dogs": -3.0, "dogs": -2.0, "dogs.": -5.0, "cats": -4.0, "red": -1.5}
    made = rerank(found, lambda texts: [before[t] for t in texts],
                  SearchSettings(lam=lam, method=method))  # fmt: skip
    groups: dict[str, list[str]] = {}
    for text, _ in found:
        if normalise_text(text):
            groups.setdefault(normalise_text(text), []).append(text)
    scores = dict(found)
    plain = {}
    for name, texts in groups.items():
        posterior = math.log(sum(math.exp(scores[t]) for t in texts))
        prior = math.log(sum(math.exp(before[t]) for t in texts))
        plain[name] = (posterior - lam * prior, posterior)
    assert {normalise_text(c.text) for c in made} == set(plain)
    for candidate in made:
        pmi, posterior = plain[normalise_text(candidate.text)]
        assert candidate.pmi == pytest.approx(pmi)
        assert candidate.log_p_given_exemplars == pytest.approx(posterior)
    if made:
        best = max(plain.values())[0] if method == "pmi" else max(p for _, p in plain.values())
        first = made[0].pmi if method == "pmi" else made[0].log_p_given_exemplars
        assert first == pytest.approx(best)


def test_tokenizer_round_trip_and_search(tmp_path) -> None:
    from transformers import PreTrainedTokenizerFast

    from milanx.language.prior import Prior

    tokenizer = train_tokenizer(TEXTS, 300)
    assert len(tokenizer) <= 300
    tokenizer.save_pretrained(tmp_path)
    again = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    ids, mask = encode_texts(again, ["red dogs", "cats"], 8)
    assert again.decode(ids[0][mask[0]][:-1]).strip() == "red dogs"
    assert ids[0][mask[0]][-1] == again.eos_token_id
    torch.manual_seed(1)
    model = build_gpt2(len(tokenizer), layers=1, width=16, heads=2).eval()
    prior = Prior(model, tokenizer)
    ranked = search(
        model, prior, tokenizer, torch.randn(5, 2, 16), SearchSettings(beam=6, max_tokens=5)
    )
    for candidates in ranked:
        assert candidates[0].pmi == max(c.pmi for c in candidates)
        for c in candidates[:2]:
            assert c.pmi == pytest.approx(c.log_p_given_exemplars - 0.2 * c.log_p_prior)


def test_a_vocabulary_above_the_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="8000"):
        train_tokenizer(TEXTS, 9000)
