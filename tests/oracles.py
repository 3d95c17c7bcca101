"""The slow and obvious versions of what the library does fast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def log_p(model: Any, tokens: Sequence[int], prefix: torch.Tensor | None = None) -> float:
    """Log-probability of one text, its end token included: a token at a time, without padding."""
    wte = model.get_input_embeddings()
    end, seen, total = model.config.eos_token_id, [model.config.bos_token_id], 0.0
    for token in [*tokens, end]:
        embedded = wte(torch.tensor([seen]))
        if prefix is not None:
            embedded = torch.cat([prefix[None], embedded], 1)
        with torch.inference_mode():
            logits = model(inputs_embeds=embedded).logits[0, -1]
        total += float(logits.double().log_softmax(0)[token])
        seen.append(token)
    return total
