"""LoRA (Hu et al. 2021) on a GPT-2, whole or in 4 bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn


def with_lora(
    base: Any, rank: int, alpha: int, targets: Sequence[str], dropout: float = 0.0
) -> nn.Module:
    """Return ``base`` with a fresh adapter in float32, which alone is trained.

    Args:
        base: a GPT-2, or one in 4 bits (`milanx.train.engine.quant.load_4bit`).
        rank: of the adapter's products.
        alpha: over ``rank``, what the products are multiplied by.
        targets: names of the linear maps that get one.
        dropout: of what goes into the adapter, in training.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=list(targets),
        # GPT-2 keeps its weights as [in, out]; bitsandbytes turns them.
        fan_in_fan_out=not getattr(base, "is_loaded_in_4bit", False),
    )
    adapted = get_peft_model(base, config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted
