"""The describing side as it is trained: a set encoder before a GPT-2."""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedTokenizerFast

from milanx.describing.set_encoder import SetEncoder, SetEncoderSpec
from milanx.features.evidence import Evidence
from milanx.language.gpt2 import encode_texts, load_gpt2, load_tokenizer
from milanx.train.engine.fit import share
from milanx.train.engine.losses import prefix_sums, text_sums
from milanx.train.engine.quant import load_4bit, without_dropout
from milanx.train.stages.desk import Desk
from milanx.train.units.corpus import Batch

TOKENS = 24  # longest description in training, in tokens; captions are cut there
NO_WORDS = 0.3  # share of the units that retrieve no words in training
BEHIND = 6.0  # weight of a token behind a prefix beside one of the longer plain texts


class Conditioned(nn.Module):
    """Set encoder and GPT-2 as one module, so that one optimiser trains both."""

    model: Any

    def __init__(self, set_encoder: SetEncoder, model: nn.Module) -> None:
        super().__init__()
        self.set_encoder = set_encoder
        self.model = model

    def forward(
        self,
        evidence: Evidence,
        ids: torch.Tensor,
        mask: torch.Tensor,
        bos: int,
        plain: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return summed loss and tokens of texts behind their sets, or beside plain texts.

        With plain texts, the sum over these and `BEHIND` times the other, and the plain tokens.
        """
        device = self.set_encoder.mean.device
        evidence, ids, mask = evidence.to(device), ids.to(device), mask.to(device)
        with_words = None
        if self.training:
            with_words = torch.rand(len(evidence), device=ids.device) >= NO_WORDS
        prefix = self.set_encoder(evidence, with_words)
        total, tokens = prefix_sums(self.model, prefix, ids, mask, bos)
        if plain is None:
            return total, tokens
        plain_total, plain_tokens = text_sums(self.model, *plain, bos)
        return plain_total + BEHIND * total, plain_tokens


def part_of(
    batch: Batch, tokenizer: PreTrainedTokenizerFast, desk: Desk
) -> tuple[Evidence, torch.Tensor, torch.Tensor, int]:
    """Return this process's part of a batch as `Conditioned` takes it."""
    own = share(len(batch.texts), desk.accelerator)
    ids, mask = encode_texts(tokenizer, batch.texts[own], TOKENS)
    return batch.evidence.rows(own), ids, mask, tokenizer.bos_token_id


def load_set_encoder(desk: Desk, name: str) -> SetEncoder:
    """Load the set encoder that the stage ``name`` wrote, its critic frozen."""
    set_encoder = SetEncoder(SetEncoderSpec(**desk.made("critic").facts["set_encoder"]))
    set_encoder.load_state_dict(load_file(desk.made(name).folder / "set_encoder.safetensors"))
    set_encoder.critic.requires_grad_(False)
    return set_encoder


def load_base(desk: Desk) -> tuple[Any, PreTrainedTokenizerFast]:
    """Load the recipe's GPT-2, or else the small one of the stage ``base``, and the tokenizer."""
    base = desk.recipe.base
    if base.model:
        model = (
            without_dropout(load_4bit(base.model, device=desk.accelerator.device))
            if base.load_in_4bit
            else load_gpt2(base.model)
        )
        return model, load_tokenizer(base.model)
    folder = desk.made("base").folder
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder / "tokenizer"))
    return load_gpt2(str(folder / "base")), tokenizer
