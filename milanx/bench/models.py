"""What of many families of models can be described, each answer checked against plain hooks.

A family is one file of timm; its smallest members serve, with random weights. Nothing of
`milanx.targets` but the list of layers and the capture of their maps is taken for granted: the
expected numbers come from the modules' own attributes and from hooks that copy what they see.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from milanx.errors import MilanxError
from milanx.progress import Reporter, Silent
from milanx.targets.capture import Capture, list_layers, refused_layers
from milanx.targets.units import LayerInfo, first_tensor
from milanx.targets.zoo import Target, load_target

# One small member of each family of timm's, which is a file there.
FAMILIES: dict[str, str] = {
    "byoanet": "halonet_h1", "byobnet": "mobileone_s0", "cait": "cait_xxs24_224",
    "coat": "coat_tiny", "convit": "convit_tiny", "convmixer": "convmixer_768_32",
    "convnext": "convnext_atto", "cpubone": "cpubone_nano", "crossvit": "crossvit_tiny_240",
    "cspnet": "cs3darknet_m", "cspnext": "cspnext_tiny", "davit": "davit_tiny",
    "deit": "deit_tiny_patch16_224", "densenet": "densenet121", "dla": "dla46x_c",
    "dpn": "dpn48b", "edgenext": "edgenext_xx_small", "efficientformer": "efficientformer_l1",
    "efficientformer_v2": "efficientformerv2_s0", "efficientnet": "tinynet_e",
    "efficientvim": "efficientvim_m1", "efficientvit_mit": "efficientvit_b0",
    "efficientvit_msra": "efficientvit_m0", "eva": "eva02_tiny_patch14_224",
    "fasternet": "fasternet_t0", "fastvit": "fastvit_t8", "focalnet": "focalnet_tiny_srf",
    "gcvit": "gcvit_xxtiny", "ghostnet": "ghostnet_050", "hardcorenas": "hardcorenas_b",
    "hgnet": "hgnetv2_b0", "hiera": "hiera_tiny_224", "hrnet": "hrnet_w18_small",
    "iformer": "iformer_t", "inception_next": "inception_next_atto", "lcnetv2": "lcnetv2_small",
    "levit": "levit_128s", "lowformer": "lowformer_b0", "mambaout": "test_mambaout",
    "maxxvit": "maxvit_pico_rw_256", "metaformer": "caformer_s18", "mlp_mixer": "gmlp_ti16_224",
    "mobilenetv3": "mobilenetv3_small_050", "mobilevit": "mobilevit_xxs", "mvitv2": "mvitv2_tiny",
    "nest": "nest_tiny", "nfnet": "nf_regnet_b0", "pit": "pit_ti_224", "pvt_v2": "pvt_v2_b0",
    "rdnet": "rdnet_tiny", "regnet": "regnetx_002", "repghost": "repghostnet_050",
    "repvit": "repvit_m1", "res2net": "res2next50", "resnest": "resnest14d", "resnet": "resnet18",
    "resnetv2": "resnetv2_18", "rexnet": "rexnet_100", "senet": "legacy_seresnet18",
    "sequencer": "sequencer2d_s", "shvit": "shvit_s1", "sknet": "skresnet18",
    "starnet": "starnet_s050", "swiftformer": "swiftformer_xs",
    "swin_transformer": "swin_tiny_patch4_window7_224",
    "swin_transformer_v2_cr": "swinv2_cr_tiny_224", "tiny_vit": "tiny_vit_5m_224",
    "tnt": "tnt_s_legacy_patch16_224", "twins": "twins_svt_small", "visformer": "visformer_tiny",
    "vision_transformer": "vit_tiny_patch16_224",
    "vision_transformer_hybrid": "vit_tiny_r_s16_p8_224",
    "vision_transformer_relpos": "test_vit_relpos", "vitamin": "vitamin_small_224",
    "volo": "volo_d1_224", "vovnet": "ese_vovnet19b_slim", "xcit": "xcit_nano_12_p8_224",
}  # fmt: skip
PLACES = 4  # quarters of the picture that are changed in turn
MOST = 0.6  # share of the changes at one quarter that one quarter's change makes up
NEAR = 1e-4  # relative distance of maps that are the same, across batches


@dataclass
class Checked:
    """What was found of one model; a list names layers.

    Attributes:
        described: how many layers can be described.
        refused: how many cannot, by reason (numbers in it replaced).
        maps: how many have a map that moves with the picture.
        units: layers whose units are not their module's.
        rows: layers whose maps are not those of the images, in their order.
        placed: layers whose map shows changes of the picture at other places.
        spread: layers whose map shows them at no one place, with these weights.
        bent: layers whose values are not what the model computes of their output.
    """

    described: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    maps: int = 0
    units: list[str] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)
    placed: list[str] = field(default_factory=list)
    spread: list[str] = field(default_factory=list)
    bent: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> int:
        """How many layers are read wrongly."""
        return len({*self.units, *self.rows, *self.placed, *self.bent})


def bench_models(
    models: Sequence[str] | None = None, *, progress: Reporter | None = None
) -> list[dict[str, Any]]:
    """Check the layers of models with random weights.

    Args:
        models: of timm's; the small member of each family when None.
        progress: told about each model.

    Returns:
        A row a model, with the counts of `Checked`; one that cannot be read at all says why.
    """
    progress = progress or Silent()
    rows = []
    for name in models or FAMILIES.values():
        started = time.monotonic()
        with progress.stage(name, None):
            row: dict[str, Any] = {"model": name}
            try:
                target = load_target(name, random_weights=True)
                found = check_model(target)
            except MilanxError as error:
                row["error"] = f"{error.what}: {error.why}"
            else:
                row |= _row(found)
        rows.append(row | {"seconds": time.monotonic() - started})
    return rows


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return a table of `bench_models`, and below it what is wrong, and why layers are left out."""
    lines = ["| model | described | maps | wrong | at no one place | left out |",
             "|---|---:|---:|---:|---:|---:|"]  # fmt: skip
    reasons: Counter[str] = Counter()
    for row in rows:
        if "error" in row:
            lines.append(f"| `{row['model']}` | - | - | - | - | {row['error']} |")
            continue
        reasons.update(row["reasons"])
        cells = (row["described"], row["maps"], row["wrong"], len(row["spread"]), row["refused"])
        lines.append(f"| `{row['model']}` | " + " | ".join(str(c) for c in cells) + " |")
    wrong = [f"- `{row['model']}`: {kind}: {', '.join(row[kind])}" for row in rows
             for kind in ("units", "rows", "placed", "bent") if row.get(kind)]  # fmt: skip
    if wrong:
        lines += ["", "Wrong:", "", *wrong]
    if reasons:
        lines += ["", "Why layers are left out, and how many:", ""]
        lines += [f"- {count}: {why}" for why, count in reasons.most_common()]
    return "\n".join(lines)


def _row(found: Checked) -> dict[str, Any]:
    lists = ("units", "rows", "placed", "bent", "spread")
    return {
        "described": found.described, "refused": sum(found.refused.values()), "maps": found.maps,
        "wrong": found.wrong, **{name: getattr(found, name) for name in lists},
        "reasons": dict(found.refused.most_common()),
    }  # fmt: skip


@torch.no_grad()
def check_model(target: Target) -> Checked:
    """Check every layer of a target that can be described.

    Raises:
        MilanxError: the target does not run.
    """
    infos, found = list_layers(target), Checked()
    for info in refused_layers(target):
        found.refused[_reason(str(info.refused))] += 1
    found.described = len(infos)
    inputs = target.inputs(_pictures(target.preprocess.size))
    with Capture(target, infos) as capture:
        maps = {name: value.float() for name, value in capture.run(inputs).items()}
        again = {name: value.float() for name, value in capture.run(inputs.flip(0)).items()}
    plain = _plain_outputs(target, inputs)
    modules = dict(target.model.named_modules())
    for info in infos:
        here = maps[info.name]
        own = _own_units(modules[info.module])
        if own is not None and own != info.units and not info.input_of:
            found.units.append(info.name)
        if not _near(here, again[info.name].flip(0)):
            found.rows.append(info.name)
        if not _is_computed(info, here, plain):
            found.bent.append(info.name)
        _check_places(found, info, here)
    return found


def _reason(text: str) -> str:
    """Return a reason without the numbers of one layer."""
    words = ("n" if any(c.isdigit() for c in word) else word for word in text.split())
    kept: list[str] = []
    for word in words:
        if word != "n" or kept[-1:] != ["n"]:
            kept.append(word)
    return " ".join(kept)


def _pictures(size: tuple[int, int]) -> torch.Tensor:
    """Return smooth noise, and the same with stripes in each quarter, uint8 [5, 3, H, W]."""
    generator = torch.Generator().manual_seed(7)
    small = torch.rand(1, 3, 12, 12, generator=generator)
    base = torch.nn.functional.interpolate(small, size=size, mode="bilinear")[0] * 80 + 80
    stripes = torch.rand(3, *size, generator=generator).gt(0.5).float() * 255
    shown = [base]
    height, width = size
    for part in range(PLACES):
        top, left = part // 2 * height // 2 + height // 10, part % 2 * width // 2 + width // 10
        picture = base.clone()
        bottom, right = top + height * 3 // 10, left + width * 3 // 10
        picture[:, top:bottom, left:right] = stripes[:, top:bottom, left:right]
        shown.append(picture)
    return torch.stack(shown).to(torch.uint8)


def _plain_outputs(target: Target, inputs: torch.Tensor) -> dict[str, list[torch.Tensor]]:
    """Return copies of what every module was given and gave, by its name, once each."""
    seen: dict[str, list[torch.Tensor]] = {}
    handles = []
    for name, module in target.model.named_modules():

        def before(module: nn.Module, args: Any, kwargs: Any, name: str = name) -> None:
            tensor = first_tensor([args, kwargs])
            seen.setdefault(name + "<", []).extend([] if tensor is None else [tensor.clone()])

        def after(module: nn.Module, args: Any, output: Any, name: str = name) -> None:
            tensor = first_tensor(output)
            seen.setdefault(name, []).extend([] if tensor is None else [tensor.clone()])

        handles += [module.register_forward_pre_hook(before, with_kwargs=True),
                    module.register_forward_hook(after)]  # fmt: skip
    try:
        target.model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _own_units(module: nn.Module) -> int | None:
    """Return how many units a module's own attributes say that it gives."""
    for kind, name in (
        (nn.Conv2d, "out_channels"), (nn.Linear, "out_features"), (nn.GroupNorm, "num_channels"),
        (nn.modules.batchnorm._NormBase, "num_features"),
    ):  # fmt: skip
        if isinstance(module, kind):
            return int(getattr(module, name))
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1:
        return int(module.normalized_shape[0])
    return None


def _near(one: torch.Tensor, other: torch.Tensor) -> bool:
    scale = float(one.abs().amax())
    return one.shape == other.shape and float((one - other).abs().amax()) <= NEAR * max(scale, 1e-6)


def _is_computed(info: LayerInfo, here: torch.Tensor, plain: dict[str, list[torch.Tensor]]) -> bool:
    """Whether a layer's values are ones that the model computes, in whatever order they lie.

    They are compared by their sum, and that of their squares, with what the layer's own module
    gives, or, where a nonlinearity follows, with what any module is given or gives.
    """
    if info.class_token or info.prefix_tokens or info.suffix_tokens or info.order:
        return True  # only a part of the positions is read, which other tests hold to the bit
    own = plain[info.module][0].float()
    if info.nonlinearity is None and info.input_of is None:
        return _same_values(own, here)
    wanted = here.numel()
    return any(
        _same_values(t.float(), here) for ts in plain.values() for t in ts if t.numel() == wanted
    )


def _same_values(one: torch.Tensor, other: torch.Tensor) -> bool:
    a, b = one.double().flatten(), other.double().flatten()
    return a.numel() == b.numel() and all(
        math.isclose(float(f(a)), float(f(b)), rel_tol=1e-6, abs_tol=1e-9)
        for f in (lambda v: v.abs().sum(), lambda v: v.square().sum())
    )


def _check_places(found: Checked, info: LayerInfo, here: torch.Tensor) -> None:
    """Look where each quarter's change shows: in that quarter, in another one, or in none."""
    if info.map_size == (1, 1) or info.class_token:
        return
    moved = (here[1:] - here[:1]).abs().mean(1)  # [quarters, h, w]
    if not bool(moved.any()):
        return
    found.maps += 1
    h, w = info.map_size
    share = moved / moved.sum((1, 2), keepdim=True).clamp_min(1e-30)
    share = share / share.sum(0).clamp_min(1e-30)
    rows, columns = (torch.arange(n) * 2 < n - 1 for n in (h, w))
    sides = [(rows if part < 2 else rows.flip(0))[:, None]
             & (columns if part % 2 == 0 else columns.flip(0))[None]
             for part in range(PLACES)]  # fmt: skip
    if h == 1 or w == 1:
        return
    held = torch.stack([share[:, side].mean(1) for side in sides])  # [quarter, change]
    best = held.argmax(0).tolist()
    if best == list(range(PLACES)):
        return
    # Another quarter shows a change more than all others together: that is no chance of weights.
    if any(int(b) != q and float(held[q, b]) > MOST for q, b in enumerate(best)):
        found.placed.append(info.name)
    else:
        found.spread.append(info.name)
