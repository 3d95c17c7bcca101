"""The training loop that base, decoder and prior share, on accelerate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

WARMUP = 0.05  # share of the steps
CLIP = 1.0  # norm that gradients are clipped to


def fit(
    accelerator: Accelerator,
    model: nn.Module,
    loss_of: Callable[[nn.Module, int], torch.Tensor],
    *,
    steps: int,
    learning_rate: float,
    weight_decay: float = 0.01,
    advance: Callable[[int, float], None] = lambda step, loss: None,
) -> list[float]:
    """Train ``model`` with AdamW, a short warm-up and a cosine.

    Args:
        accelerator: brings device, precision and processes.
        model: its parameters that require a gradient are trained, in place.
        loss_of: the loss of a step's batch; each process draws its own.
        steps: optimiser steps.
        learning_rate: at the top of the schedule.
        weight_decay: of AdamW.
        advance: called after each step with its number and loss.

    Returns:
        The loss of each step.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        trained, learning_rate, betas=(0.9, 0.98), weight_decay=weight_decay
    )
    warmup = max(1, int(WARMUP * steps))

    def rate(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup + 1)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    wrapped, optimiser = accelerator.prepare(model, optimiser)
    wrapped.train()
    losses = []
    for step in range(steps):
        with accelerator.autocast():
            loss = loss_of(wrapped, step)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(trained, CLIP)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        losses.append(float(loss.detach()))
        advance(step, losses[-1])
    model.eval()
    return losses


def text_loss(model: Any, ids: torch.Tensor, mask: torch.Tensor, bos: int) -> torch.Tensor:
    """Mean negative log-likelihood a token of texts [n, t] (end token included), no condition."""
    start = torch.full((len(ids), 1), bos, dtype=ids.dtype)
    inputs = torch.cat([start, ids[:, :-1]], dim=1)
    logits = model(input_ids=inputs).logits
    return _masked_loss(logits, ids, mask)


def prefix_loss(
    model: Any, prefix: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor, bos: int
) -> torch.Tensor:
    """Mean negative log-likelihood a token of texts [n, t] after prefixes [n, p, width]."""
    start = torch.full((len(ids), 1), bos, dtype=ids.dtype)
    embedded = model.get_input_embeddings()(torch.cat([start, ids[:, :-1]], dim=1))
    logits = model(inputs_embeds=torch.cat([prefix, embedded], dim=1)).logits
    return _masked_loss(logits[:, prefix.shape[1] :], ids, mask)


def _masked_loss(logits: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    losses = nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), ids.flatten(), reduction="none"
    )
    weights = mask.flatten().to(losses)
    return (losses * weights).sum() / weights.sum()
