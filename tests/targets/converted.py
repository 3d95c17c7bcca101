"""timm's weights of a ViT in transformers' model of it: two ways to the same units.

    python -m tests.targets.converted WEIGHTS.safetensors FOLDER

writes the folder of a ``vit_tiny_patch16_224`` whose weights are in a file, timm's names.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import timm
import torch
import transformers
from torch import nn

# What a layer is called in timm, and in transformers.
NAMES = {
    "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense", "norm1": "layernorm_before",
    "norm2": "layernorm_after", "attn.proj": "attention.output.dense",
}  # fmt: skip


def convert(source: nn.Module, folder: Path) -> Path:
    """Save timm's VisionTransformer, with its preprocessing, as a folder of transformers'."""
    blocks: Any = source.blocks
    height, width = source.patch_embed.img_size  # type: ignore[union-attr]
    settings = timm.data.resolve_model_data_config(source)
    model = transformers.ViTForImageClassification(transformers.ViTConfig(
        hidden_size=source.embed_dim, num_hidden_layers=len(blocks), image_size=height,
        num_attention_heads=blocks[0].attn.num_heads, patch_size=source.patch_embed.patch_size[0],
        intermediate_size=blocks[0].mlp.fc1.out_features, layer_norm_eps=blocks[0].norm1.eps,
        num_labels=source.num_classes,
    ))  # fmt: skip
    model.load_state_dict(_renamed(source.state_dict(), model))
    model.save_pretrained(folder)
    resize = int(height / settings["crop_pct"])
    transformers.ViTImageProcessor(
        size={"shortest_edge": resize}, do_center_crop=True, resample=3,
        crop_size={"height": height, "width": width}, image_mean=list(settings["mean"]),
        image_std=list(settings["std"]),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def _renamed(tensors: dict[str, torch.Tensor], model: nn.Module) -> dict[str, torch.Tensor]:
    raise NotImplementedError


if __name__ == "__main__":
    made = timm.create_model("vit_tiny_patch16_224")
    convert(made, Path(sys.argv[2]))
