"""timm's weights of a ViT in transformers' model of it: two ways to the same units.

    python -m tests.targets.converted WEIGHTS.safetensors FOLDER

writes the folder of a ``vit_tiny_patch16_224`` whose weights, under timm's names, are in a file.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import timm
import torch
import transformers

from milanx.targets.zoo import load_target

# What a part is called in timm, and in transformers.
NAMES = (
    (r"^blocks\.", "vit.layers."), (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."), (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"^norm\.", "vit.layernorm."), (r"^head\.", "classifier."),
    (r"^cls_token", "vit.embeddings.cls_token"),
    (r"^pos_embed", "vit.embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "vit.embeddings.patch_embeddings.projection."),
)  # fmt: skip


def convert(source: Any, folder: Path) -> Path:
    """Save timm's VisionTransformer, with its preprocessing, as a folder of transformers'."""
    first, settings = source.blocks[0], timm.data.resolve_model_data_config(source)
    height, width = source.patch_embed.img_size
    model = transformers.ViTForImageClassification(transformers.ViTConfig(
        hidden_size=source.embed_dim, num_hidden_layers=len(source.blocks), image_size=height,
        num_attention_heads=first.attn.num_heads, patch_size=source.patch_embed.patch_size[0],
        intermediate_size=first.mlp.fc1.out_features, layer_norm_eps=first.norm1.eps,
        num_labels=source.num_classes,
    ))  # fmt: skip
    model.load_state_dict(renamed(source.state_dict()))
    model.save_pretrained(folder)
    transformers.ViTImageProcessor(
        size={"shortest_edge": int(height / settings["crop_pct"])}, do_center_crop=True,
        crop_size={"height": height, "width": width}, resample=3,  # bicubic
        image_mean=list(settings["mean"]), image_std=list(settings["std"]),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def renamed(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return timm's tensors of a ViT under transformers' names, queries, keys and values apart."""
    found = {}
    for key, value in tensors.items():
        for pattern, name in NAMES:
            key = re.sub(pattern, name, key)
        parts = zip("qkv", value.chunk(3), strict=True) if ".attn.qkv." in key else [("", value)]
        found |= {key.replace(".attn.qkv.", f".attention.{p}_proj."): v.clone() for p, v in parts}
    return found


if __name__ == "__main__":
    given = load_target("vit_tiny_patch16_224", weights=Path(sys.argv[1]))
    convert(given.model, Path(sys.argv[2]))
