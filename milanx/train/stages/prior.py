"""Training of p(d): LoRA on the base, without exemplars."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from milanx.language.gpt2 import encode_texts
from milanx.train.engine.fit import share
from milanx.train.engine.lora import with_lora
from milanx.train.engine.losses import text_sums
from milanx.train.engine.schedule import FitSettings
from milanx.train.stages.conditioned import TOKENS, load_base
from milanx.train.stages.desk import Desk, step_rng

PEOPLE = 0.3  # share of people's descriptions among those that p(d) is fitted to


def make_prior(desk: Desk) -> dict[str, Any]:
    """Fit the base with a LoRA of its own to descriptions without their sets.

    They are those of units, and a share of what people wrote of units elsewhere, so that p(d)
    knows how they would say it.
    """
    recipe, settings, corpus = desk.recipe, desk.recipe.prior, desk.course.corpus()
    people = desk.course.units.people()
    torch.manual_seed(recipe.seed)
    base, tokenizer = load_base(desk)
    model: Any = with_lora(base, settings.rank, settings.alpha, recipe.decoder.targets)

    def loss_of(wrapped: nn.Module, step: int) -> Any:
        rng = step_rng(recipe.seed, 4, step)
        written = round(PEOPLE * settings.batch_size) if people else 0
        texts = [corpus.text(rng) for _ in range(settings.batch_size - written)]
        texts += [str(people[i]) for i in rng.integers(0, max(len(people), 1), written)]
        own = share(settings.batch_size, desk.accelerator)
        ids, mask = encode_texts(tokenizer, texts[own], TOKENS)
        return text_sums(wrapped, ids, mask, tokenizer.bos_token_id)

    chosen = FitSettings(
        settings.steps, settings.learning_rate, accumulate=settings.accumulate,
        optimiser=settings.optimiser,
    )  # fmt: skip
    facts = desk.fit(model, loss_of, chosen)
    model.save_pretrained(desk.folder / "prior")
    return facts
