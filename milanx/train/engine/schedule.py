"""How a model is trained: settings, and the learning rate and the optimiser that they ask for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import torch
from torch import nn

from milanx.train.recipe import Optimiser

WARMUP = 0.05  # share of the steps
CLIP = 1.0  # norm that gradients are clipped to
FLOOR = 0.02  # share of the learning rate that the cosine ends at
BETAS = (0.9, 0.98)  # of AdamW, for language models
ADAM = (0.9, 0.999)  # Adam's own (Kingma and Ba 2015), for the small networks beside them


@dataclass(frozen=True)
class FitSettings:
    """How a model is trained.

    Attributes:
        steps: optimiser steps.
        learning_rate: at the top of the schedule.
        weight_decay: of AdamW.
        betas: of AdamW.
        warmup: what the learning rate rises over: a share of the steps, or from 1 on steps.
        overlap: whether the cosine that falls begins with the first step, not after the rise.
        floor: share of the learning rate that the cosine ends at; 1 keeps it as it is.
        clip: norm that gradients are clipped to; 0 for none.
        mixed: whether the accelerator's precision is used; else all is in float32.
        accumulate: batches a step.
        optimiser: ``adamw``, or ``adamw8bit`` of bitsandbytes.
        check_every: steps between two checks of the held-out value (one more at the end); 0: none.
        patience: checks without a new best before training stops; 0: it never does.
        checkpoint_every: steps between two checkpoints; 0: only at the end and on Ctrl-C.
    """

    steps: int
    learning_rate: float
    weight_decay: float = 0.01
    betas: tuple[float, float] = BETAS
    warmup: float = WARMUP
    overlap: bool = False
    floor: float = FLOOR
    clip: float = CLIP
    mixed: bool = True
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
                  for n in ("weight_decay", "warmup", "clip", "check_every", "patience",
                            "checkpoint_every")
                  if not getattr(self, n) >= 0]  # fmt: skip
        if not 0 <= self.floor <= 1:
            wrong.append(f"floor must be from 0 to 1, not {self.floor}")
        if self.optimiser not in get_args(Optimiser):
            wrong.append(f"optimiser must be one of {', '.join(get_args(Optimiser))}")
        if self.patience and not self.check_every:
            wrong.append("patience needs check_every")
        return wrong


def small_network(
    steps: int,
    learning_rate: float,
    *,
    warmup: float,
    weight_decay: float = 0.05,
    floor: float = 0.0,
    check_every: int = 0,
) -> FitSettings:
    """Return how a network beside the language models is trained.

    It costs little, so it is in float32 whatever the accelerator's precision, and its gradients are
    not clipped. The learning rate falls from the first step on, while it still rises.
    """
    return FitSettings(
        steps, learning_rate, weight_decay, ADAM, warmup, overlap=True, floor=floor, clip=0,
        mixed=False, check_every=check_every,
    )  # fmt: skip


def learning_rate_at(step: int, settings: FitSettings) -> float:
    """Return the learning rate of a step: a linear rise, times a cosine down to the floor."""
    steps, warmup, floor = settings.steps, settings.warmup, settings.floor
    rise = max(1, int(warmup if warmup >= 1 else warmup * steps))
    start, end = (0, steps) if settings.overlap else (rise, steps + 1)
    top = settings.learning_rate
    if step < rise:
        top = top * (step + 1) / rise
    if step <= start:
        return top
    done = (step - start) / (end - start)
    return top * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done)))


def make_optimiser(
    trained: list[nn.Parameter], settings: FitSettings, device: torch.device
) -> torch.optim.Optimizer:
    """Make the optimiser that the settings name for parameters that are on ``device``."""
    rate, decay, betas = settings.learning_rate, settings.weight_decay, settings.betas
    if settings.optimiser == "adamw8bit":
        from milanx.train.engine.quant import adamw8bit

        return adamw8bit(trained, rate, betas=betas, weight_decay=decay, device=device)
    return torch.optim.AdamW(trained, rate, betas=betas, weight_decay=decay)
