"""Losses of texts, as sums with the tokens that they are over."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def text_sums(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, bos: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of the negative log-likelihoods of texts [n, t], and how many tokens it is over.

    Their end tokens count; there is no condition.
    """
    device = next(model.parameters()).device
    ids, mask = ids.to(device), mask.to(device)
    start = torch.full((len(ids), 1), bos, dtype=ids.dtype, device=ids.device)
    inputs = torch.cat([start, ids[:, :-1]], dim=1)
    logits = model(input_ids=inputs).logits
    return _masked_sums(logits, ids, mask)


def prefix_sums(
    model: Any, prefix: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor, bos: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of the negative log-likelihoods of texts [n, t] after prefixes [n, p, width].

    Returns:
        The sum, and how many tokens it is over, end tokens included.
    """
    ids, mask = ids.to(prefix.device), mask.to(prefix.device)
    start = torch.full((len(ids), 1), bos, dtype=ids.dtype, device=ids.device)
    embedded = model.get_input_embeddings()(torch.cat([start, ids[:, :-1]], dim=1))
    logits = model(inputs_embeds=torch.cat([prefix, embedded], dim=1)).logits
    return _masked_sums(logits[:, prefix.shape[1] :], ids, mask)


def _masked_sums(
    logits: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    losses = nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), ids.flatten(), reduction="none"
    )
    weights = mask.flatten().to(losses)
    return (losses * weights).sum(), weights.sum()
