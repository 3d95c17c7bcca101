"""p(d): the same GPT-2 without condition, fitted to the same descriptions as p(d|E)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from milanx.language.gpt2 import encode_texts, log_probabilities

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast


class Prior:
    """log p(d) of texts; each distinct text is computed once.

    Args:
        model: the unconditioned GPT-2, its adapter merged in.
        tokenizer: shared with p(d|E).
    """

    def __init__(self, model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self._known: dict[str, float] = {}

    def __call__(self, texts: Sequence[str]) -> list[float]:
        """Return log p of each whole text with its end token, in nats.

        Texts are cut to what the model has positions for.
        """
        new = sorted({text for text in texts if text not in self._known})
        if new:
            ids, mask = encode_texts(self.tokenizer, new, self.model.config.n_positions)
            values = log_probabilities(self.model, ids, mask)
            self._known.update(zip(new, values.tolist(), strict=True))
        return [self._known[text] for text in texts]
