"""Ablation against models in which the edit is written out by hand; nothing stays behind."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from milanx.act.ablate import Edit, ablate, measured_means, read_places, remember
from milanx.errors import InputError
from milanx.targets.capture import Capture, find_layers
from milanx.targets.zoo import Target, load_target
from tests.act.models import SIDE, Changed, Gated, Plain, scaled, set_to

LAYERS = {"conv1": 6, "bn1": 6, "conv2": 6, "conv3": 8, "norm3": 8, "fc1": 10, "fc2": 8, "head": 5}


def images(count: int = 3, side: int = SIDE, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def logits(target: Target, edits: list[Edit], x: torch.Tensor, **how: Any) -> torch.Tensor:
    with ablate(target, edits, **how):
        return target.model(x)


PLAIN = load_target(Plain())
PLACES = read_places(PLAIN, list(LAYERS))


def test_the_small_model_has_every_way_of_reading() -> None:
    read = {name: info.read for name, info in PLACES.items()}
    assert read == {
        "conv1": "output",
        "bn1": "after relu",
        "conv2": "after relu6",
        "conv3": "output",
        "norm3": "after silu",
        "fc1": "after gelu",
        "fc2": "output",
        "head": "output",
    }
    x = images()
    torch.testing.assert_close(PLAIN.model(x), PLAIN.model.hand(x, "", lambda v: v))


@pytest.mark.parametrize("layer", LAYERS)
@torch.no_grad()
def test_every_kind_equals_the_edit_by_hand(layer: str) -> None:
    x, units = images(), [1, 4]
    for edit, change in (
        (Edit(layer, (1, 4)), set_to(units, 0.0)),
        (Edit(layer, (1, 4), "mean", values=(0.25, -0.125)), set_to(units, [0.25, -0.125])),
        (Edit(layer, (1, 4), "scale", factor=-1.5), scaled(units, -1.5)),
    ):
        expected = PLAIN.model.hand(x, layer, change)
        assert not torch.allclose(expected, PLAIN.model(x))  # the oracle can tell
        torch.testing.assert_close(logits(PLAIN, [edit], x), expected)


@pytest.mark.parametrize("layer", LAYERS)
@torch.no_grad()
def test_resampled_values_are_the_next_images_in_a_circle(layer: str) -> None:
    x = images(5)
    edit = remember(PLAIN, PLACES[layer], Edit(layer, (0, 3)), iter(x.split(2)))
    with Capture(PLAIN, [PLACES[layer]]) as capture:
        maps = capture.run(x)[layer]
    bank = edit.bank
    assert bank is not None
    torch.testing.assert_close(
        bank.flatten(2) if bank.ndim > 2 else bank[..., None], maps[:, [0, 3]].flatten(2)
    )
    reader = Capture(PLAIN, [PLACES[layer]])  # looks at the model itself, so it comes first
    with ablate(PLAIN, [edit], PLACES), reader as capture:
        parts = [capture.run(part)[layer] for part in x.split(2)]
    edited = torch.cat(parts)
    torch.testing.assert_close(edited[:, [1, 2, 4]], maps[:, [1, 2, 4]])  # the others are theirs
    matches = [
        [j for j in range(5) if torch.allclose(edited[i, [0, 3]], maps[j, [0, 3]], atol=1e-5)]
        for i in range(5)
    ]
    assert all(len(m) == 1 and m[0] != i for i, m in enumerate(matches))
    assert sorted(m[0] for m in matches) == list(range(5))
    torch.testing.assert_close(logits(PLAIN, [edit], x), torch.cat(_in_parts(edit, x)))


def _in_parts(edit: Edit, x: torch.Tensor) -> list[torch.Tensor]:
    with ablate(PLAIN, [edit], PLACES):
        return [PLAIN.model(part) for part in x.split(2)]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(list(LAYERS)), min_size=1, max_size=3, unique=True), st.data())
def test_edits_of_several_layers_compose(layers: list[str], data: st.DataObject) -> None:
    """What one edit changes upstream is the other's input; each unit ends at its own value."""
    edits = []
    for layer in layers:
        units = data.draw(st.lists(st.integers(0, LAYERS[layer] - 1), min_size=1, unique=True))
        values = tuple(float(u) / 8 for u in units)
        edits.append(Edit(layer, tuple(units), "mean", values=values))
    infos = [PLACES[layer] for layer in layers]
    with ablate(PLAIN, edits, PLACES), Capture(PLAIN, infos) as capture:
        found = capture.run(images(2))
    for edit in edits:
        maps = found[edit.layer][:, list(edit.units)]
        expected = torch.tensor(edit.values)[None, :, None, None].expand_as(maps)
        torch.testing.assert_close(maps, expected)


@torch.no_grad()
def test_an_edit_keeps_memory_layout_and_other_units() -> None:
    model = Plain().to(memory_format=torch.channels_last)
    target, x = load_target(model), images().contiguous(memory_format=torch.channels_last)
    strides = []
    handle = model.conv3.register_forward_pre_hook(lambda m, a: strides.append(a[0].stride()))
    logits(target, [], x)
    logits(target, [Edit("conv2", (0,))], x)
    handle.remove()
    assert len(set(strides)) == 1


@torch.no_grad()
def test_batch_norm_with_its_own_nonlinearity() -> None:
    """timm's BatchNormAct2d: the module itself gives the value; the hand puts a module behind."""
    target = load_target("tf_efficientnet_lite0", random_weights=True)
    x, layer = images(2, 64), "blocks.5.3.bn1"
    assert PLACES["bn1"].nonlinearity == "relu"
    assert read_places(target, [layer])[layer].nonlinearity is None
    for edit, change in (
        (Edit(layer, (5, 700)), set_to([5, 700], 0.0)),
        (Edit(layer, (5,), "scale", factor=3.0), scaled([5], 3.0)),
    ):
        by_hand = copy.deepcopy(target.model)
        by_hand.blocks[5][3].bn1 = Changed(by_hand.blocks[5][3].bn1, change)
        assert not torch.equal(by_hand(x), target.model(x))
        assert torch.equal(logits(target, [edit], x), by_hand(x))


@pytest.fixture(scope="module")
def vit() -> Target:
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=64, depth=3, embed_dim=32, num_heads=2, num_classes=10
    )
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(2)) * 0.1)
    return load_target(model, preprocess=Plain.preprocess.__class__((64, 64), 64))


@torch.no_grad()
def test_neurons_of_a_vit_at_all_at_patches_and_at_the_class_token(vit: Target) -> None:
    x = images(2, 64)
    for layer, positions, rows in (
        ("blocks.1.mlp.fc1", "all", slice(None)),
        ("blocks.1.mlp.fc1", "patches", slice(1, None)),
        ("blocks.1.mlp.fc1", "class", slice(0, 1)),
        ("blocks.1.mlp.fc1@class", "all", slice(0, 1)),
    ):

        def change(h: torch.Tensor, rows: slice = rows) -> torch.Tensor:
            h = h.clone()
            h[:, rows, [3, 9]] = torch.tensor([0.5, -0.25])
            return h

        by_hand = copy.deepcopy(vit.model)
        by_hand.blocks[1].mlp.act = Changed(by_hand.blocks[1].mlp.act, change)
        edit = Edit(layer, (3, 9), "mean", positions, values=(0.5, -0.25))
        assert torch.equal(logits(vit, [edit], x), by_hand(x))


@torch.no_grad()
def test_residual_stream_and_logits_of_a_vit(vit: Target) -> None:
    x = images(2, 64)
    by_hand = copy.deepcopy(vit.model)
    by_hand.blocks[1] = Changed(by_hand.blocks[1], set_to([7], 0.0, axis=2))
    assert torch.equal(logits(vit, [Edit("blocks.1", (7,))], x), by_hand(x))
    found = logits(vit, [Edit("head", (2,), "mean", values=(9.0,))], x)
    assert torch.equal(found, set_to([2], 9.0)(vit.model(x)))


@torch.no_grad()
def test_inputs_of_a_gated_mlps_down_projection() -> None:
    target, x = load_target(Gated()), images(2)
    for name in ("mlp.gate_proj", "mlp.up_proj"):
        found = logits(target, [Edit(name, (2, 8), "scale", factor=0.5)], x)
        torch.testing.assert_close(found, target.model.hand(x, scaled([2, 8], 0.5, axis=2)))
        at_patches = Edit(name, (2,), positions="patches")

        def change(h: torch.Tensor) -> torch.Tensor:
            h = h.clone()
            h[:, 1:, 2] = 0
            return h

        torch.testing.assert_close(logits(target, [at_patches], x), target.model.hand(x, change))


@torch.no_grad()
def test_channels_last_layers() -> None:
    """ConvNeXt's MLP is linear layers on [b, h, w, u]."""
    model = timm.create_model("convnext_atto", num_classes=4, depths=(1, 1, 1, 1))
    target = load_target(model, preprocess=Plain.preprocess.__class__((64, 64), 64))
    layer = next(
        n for n, i in read_places(target, ["*.mlp.fc1"]).items() if i.nonlinearity == "gelu"
    )
    x = images(2, 64)
    by_hand = copy.deepcopy(model)
    mlp = by_hand.get_submodule(layer.rpartition(".")[0])
    axis = 3 if read_places(target, [layer])[layer].channels_last else 1
    mlp.act = Changed(mlp.act, set_to([1], 2.0, axis))
    assert torch.equal(logits(target, [Edit(layer, (1,), "mean", values=(2.0,))], x), by_hand(x))


@torch.no_grad()
def test_a_nonlinearity_in_place_whose_result_is_not_used() -> None:
    class Careless(nn.Module):
        preprocess = Plain.preprocess

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.conv(x)
            F.relu(x, inplace=True)
            return self.head(x.mean((2, 3)))

    model = Careless().eval()
    x = images()
    expected = model.head(scaled([1], 4.0)(model.conv(x).relu()).mean((2, 3)))
    found = logits(load_target(model), [Edit("conv", (1,), "scale", factor=4.0)], x)
    torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_several_edits_of_one_layer_and_one_context_in_another() -> None:
    x = images()
    expected = PLAIN.model.hand(x, "fc1", set_to([1, 2, 3], [0.0, 0.5, 0.25]))
    edits = [Edit("fc1", (1,)), Edit("fc1", (2, 3), "mean", values=(0.5, 0.25))]
    torch.testing.assert_close(logits(PLAIN, edits, x), expected)
    with ablate(PLAIN, edits[:1], PLACES):
        torch.testing.assert_close(logits(PLAIN, edits[1:], x, infos=PLACES), expected)


def state(model: nn.Module) -> list[Any]:
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    tensors = [
        (
            p.dtype,
            p.stride(),
            p.device,
            p.data_ptr(),
            p.requires_grad,
            None if p.grad is None else (p.grad.data_ptr(), p.grad.sum().item()),
        )
        for p in model.parameters()
    ]
    return [
        hooks,
        tensors,
        [m.training for m in model.modules()],
        [sorted(m.__dict__) for m in model.modules()],
        torch.get_rng_state().tolist(),
    ]


def test_the_model_comes_back_as_it_was_also_after_an_exception() -> None:
    target = load_target(Plain())
    target.model(images()).sum().backward()  # gradients of the caller's
    before = state(target.model)
    edits = [Edit("bn1", (0,)), Edit("fc1", (1,), "scale", factor=2.0)]
    logits(target, edits, images())  # finds the layers itself
    assert state(target.model) == before
    with pytest.raises(RuntimeError), ablate(target, edits, PLACES):
        target.model(torch.zeros(1, 7, SIDE, SIDE))
    assert state(target.model) == before
    with pytest.raises(InputError), ablate(target, [*edits, Edit("bn1", (99,))], PLACES):
        pass
    assert state(target.model) == before


def test_gradients_flow_through_an_edit() -> None:
    x = images().requires_grad_(True)
    with ablate(PLAIN, [Edit("fc1", (1,))], PLACES):
        PLAIN.model(x)[:, 0].sum().backward()
    assert x.grad is not None and bool(x.grad.abs().sum() > 0)
    hand = images().requires_grad_(True)
    PLAIN.model.hand(hand, "fc1", set_to([1], 0.0))[:, 0].sum().backward()
    torch.testing.assert_close(x.grad, hand.grad)


def test_an_edit_that_the_model_goes_around_is_an_error() -> None:
    class Moody(nn.Module):
        preprocess = Plain.preprocess

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head, self.mood = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), True

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.conv(x)
            x = F.relu(x) if self.mood else x + 1
            return self.head(x.mean((2, 3)))

    target = load_target(Moody())
    infos = read_places(target, ["conv"])
    target.model.mood = False
    with pytest.raises(InputError, match="did not take place"):
        logits(target, [Edit("conv", (1,))], images(), infos=infos)


def test_means_are_those_of_the_values_that_are_read() -> None:
    x = images(5)
    with torch.no_grad():
        value = PLAIN.model.bn1(PLAIN.model.conv1(x)).relu()
    found = measured_means(PLAIN, PLACES["bn1"], [2, 0], iter(x.split(2)))
    expected = value.mean((0, 2, 3))[[2, 0]]
    torch.testing.assert_close(torch.tensor(found), expected)


def test_what_cannot_be_edited_is_said() -> None:
    for wrong, text in (
        (lambda: Edit("bn1", ()), "names no unit"),
        (lambda: Edit("bn1", (1, 1)), "twice"),
        (lambda: Edit("bn1", (1,), "cut"), "no ablation 'cut'"),
        (lambda: Edit("bn1", (1,), positions="left"), "no positions 'left'"),
        (lambda: Edit("bn1", (1, 2), "mean", values=(1.0,)), "1 means for 2 units"),
        (lambda: Edit("bn1", (1,), "scale", factor=float("nan")), "no number"),
        (lambda: Edit("bn1", (1,), "resample"), "no other images"),
        (lambda: logits(PLAIN, [Edit("bn9", (1,))], images()), "no layer 'bn9'"),
        (lambda: logits(PLAIN, [Edit("bn9", (1,))], images(), infos=PLACES), "no layer 'bn9'"),
        (lambda: logits(PLAIN, [Edit("bn1", (6,))], images()), "no unit 6"),
        (lambda: logits(PLAIN, [Edit("bn1", (1,)), Edit("bn1", (1,))], images()), "edited twice"),
        (lambda: logits(PLAIN, [Edit("fc1", (1,), positions="class")], images()), "class token"),
    ):
        with pytest.raises(InputError, match=text):
            wrong()


def test_layers_read_before_their_nonlinearity() -> None:
    raw = {i.name: i for i in find_layers(PLAIN, ["bn1"], read="raw")}
    x = images()
    with torch.no_grad():
        before = set_to([1], 0.5)(PLAIN.model.bn1(PLAIN.model.conv1(x)))
        expected = PLAIN.model.hand(x, "bn1", lambda _: before.relu())
    edit = Edit("bn1", (1,), "mean", values=(0.5,))
    torch.testing.assert_close(logits(PLAIN, [edit], x, infos=raw), expected)
