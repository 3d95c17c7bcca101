"""Capture: what is read where, against plain forward passes; nothing stays behind."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from milanx.errors import InputError
from milanx.images.preprocess import Preprocess
from milanx.targets.capture import Capture, find_layers, list_layers
from milanx.targets.units import parse_address, parse_units
from milanx.targets.zoo import Target, load_target
from tests.helpers import Tiny


def run(target: Target, layers: list[str], x: torch.Tensor, read: str = "auto") -> dict:
    with Capture(target, find_layers(target, layers, read=read)) as capture:
        return capture.run(x)


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@torch.inference_mode()
def test_units_are_read_after_their_own_nonlinearity() -> None:
    model = Tiny().eval()
    target = load_target(model)
    x = torch.randn(2, 3, 32, 32)
    before = model.bn1(model.conv1(x))
    found = run(target, ["conv1", "bn1", "conv3", "head"], x)
    torch.testing.assert_close(found["conv1"], model.conv1(x))
    torch.testing.assert_close(found["bn1"], before.relu())
    middle = F.relu6(model.conv2(before.relu()))
    torch.testing.assert_close(found["conv3"], F.gelu(model.conv3(middle)))
    torch.testing.assert_close(found["head"][..., 0, 0], model(x))
    raw = run(target, ["bn1", "conv3"], x, read="raw")
    torch.testing.assert_close(raw["bn1"], before)  # though the ReLU works in place
    torch.testing.assert_close(raw["conv3"], model.conv3(middle))


def test_listing_says_what_is_read() -> None:
    infos = {i.name: i for i in list_layers(load_target(Tiny()))}
    assert infos["bn1"].read == "after relu"
    assert infos["bn1"].rectified
    assert infos["conv3"].read == "after gelu"
    assert not infos["conv3"].rectified
    assert infos["conv1"].linear
    assert infos["conv1"].better == "bn1"
    assert infos["head"].kind == "logits"
    assert infos["head"].linear


@torch.inference_mode()
def test_vit_neurons_and_class_token() -> None:
    target = load_target("vit_tiny_patch16_224", random_weights=True)
    x = torch.randn(2, 3, 224, 224)
    found = run(target, ["blocks.6.mlp.fc1", "blocks.6.mlp.fc1@class", "blocks.6"], x)
    kept = {}
    handle = target.model.blocks[6].mlp.act.register_forward_hook(
        lambda m, a, o: kept.update(act=o.clone())
    )
    target.model(x)
    handle.remove()
    patches = kept["act"][:, 1:].transpose(1, 2).reshape(2, 768, 14, 14)
    torch.testing.assert_close(found["blocks.6.mlp.fc1"], patches)
    torch.testing.assert_close(found["blocks.6.mlp.fc1@class"][..., 0, 0], kept["act"][:, 0])
    oracle = target.model.forward_intermediates(x, indices=[6], norm=False)[1][0]
    torch.testing.assert_close(found["blocks.6"], oracle)


def test_last_block_of_a_vit_is_inert_at_its_patches() -> None:
    infos = {
        i.name: i for i in list_layers(load_target("vit_tiny_patch16_224", random_weights=True))
    }
    assert infos["blocks.11.mlp.fc1"].inert
    assert not infos["blocks.11.mlp.fc1@class"].inert
    assert not infos["blocks.10.mlp.fc1"].inert
    assert not infos["blocks.6"].inert
    assert infos["blocks.6"].better == "blocks.6.mlp.fc1"


@pytest.mark.parametrize("size", [(96, 96), (64, 128)])
def test_other_sizes_and_shapes_of_tokens(size: tuple[int, int]) -> None:
    model = timm.create_model("vit_tiny_patch16_224", img_size=size)
    target = load_target(model, preprocess=Preprocess(size, None))
    info = find_layers(target, ["blocks.3.mlp.fc1"])[0]
    assert info.map_size == (size[0] // 16, size[1] // 16)
    assert run(target, ["blocks.3.mlp.fc1"], torch.randn(1, 3, *size))[info.name].shape == (
        1, 768, *info.map_size)  # fmt: skip


@torch.inference_mode()
def test_convolutions_equal_timm() -> None:
    target = load_target("tf_efficientnet_lite0", random_weights=True)
    x = torch.randn(1, 3, 224, 224)
    found = run(target, ["blocks.*.*.bn1", "blocks.4"], x)
    assert all(m.min() >= 0 and m.max() <= 6 for n, m in found.items() if n.endswith("bn1"))
    infos = {i.name: i for i in list_layers(target)}
    assert infos["blocks.5.3.bn1"].read == "after relu6"
    assert infos["blocks.5.3.bn1"].upper == 6
    assert infos["blocks.5.3.bn1"].units == 1152
    assert infos["blocks.6"].linear
    oracle = target.model.forward_intermediates(x, indices=[3])[1][0]
    torch.testing.assert_close(found["blocks.4"], oracle)


@torch.inference_mode()
def test_channels_last_outputs_and_gated_mlps() -> None:
    swin = load_target("swin_tiny_patch4_window7_224", random_weights=True)
    info = find_layers(swin, ["layers.1.blocks.0.mlp.fc1"])[0]
    assert (info.units, info.map_size) == (768, (28, 28))

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate_proj, self.up_proj = nn.Linear(6, 9), nn.Linear(6, 9)
            self.down_proj = nn.Linear(9, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch = nn.Conv2d(3, 6, 8, 8)
            self.mlp = Gated()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            tokens = self.patch(x).flatten(2).transpose(1, 2)
            return self.mlp(tokens).mean(1)

    model = Model()
    target = load_target(model, preprocess=Preprocess((32, 32), None))
    x = torch.randn(2, 3, 32, 32)
    tokens = model.patch(x).flatten(2).transpose(1, 2)
    expected = F.silu(model.mlp.gate_proj(tokens)) * model.mlp.up_proj(tokens)
    for name in ("mlp.gate_proj", "mlp.up_proj"):
        found = run(target, [name], x)[name]
        torch.testing.assert_close(found, expected.transpose(1, 2).unflatten(2, (4, 4)))


def test_hooks_are_gone_after_any_exit() -> None:
    target = load_target(Tiny())
    infos = find_layers(target, ["bn1", "conv3"])
    assert hooks(target.model) == 0
    with pytest.raises(InputError, match="takes 3 channels"), Capture(target, infos) as capture:
        capture.run(torch.randn(1, 7, 32, 32))
    assert hooks(target.model) == 0


def test_unknown_layers_suggest_near_ones() -> None:
    target = load_target(Tiny())
    with pytest.raises(InputError, match="did you mean conv"):
        find_layers(target, ["convv1"])
    with pytest.raises(InputError, match="no layer matches the pattern"):
        find_layers(target, ["stage.*"])
    with pytest.raises(InputError, match="auto or raw"):
        find_layers(target, ["conv1"], read="both")


def test_addresses() -> None:
    assert parse_address("blocks.6").units is None
    assert parse_address("blocks.6@class:3").layer == "blocks.6@class"
    assert parse_address("layer4:0-3").units == (0, 1, 2, 3)
    assert parse_address("layer4:-17").sign == "-"
    assert parse_units("0-2,7,1") == (0, 1, 2, 7)
    for wrong in ("", "a", "5-2", "1,,2"):
        with pytest.raises(InputError, match="cannot read the units"):
            parse_units(wrong)
