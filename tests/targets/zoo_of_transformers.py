"""A tiny member, with random weights, of each family of transformers' that is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import transformers as t

SIDE = 32  # pixels
WIDTHS = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
          "intermediate_size": 48, "image_size": SIDE, "patch_size": 8}  # fmt: skip
TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 32, "vocab_size": 60, "bos_token_id": 1, "eos_token_id": 2,
        "pad_token_id": 0}  # fmt: skip
SQUARE = {"height": SIDE, "width": SIDE}
LABELS = {0: "tabby cat", 1: "trolleybus", 2: "acorn"}


def _detr() -> t.PreTrainedModel:
    trunk = t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1],
                           layer_type="basic", out_features=["stage2"])  # fmt: skip
    return t.DetrForObjectDetection(t.DetrConfig(
        backbone_config=trunk, use_timm_backbone=False, d_model=16, encoder_layers=1,
        decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32,
        decoder_ffn_dim=32, num_queries=4, num_labels=3,
    ))  # fmt: skip


# By family: what makes the model, and what makes its image processor.
FAMILIES: dict[str, tuple[Callable[[], t.PreTrainedModel], Callable[[], object]]] = {
    "vit": (
        lambda: t.ViTForImageClassification(t.ViTConfig(**WIDTHS, id2label=LABELS)),
        lambda: t.ViTImageProcessor(size=SQUARE),
    ),
    "dinov2": (
        lambda: t.Dinov2Model(t.Dinov2Config(**{k: v for k, v in WIDTHS.items()
                                                if k != "intermediate_size"}, mlp_ratio=2)),
        lambda: t.BitImageProcessor(size={"shortest_edge": 40}, crop_size=SQUARE),
    ),
    "dinov2_registers": (
        lambda: t.Dinov2WithRegistersModel(t.Dinov2WithRegistersConfig(
            **{k: v for k, v in WIDTHS.items() if k != "intermediate_size"}, mlp_ratio=2,
            num_register_tokens=4)),
        lambda: t.BitImageProcessor(size={"shortest_edge": 40}, crop_size=SQUARE),
    ),
    "clip": (
        lambda: t.CLIPModel(t.CLIPConfig(text_config=TEXT, vision_config=WIDTHS,
                                         projection_dim=512)),
        lambda: t.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SQUARE),
    ),
    "siglip": (
        lambda: t.SiglipModel(t.SiglipConfig(text_config=TEXT, vision_config=WIDTHS)),
        lambda: t.SiglipImageProcessor(size=SQUARE),
    ),
    "convnext": (
        lambda: t.ConvNextForImageClassification(t.ConvNextConfig(
            hidden_sizes=[8, 12, 16, 24], depths=[1, 1, 1, 1], id2label=LABELS)),
        lambda: t.ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.875),
    ),
    "swin": (
        lambda: t.SwinForImageClassification(t.SwinConfig(
            embed_dim=12, depths=[2, 1], num_heads=[2, 2], image_size=SIDE, patch_size=4,
            window_size=4, id2label=LABELS)),
        lambda: t.ViTImageProcessor(size=SQUARE, resample=3),
    ),
    "beit": (
        lambda: t.BeitForImageClassification(t.BeitConfig(**WIDTHS, id2label=LABELS)),
        lambda: t.BeitImageProcessor(size={"height": 40, "width": 40}, crop_size=SQUARE,
                                     image_mean=[0.5] * 3, image_std=[0.5] * 3),
    ),
    "deit": (
        lambda: t.DeiTForImageClassificationWithTeacher(t.DeiTConfig(**WIDTHS, id2label=LABELS)),
        lambda: t.DeiTImageProcessor(size={"height": 40, "width": 40}, crop_size=SQUARE),
    ),
    "resnet": (
        lambda: t.ResNetForImageClassification(t.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic",
            id2label=LABELS)),
        lambda: t.ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.875),
    ),
    "segformer": (
        lambda: t.SegformerForSemanticSegmentation(t.SegformerConfig(
            hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 2, 2],
            decoder_hidden_size=16)),
        lambda: t.SegformerImageProcessor(size={"height": 64, "width": 64}),
    ),
    "detr": (
        _detr,
        lambda: t.DetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 128}),
    ),
}  # fmt: skip


def save(family: str, folder: Path) -> Path:
    """Save a family's tiny member and its processor in ``folder``."""
    torch.manual_seed(0)
    model, processor = FAMILIES[family]
    made = model().eval()
    with torch.no_grad():  # what is zero or all alike at first would show nothing
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    made.save_pretrained(folder)
    processor().save_pretrained(folder)
    return folder
