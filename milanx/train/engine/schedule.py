"""How a model is trained: settings, and the learning rate and the optimiser that they ask for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

WARMUP = 0.05  # share of the steps
CLIP = 1.0  # norm that gradients are clipped to
FLOOR = 0.02  # share of the learning rate that the cosine ends at
BETAS = (0.9, 0.98)  # of AdamW
OPTIMISERS = ("adamw", "adamw8bit")


@dataclass(frozen=True)
class FitSettings:
    """How a model is trained.

    Attributes:
        steps: optimiser steps.
        learning_rate: at the top of the schedule.
        weight_decay: of AdamW.
        warmup: share of the steps over which the learning rate rises; a cosine follows.
        clip: norm that gradients are clipped to; 0 for none.
        accumulate: batches a step.
        optimiser: ``adamw``, or ``adamw8bit`` of bitsandbytes.
        check_every: steps between two checks of the held-out value (one more at the end); 0: none.
        patience: checks without a new best before training stops; 0: it never does.
        checkpoint_every: steps between two checkpoints; 0: only at the end and on Ctrl-C.
    """

    steps: int
    learning_rate: float
    weight_decay: float = 0.01
    warmup: float = WARMUP
    clip: float = CLIP
    accumulate: int = 1
    optimiser: str = "adamw"
    check_every: int = 0
    patience: int = 0
    checkpoint_every: int = 200

    def errors(self) -> list[str]:
        """Return what is wrong with the settings, a phrase an error."""
        wrong = [
            f"{n} must be above zero, not {getattr(self, n)}"
            for n in ("steps", "learning_rate", "accumulate")
            if not getattr(self, n) > 0
        ]
        wrong += [f"{n} must not be below zero, not {getattr(self, n)}"
                  for n in ("weight_decay", "clip", "check_every", "patience", "checkpoint_every")
                  if not getattr(self, n) >= 0]  # fmt: skip
        if not 0 <= self.warmup < 1:
            wrong.append(f"warmup must be from 0 to below 1, not {self.warmup}")
        if self.optimiser not in OPTIMISERS:
            wrong.append(f"optimiser must be one of {', '.join(OPTIMISERS)}")
        if self.patience and not self.check_every:
            wrong.append("patience needs check_every")
        return wrong


def learning_rate_at(step: int, settings: FitSettings) -> float:
    """Return the learning rate of a step: a linear rise, then a cosine down to `FLOOR` of it."""
    warmup = max(1, int(settings.warmup * settings.steps))
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    done = (step - warmup) / (settings.steps - warmup + 1)
    return settings.learning_rate * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * done)))


def make_optimiser(
    trained: list[nn.Parameter], settings: FitSettings, device: torch.device
) -> torch.optim.Optimizer:
    """Make the optimiser that the settings name for parameters that are on ``device``."""
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimiser == "adamw8bit":
        from milanx.train.engine.quant import adamw8bit

        return adamw8bit(trained, rate, betas=BETAS, weight_decay=decay, device=device)
    return torch.optim.AdamW(trained, rate, betas=BETAS, weight_decay=decay)
