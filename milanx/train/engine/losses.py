"""Losses of texts: as means, and as sums with the tokens that they are over."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def text_loss(model: Any, ids: torch.Tensor, mask: torch.Tensor, bos: int) -> torch.Tensor:
    """Mean negative log-likelihood a token of texts [n, t] (end token included), no condition."""
    total, tokens = text_sums(model, ids, mask, bos)
    return total / tokens


def text_sums(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, bos: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of the negative log-likelihoods of `text_loss`, and how many tokens it is over."""
    device = next(model.parameters()).device
    ids, mask = ids.to(device), mask.to(device)
    start = torch.full((len(ids), 1), bos, dtype=ids.dtype, device=ids.device)
    inputs = torch.cat([start, ids[:, :-1]], dim=1)
    logits = model(input_ids=inputs).logits
    return _masked_sums(logits, ids, mask)


def prefix_loss(
    model: Any, prefix: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor, bos: int
) -> torch.Tensor:
    """Mean negative log-likelihood a token of texts [n, t] after prefixes [n, p, width]."""
    total, tokens = prefix_sums(model, prefix, ids, mask, bos)
    return total / tokens


def prefix_sums(
    model: Any, prefix: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor, bos: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of the negative log-likelihoods of `prefix_loss`, and how many tokens it is over."""
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
