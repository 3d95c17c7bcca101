"""Strategies, bans and weights of the search against the plainest versions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from milanx.errors import InputError
from milanx.language.gpt2 import build_gpt2
from milanx.language.hypotheses import ban_repeats, beam_search, draw, hypotheses, largest
from milanx.language.settings import HypothesisSettings
from tests import oracles

WORDS, END = 7, 0


def peaked(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    made = build_gpt2(WORDS, layers=2, width=16, heads=2, positions=16).eval()
    for parameter in made.parameters():
        parameter.data *= 6  # a peaked distribution, as trained ones are
    return made


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Many tiny computations: threads would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return peaked(0)


@pytest.fixture(scope="module")
def prior() -> torch.nn.Module:
    return peaked(1)


@pytest.fixture(scope="module")
def prefixes() -> torch.Tensor:
    return torch.randn(3, 2, 16, generator=torch.Generator().manual_seed(3))


def log_p(
    model: torch.nn.Module, texts: list[tuple[int, ...]], prefix: torch.Tensor | None
) -> list[float]:
    return [oracles.log_p(model, text, prefix) for text in texts]


class Next:
    """log p of every next token after a beginning, one beginning at a time."""

    def __init__(self, model: torch.nn.Module, prefix: torch.Tensor) -> None:
        self.model, self.prefix, self.known = model, prefix, {}

    def __call__(self, text: tuple[int, ...]) -> list[float]:
        if text not in self.known:
            with torch.inference_mode():
                embedded = self.model.get_input_embeddings()(torch.tensor([[0, *text]]))
                inputs = torch.cat([self.prefix[None], embedded], 1)
                logits = self.model(inputs_embeds=inputs).logits[0, -1]
            self.known[text] = logits.double().log_softmax(0).tolist()
        return self.known[text]


HOWS = [
    HypothesisSettings(beam=9, max_tokens=6),
    HypothesisSettings(beam=9, max_tokens=6, strategy="diverse", groups=3),
    HypothesisSettings(beam=7, max_tokens=6, strategy="diverse", groups=3, diversity=3.0),
    HypothesisSettings(samples=20, max_tokens=6, strategy="nucleus"),
    HypothesisSettings(beam=9, max_tokens=6, stepwise=0.4),
    HypothesisSettings(beam=9, max_tokens=7, min_tokens=3, no_repeat=2),
    HypothesisSettings(samples=20, max_tokens=7, strategy="nucleus", min_tokens=3, no_repeat=1),
    HypothesisSettings(
        beam=8, max_tokens=7, strategy="diverse", groups=4, min_tokens=2, no_repeat=2, stepwise=0.2
    ),
]


@pytest.mark.parametrize("how", HOWS, ids=range(len(HOWS)))
def test_every_strategy_is_exact_and_a_unit_does_not_feel_the_batch(
    model: torch.nn.Module, prior: torch.nn.Module, prefixes: torch.Tensor, how: HypothesisSettings
) -> None:
    together = hypotheses(model, prefixes, how, prior)
    assert len(together) == len(prefixes)
    for unit, found in enumerate(together):
        texts = [text for text, _ in found]
        assert texts and len(set(texts)) == len(texts)
        assert [s for _, s in found] == pytest.approx(log_p(model, texts, prefixes[unit]), abs=1e-4)
        for text in texts:
            assert how.min_tokens <= len(text) < how.max_tokens
            assert END not in text
            if how.no_repeat:
                grams = [text[i : i + how.no_repeat] for i in range(len(text) - how.no_repeat + 1)]
                assert len(set(grams)) == len(grams)
        alone = hypotheses(model, prefixes[unit : unit + 1], how, prior)[0]
        assert [text for text, _ in alone] == texts
        assert [s for _, s in alone] == pytest.approx([s for _, s in found], abs=1e-4)


def test_beam_equals_enumeration_when_it_is_wide_enough(model: torch.nn.Module) -> None:
    prefixes = torch.randn(2, 2, 16)
    found = beam_search(model, prefixes, HypothesisSettings(beam=400, max_tokens=4))
    every = [t for n in range(4) for t in itertools.product(range(1, 7), repeat=n)]
    for unit in range(2):
        expected = sorted(((oracles.log_p(model, list(t), prefixes[unit]), t) for t in every),
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
            finished.append((oracles.log_p(model, list(tokens), prefix[0]), tokens))
            for token in range(1, 7):
                text = [*tokens, token]
                ended = oracles.log_p(model, text, prefix[0])
                with torch.inference_mode():
                    embedded = model.get_input_embeddings()(torch.tensor([[0, *text]]))
                    last = model(inputs_embeds=torch.cat([prefix, embedded], 1)).logits[0, -1]
                grown.append((ended - float(last.log_softmax(0)[0]), tuple(text)))
        alive = sorted(grown, reverse=True)[:beam]
    expected = sorted(finished, reverse=True)[:beam]
    found = beam_search(model, prefix, HypothesisSettings(beam=beam, max_tokens=longest))[0]
    assert [t for t, _ in found] == [t for _, t in expected]


def test_a_unit_is_the_same_alone_and_in_a_batch(model: torch.nn.Module) -> None:
    prefixes = torch.randn(6, 2, 16)
    how = HypothesisSettings(beam=8, max_tokens=8)
    batch = beam_search(model, prefixes, how)
    for unit in range(6):
        alone = beam_search(model, prefixes[unit : unit + 1], how)[0]
        assert [t for t, _ in alone] == [t for t, _ in batch[unit]]
        assert [s for _, s in alone] == pytest.approx([s for _, s in batch[unit]], abs=1e-4)


def test_bans_leave_no_allowed_text_out(model: torch.nn.Module, prefixes: torch.Tensor) -> None:
    how = HypothesisSettings(beam=300, max_tokens=4, min_tokens=2, no_repeat=1)
    every = [t for n in (2, 3) for t in itertools.permutations(range(1, WORDS), n)]
    for unit, found in enumerate(beam_search(model, prefixes[:2], how)):
        expected = sorted(zip(log_p(model, every, prefixes[unit]), every, strict=True))[::-1]
        assert len(found) == len(every)
        assert {t for t, _ in found} == set(every)
        assert [s for _, s in found] == pytest.approx([s for s, _ in expected], abs=1e-4)


def test_a_wide_stepwise_beam_equals_enumeration(
    model: torch.nn.Module, prior: torch.nn.Module, prefixes: torch.Tensor
) -> None:
    weight = 0.6
    how = HypothesisSettings(beam=300, max_tokens=4, stepwise=weight)
    every = [t for n in range(4) for t in itertools.product(range(1, WORDS), repeat=n)]
    before = log_p(prior, every, None)
    for unit, found in enumerate(beam_search(model, prefixes[:2], how, prior)):
        given_e = log_p(model, every, prefixes[unit])
        ranks = sorted((c - weight * p for c, p in zip(given_e, before, strict=True)), reverse=True)
        known = dict(zip(every, zip(given_e, before, strict=True), strict=True))
        got = [known[t][0] - weight * known[t][1] for t, _ in found]
        assert len(found) == len(every)
        assert got == pytest.approx(ranks, abs=1e-4)


def test_stepwise_changes_what_a_narrow_beam_finds(
    model: torch.nn.Module, prior: torch.nn.Module, prefixes: torch.Tensor
) -> None:
    plain = beam_search(model, prefixes, HypothesisSettings(beam=3, max_tokens=6))
    weighed = beam_search(
        model, prefixes, HypothesisSettings(beam=3, max_tokens=6, stepwise=1), prior
    )
    assert [[t for t, _ in found] for found in plain] != [[t for t, _ in f] for f in weighed]
    with pytest.raises(ValueError, match="prior"):
        beam_search(model, prefixes, HypothesisSettings(stepwise=0.2))


def plain_diverse(
    after: Next, beam: int, groups: int, diversity: float, longest: int
) -> list[tuple[float, tuple[int, ...]]]:
    """Diverse beam search with lists, group after group at every step."""
    size = beam // groups
    alive = [[(0.0, ())] for _ in range(groups)]
    finished: list[list[tuple[float, tuple[int, ...]]]] = [[] for _ in range(groups)]
    for step in range(longest):
        taken = [0] * WORDS
        for group in range(groups):
            pool = finished[group]
            pool += [(score + after(text)[END], text) for score, text in alive[group]]
            pool.sort(key=lambda pair: -pair[0])
            del pool[size:]
            if step + 1 == longest:
                continue
            grown = [
                (score + after(text)[word], (*text, word))
                for score, text in alive[group]
                for word in range(1, WORDS)
            ]
            grown.sort(key=lambda pair: -(pair[0] - diversity * taken[pair[1][-1]]))
            floor = pool[-1][0] if len(pool) == size else -np.inf
            alive[group] = [pair for pair in grown[:size] if pair[0] > floor]
            for _, text in alive[group]:
                taken[text[-1]] += 1
    return sorted({pair for pool in finished for pair in pool}, key=lambda pair: -pair[0])


@pytest.mark.parametrize(("groups", "diversity"), [(2, 0.5), (3, 2.0), (6, 1.0)])
def test_diverse_beam_equals_the_plain_version(
    model: torch.nn.Module, prefixes: torch.Tensor, groups: int, diversity: float
) -> None:
    how = HypothesisSettings(
        beam=6, max_tokens=5, strategy="diverse", groups=groups, diversity=diversity
    )
    for unit, found in enumerate(beam_search(model, prefixes, how)):
        expected = plain_diverse(Next(model, prefixes[unit]), 6, groups, diversity, 5)
        assert [t for t, _ in found] == [t for _, t in expected]
        assert [s for _, s in found] == pytest.approx([s for s, _ in expected], abs=1e-4)


def test_diversity_none_is_a_narrow_beam_and_much_is_more_first_words(
    model: torch.nn.Module, prefixes: torch.Tensor
) -> None:
    def texts(**changes: object) -> list[list[tuple[int, ...]]]:
        how = HypothesisSettings(max_tokens=6, **changes)
        return [[t for t, _ in found] for found in beam_search(model, prefixes, how)]

    assert texts(beam=6, strategy="diverse", groups=3, diversity=0.0) == texts(beam=2)
    near = texts(beam=6, strategy="diverse", groups=6, diversity=0.0)
    far = texts(beam=6, strategy="diverse", groups=6, diversity=50.0)
    firsts = [sum(len({t[:1] for t in row}) for row in rows) for rows in (near, far)]
    assert firsts[1] > firsts[0]


def test_nucleus_draws_what_the_plain_version_draws(
    model: torch.nn.Module, prefixes: torch.Tensor
) -> None:
    how = HypothesisSettings(strategy="nucleus", samples=12, max_tokens=5, top_p=0.8, seed=4)
    draws = torch.rand(5, 12, generator=torch.Generator().manual_seed(4)).tolist()
    for unit, found in enumerate(hypotheses(model, prefixes, how)):
        after, expected = Next(model, prefixes[unit]), {}
        for sample in range(12):
            text, score = (), 0.0
            for step in range(5):
                given_text = after(text)
                word = END
                if step < 4:
                    order = sorted(range(WORDS), key=lambda w: -given_text[w])
                    mass = np.exp([given_text[w] for w in order])
                    size = int(np.searchsorted(mass.cumsum(), 0.8) + 1)
                    target = draws[step][sample] * mass[:size].sum()
                    word = order[min(int((mass[:size].cumsum() <= target).sum()), size - 1)]
                score += given_text[word]
                if word == END:
                    break
                text = (*text, word)
            expected[text] = score
        assert dict(found) == pytest.approx(expected, abs=1e-4)


def test_seeds_and_the_smallest_nucleus(model: torch.nn.Module, prefixes: torch.Tensor) -> None:
    def texts(**changes: object) -> list[set[tuple[int, ...]]]:
        how = HypothesisSettings(strategy="nucleus", samples=10, max_tokens=8, **changes)
        return [{t for t, _ in found} for found in hypotheses(model, prefixes, how)]

    assert texts(top_p=1.0, seed=1) == texts(top_p=1.0, seed=1) != texts(top_p=1.0, seed=2)
    for unit, found in enumerate(texts(top_p=1e-6)):
        after, greedy = Next(model, prefixes[unit]), ()
        while len(greedy) < 7 and (word := int(np.argmax(after(greedy)))) != END:
            greedy = (*greedy, word)
        assert found == {greedy}


def test_a_nucleus_wider_than_the_shortlist_is_drawn_from_whole() -> None:
    flat = torch.full((1, 1000), 1e-3)
    drawn = {int(draw(flat, torch.tensor([x]), 0.99)) for x in np.linspace(0, 0.999, 400)}
    assert len(drawn) > 350


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 3), st.integers(1, 90), st.integers())
def test_largest_equals_a_plain_top_k(u: int, b: int, chunks: int, k: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed % 2**32)
    logits = torch.randn(u, b, chunks * 64, generator=generator)
    offset = torch.randn(u, b, generator=generator)
    sums, beams, tokens = largest(logits, offset, k)
    expected, place = (logits + offset[..., None]).flatten(1).topk(min(k, b * chunks * 64), dim=1)
    assert sums.shape == expected.shape
    torch.testing.assert_close(sums, expected)
    assert torch.equal(beams * chunks * 64 + tokens, place)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=8), st.integers(0, 4))
def test_banned_tokens_are_those_that_would_repeat(text: list[int], size: int) -> None:
    logits = torch.zeros(1, 1, 4)
    ban_repeats(logits, torch.tensor(text, dtype=torch.long).view(1, 1, -1), size)
    grams = {tuple(text[i : i + size]) for i in range(len(text) - size + 1)}
    for token in range(4):
        longer = tuple([*text, token])[len(text) + 1 - size :]
        banned = size > 0 and len(text) >= size and longer in grams
        assert bool(logits[0, 0, token] == -np.inf) == banned


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"strategy": "beams"}, "did you mean beam"),
        ({"strategy": "x"}, "take beam, diverse, nucleus"),
        ({"strategy": "diverse", "beam": 3, "groups": 4}, "fewer groups"),
        ({"strategy": "nucleus", "top_p": 0.0}, "top_p"),
        ({"strategy": "nucleus", "stepwise": 0.2}, "stepwise"),
        ({"min_tokens": 16}, "min_tokens"),
    ],
)
def test_settings_that_no_search_can_have(changes: dict, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        HypothesisSettings(**changes)
    assert caught.value.ways_out
