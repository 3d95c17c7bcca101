"""A GPT-2 that reads one token of many hypotheses at a time, over transformers' own weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

CHUNK = 64  # logits come in whole chunks, so that a search can look at each one's largest first


@dataclass
class Cache:
    """Keys and values of every block: prefixes [u, heads, p, d] and beams [u, b, heads, t, d]."""

    prefix: list[tuple[torch.Tensor, torch.Tensor]]
    beams: list[tuple[torch.Tensor, torch.Tensor]] | None = None

    def select(self, units: torch.Tensor, parents: torch.Tensor) -> None:
        """Keep some units, and of each the beams ``parents`` [u, b] (repeats allowed)."""
        if len(units) < len(self.prefix[0][0]):
            self.prefix = [(k[units], v[units]) for k, v in self.prefix]
        if self.beams is not None:
            rows = units[:, None]
            self.beams = [(k[rows, parents], v[rows, parents]) for k, v in self.beams]


class Incremental:
    """Reads one token of every beam of every unit at a time.

    The vocabulary is padded to whole chunks; padding has the logit minus infinity.

    Args:
        model: whose weights are read.
    """

    def __init__(self, model: GPT2LMHeadModel) -> None:
        self.body = model.transformer
        self.bos, self.end = model.config.bos_token_id, model.config.eos_token_id
        self.heads = model.config.n_head
        self.scale = 1 / math.sqrt(model.config.n_embd // model.config.n_head)
        self.fused = model.config.activation_function == "gelu_new"
        weight = model.lm_head.weight
        self.words = len(weight)
        self.head = F.pad(weight, (0, 0, 0, -self.words % CHUNK))

    def start(self, prefixes: torch.Tensor) -> tuple[Cache, torch.Tensor]:
        """Read prefixes [u, p, width] and the beginning token; logits of the first token [u, v]."""
        bos = self.body.wte.weight[self.bos]
        inputs = torch.cat([prefixes, bos.expand(len(prefixes), 1, -1)], 1)
        hidden = inputs + self.body.wpe.weight[: inputs.shape[1]]
        cache = []
        for block in self.body.h:
            q, k, v = self._qkv(block, hidden)
            read = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            cache.append((k, v))
            hidden = self._finish(block, hidden, read.transpose(1, 2).flatten(2))
        return Cache(cache), self._logits(hidden[:, -1])

    def step(self, cache: Cache, tokens: torch.Tensor) -> torch.Tensor:
        """Read the next token of every beam [u, b]; logits [u, b, v]."""
        own = 0 if cache.beams is None else cache.beams[0][0].shape[3]
        position = cache.prefix[0][0].shape[2] + own
        hidden = self.body.wte.weight[tokens] + self.body.wpe.weight[position]
        beams = []
        for i, block in enumerate(self.body.h):
            q, k, v = (part.unsqueeze(3) for part in self._qkv_one(block, hidden))
            if cache.beams is not None:
                k = torch.cat([cache.beams[i][0], k], 3)
                v = torch.cat([cache.beams[i][1], v], 3)
            beams.append((k, v))
            hidden = self._finish(block, hidden, self._attend(q, cache.prefix[i], (k, v)))
        cache.beams = beams
        return self._logits(hidden)

    def _qkv(self, block: Any, hidden: torch.Tensor) -> list[torch.Tensor]:
        """Queries, keys, values [u, heads, p, d] of hidden [u, p, width]."""
        parts = block.attn.c_attn(block.ln_1(hidden)).chunk(3, -1)
        return [part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts]

    def _qkv_one(self, block: Any, hidden: torch.Tensor) -> list[torch.Tensor]:
        """Queries, keys, values [u, b, heads, d] of hidden [u, b, width]."""
        parts = block.attn.c_attn(block.ln_1(hidden)).chunk(3, -1)
        return [part.unflatten(-1, (self.heads, -1)) for part in parts]

    def _attend(
        self,
        q: torch.Tensor,
        prefix: tuple[torch.Tensor, torch.Tensor],
        own: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """Attend over the unit's prefix, shared by its beams, and over the beam's own tokens."""
        query = q.squeeze(3).transpose(1, 2)  # [u, heads, b, d]
        shared = query @ prefix[0].transpose(2, 3)  # [u, heads, b, p]
        alone = (own[0] @ q.transpose(3, 4)).squeeze(4).transpose(1, 2)  # [u, heads, b, t]
        weights = (torch.cat([shared, alone], -1) * self.scale).softmax(-1)
        size = shared.shape[-1]
        read = weights[..., :size] @ prefix[1]  # [u, heads, b, d]
        mine = (weights[..., size:].transpose(1, 2).unsqueeze(3) @ own[1]).squeeze(3)
        return (read.transpose(1, 2) + mine).flatten(2)

    def _finish(self, block: Any, hidden: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        hidden = hidden + block.attn.c_proj(read)
        inner = block.mlp.c_fc(block.ln_2(hidden))
        # The same function in one pass over memory instead of eight.
        inner = F.gelu(inner, approximate="tanh") if self.fused else block.mlp.act(inner)
        return hidden + block.mlp.c_proj(inner)

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = F.linear(self.body.ln_f(hidden), self.head).float()
        logits[..., self.words :] = -math.inf
        return logits
