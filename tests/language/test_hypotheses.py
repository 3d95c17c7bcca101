"""Strategies, bans and weights of the search against the plainest versions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from milanx.describing.ranker import (
    Candidate,
    SearchSettings,
    beam_search,
    doubt_of,
    foretells,
    hypotheses,
    rerank,
    search,
)
from milanx.errors import InputError
from milanx.language.gpt2 import build_gpt2, log_probabilities, train_tokenizer
from milanx.language.hypotheses import ban_repeats, draw, largest
from milanx.language.prior import Prior

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
    """Score whole texts with `milanx.language.gpt2.log_probabilities`."""
    longest = max(map(len, texts)) + 1
    ids = torch.full((len(texts), longest), END)
    mask = torch.zeros(len(texts), longest, dtype=torch.bool)
    for i, text in enumerate(texts):
        ids[i, : len(text)] = torch.tensor(text, dtype=torch.long)
        mask[i, : len(text) + 1] = True
    own = None if prefix is None else prefix.expand(len(texts), -1, -1)
    return log_probabilities(model, ids, mask, own).tolist()


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
    SearchSettings(beam=9, max_tokens=6),
    SearchSettings(beam=9, max_tokens=6, strategy="diverse", groups=3),
    SearchSettings(beam=7, max_tokens=6, strategy="diverse", groups=3, diversity=3.0),
    SearchSettings(samples=20, max_tokens=6, strategy="nucleus"),
    SearchSettings(beam=9, max_tokens=6, stepwise=0.4),
    SearchSettings(beam=9, max_tokens=7, min_tokens=3, no_repeat=2),
    SearchSettings(samples=20, max_tokens=7, strategy="nucleus", min_tokens=3, no_repeat=1),
    SearchSettings(
        beam=8, max_tokens=7, strategy="diverse", groups=4, min_tokens=2, no_repeat=2, stepwise=0.2
    ),
]


@pytest.mark.parametrize("how", HOWS, ids=range(len(HOWS)))
def test_every_strategy_is_exact_and_a_unit_does_not_feel_the_batch(
    model: torch.nn.Module, prior: torch.nn.Module, prefixes: torch.Tensor, how: SearchSettings
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


def test_bans_leave_no_allowed_text_out(model: torch.nn.Module, prefixes: torch.Tensor) -> None:
    how = SearchSettings(beam=300, max_tokens=4, min_tokens=2, no_repeat=1)
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
    how = SearchSettings(beam=300, max_tokens=4, stepwise=weight)
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
    plain = beam_search(model, prefixes, SearchSettings(beam=3, max_tokens=6))
    weighed = beam_search(model, prefixes, SearchSettings(beam=3, max_tokens=6, stepwise=1), prior)
    assert [[t for t, _ in found] for found in plain] != [[t for t, _ in f] for f in weighed]
    with pytest.raises(ValueError, match="prior"):
        beam_search(model, prefixes, SearchSettings(stepwise=0.2))


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
    how = SearchSettings(
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
        how = SearchSettings(max_tokens=6, **changes)
        return [[t for t, _ in found] for found in beam_search(model, prefixes, how)]

    assert texts(beam=6, strategy="diverse", groups=3, diversity=0.0) == texts(beam=2)
    near = texts(beam=6, strategy="diverse", groups=6, diversity=0.0)
    far = texts(beam=6, strategy="diverse", groups=6, diversity=50.0)
    firsts = [sum(len({t[:1] for t in row}) for row in rows) for rows in (near, far)]
    assert firsts[1] > firsts[0]


def test_nucleus_draws_what_the_plain_version_draws(
    model: torch.nn.Module, prefixes: torch.Tensor
) -> None:
    how = SearchSettings(strategy="nucleus", samples=12, max_tokens=5, top_p=0.8, seed=4)
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
        how = SearchSettings(strategy="nucleus", samples=10, max_tokens=8, **changes)
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


FOUND = [("red dogs", -2.0), ("dogs", -2.5), ("a dog in the snow", -3.0)]
BEFORE = {"red dogs": -6.0, "dogs": -3.0, "a dog in the snow": -9.0}
ALIKE = {"red dogs": 0.1, "dogs": 0.5, "a dog in the snow": -0.2}


def ranked(how: SearchSettings, **more: object) -> list[Candidate]:
    return list(rerank(FOUND, lambda texts: [BEFORE[t] for t in texts], how, **more))


def test_agreement_takes_part_in_the_rank_and_not_in_the_pmi() -> None:
    plain = ranked(SearchSettings())
    assert [c.text for c in plain] == ["red dogs", "a dog in the snow", "dogs"]
    assert all(c.agreement is None for c in plain)
    asked: list[list[str]] = []

    def agreement(texts: list[str]) -> list[float]:
        asked.append(list(texts))
        return [ALIKE[t] for t in texts]

    weighed = ranked(SearchSettings(agreement=4.0), agreement=agreement)
    for c in weighed:
        assert c.pmi == pytest.approx(c.log_p_given_exemplars - 0.2 * c.log_p_prior)
        assert c.agreement == pytest.approx(ALIKE[c.text])
    totals = [c.pmi + 4 * c.agreement for c in weighed]
    assert totals == sorted(totals, reverse=True)
    assert weighed[0].text == "dogs"
    assert len(asked) == 1
    argmax = ranked(SearchSettings(agreement=4.0, method="argmax"), agreement=agreement)
    assert [c.text for c in argmax] == ["red dogs", "dogs", "a dog in the snow"]
    ranked(SearchSettings(), agreement=agreement)
    assert len(asked) == 2  # without a weight it is not asked
    with pytest.raises(ValueError, match="agreement"):
        ranked(SearchSettings(agreement=1.0))


def test_response_and_what_is_missing_take_part_in_the_rank() -> None:
    told = ranked(SearchSettings(response=10.0), response=lambda texts: [ALIKE[t] for t in texts])
    assert told[0].text == "dogs"
    assert [c.response for c in told] == pytest.approx([ALIKE[c.text] for c in told])
    with pytest.raises(ValueError, match="response"):
        ranked(SearchSettings(response=1.0))
    found = [("dogs", -2.0), ("dogs without snow", -1.0)]
    prior = {"dogs": -3.0, "dogs without snow": -3.0}

    def first(how: SearchSettings) -> str:
        return rerank(found, lambda texts: [prior[t] for t in texts], how)[0].text

    assert first(SearchSettings()) == "dogs without snow"
    assert first(SearchSettings(without=2.0)) == "dogs"
    assert first(SearchSettings(joined=2.0)) == "dogs"
    found[1] = ("dogs or snow", -1.0)
    prior["dogs or snow"] = -3.0
    assert first(SearchSettings(without=2.0)) == "dogs or snow"
    assert first(SearchSettings(joined=2.0)) == "dogs"


def test_the_surer_p_is_the_less_a_response_counts() -> None:
    def first(surest: float) -> str:
        found = [("dogs", surest), ("trees", surest - 3)]
        return rerank(found, lambda texts: [-3.0] * 2, SearchSettings(response=40.0),
                      response=lambda texts: [0.2, 0.4])[0].text  # fmt: skip

    assert [first(-0.5), first(-2.5), first(-6.0)] == ["dogs", "trees", "trees"]
    assert doubt_of(-0.01) == doubt_of(-1.0) < doubt_of(-2.0) < doubt_of(-2.5) == doubt_of(-9.0)


def test_what_may_be_chance_hardly_counts() -> None:
    assert foretells(0.0) == 0
    assert foretells(-0.3) == -foretells(0.3)
    assert foretells(0.03) < 0.1 * 0.03
    assert foretells(0.4) > 0.9 * 0.4


def test_a_penalty_of_length_prefers_the_shorter() -> None:
    tokens = {"red dogs": 3, "dogs": 2, "a dog in the snow": 6}
    how = SearchSettings(length_penalty=2.0)
    assert [c.text for c in ranked(how, tokens=tokens)] == ["dogs", "red dogs", "a dog in the snow"]
    with pytest.raises(ValueError, match="tokens"):
        ranked(how)


@pytest.mark.parametrize("strategy", ["beam", "diverse", "nucleus"])
def test_search_asks_the_agreement_of_the_right_unit(
    monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    monkeypatch.setattr("milanx.describing.ranker.UNITS_AT_ONCE", 2)
    tokenizer = train_tokenizer(["red dogs", "blue sky over water", "striped cats"] * 4, 300)
    torch.manual_seed(1)
    model = build_gpt2(len(tokenizer), layers=1, width=16, heads=2).eval()
    how = SearchSettings(
        beam=6, samples=6, groups=2, max_tokens=5, strategy=strategy, agreement=3.0,
        length_penalty=0.1,
    )  # fmt: skip
    rows = []

    def agreement(row: int, texts: list[str]) -> np.ndarray:
        rows.append(row)
        return np.array([((row + 1) * len(t) % 7) / 7 for t in texts])

    prefixes = torch.randn(5, 2, 16)
    prior = Prior(model, tokenizer)
    made = search(model, prior, tokenizer, prefixes, how, agreement=agreement)
    assert rows == [row for row in range(5) if made[row]]
    for row, candidates in enumerate(made):
        for c in candidates:
            assert c.agreement == pytest.approx(((row + 1) * len(c.text) % 7) / 7)


def test_retrieved_texts_are_ranked_where_the_model_can_read_them() -> None:
    tokenizer = train_tokenizer(["red dogs", "blue sky over water"] * 4, 300)
    torch.manual_seed(1)
    model = build_gpt2(len(tokenizer), layers=1, width=16, heads=2, positions=16).eval()
    short, long = "red dogs", " or ".join(["blue sky over water"] * 8)
    how = SearchSettings(beam=3, max_tokens=8, candidates=99)
    made = search(model, Prior(model, tokenizer), tokenizer, torch.randn(2, 2, 16), how,
                  retrieved=[[short, long], [long]])  # fmt: skip
    assert short in {c.text for c in made[0]}
    assert not any(c.text == long for row in made for c in row)


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
        SearchSettings(**changes)
    assert caught.value.ways_out


def test_joins_that_repeat_come_behind_other_things() -> None:
    texts = ["dogs", "dog or cats", "dogs and cars", "lamps", "tents or ropes", "cats"]
    found = [(text, -1.0 - i) for i, text in enumerate(texts)]
    how = SearchSettings(lam=0, agreement=0, response=0, joined=0, candidates=5)
    made = [c.text for c in rerank(found, lambda texts: [-1.0] * len(texts), how)]
    assert made == ["dogs", "lamps", "tents or ropes", "cats", "dog or cats"]
    first = rerank(found[1:3], lambda texts: [-1.0] * len(texts), how)
    assert [c.text for c in first] == ["dog or cats", "dogs and cars"]
