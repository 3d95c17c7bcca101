"""The texts that are ranked for a unit: those that p(d|E) finds, and those that are retrieved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from milanx.describing.ranker import Hypothesis
from milanx.language.connectives import named
from milanx.language.hypotheses import Found, hypotheses
from milanx.language.people import says_colour_of_people
from milanx.language.score import score_texts
from milanx.language.settings import HypothesisSettings
from milanx.language.words import normalise_text
from milanx.workers import ALONE, Workers

if TYPE_CHECKING:
    import torch
    from transformers import GPT2LMHeadModel

    from milanx.language.prior import Prior

# Bytes of the logits of all beams of a step, which say how many units are searched together: they
# fit in the cache of a CPU, or fill a GPU.
LOGITS = {"cpu": 24 * 2**20, "cuda": 512 * 2**20}
LOGITS_ELSEWHERE = 64 * 2**20


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
        workers: Workers = ALONE,
    ) -> list[list[Hypothesis]]:
        """Find the texts of units.

        Args:
            prefixes: [u, p, width].
            how: how to search.
            retrieved: of each unit, texts that are added to what the search finds; their
                log p(d|E) is as exact as that of a found one. None where it is empty.
            workers: share out the units.

        Returns:
            Of each unit, its texts, those that the search found first.
        """
        size = self.units_at_once(how, prefixes.device)
        parts = [slice(i, i + size) for i in range(0, len(prefixes), size)]
        ids = self._ids(retrieved, prefixes.shape[1])

        def part(here: slice) -> list[list[_Scored]]:
            found = hypotheses(self.decoder, prefixes[here], how, self.prior.model)
            scored = [self._spelled(row) for row in found]
            asked = [{t: ids[t] for t in texts if t in ids} for texts in retrieved[here]]
            return self._with_retrieved(prefixes[here], scored, asked) if any(asked) else scored

        scored = [row for rows in workers.map(part, parts) for row in rows]
        return self._with_prior(scored, workers)

    def units_at_once(self, how: HypothesisSettings, device: torch.device) -> int:
        """Return how many units are searched together: as many as `LOGITS` says."""
        beams = how.samples if how.strategy == "nucleus" else how.beam
        each = 4 * beams * self.decoder.config.vocab_size
        return max(1, LOGITS.get(device.type, LOGITS_ELSEWHERE) // each)

    def _spelled(self, found: Found) -> list[_Scored]:
        """Read texts off tokens; keep those whose words exist and that say nothing twice.

        Where none is such all stay that do not call people by a colour, then all.
        """
        texts = self.prior.tokenizer.batch_decode([list(tokens) for tokens, _ in found])
        scored = [_Scored(text.strip(), log_p, len(tokens) + 1)
                  for text, (tokens, log_p) in zip(texts, found, strict=True)]  # fmt: skip
        scored = [s for s in scored if not says_colour_of_people(s.text)] or scored
        return [s for s in scored if is_sound(normalise_text(s.text), self.words)] or scored

    def _ids(self, retrieved: Sequence[Sequence[str]], prefix: int) -> dict[str, list[int]]:
        """Return the tokens of retrieved texts.

        What the model has no positions for is left out, and what calls people by a colour.
        """
        every = dict.fromkeys(text for texts in retrieved for text in texts)
        flat = [text for text in every if not says_colour_of_people(text)]
        encoded = self.prior.tokenizer(flat, add_special_tokens=False)["input_ids"] if flat else []
        room = self.decoder.config.n_positions - prefix - 1  # behind prefix and beginning token
        return {t: ids for t, ids in zip(flat, encoded, strict=True) if len(ids) <= room}

    def _with_retrieved(
        self,
        prefixes: torch.Tensor,
        scored: list[list[_Scored]],
        asked: Sequence[dict[str, list[int]]],
    ) -> list[list[_Scored]]:
        """Add to each unit's texts those of ``asked`` that it lacks, with their log p(d|E)."""
        new = []
        for found, texts in zip(scored, asked, strict=True):
            there = {s.text for s in found}
            new.append({text: ids for text, ids in texts.items() if text not in there})
        log_p = score_texts(self.decoder, prefixes, [[*texts.values()] for texts in new])
        return [
            [*found, *(_Scored(text, p, len(ids) + 1)
                       for (text, ids), p in zip(texts.items(), row, strict=True))]
            for found, texts, row in zip(scored, new, log_p, strict=True)
        ]  # fmt: skip

    def _with_prior(self, scored: list[list[_Scored]], workers: Workers) -> list[list[Hypothesis]]:
        """Add log p(d) to the texts that hold a word, each distinct one computed once."""
        worded = [[s for s in row if normalise_text(s.text)] for row in scored]
        before = iter(self.prior([s.text for row in worded for s in row], workers))
        return [[Hypothesis(s.text, s.log_p, next(before), s.tokens) for s in row]
                for row in worded]  # fmt: skip


@dataclass(frozen=True)
class _Scored:
    """A text with its log p(d|E) and its tokens, its end token included."""

    text: str
    log_p: float
    tokens: int


def is_sound(text: str, words: frozenset[str]) -> bool:
    """Whether a folded text holds known words (any where ``words`` is empty), and none twice.

    "dogs or dog" and "dogs on a dog" say no more than "dogs". Words that name nothing may come
    twice. Nobody is called by a colour.
    """
    if says_colour_of_people(text):
        return False
    told, stems = set(text.split()), named(text)
    return bool(told) and len(stems) == len(set(stems)) and (not words or told <= words)
