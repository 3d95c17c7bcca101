"""What of every family of models of timm's can be described, each answer checked."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from milanx.bench.checks import Checked, check_model
from milanx.errors import InputError, MilanxError
from milanx.files import fingerprint, fingerprint_file
from milanx.images.preprocess import Preprocess
from milanx.progress import Reporter, Silent
from milanx.targets.zoo import load_target


@dataclass(frozen=True)
class Member:
    """A member of a family that is small enough to be looked at on a laptop.

    Attributes:
        name: timm's.
        side: of the pictures that it is shown, where that is smaller than its own, in pixels.
        options: what it is built with, where no member of the family is small.
    """

    name: str
    side: int | None = None
    options: dict[str, Any] = field(default_factory=dict)


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
# What is counted of each model, and kept.
LISTS = ("units", "rows", "placed", "shifted", "bent", "untold")


def bench_models(
    models: Sequence[str] | None = None,
    *,
    keep: Path | None = None,
    progress: Reporter | None = None,
) -> list[dict[str, Any]]:
    """Check the layers of models with random weights.

    Args:
        models: of timm's; the small member of each family when None.
        keep: a file to which each model's row is added as a line of json. Rows that are there, of
            the same code, are not measured again.
        progress: told about each model.

    Returns:
        A row a model, with the counts of `Checked`; one that cannot be read at all says why.

    Raises:
        InputError: the file holds something else.
    """
    progress, code, rows = progress or Silent(), code_key(), []
    members = {member.name: member for member in FAMILIES.values()}
    chosen = list(members.values()) if models is None else [
        members.get(name, Member(name)) for name in models]  # fmt: skip
    known = _kept(keep, code) if keep else {}
    for member in chosen:
        if member.name not in known:
            with progress.stage(member.name, None):
                row = _measured(member) | {"code": code}
            if keep:
                with keep.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
            known[member.name] = row
        rows.append(known[member.name])
    return rows


def code_key() -> str:
    """Return what stands for the code that the rows depend on."""
    root = Path(__file__).parents[1]
    files = [*sorted((root / "targets").glob("*.py")),
             *(root / "bench" / name for name in ("checks.py", "places.py"))]  # fmt: skip
    return fingerprint([fingerprint_file(f) for f in files], version("timm"), version("torch"))


def _kept(path: Path, code: str) -> dict[str, dict[str, Any]]:
    """Read the rows of the same code from a file, by model."""
    if not path.exists():
        return {}
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return {row["model"]: row for row in rows if row["code"] == code}
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InputError(f"{path} is not overwritten", "it holds no rows of bench models",
                         "name another file") from error  # fmt: skip


def _measured(member: Member) -> dict[str, Any]:
    """Build a model and check it."""
    started = time.monotonic()
    row: dict[str, Any] = {"model": member.name, "options": member.options}
    try:
        small = Preprocess((member.side,) * 2, member.side) if member.side else None
        target = load_target(
            _built(member) if member.options else member.name, random_weights=True, preprocess=small
        )
        row |= {"side": target.preprocess.size[0], **_row(check_model(target))}
    except MilanxError as error:
        row["error"] = f"{error.what}: {error.why}"
    return row | {"seconds": round(time.monotonic() - started, 1)}


def _built(member: Member) -> Any:
    import timm
    import torch

    torch.manual_seed(0)
    return timm.create_model(member.name, **member.options)


def _row(found: Checked) -> dict[str, Any]:
    return {
        "described": found.described, "refused": sum(found.refused.values()), "maps": found.maps,
        "wrong": found.wrong, **{name: getattr(found, name) for name in LISTS},
        "reasons": dict(found.refused.most_common()),
    }  # fmt: skip


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return a table of `bench_models`, and below it what is wrong, and why layers are left out."""
    lines = ["| model | picture | described | maps | wrong | untold | left out |",
             "|---|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    reasons: Counter[str] = Counter()
    for row in rows:
        options = ", ".join(f"{k}={v}" for k, v in row["options"].items())
        name = f"`{row['model']}`" + (f" ({options})" if options else "")
        if "error" in row:
            lines.append(f"| {name} | - | - | - | - | - | {row['error']} |")
            continue
        reasons.update(row["reasons"])
        cells = (row["side"], row["described"], row["maps"], row["wrong"], len(row["untold"]),
                 row["refused"])  # fmt: skip
        lines.append(f"| {name} | " + " | ".join(str(c) for c in cells) + " |")
    wrong = [f"- `{row['model']}`: {kind}: {', '.join(row[kind])}" for row in rows
             for kind in LISTS[:-1] if row.get(kind)]  # fmt: skip
    if wrong:
        lines += ["", "Wrong:", "", *wrong]
    if reasons:
        lines += ["", "Why layers are left out, and how many:", ""]
        lines += [f"- {count}: {why}" for why, count in reasons.most_common()]
    return "\n".join(lines)
