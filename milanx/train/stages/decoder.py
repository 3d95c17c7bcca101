"""Training of p(d|E): LoRA on the base, behind the set encoder's prefixes."""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedTokenizerFast

from milanx.language.gpt2 import encode_texts
from milanx.train.engine.lora import with_lora
from milanx.train.engine.schedule import FitSettings
from milanx.train.stages.conditioned import (
    TOKENS,
    Conditioned,
    load_base,
    load_set_encoder,
    part_of,
)
from milanx.train.stages.desk import Desk, step_rng
from milanx.train.units.corpus import Batch

CHECKED = 384  # units of a check


def make_decoder(desk: Desk) -> dict[str, Any]:
    """Adapt the base with LoRA to descriptions of exemplar sets; write adapter and set encoder.

    The weights that are kept are those of the best loss on units of photos that no training saw.
    """
    recipe, settings, course = desk.recipe, desk.recipe.decoder, desk.course
    corpus, check = course.corpus(), course.corpus(check=True)
    torch.manual_seed(recipe.seed)
    base, tokenizer = load_base(desk)
    set_encoder = load_set_encoder(desk, "base")
    adapted = with_lora(base, settings.rank, settings.alpha, settings.targets, settings.dropout)
    both = Conditioned(set_encoder, adapted)

    def loss_of(wrapped: nn.Module, step: int) -> Any:
        batch = corpus.batch(settings.batch_size, step_rng(recipe.seed, 2, step))
        return wrapped(*part_of(batch, tokenizer, desk))

    # Where too few photos are kept for a check, the last weights are taken.
    checked = check.batch(CHECKED, step_rng(recipe.seed, 3, 0)) if check.kinds else None

    def held_out(model: nn.Module) -> Any:
        assert checked is not None
        return model(*part_of(checked, tokenizer, desk))

    chosen = FitSettings(
        settings.steps, settings.learning_rate, accumulate=settings.accumulate,
        optimiser=settings.optimiser, check_every=settings.check_every if checked else 0,
        patience=settings.patience if checked else 0,
    )  # fmt: skip
    facts = desk.fit(both, loss_of, chosen, held_out if checked else None)
    both.model.save_pretrained(desk.folder / "decoder")
    halves = {k: v.half() for k, v in set_encoder.state_dict().items()}
    save_file(halves, desk.folder / "set_encoder.safetensors")
    if checked:
        facts["held_out_by_kind"] = losses_by_kind(both, checked, tokenizer)
    return facts


@torch.inference_mode()
def losses_by_kind(
    both: Conditioned, batch: Batch, tokenizer: PreTrainedTokenizerFast
) -> dict[str, float]:
    """Mean negative log-likelihood a token of fresh units, by kind of meaning."""
    both.eval()
    found = {}
    for kind in sorted(set(batch.kinds)):
        rows = torch.tensor([i for i, k in enumerate(batch.kinds) if k == kind])
        texts = [batch.texts[i] for i in rows]
        ids, mask = encode_texts(tokenizer, texts, TOKENS)
        total, tokens = both(batch.evidence.rows(rows), ids, mask, tokenizer.bos_token_id)
        found[kind] = round(float(total / tokens), 3)
    return found
