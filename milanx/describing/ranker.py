"""Candidates under p(d|E), ranked by weighted PMI and by the critic's agreement."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from milanx.language.connectives import joins
from milanx.language.gpt2 import normalise_text
from milanx.language.hypotheses import Found, beam_search, nucleus_search
from milanx.language.score import score_texts
from milanx.language.settings import SearchSettings
from milanx.language.words import stem

if TYPE_CHECKING:
    import torch
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

    from milanx.language.prior import Prior

__all__ = [
    "Candidate",
    "SearchSettings",
    "beam_search",
    "hypotheses",
    "nucleus_search",
    "rerank",
    "search",
]

JOINING = frozenset({"and", "or", "without", "of", "with", "on", "in", "a", "an", "the"})
DIM = 0.12  # a correlation far below this may come about by chance: it counts by its cube
UNSURE = 2.5  # nats that the likeliest text costs where p(d|E) by itself is no guide any more
LEAST = 0.3  # what responses count at least, however sure p(d|E) is: many units are surely of dogs
UNITS_AT_ONCE = 48  # units of one beam search: their logits fit in some 50 MB


@dataclass(frozen=True)
class Candidate:
    """One text for a unit.

    Attributes:
        text: as it was spelled most likely.
        pmi: its weighted PMI, in nats; what a describer without language models ranks by.
        log_p_given_exemplars: log p(d|E), in nats; None without language models.
        log_p_prior: log p(d), in nats; None without language models.
        agreement: of text and exemplars, in nats (`milanx.describing.critic`); None where it took
            no part in the ranking.
        response: correlation of text and activations (`milanx.describing.response`); None likewise.
    """

    text: str
    pmi: float
    log_p_given_exemplars: float | None
    log_p_prior: float | None
    agreement: float | None = None
    response: float | None = None


def hypotheses(
    model: GPT2LMHeadModel,
    prefixes: torch.Tensor,
    settings: SearchSettings,
    prior: GPT2LMHeadModel | None = None,
) -> list[Found]:
    """Find texts of each unit by the settings' strategy.

    Args:
        model: p(d|E).
        prefixes: [u, p, width].
        settings: strategy and its numbers.
        prior: p(d), needed when ``stepwise`` is not 0.

    Returns:
        For each unit (token ids without the end token, log p of the whole text with its end
        token, in nats), best first.
    """
    if settings.strategy == "nucleus":
        return nucleus_search(model, prefixes, settings)
    return beam_search(model, prefixes, settings, prior)


def rerank(
    found: Sequence[tuple[str, float]],
    prior: Callable[[Sequence[str]], Sequence[float]],
    settings: SearchSettings,
    *,
    agreement: Callable[[Sequence[str]], Sequence[float]] | None = None,
    response: Callable[[Sequence[str]], Sequence[float]] | None = None,
    tokens: Mapping[str, int] | None = None,
) -> tuple[Candidate, ...]:
    """Merge texts that are the same after normalisation, and rank what is left.

    The rank of a text is its weighted PMI, plus ``settings.agreement`` times its agreement and
    ``settings.response`` times what its response counts (`foretells`), less
    ``settings.length_penalty`` times its tokens, ``settings.joined`` if it joins two things and
    ``settings.without`` if it says what is missing. Responses count the less the surer p(d|E) is
    (`doubt_of`).

    Args:
        found: (text, log p(d|E)), any order.
        prior: log p(d) of texts.
        settings: weights, method, how many are kept.
        agreement: of texts and the unit's exemplars; asked only where it has a weight.
        response: of texts and the unit's activations; the same.
        tokens: of each text, its end token included; needed where length has a penalty.

    Returns:
        At least the best by rank, best first by the settings' method (``argmax`` is
        log p(d|E) alone), joined texts that repeat what stands before them behind all others;
        beside the best ``candidates`` of that method the likeliest by log p(d|E) is always among
        them.

    Raises:
        ValueError: a weight without what it weighs.
    """
    if settings.length_penalty and tokens is None:
        raise ValueError("length has a penalty, but the texts' tokens are not given")
    spellings: dict[str, dict[str, float]] = {}
    for text, score in found:
        folded = normalise_text(text)
        if folded:
            known = spellings.setdefault(folded, {})
            known[text] = _log_add(known[text], score) if text in known else score
    if not spellings:
        return ()
    flat = [text for known in spellings.values() for text in known]
    before = dict(zip(flat, prior(flat), strict=True))
    shown = [max(known, key=lambda text: (known[text], text)) for known in spellings.values()]
    alike = _asked("agreement", settings.agreement, agreement, shown)
    foretold = _asked("response", settings.response, response, shown)
    likelihoods = [_log_sum(known.values()) for known in spellings.values()]
    doubt = doubt_of(max(likelihoods))
    ranked = []
    for text, (folded, known), likelihood, near, r in zip(
        shown, spellings.items(), likelihoods, alike, foretold, strict=True
    ):
        unconditioned = _log_sum(before[spelling] for spelling in known)
        pmi = likelihood - settings.lam * unconditioned
        rank = pmi + settings.agreement * (near or 0.0)
        rank += settings.response * doubt * foretells(r or 0.0)
        rank -= settings.joined * joins(folded) + settings.without * (" without " in folded)
        if settings.length_penalty and tokens is not None:
            rank -= settings.length_penalty * tokens[text]
        made = Candidate(text, pmi, likelihood, unconditioned, near, r)
        ranked.append((rank, likelihood, made))
    by_rank = [c for _, _, c in sorted(ranked, key=lambda r: (-r[0], r[2].text))]
    by_likelihood = [c for _, _, c in sorted(ranked, key=lambda r: (-r[1], r[2].text))]
    plain = settings.method == "pmi"
    first, second = (by_rank, by_likelihood) if plain else (by_likelihood, by_rank)
    kept = _varied(first)[: settings.candidates]
    return tuple(kept if second[0] in kept else [*kept, second[0]])


def _varied(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Put joined texts that repeat a word of what stands before them behind all others.

    Who asks for the next best wants another thing, not "dogs or cats" and "dogs or cars" after
    "dogs". The first stays first.
    """
    kept: list[Candidate] = []
    behind: list[Candidate] = []
    said: set[str] = set()
    for candidate in candidates:
        folded = normalise_text(candidate.text)
        words = {stem(word) for word in folded.split() if word not in JOINING}
        repeats = bool(kept) and joins(folded) and bool(words & said)
        (behind if repeats else kept).append(candidate)
        if not repeats:
            said |= words
    return kept + behind


def doubt_of(likeliest: float) -> float:
    """Return what responses count where p(d|E)'s likeliest text has this log p: `LEAST` to 1.

    In full where it costs `UNSURE` nats or more, by the square of the cost below.
    """
    return min(1.0, max(LEAST, (likeliest / UNSURE) ** 2))


def foretells(correlation: float) -> float:
    """Return what a text's correlation with a unit's activations counts in the ranking."""
    return correlation**3 / (correlation**2 + DIM**2)


def _asked(
    name: str,
    weight: float,
    ask: Callable[[Sequence[str]], Sequence[float]] | None,
    texts: Sequence[str],
) -> Sequence[float | None]:
    """Ask for a number a text where it has a weight; None for each where it has none."""
    if not weight:
        return [None] * len(texts)
    if ask is None:
        raise ValueError(f"{name} has a weight, but nothing tells it")
    return [float(value) for value in ask(texts)]


def _log_add(a: float, b: float) -> float:
    return max(a, b) + math.log1p(math.exp(-abs(a - b)))


def _log_sum(values: Any) -> float:
    numbers = list(values)
    top = max(numbers)
    return top + math.log(sum(math.exp(v - top) for v in numbers))


def search(
    model: GPT2LMHeadModel,
    prior: Prior,
    tokenizer: PreTrainedTokenizerFast,
    prefixes: torch.Tensor,
    settings: SearchSettings,
    *,
    words: frozenset[str] = frozenset(),
    advance: Callable[[int], None] = lambda n: None,
    agreement: Callable[[int, Sequence[str]], Sequence[float]] | None = None,
    response: Callable[[int, Sequence[str]], Sequence[float]] | None = None,
    prepare: Callable[[Sequence[str]], object] = lambda texts: None,
    retrieved: Sequence[Sequence[str]] = (),
) -> list[tuple[Candidate, ...]]:
    """Search and rank the texts of each unit.

    Args:
        model: p(d|E).
        prior: log p(d).
        tokenizer: of both.
        prefixes: [u, p, width].
        settings: how.
        words: the words that a text may hold, folded; any when empty. A small language model
            spells words that do not exist, and PMI favours what p(d) finds unlikely.
        advance: told how many units are done.
        agreement: of a unit, given by its row in ``prefixes``, and texts: a number
            a text; needed where the settings give it a weight.
        response: the same for the responses.
        prepare: told all texts of a batch of units before ``agreement`` and ``response`` are asked
            for them one unit after the other, so that they can be embedded together.
        retrieved: of each unit, texts that are ranked beside what the search finds; their
            log p(d|E) is as exact as that of a found one.

    Returns:
        The candidates of each unit, best first.
    """
    made: list[tuple[Candidate, ...]] = []
    for start in range(0, len(prefixes), UNITS_AT_ONCE):
        part = prefixes[start : start + UNITS_AT_ONCE]
        batch = hypotheses(model, part, settings, prior.model)
        texts = [_decode(tokenizer, [tokens for tokens, _ in found]) for found in batch]
        named = [
            _spelled([(text, score) for text, (_, score) in zip(row, found, strict=True)], words)
            for row, found in zip(texts, batch, strict=True)
        ]
        if retrieved:
            asked = retrieved[start : start + UNITS_AT_ONCE]
            named = _with_retrieved(model, tokenizer, part, named, asked)
        prior([text for found in named for text, _ in found if normalise_text(text)])
        if settings.agreement or settings.response:
            prepare(sorted({text for found in named for text, _ in found}))
        for i, found in enumerate(named):
            lengths: dict[str, int] = {}
            for text, (tokens, _) in zip(texts[i], batch[i], strict=True):
                lengths.setdefault(text, len(tokens) + 1)
            for text in retrieved[start + i] if retrieved else ():
                lengths.setdefault(text, _length(tokenizer, text))
            alike = None if agreement is None else partial(agreement, start + i)
            foretold = None if response is None else partial(response, start + i)
            made.append(rerank(found, prior, settings, agreement=alike, response=foretold,
                               tokens=lengths))  # fmt: skip
        advance(len(batch))
    return made


def _with_retrieved(
    model: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerFast,
    prefixes: torch.Tensor,
    named: list[list[tuple[str, float]]],
    asked: Sequence[Sequence[str]],
) -> list[list[tuple[str, float]]]:
    """Add to each unit's texts those of ``asked`` that it lacks, with their log p(d|E).

    What the model has no positions for is left out.
    """
    flat = list(dict.fromkeys(text for texts in asked for text in texts))
    if not flat:
        return named
    ids = dict(zip(flat, tokenizer(flat, add_special_tokens=False)["input_ids"], strict=True))
    room = model.config.n_positions - prefixes.shape[1] - 1  # behind prefix and beginning token
    new: list[list[str]] = []
    for found, texts in zip(named, asked, strict=True):
        there = {text for text, _ in found}
        new.append([text for text in dict.fromkeys(texts)
                    if text not in there and len(ids[text]) <= room])  # fmt: skip
    scores = score_texts(model, prefixes, [[ids[text] for text in texts] for texts in new])
    return [[*found, *zip(texts, row, strict=True)]
            for found, texts, row in zip(named, new, scores, strict=True)]  # fmt: skip


def _length(tokenizer: PreTrainedTokenizerFast, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False)["input_ids"]) + 1


def _spelled(found: list[tuple[str, float]], words: frozenset[str]) -> list[tuple[str, float]]:
    """Keep the texts whose words all exist and that say nothing twice; all of them if none does."""
    kept = [pair for pair in found if _sound(normalise_text(pair[0]).split(), words)]
    return kept or found


def _sound(text: list[str], words: frozenset[str]) -> bool:
    """Whether words are known ones (any where ``words`` is empty) and none comes twice.

    "dogs or dog" and "dogs on a dog" say no more than "dogs". Words that only join may come twice.
    """
    told = [stem(word) for word in text if word not in JOINING]
    return len(told) == len(set(told)) and (not words or set(text) <= words)


def _decode(tokenizer: PreTrainedTokenizerFast, rows: Sequence[Sequence[int]]) -> list[str]:
    return [text.strip() for text in tokenizer.batch_decode([list(r) for r in rows])]
