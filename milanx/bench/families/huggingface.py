"""A small member of each kind of model of images that transformers registers.

They are of a few layers and units, with random weights, and loaded as a folder that save_pretrained
wrote is; so nothing is downloaded.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch

from milanx.bench.families.member import Member, shown_at
from milanx.errors import InputError
from milanx.targets.zoo import Target, load_target

PREFIX = "transformers:"
# Where transformers lists what takes images, by modeling_auto's names; of the lists that a model is
# in, the first says which class of it is looked at.
LISTS = ("IMAGE_CLASSIFICATION", "IMAGE", "BACKBONE", "ZERO_SHOT_IMAGE_CLASSIFICATION")
# The whole of images and texts, whose part for images is taken, where a list names the classifier.
WHOLE = ("clip", "metaclip_2", "siglip", "siglip2", "tipsv2")
GAIN = 2.0  # of weights' variances over their inputs, as ReLU needs it
JITTER = (
    0.05  # deviation of what is added to other weights, so that none is zero or like all others
)

SIDE = 64  # pixels; patches of 8 make maps of 8 x 8
DEEP = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": SIDE,
        "patch_size": 8}  # fmt: skip
VIT = DEEP | {"intermediate_size": 96}
DINO = DEEP | {"mlp_ratio": 2}
TOWER = {"vision_config": VIT}
STAGES = {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 2, 1, 1]}
BASIC = STAGES | {"embedding_size": 16}
WINDOWS = {"embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "image_size": SIDE,
           "window_size": 4}  # fmt: skip
PYRAMID = STAGES | {"num_attention_heads": [1, 2, 2, 4]}
TRUNK = {"model_type": "resnet", "embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1],
         "layer_type": "basic", "out_features": ["stage2"]}  # fmt: skip
TIERS = TRUNK | {"hidden_sizes": [16, 24, 32], "depths": [1, 1, 1],
                 "out_features": ["stage1", "stage2", "stage3"]}  # fmt: skip
FOUND = {"backbone_config": TRUNK, "d_model": 32, "encoder_layers": 2, "decoder_layers": 1,
         "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 64,
         "decoder_ffn_dim": 64, "num_queries": 5}  # fmt: skip
EFFICIENT = {"width_coefficient": 0.25, "depth_coefficient": 0.5, "hidden_dim": 320,
             "image_size": 128}  # fmt: skip
# By kind, what makes it small. Of what is refused before it is built, nothing is needed.
SETTINGS: dict[str, dict[str, Any]] = {
    "aimv2_vision_model": VIT, "align": {"vision_config": EFFICIENT}, "altclip": TOWER,
    "beit": VIT | {"use_relative_position_bias": True}, "bit": BASIC | {"num_groups": 4},
    "blip": TOWER, "blip-2": {"vision_config": VIT, "qformer_config": {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 48, "encoder_hidden_size": 48}},
    "chinese_clip": TOWER, "clip": TOWER, "clipseg": TOWER, "cohere2_vision": {},
    "conditional_detr": FOUND, "convnext": STAGES, "convnextv2": STAGES,
    "cvt": {"embed_dim": [16, 32, 48], "num_heads": [1, 2, 4], "depth": [1, 2, 3]},
    "dab-detr": {k: v for k, v in FOUND.items() if k != "d_model"} | {"hidden_size": 32},
    "data2vec-vision": VIT | {"use_relative_position_bias": True, "out_indices": [0, 1]},
    "deformable_detr": FOUND | {"backbone_config": TIERS, "num_feature_levels": 3},
    "deit": VIT, "depth_pro": {
        "fusion_hidden_size": 16, "patch_size": 32, "intermediate_hook_ids": [1, 0],
        "intermediate_feature_dims": [16, 16], "scaled_images_feature_dims": [24, 24, 16],
        "scaled_images_ratios": [0.25, 0.5, 1.0],
        "scaled_images_overlap_ratios": [0.0, 0.5, 0.25],
        **{f"{part}_model_config": {"model_type": "dinov2", **DINO, "image_size": 32}
           for part in ("image", "patch", "fov")}},
    "detr": FOUND, "dinat": {"embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4],
                             "dilations": [[1, 2], [1, 1]], "kernel_size": 3},
    "dinov2": DINO, "dinov2_with_registers": DINO, "dinov3_convnext": STAGES,
    "dinov3_vit": VIT | {"num_register_tokens": 4}, "donut-swin": WINDOWS,
    "dpt": VIT | {"backbone_out_indices": [0, 0, 1, 1], "neck_hidden_sizes": [8, 16, 24, 32],
                  "fusion_hidden_size": 16},
    "efficientnet": EFFICIENT,
    "focalnet": {"embed_dim": 24, "depths": [2, 2], "hidden_sizes": [24, 48],
                 "focal_levels": [2, 2], "focal_windows": [3, 3], "image_size": SIDE},
    "glpn": PYRAMID | {"decoder_hidden_size": 16},
    "hgnet_v2": {"stem_channels": [3, 16, 24], "stage_in_channels": [24, 32, 48, 64],
                 "stage_mid_channels": [16, 16, 24, 24], "stage_out_channels": [32, 48, 64, 96],
                 "hidden_sizes": [32, 48, 64, 96], "stage_num_blocks": [1, 1, 2, 1],
                 "depths": [1, 1, 2, 1], "embedding_size": 24, "stage_numb_of_layers": [2] * 4},
    "hiera": {"embed_dim": 24, "depths": [1, 2, 2, 1], "num_heads": [1, 2, 2, 4],
              "image_size": [224, 224]},
    "ijepa": VIT, "imagegpt": {},
    "levit": {"hidden_sizes": [32, 48, 64], "num_attention_heads": [2, 3, 4], "depths": [2, 2, 2],
              "image_size": 224},
    "llama4": {"vision_config": VIT | {
        "intermediate_size": 192, "vision_output_dim": 48, "projector_input_dim": 48,
        "projector_output_dim": 48}},
    "lw_detr_vit": DINO | {"image_size": 128, "pretrain_image_size": 128,
                           "window_block_indices": [0], "out_features": ["stage2"]},
    "maskformer-swin": WINDOWS, "metaclip_2": TOWER, "mlcd": VIT, "mlcd_vision_model": VIT,
    "mllama": {"vision_config": {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "attention_heads": 2,
        "num_global_layers": 1, "intermediate_layers_indices": [0], "image_size": SIDE,
        "patch_size": 8, "vision_output_dim": 64}},
    "mobilenet_v1": {"depth_multiplier": 0.25, "image_size": 128},
    "mobilenet_v2": {"depth_multiplier": 0.25, "image_size": 128},
    "mobilevit": {"hidden_sizes": [24, 32, 40], "neck_hidden_sizes": [8, 12, 16, 20, 24, 28, 48],
                  "image_size": 128},
    "mobilevitv2": {"base_attn_unit_dims": [24, 32, 40], "n_attn_blocks": [1, 1, 1],
                    "width_multiplier": 0.25, "image_size": 128},
    "perceiver": {"image_size": 32, "num_latents": 16, "d_latents": 32, "d_model": 32,
                  "num_self_attends_per_block": 2, "num_self_attention_heads": 2,
                  "num_cross_attention_heads": 1},
    "pixio": DINO | {"n_cls_tokens": 4}, "poolformer": STAGES,
    "pp_lcnet": {"scale": 0.25}, "pp_lcnet_v3": {"scale": 0.25, "conv_symmetric_num": 1},
    "pp_lcnet_v4": {"stem_channels": [3, 8, 16], "block_configs": [
        [[3, 16, 16, 1, True]], [[3, 16, 16, 1, False]], [[3, 16, 24, [2, 1], False]],
        [[3, 24, 32, [2, 1], True]]]},
    "pvt": PYRAMID | {"image_size": 128}, "pvt_v2": PYRAMID | {"image_size": 128},
    "regnet": BASIC | {"groups_width": 8}, "resnet": BASIC,
    "rf_detr_dinov2": DINO | {"num_windows": 2, "window_block_indexes": [0],
                              "out_features": ["stage2"]},
    "rt_detr_resnet": BASIC, "sapiens2": VIT | {
        "num_key_value_heads_per_layer": [4, 2], "num_key_value_attention_heads": 2,
        "num_first_full_attention_layers": 1, "num_last_full_attention_layers": 0,
        "num_register_tokens": 2, "out_features": ["stage2"]},
    "segformer": PYRAMID, "shieldgemma2": {}, "siglip": TOWER,
    "siglip2": {"vision_config": {k: v for k, v in VIT.items() if k != "image_size"}},
    "siglip_vision_model": VIT,
    "swiftformer": {"embed_dims": [16, 24, 32, 48], "depths": [1, 2, 1, 1]},
    "swin": WINDOWS, "swin2sr": {"embed_dim": 24, "depths": [2, 2], "num_heads": [2, 2],
                                 "image_size": 32, "window_size": 4},
    "swinv2": WINDOWS, "table-transformer": FOUND,
    "textnet": {"stem_out_channels": 16, "hidden_sizes": [16, 16, 24, 32, 48],
                "image_size": [128, 128]},
    "timesformer": VIT | {"num_frames": 2}, "timm_backbone": {"backbone": "test_resnet"},
    "timm_wrapper": {"architecture": "test_vit"},
    "tipsv2": {"vision_config": DINO, "text_config": {"hidden_size": DINO["hidden_size"]}},
    "tipsv2_vision_model": DINO,
    "uvdoc_backbone": {}, "videomae": VIT | {"num_frames": 2}, "videoprism": {},
    "videoprism_vision_model": {}, "vit": VIT,
    "vit_mae": VIT, "vit_msn": VIT, "vitdet": DINO | {
        "pretrain_image_size": SIDE, "window_block_indices": [0], "window_size": 4,
        "use_relative_position_embeddings": True},
    "vitpose_backbone": {k: v for k, v in DINO.items() if k not in ("image_size", "patch_size")},
    "vivit": VIT | {"num_frames": 2, "tubelet_size": [1, 8, 8]},
    "yolos": VIT | {"image_size": [SIDE, SIDE], "num_detection_tokens": 5},
}  # fmt: skip
# Sides of the pictures that they are shown, where their configuration names none that is small.
SIDES = {
    "bit": 128, "convnext": 128, "convnextv2": 128, "cvt": 128, "dinov3_convnext": 128,
    "glpn": 128, "hgnet_v2": 128, "poolformer": 128, "pp_lcnet": 128, "pp_lcnet_v3": 128,
    "regnet": 128, "resnet": 128, "rt_detr_resnet": 128, "segformer": 128, "swiftformer": 128,
    "detr": 128, "conditional_detr": 128, "dab-detr": 128, "deformable_detr": 128,
    "table-transformer": 128, "dinat": 128, "depth_pro": 128, "pp_lcnet_v4": 128,
    "timm_backbone": 128, "uvdoc_backbone": 128,
}  # fmt: skip
# What takes videos, texts, or numbers for colours, and no image alone.
OTHERS = {"cohere2_vision", "imagegpt", "shieldgemma2", "timesformer", "videomae", "videoprism",
          "videoprism_vision_model", "vivit"}  # fmt: skip
FAMILIES = {kind: Member(PREFIX + kind, SIDES.get(kind), options, kind not in OTHERS)
            for kind, options in SETTINGS.items()}  # fmt: skip


def registered() -> dict[str, str]:
    """Return every kind of model of images that transformers registers, with its class."""
    from transformers.models.auto import modeling_auto

    found: dict[str, str] = {}
    for name in LISTS:
        for kind, classes in getattr(modeling_auto, f"MODEL_FOR_{name}_MAPPING_NAMES").items():
            first = classes if isinstance(classes, str) else classes[0]
            if kind not in found or (kind in WHOLE and name.startswith("ZERO_SHOT")):
                found[kind] = first
    return found


def load(member: Member) -> Target:
    """Build a member with random weights, of which none is zero.

    Raises:
        MilanxError: it cannot be built.
    """
    import transformers

    kind = member.name.removeprefix(PREFIX)
    named = registered().get(kind)
    if named is None:
        raise InputError(f"no kind {kind!r}", f"transformers {transformers.__version__} registers "
                         "none of that name", "a newer one may")  # fmt: skip
    config = transformers.CONFIG_MAPPING[kind](**member.options, architectures=[named])
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        spec = f"hf:{folder}"
        try:
            target = load_target(spec, random_weights=True, preprocess=shown_at(member.side))
        except InputError as error:  # which names the folder
            what, why = (x.replace(spec, member.name) for x in (error.what, error.why))
            raise InputError(what, why, error.ways_out) from error
    target.name = member.name
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in target.model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                drawn = torch.randn(parameter.shape, generator=generator)
                if name == "weight" and parameter.ndim > 1:  # values neither die nor grow
                    parameter.copy_(drawn * (GAIN / parameter[0].numel()) ** 0.5)
                else:
                    kept = 1.0 if name == "weight" else parameter  # of a norm: some begin with 0
                    parameter.copy_(kept + JITTER * drawn)
    return target
