"""p(d|E): a GPT-2 with LoRA behind a prefix that a set encoder makes from the exemplars."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel


@dataclass(frozen=True)
class SetEncoderSpec:
    """The shape of the set encoder.

    Attributes:
        features: d of the encoder's pooled features.
        joint: width of the encoder's joint image-text space.
        width: width of the GPT-2 that reads the prefix.
        prefix: p, how many prefix positions it makes.
        layers: transformer layers over the set.
        heads: attention heads of each.
        dropout: in training.
    """

    features: int
    joint: int
    width: int = 256
    prefix: int = 6
    layers: int = 2
    heads: int = 4
    dropout: float = 0.1


class SetEncoder(nn.Module):
    """Exemplar sets to prefixes; the order of the exemplars does not matter.

    Each exemplar's features under its mask, of the whole view, and both in the joint image-text
    space become one vector; learned queries and the exemplars then attend to one another without
    positions (Lee et al. 2019, "Set Transformer"), and what the queries became is the prefix.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, spec: SetEncoderSpec) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("mean", torch.zeros(spec.features))
        self.register_buffer("scale", torch.ones(spec.features))
        self.pooled = nn.Linear(2 * spec.features, spec.width)
        self.words = nn.Linear(2 * spec.joint, spec.width)
        self.queries = nn.Parameter(torch.randn(spec.prefix, spec.width) * 0.02)
        self.join = nn.LayerNorm(spec.width)
        layer = nn.TransformerEncoderLayer(
            spec.width,
            spec.heads,
            4 * spec.width,
            spec.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(layer, spec.layers, enable_nested_tensor=False)
        self.out = nn.Sequential(nn.LayerNorm(spec.width), nn.Linear(spec.width, spec.width))

    def forward(
        self, features: torch.Tensor, joint: torch.Tensor, valid: torch.Tensor
    ) -> torch.Tensor:
        """Make prefixes.

        Args:
            features: [u, k, 2, d], masked and whole.
            joint: [u, k, 2, j], the same in the joint space, unit rows.
            valid: bool [u, k], which exemplars there are.

        Returns:
            [u, p, width].
        """
        units = len(features)
        centred = ((features - self.mean) * self.scale).clamp(-8, 8).flatten(2)
        exemplars = self.join(self.pooled(centred) + self.words(joint.flatten(2) * 10))
        queries = self.queries.expand(units, -1, -1)
        tokens = torch.cat([queries, exemplars], dim=1)
        absent = torch.cat([valid.new_zeros(units, self.spec.prefix), ~valid], dim=1)
        tokens = self.layers(tokens, src_key_padding_mask=absent)
        return self.out(tokens[:, : self.spec.prefix])


def with_lora(base: GPT2LMHeadModel, settings: dict[str, Any]) -> nn.Module:
    """Return ``base`` wrapped by peft with a fresh LoRA adapter (``settings`` of `LoraConfig`)."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(task_type="CAUSAL_LM", fan_in_fan_out=True, **settings)
    return get_peft_model(base, config)


def load_merged(base_folder: str, adapter_folder: str) -> GPT2LMHeadModel:
    """Read a base and an adapter and return one plain model with the adapter merged in."""
    from peft import PeftModel
    from transformers import GPT2LMHeadModel

    base = GPT2LMHeadModel.from_pretrained(base_folder, dtype=torch.float32)
    merged = PeftModel.from_pretrained(base, adapter_folder).merge_and_unload()
    return merged.eval().requires_grad_(False)
