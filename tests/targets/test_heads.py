"""Attention heads: against plain hooks on the projection's input, and what is refused."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from milanx.errors import InputError
from milanx.images.preprocess import Preprocess
from milanx.targets.capture import Capture, find_layers, list_layers, refused_layers
from milanx.targets.zoo import Target, load_target
from tests.helpers import PREPROCESS, TinyViT

SWIN = Preprocess((112, 112), 112, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def run(target: Target, layers: list[str], x: torch.Tensor) -> dict[str, torch.Tensor]:
    with Capture(target, find_layers(target, layers)) as capture:
        return capture.run(x)


@torch.inference_mode()
def test_heads_are_the_columns_of_the_projection() -> None:
    target, x = load_target(TinyViT()), torch.randn(2, 3, 32, 32)
    layers = ["blocks.0.attn@head", "blocks.0.attn@head2", "blocks.0.attn@head@class",
              "blocks.0.attn@head2@class", "blocks.0.attn.proj"]  # fmt: skip
    found = run(target, layers, x)
    kept: dict[str, torch.Tensor] = {}
    projection = target.model.blocks[0].attn.proj
    projection.register_forward_hook(lambda m, a, o: kept.update(given=a[0].clone(), gave=o))
    target.model(x)
    parts = kept["given"].unflatten(2, (4, 4))  # heads, their size
    columns = projection.weight.unflatten(1, (4, 4))
    written = torch.einsum("bnhs,dhs->bnhd", parts, columns)
    torch.testing.assert_close(written.sum(2) + projection.bias, kept["gave"])
    lengths = written.norm(dim=3)
    patches = lengths[:, 1:].transpose(1, 2).reshape(2, 4, 4, 4)
    torch.testing.assert_close(found["blocks.0.attn@head"], patches)
    torch.testing.assert_close(found["blocks.0.attn@head@class"][..., 0, 0], lengths[:, 0])
    own = written[:, 1:, 2].transpose(1, 2).reshape(2, 16, 4, 4)
    torch.testing.assert_close(found["blocks.0.attn@head2"], own)
    torch.testing.assert_close(found["blocks.0.attn@head2@class"][..., 0, 0], written[:, 0, 2])
    plain = kept["gave"][:, 1:].transpose(1, 2).reshape(2, 16, 4, 4)
    torch.testing.assert_close(found["blocks.0.attn.proj"], plain)  # though its input is read too


def test_they_are_listed_once_and_meant_only_by_name() -> None:
    target = load_target(TinyViT())
    infos = {i.name: i for i in list_layers(target)}
    assert [n for n in infos if "@head" in n] == ["blocks.0.attn@head", "blocks.1.attn@head"]
    lengths = infos["blocks.0.attn@head"]
    assert (lengths.kind, lengths.units, lengths.rectified, lengths.linear) == (
        "heads", 4, True, False)  # fmt: skip
    assert infos["blocks.1.attn@head"].inert  # as its projection, before a class token's read-out
    assert not infos["blocks.0.attn@head"].inert
    names = [i.name for i in find_layers(target, ["blocks.*"])]
    assert names and not any("@head" in n for n in names)
    heads = [i.name for i in find_layers(target, ["*@head"])]
    assert heads == ["blocks.0.attn@head", "blocks.1.attn@head"]
    ones = find_layers(target, ["blocks.*.attn@head3"])
    assert [i.name for i in ones] == ["blocks.0.attn@head3", "blocks.1.attn@head3"]
    assert {(i.kind, i.units, i.linear) for i in ones} == {("head", 16, True)}
    keys = {i.through for i in (*ones, lengths)}
    assert len(keys) == 2 and "" not in keys


def test_heads_that_there_are_not_are_refused() -> None:
    target = load_target(TinyViT())
    with pytest.raises(InputError, match="its heads are 0 to 3"):
        find_layers(target, ["blocks.0.attn@head4"])
    with pytest.raises(InputError, match="no layer"):
        find_layers(target, ["blocks.0.mlp@head"])


@torch.inference_mode()
def test_heads_in_windows_stand_where_their_projection_stands() -> None:
    torch.manual_seed(0)
    model = timm.create_model("swin_tiny_patch4_window7_224", img_size=112, depths=(2, 2),
                              embed_dim=24, num_heads=(3, 6), num_classes=4)  # fmt: skip
    target, x = load_target(model.eval(), preprocess=SWIN), torch.randn(2, 3, 112, 112)
    for block, heads in (("layers.0.blocks.1", 3), ("layers.1.blocks.0", 6)):
        names = [f"{block}.attn@head{h}" for h in range(heads)]
        found = run(target, [*names, f"{block}.attn@head", f"{block}.attn.proj"], x)
        bias = target.model.get_submodule(f"{block}.attn.proj").bias
        total = torch.stack([found[n] for n in names]).sum(0) + bias[:, None, None]
        torch.testing.assert_close(total, found[f"{block}.attn.proj"], rtol=1e-4, atol=1e-4)
        for head, name in enumerate(names):
            torch.testing.assert_close(found[f"{block}.attn@head"][:, head],
                                       found[name].norm(dim=1))  # fmt: skip


class Plain(nn.Module):
    """A model with torch's own attention."""

    preprocess, weights = PREPROCESS, True

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 8, 8)
        self.attn = nn.MultiheadAttention(16, 4, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        return self.head((x + self.attn(x, x, x, need_weights=self.weights)[0]).mean(1))


@torch.inference_mode()
@pytest.mark.parametrize("weights", [True, False])
def test_torchs_own_attention_calls_no_projection_and_is_read_all_the_same(weights: bool) -> None:
    model = Plain()
    model.weights = weights
    target, x = load_target(model), torch.randn(3, 3, 32, 32)
    names = [f"attn@head{h}" for h in range(4)]
    found = run(target, ["attn", "attn@head", *names], x)
    tokens = model.patch(x).flatten(2).transpose(1, 2)
    q, k, v = (part.unflatten(2, (4, 4)).transpose(1, 2) for part in nn.functional.linear(
        tokens, model.attn.in_proj_weight, model.attn.in_proj_bias).chunk(3, 2))  # fmt: skip
    heads = (q @ k.transpose(2, 3) / 2).softmax(3) @ v  # [b, heads, n, size]
    for h, name in enumerate(names):
        columns = model.attn.out_proj.weight[:, 4 * h : 4 * h + 4]
        written = (heads[:, h] @ columns.T).transpose(1, 2).reshape(3, 16, 4, 4)
        torch.testing.assert_close(found[name], written)
        torch.testing.assert_close(found["attn@head"][:, h], written.norm(dim=1))
    bias = model.attn.out_proj.bias[:, None, None]
    total = torch.stack([found[n] for n in names]).sum(0) + bias
    torch.testing.assert_close(total, found["attn"])
    assert not model.attn._forward_hooks


@torch.inference_mode()
def test_heads_of_an_open_clip_tower() -> None:
    import open_clip

    torch.manual_seed(0)
    tower = open_clip.model.VisionTransformer(32, 8, 32, 2, 4, 2.0, output_dim=16)
    target, attention = load_target(tower, preprocess=PREPROCESS), "transformer.resblocks.0.attn"
    layers = [attention, f"{attention}@class", *(f"{attention}@head{h}" for h in range(4)),
              f"{attention}@head1@class", f"{attention}@head@class"]  # fmt: skip
    found = run(target, layers, torch.randn(2, 3, 32, 32))
    bias = target.model.get_submodule(attention).out_proj.bias[:, None, None]
    total = torch.stack([found[n] for n in layers[2:6]]).sum(0) + bias
    torch.testing.assert_close(total, found[attention], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[layers[7]][:, 1], found[layers[6]].norm(dim=1))


class Folded(nn.Module):
    """Attention that applies its projection's weights by a function."""

    num_heads = 4

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (m.unflatten(2, (4, 4)).transpose(1, 2) for m in self.qkv(x).chunk(3, 2))
        made = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return nn.functional.linear(made, self.proj.weight, self.proj.bias)


def test_attention_that_calls_no_projection_is_refused_in_words() -> None:
    model = Plain()
    model.attn = nn.Module()
    model.attn.attention = Folded()
    model.forward = lambda x: model.head(  # type: ignore[method-assign]
        model.attn.attention(model.patch(x).flatten(2).transpose(1, 2)).mean(1))  # fmt: skip
    target = load_target(model)
    reasons = {i.name: str(i.refused) for i in refused_layers(target)}
    assert "no output projection was found" in reasons["attn.attention@head"]
    for layer in ("attn.attention@head", "attn.attention@head1"):
        with pytest.raises(InputError, match="no output projection was found"):
            find_layers(target, [layer])


@torch.inference_mode()
@pytest.mark.parametrize("name", ["ViT", "Dinov2", "CLIPVision"])
def test_heads_of_transformers_models(name: str) -> None:
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64,
        image_size=32, patch_size=8,
    )  # fmt: skip
    model = getattr(transformers, f"{name}Model")(config)
    target = load_target(model, preprocess=PREPROCESS)
    info = next(i for i in list_layers(target) if i.name.endswith("@head"))
    layers = [info.name, *(f"{info.name}{h}" for h in range(4)), info.module]
    found = run(target, layers, torch.randn(2, 3, 32, 32))
    bias = target.model.get_submodule(info.module).bias
    total = torch.stack([found[n] for n in layers[1:5]]).sum(0) + bias[:, None, None]
    torch.testing.assert_close(total, found[info.module], rtol=1e-4, atol=1e-5)


class Gathered(nn.Module):
    """Self-attention without a projection of its own."""

    num_attention_heads = 4

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (m(x).unflatten(2, (4, 4)).transpose(1, 2)
                   for m in (self.query, self.key, self.value))  # fmt: skip
        return nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Beside(Plain):
    """As in older models of transformers: the projection stands beside the attention."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.Module()
        self.attention.attention = Gathered()
        self.attention.dense = nn.Linear(16, 16)
        del self.attn

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = x + self.attention.dense(self.attention.attention(x))
        return self.head(x.mean(1))


@torch.inference_mode()
def test_a_projection_beside_the_attention_is_found() -> None:
    target = load_target(Beside())
    infos = [i for i in list_layers(target) if "@head" in i.name]
    assert [(i.name, i.module) for i in infos] == [
        ("attention.attention@head", "attention.dense")]  # fmt: skip
    layers = [f"attention.attention@head{h}" for h in range(4)]
    found = run(target, [*layers, "attention.dense"], torch.randn(2, 3, 32, 32))
    total = torch.stack([found[n] for n in layers]).sum(0)
    bias = target.model.attention.dense.bias[:, None, None]
    torch.testing.assert_close(total + bias, found["attention.dense"])
