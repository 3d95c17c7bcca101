"""Modules of one's own: wrapped, compiled, without gradients, of other channels; they come back."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import milanx
from milanx.errors import InputError
from milanx.images.preprocess import Preprocess
from milanx.targets.capture import Capture, find_layers, list_layers
from milanx.targets.given import as_given
from milanx.targets.units import layer_folder, parse_address
from milanx.targets.zoo import ALIASES, load_target
from tests.helpers import Tiny, noise, png

SMALL = Preprocess((32, 32), 32)


@pytest.mark.filterwarnings("ignore")
def test_wrapped_modules_are_the_original() -> None:
    own, x = Tiny().eval(), torch.randn(2, 3, 32, 32)
    names = [info.name for info in list_layers(load_target(own))]
    with torch.no_grad():
        expected = own.conv1(x)
    used = torch.compile(Tiny().eval(), backend="eager")
    used(x)
    for wrapped, prefix in (
        (torch.compile(own), "_orig_mod."), (used, "_orig_mod."), (nn.DataParallel(own), "module."),
    ):  # fmt: skip
        target = load_target(wrapped, preprocess=SMALL)
        assert [info.name for info in list_layers(target)] == names
        with Capture(target, find_layers(target, [f"{prefix}conv1"])) as capture, torch.no_grad():
            torch.testing.assert_close(capture.run(x)["conv1"], expected)


@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_read_is_refused_in_words() -> None:
    x = torch.zeros(2, 3, 32, 32)
    with torch.device("meta"):
        bare = nn.Conv2d(3, 8, 3)
    packed = torch.ao.quantization.quantize_dynamic(Tiny().eval(), {nn.Linear}, torch.qint8)
    traced = torch.jit.trace(Tiny().eval(), x)
    exported = torch.export.export(Tiny().eval(), (x,)).module()
    for module, why in (
        (traced, "scripted"), (torch.jit.script(nn.ReLU()), "scripted"), (bare, "meta device"),
        (packed, "quantised"), (exported, "exported"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=why):
            load_target(module, preprocess=SMALL)


class Frozen(nn.Module):
    """A trunk without gradients, under a head that has some, and outputs in a dict of lists."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, 5)
        self.unused = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> dict:
        x -= 0.5  # in place, on the input itself
        with torch.no_grad():
            features = self.trunk(x).relu()
        pooled = features.mean((2, 3))
        self.unused(pooled)
        return {"found": [{"scores": self.head(pooled)}], "count": 3}


def test_inert_is_yes_no_or_unknown() -> None:
    infos = {i.name: i for i in list_layers(load_target(Frozen(), preprocess=SMALL))}
    assert infos["trunk"].inert is None
    assert infos["head"].inert is False
    assert infos["unused"].inert is True

    class Stopped(Frozen):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.trunk(x).relu().mean((2, 3)).detach())

    stopped = {i.name: i for i in list_layers(load_target(Stopped(), preprocess=SMALL))}
    assert stopped["trunk"].inert is None  # no gradient arrives, and yet the output depends on it


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(dtype: torch.dtype) -> None:
    infos = {i.name: i for i in list_layers(load_target(Tiny().to(dtype)))}
    assert infos["bn1"].read == "after relu"
    assert infos["conv3"].read == "after gelu"
    assert infos["conv1"].map_size == (16, 16)


def test_channels() -> None:
    grey = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU())
    for preprocess in (SMALL, Preprocess((32, 32), 32, mean=(0.5,), std=(0.25,))):
        target = load_target(grey, preprocess=preprocess)
        views = torch.full((2, 3, 32, 32), 100, dtype=torch.uint8)
        assert target.inputs(views).shape == (2, 1, 32, 32)
        assert find_layers(target, ["0"])[0].map_size == (16, 16)
    torch.testing.assert_close(
        target.inputs(views), torch.full((2, 1, 32, 32), (100 / 255 - 0.5) / 0.25)
    )
    with pytest.raises(InputError, match="takes 4 channels"):
        load_target(nn.Sequential(nn.Conv2d(4, 4, 3)), preprocess=SMALL)


def test_errors_of_the_model_become_one_of_ours() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
            return self.conv(image) + text

    with pytest.raises(InputError, match="also takes text") as caught:
        list_layers(load_target(Two(), preprocess=SMALL))
    assert isinstance(caught.value.__cause__, TypeError)
    sized = nn.Sequential(nn.Flatten(), nn.Linear(3 * 28 * 28, 4))
    with pytest.raises(InputError, match=r"\[2, 3, 32, 32\]"):
        list_layers(load_target(sized, preprocess=SMALL))


def test_torchvision_downloads_no_trunk(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a download")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    target = load_target("torchvision:lraspp_mobilenet_v3_large", random_weights=True)
    assert target.random
    with pytest.raises(InputError, match="torchvision does not know it"):
        load_target("torchvision:resnet19", random_weights=True)


def test_openais_clips_are_the_networks_they_were_trained_as() -> None:
    assert all("quickgelu" in p for n, p in ALIASES.items() if n.startswith("clip_"))


def test_a_module_comes_back_as_it_was(tmp_path: Path) -> None:
    for i, image in enumerate(noise(6)):
        (tmp_path / f"{i}.png").write_bytes(png(image))
    model = Tiny().train()
    model.bn1.eval()
    model.conv2.weight.requires_grad_(False)
    model(torch.randn(4, 3, 32, 32)).sum().backward()
    modes = {n: m.training for n, m in model.named_modules()}
    held = copy.deepcopy(model.state_dict())
    stride, gradient = model.conv1.weight.stride(), model.conv1.weight.grad
    assert gradient is not None
    values = gradient.clone()
    for dtype in ("float32", "bfloat16"):
        milanx.extract(model, layers=["bn1"], images=tmp_path, out=tmp_path / dtype, dtype=dtype)
        assert {n: m.training for n, m in model.named_modules()} == modes
        assert model.conv1.weight.dtype == torch.float32
        assert model.conv1.weight.stride() == stride
        assert model.conv1.weight.grad is gradient
        torch.testing.assert_close(gradient, values)
        assert not model.conv2.weight.requires_grad
        assert all(torch.equal(v, held[k]) for k, v in model.state_dict().items())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_as_given_after_an_error() -> None:
    model = Tiny().train()
    with pytest.raises(ValueError, match="out"), as_given(model):
        model.eval().double()
        raise ValueError("out")
    assert model.training
    assert model.conv1.weight.dtype == torch.float32
    with as_given("a name"):
        pass


def test_layers_of_any_name(tmp_path: Path) -> None:
    names = ["Conv:0", "/abs/name", "long" * 75, "a [b]*?", "..", "grün", "Conv:0-1x"]

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in names[:4] + names[5:]:
                self.add_module(name, nn.Conv2d(3, 3, 3, padding=1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for module in self.children():
                x = x + module(x)
            return x

    for i, image in enumerate(noise(6)):
        (tmp_path / f"{i}.png").write_bytes(png(image))
    inside = names[:4] + names[5:]
    asked = [*inside[:1], *(f"{name}:0-1" for name in inside[1:])]
    store = milanx.extract(
        Named(), layers=asked, images=tmp_path, out=tmp_path / "run", preprocess=SMALL
    )
    assert store.layers == inside
    assert [len(store.units(name)) for name in inside] == [3, 2, 2, 2, 2, 2]
    folders = {p.parent for p in (tmp_path / "run").rglob("maps.safetensors")}
    assert {f.parent for f in folders} == {tmp_path / "run" / "exemplars"}
    assert len(folders) == len(inside)
    assert layer_folder("blocks.6@class") == "blocks.6@class"
    assert "/" not in layer_folder("../x")
    assert layer_folder("a/b") != layer_folder("a%2Fb")
    assert parse_address("Conv:0", {"Conv:0"}).units is None
    assert parse_address("Conv:0:2", {"Conv:0"}).units == (2,)
