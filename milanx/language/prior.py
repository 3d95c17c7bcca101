"""p(d): the same GPT-2 without condition, fitted to the same descriptions as p(d|E)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from milanx.language.remembered import Remembered
from milanx.language.score import score_texts
from milanx.workers import ALONE, Workers

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

TEXTS_AT_ONCE = 512  # whose beginnings are read together: their logits fit in a CPU's cache
MOST = 2**18  # texts that are remembered, some 50 MB


class Prior:
    """log p(d) of texts; each distinct text is computed once.

    Args:
        model: the unconditioned GPT-2, its adapter merged in.
        tokenizer: shared with p(d|E).
    """

    def __init__(self, model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self._known: Remembered[float] = Remembered(MOST)

    def __call__(self, texts: Sequence[str], workers: Workers = ALONE) -> list[float]:
        """Return log p of each whole text with its end token, in nats.

        Texts are cut to what the model has positions for.

        Args:
            texts: any of which may come several times.
            workers: share out what is new.
        """
        known = self._known.of(texts, lambda new: self._computed(new, workers))
        return [known[text] for text in texts]

    def forget(self) -> None:
        """Forget what was computed."""
        self._known = Remembered(MOST)

    def _computed(self, texts: Sequence[str], workers: Workers) -> list[float]:
        """Compute log p of distinct texts, those that begin alike beside one another."""
        longest = self.model.config.n_positions - 1  # behind the beginning token
        ids = [row[:longest] for row in
               self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]]  # fmt: skip
        order = sorted(range(len(ids)), key=ids.__getitem__)
        parts = [order[i : i + TEXTS_AT_ONCE] for i in range(0, len(order), TEXTS_AT_ONCE)]
        weight = self.model.get_input_embeddings().weight
        nothing = weight.new_zeros(1, 0, weight.shape[1])

        def part(rows: list[int]) -> list[float]:
            return score_texts(self.model, nothing, [[ids[i] for i in rows]])[0]

        found = torch.zeros(len(ids), dtype=torch.float64)
        for rows, values in zip(parts, workers.map(part, parts), strict=True):
            found[rows] = torch.tensor(values, dtype=torch.float64)
        made: list[float] = found.tolist()
        return made
