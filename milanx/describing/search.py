"""The texts that are ranked for a unit: those that p(d|E) finds, and those that are retrieved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from milanx.describing.ranker import Hypothesis
from milanx.language.connectives import named
from milanx.language.gpt2 import normalise_text
from milanx.language.hypotheses import Found, hypotheses
from milanx.language.score import score_texts
from milanx.language.settings import HypothesisSettings

if TYPE_CHECKING:
    import torch
    from transformers import GPT2LMHeadModel

    from milanx.language.prior import Prior

UNITS_AT_ONCE = 48  # units of one beam search: their logits fit in some 50 MB


@dataclass(frozen=True)
class Finder:
    """Finds texts of units and tells their log p(d|E) and log p(d).

    Attributes:
        decoder: p(d|E).
        prior: log p(d), with the tokenizer of both.
        words: the words that a text may hold, folded; any when empty. A small language model
            spells words that do not exist, and PMI favours what p(d) finds unlikely.
    """

    decoder: GPT2LMHeadModel
    prior: Prior
    words: frozenset[str] = frozenset()

    def find(
        self,
        prefixes: torch.Tensor,
        how: HypothesisSettings,
        retrieved: Sequence[Sequence[str]] = (),
    ) -> Iterator[list[list[Hypothesis]]]:
        """Find the texts of units, a batch of units at a time.

        Args:
            prefixes: [u, p, width].
            how: how to search.
            retrieved: of each unit, texts that are added to what the search finds; their
                log p(d|E) is as exact as that of a found one. None where it is empty.

        Yields:
            Of each unit of a batch, its texts, those that the search found first.
        """
        for start in range(0, len(prefixes), UNITS_AT_ONCE):
            part = prefixes[start : start + UNITS_AT_ONCE]
            found = hypotheses(self.decoder, part, how, self.prior.model)
            scored = [self._spelled(row) for row in found]
            asked = retrieved[start : start + UNITS_AT_ONCE]
            if any(asked):
                scored = self._with_retrieved(part, scored, asked)
            yield self._with_prior(scored)

    def _spelled(self, found: Found) -> list[_Scored]:
        """Read texts off tokens; keep those whose words exist and that say nothing twice.

        All of them where none is such.
        """
        texts = self.prior.tokenizer.batch_decode([list(tokens) for tokens, _ in found])
        scored = [_Scored(text.strip(), log_p, len(tokens) + 1)
                  for text, (tokens, log_p) in zip(texts, found, strict=True)]  # fmt: skip
        return [s for s in scored if is_sound(normalise_text(s.text), self.words)] or scored

    def _with_retrieved(
        self,
        prefixes: torch.Tensor,
        scored: list[list[_Scored]],
        asked: Sequence[Sequence[str]],
    ) -> list[list[_Scored]]:
        """Add to each unit's texts those of ``asked`` that it lacks, with their log p(d|E).

        What the model has no positions for is left out.
        """
        flat = list(dict.fromkeys(text for texts in asked for text in texts))
        encoded = self.prior.tokenizer(flat, add_special_tokens=False)["input_ids"]
        ids = dict(zip(flat, encoded, strict=True))
        # Behind prefix and beginning token.
        room = self.decoder.config.n_positions - prefixes.shape[1] - 1
        new: list[list[str]] = []
        for found, texts in zip(scored, asked, strict=True):
            there = {s.text for s in found}
            new.append([text for text in dict.fromkeys(texts)
                        if text not in there and len(ids[text]) <= room])  # fmt: skip
        log_p = score_texts(self.decoder, prefixes, [[ids[t] for t in texts] for texts in new])
        return [
            [*found, *(_Scored(t, p, len(ids[t]) + 1) for t, p in zip(texts, row, strict=True))]
            for found, texts, row in zip(scored, new, log_p, strict=True)
        ]

    def _with_prior(self, scored: list[list[_Scored]]) -> list[list[Hypothesis]]:
        """Add log p(d) to the texts that hold a word, all of a batch together."""
        worded = [[s for s in row if normalise_text(s.text)] for row in scored]
        self.prior([s.text for row in worded for s in row])
        return [
            [Hypothesis(s.text, s.log_p, before, s.tokens)
             for s, before in zip(row, self.prior([s.text for s in row]), strict=True)]
            for row in worded
        ]  # fmt: skip


@dataclass(frozen=True)
class _Scored:
    """A text with its log p(d|E) and its tokens, its end token included."""

    text: str
    log_p: float
    tokens: int


def is_sound(text: str, words: frozenset[str]) -> bool:
    """Whether a folded text holds known words (any where ``words`` is empty), and none twice.

    "dogs or dog" and "dogs on a dog" say no more than "dogs". Words that name nothing may come
    twice.
    """
    told, stems = set(text.split()), named(text)
    return bool(told) and len(stems) == len(set(stems)) and (not words or told <= words)
