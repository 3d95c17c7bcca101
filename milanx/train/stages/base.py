"""Training of the base GPT-2, or of prefixes for one of others.

The base learns captions and descriptions, half of them behind the prefix of an exemplar set; so
it reads prefixes before LoRA adapts it, once to descriptions of exemplars, once without them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from milanx.errors import InputError
from milanx.language.gpt2 import build_gpt2, encode_texts, train_tokenizer
from milanx.train.engine.fit import share
from milanx.train.engine.schedule import FitSettings
from milanx.train.stages.conditioned import (
    TOKENS,
    Conditioned,
    load_base,
    load_set_encoder,
    part_of,
)
from milanx.train.stages.desk import Desk, step_rng


def make_base(desk: Desk) -> dict[str, Any]:
    """Pretrain the base and the set encoder on its prefixes; write both, and the tokenizer.

    The set encoder goes on from the critic's, whose critic stays as it is. A base of others is
    neither trained nor written.
    """
    return _train_prefixes(desk) if desk.recipe.base.model else _train_base(desk)


def _settings(desk: Desk) -> FitSettings:
    base = desk.recipe.base
    return FitSettings(
        base.steps, base.learning_rate, accumulate=base.accumulate, optimiser=base.optimiser
    )


def _train_base(desk: Desk) -> dict[str, Any]:
    """Pretrain a small GPT-2 on texts and on units."""
    recipe, settings, corpus = desk.recipe, desk.recipe.base, desk.course.corpus()
    texts = desk.course.units.texts()
    rng = np.random.default_rng(recipe.seed)
    drawn = [corpus.text(rng) for _ in range(len(texts) // 10)]
    tokenizer = train_tokenizer([*texts, *drawn], settings.vocabulary)
    torch.manual_seed(recipe.seed)
    model = build_gpt2(
        len(tokenizer), settings.layers, settings.width, settings.heads, settings.positions
    )
    both = Conditioned(load_set_encoder(desk, "critic"), model)
    ids, mask = encode_texts(tokenizer, texts, TOKENS)
    count = settings.steps * settings.accumulate
    order = _batches(mask.sum(1).numpy(), settings.batch_size, count, rng)

    def loss_of(wrapped: nn.Module, step: int) -> Any:
        rows = order[step][share(len(order[step]), desk.accelerator)]
        longest = int(mask[rows].sum(1).max())
        batch = corpus.batch(settings.units, step_rng(recipe.seed, 1, step))
        plain = ids[rows, :longest], mask[rows, :longest]
        return wrapped(*part_of(batch, tokenizer, desk), plain)

    facts = desk.fit(both, loss_of, _settings(desk))
    model.half().save_pretrained(desk.folder / "base")
    tokenizer.save_pretrained(desk.folder / "tokenizer")
    save_file(both.set_encoder.state_dict(), desk.folder / "set_encoder.safetensors")
    return {**facts, "texts": len(texts)}


def _batches(
    lengths: np.ndarray, size: int, steps: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Batches of texts of like length, in random order."""
    batches: list[np.ndarray] = []
    while len(batches) < steps:
        order = np.lexsort((rng.random(len(lengths)), lengths))
        epoch = [order[i : i + size] for i in range(0, len(order), size)]
        batches += [epoch[i] for i in rng.permutation(len(epoch))]
    return batches[:steps]


def _train_prefixes(desk: Desk) -> dict[str, Any]:
    """Teach the set encoder to make prefixes that the recipe's frozen GPT-2 reads.

    Nothing of the model's language can be lost, and LoRA adapts it later.

    Raises:
        InputError: too few positions, or a tokenizer that does not fit.
    """
    recipe, settings, corpus = desk.recipe, desk.recipe.base, desk.course.corpus()
    model, tokenizer = load_base(desk)
    both = Conditioned(load_set_encoder(desk, "critic"), model.requires_grad_(False))
    ends = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    if ends != (model.config.bos_token_id, model.config.eos_token_id) or None in ends:
        raise InputError(
            f"the language model {settings.model} does not fit its tokenizer",
            f"the tokenizer begins and ends texts with tokens {ends}, its config.json says others",
            "write both with save_pretrained, with the same bos and eos tokens",
        )
    longest = both.set_encoder.prefix_length + 1 + TOKENS
    if model.config.n_positions < longest:
        raise InputError(
            f"the language model {settings.model} has {model.config.n_positions} positions",
            f"prefix and text need {longest}",
            "choose another base.model, or a smaller decoder.prefix",
        )

    def loss_of(wrapped: nn.Module, step: int) -> Any:
        batch = corpus.batch(settings.units, step_rng(recipe.seed, 1, step))
        return wrapped(*part_of(batch, tokenizer, desk))

    facts = desk.fit(both, loss_of, _settings(desk))
    tokenizer.save_pretrained(desk.folder / "tokenizer")
    save_file(both.set_encoder.state_dict(), desk.folder / "set_encoder.safetensors")
    return facts
