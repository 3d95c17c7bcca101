"""A small member of each family of timm's."""

from __future__ import annotations

from typing import Any

from milanx.bench.families.member import Member, shown_at
from milanx.targets.zoo import Target, load_target

# By the file of timm's in which the family stands. Sides and options keep a check under minutes:
# of the largest families only a few blocks are built, and convolutions are shown smaller pictures.
FAMILIES: dict[str, Member] = {
    "beit": Member("beit_base_patch16_224", options={"depth": 3}), "byoanet": Member("halonet_h1"),
    "byobnet": Member("mobileone_s0", 160), "cait": Member("cait_xxs24_224"),
    "coat": Member("coat_tiny"), "convit": Member("convit_tiny"),
    "convmixer": Member("convmixer_768_32", 112), "convnext": Member("convnext_atto", 160),
    "cpubone": Member("cpubone_nano"), "crossvit": Member("crossvit_tiny_240"),
    "csatv2": Member("csatv2"), "cspnet": Member("cs3darknet_m", 160),
    "cspnext": Member("cspnext_tiny", 160), "davit": Member("davit_tiny"),
    "deepseek_vit": Member("deepseek_vit_412m", 224, {"depth": 3}),
    "deit": Member("deit_tiny_patch16_224"), "densenet": Member("densenet121", 160),
    "dla": Member("dla46x_c", 160), "dpn": Member("dpn48b", 160),
    "edgenext": Member("edgenext_xx_small"), "efficientformer": Member("efficientformer_l1"),
    "efficientformer_v2": Member("efficientformerv2_s0"), "efficientnet": Member("tinynet_e", 160),
    "efficientvim": Member("efficientvim_m1"), "efficientvit_mit": Member("efficientvit_b0"),
    "efficientvit_msra": Member("efficientvit_m0"), "eva": Member("eva02_tiny_patch14_224"),
    "fasternet": Member("fasternet_t0", 160), "fastvit": Member("fastvit_t8"),
    "focalnet": Member("focalnet_tiny_srf"), "gcvit": Member("gcvit_xxtiny"),
    "gemma4_vit": Member("gemma4_vit_167m", 192, {"depth": 3}),
    "ghostnet": Member("ghostnet_050", 160), "hardcorenas": Member("hardcorenas_b", 160),
    "hgnet": Member("hgnetv2_b0", 160), "hiera": Member("hiera_tiny_224"),
    "hieradet_sam2": Member("sam2_hiera_tiny", 224),
    "hrnet": Member("hrnet_w18_small", 160), "iformer": Member("iformer_t"),
    "inception_next": Member("inception_next_atto", 160),
    "inception_resnet_v2": Member("inception_resnet_v2", 149),
    "inception_v3": Member("inception_v3", 149), "inception_v4": Member("inception_v4", 149),
    "lcnetv2": Member("lcnetv2_small", 160), "levit": Member("levit_128s"),
    "lowformer": Member("lowformer_b0"), "mambaout": Member("test_mambaout"),
    "maxxvit": Member("maxvit_pico_rw_256"), "metaformer": Member("caformer_s18"),
    "mlp_mixer": Member("gmlp_ti16_224"), "mobilenetv3": Member("mobilenetv3_small_050", 160),
    "mobilenetv5": Member("mobilenetv5_base", 128), "mobilevit": Member("mobilevit_xxs"),
    "mvitv2": Member("mvitv2_tiny"),
    "naflexvit": Member("naflexvit_base_patch16_gap", 224, {"depth": 3}),
    "nasnet": Member("nasnetalarge", 165, {"stem_size": 32, "num_features": 1056}),
    "nest": Member("nest_tiny"), "nextvit": Member("nextvit_small", 160),
    "nfnet": Member("nf_regnet_b0", 160), "pit": Member("pit_ti_224"),
    "pnasnet": Member("pnasnet5large", 131), "pvt_v2": Member("pvt_v2_b0"),
    "qwen3_vit": Member("qwen3_vit_88m", 224, {"depth": 3}), "rdnet": Member("rdnet_tiny", 160),
    "regnet": Member("regnetx_002", 160), "repghost": Member("repghostnet_050", 160),
    "repvit": Member("repvit_m1", 160), "res2net": Member("res2next50", 160),
    "resnest": Member("resnest14d", 160), "resnet": Member("resnet18", 160),
    "resnetv2": Member("resnetv2_18", 160), "rexnet": Member("rexnet_100", 160),
    "selecsls": Member("selecsls42", 160), "senet": Member("legacy_seresnet18", 160),
    "sequencer": Member("sequencer2d_s"), "shvit": Member("shvit_s1"),
    "sknet": Member("skresnet18", 160), "starnet": Member("starnet_s050", 160),
    "swiftformer": Member("swiftformer_xs"),
    "swin_transformer": Member("swin_tiny_patch4_window7_224"),
    "swin_transformer_v2": Member("swinv2_tiny_window8_256", 256, {"depths": (2, 2, 2, 2)}),
    "swin_transformer_v2_cr": Member("swinv2_cr_tiny_224"), "tiny_vit": Member("tiny_vit_5m_224"),
    "tnt": Member("tnt_s_legacy_patch16_224"), "tresnet": Member("tresnet_m", 160),
    "twins": Member("twins_svt_small"), "vgg": Member("vgg11", 96),
    "visformer": Member("visformer_tiny"), "vision_transformer": Member("vit_tiny_patch16_224"),
    "vision_transformer_hybrid": Member("vit_tiny_r_s16_p8_224"),
    "vision_transformer_relpos": Member("test_vit_relpos"),
    "vision_transformer_sam": Member(
        "samvit_base_patch16_224", options={"depth": 4, "global_attn_indexes": (1, 3)}),
    "vitamin": Member("vitamin_small_224"), "volo": Member("volo_d1_224"),
    "vovnet": Member("ese_vovnet19b_slim", 160), "xception": Member("legacy_xception", 149),
    "xception_aligned": Member("xception41", 160), "xcit": Member("xcit_nano_12_p8_224"),
}  # fmt: skip


def load(member: Member) -> Target:
    """Build a member with random weights.

    Raises:
        MilanxError: it cannot be built.
    """
    made = _built(member) if member.options else member.name
    return load_target(made, random_weights=True, preprocess=shown_at(member.side))


def _built(member: Member) -> Any:
    import timm
    import torch

    torch.manual_seed(0)
    return timm.create_model(member.name, **member.options)
