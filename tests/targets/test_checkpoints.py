"""Checkpoints as people save them load, or say what is wrong."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from milanx.errors import InputError
from milanx.targets.checkpoints import load_checkpoint
from milanx.targets.zoo import load_target
from tests.helpers import Tiny
from tests.targets.zoo_of_transformers import save

Save = Callable[[dict[str, torch.Tensor]], Any]


def weights() -> dict[str, torch.Tensor]:
    """Values that no fresh network has."""
    torch.manual_seed(3)
    return {k: torch.randn(v.shape) if v.is_floating_point() else v
            for k, v in Tiny().state_dict().items()}  # fmt: skip


def prefixed(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in state.items()}


def other(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k: v + 1 for k, v in state.items()}


WAYS: dict[str, Save] = {
    "plain": lambda s: s,
    "parallel": lambda s: {"state_dict": prefixed("module.", s)},
    "compiled": lambda s: prefixed("_orig_mod.", s),
    "lightning": lambda s: {"epoch": 3, "state_dict": prefixed("model.", s)
                            | {"criterion.weight": torch.ones(3)}},
    "any name": lambda s: {"state_dict": prefixed("my_net.trunk.", s)},
    "dino": lambda s: {"student": prefixed("module.backbone.", other(s)),
                       "teacher": prefixed("module.backbone.", s)
                       | {"module.head.weight": torch.ones(3)}},
    "averaged": lambda s: {"state_dict": other(s), "state_dict_ema": s},
    "averaged alone": lambda s: {"model_ema": s}, "net": lambda s: {"net": s, "epoch": 3},
    "module": lambda s: {"module": s}, "nested": lambda s: {"model": {"state_dict": s}},
    "timm": lambda s: {"args": argparse.Namespace(lr=0.1), "state_dict": s, "optimizer": {"a": []}},
}  # fmt: skip


def check(path: Path) -> None:
    model, state = Tiny(), weights()
    load_checkpoint(model, path, "tiny")
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key


@pytest.mark.parametrize("way", WAYS)
def test_files_of_torch(way: str, tmp_path: Path) -> None:
    torch.save(WAYS[way](weights()), tmp_path / "a.pth")
    check(tmp_path / "a.pth")


def test_safetensors_in_one_file_and_in_several(tmp_path: Path) -> None:
    state = weights()
    save_file(prefixed("model.", state), tmp_path / "A.SAFETENSORS")
    check(tmp_path / "A.SAFETENSORS")
    keys = list(state)
    parts = {"m-1.safetensors": keys[:5], "m-2.safetensors": keys[5:]}
    for name, part in parts.items():
        save_file({k: state[k] for k in part}, tmp_path / name)
    index = tmp_path / "m.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {k: n for n, part in parts.items() for k in part}}))
    check(index)
    (tmp_path / "m-2.safetensors").unlink()
    with pytest.raises(InputError, match="is missing"):
        load_checkpoint(Tiny(), index, "tiny")


def test_a_classifier_has_as_many_classes_as_the_file(tmp_path: Path) -> None:
    state = weights() | {"head.weight": torch.randn(9, 12), "head.bias": torch.randn(9)}
    torch.save(state, tmp_path / "a.pth")
    model = Tiny()
    load_checkpoint(model, tmp_path / "a.pth", "tiny")
    assert model.head.out_features == 9
    assert torch.equal(model.head.weight, state["head.weight"])
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 9)


def test_what_does_not_fit_is_explained(tmp_path: Path) -> None:
    def message(content: Any, name: str = "a.pth") -> str:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        with pytest.raises(InputError) as caught:
            load_checkpoint(Tiny(), path, "tiny")
        return str(caught.value)

    state = weights()
    assert "2 missing" in message({k: v for k, v in state.items() if "head" not in k})
    assert "1 unexpected (conv1.extra)" in message(state | {"conv1.extra": torch.ones(1)})
    assert "of another shape (conv1.weight" in message(state | {"conv1.weight": torch.ones(2)})
    assert "no numbers" in message(state | {"bn1.bias": torch.full((8,), torch.nan)})
    assert "could run code" in message(Tiny())
    assert "Git LFS" in message(b"version https://git-lfs.github.com/spec/v1\n", "a.safetensors")
    assert "cannot be read" in message(b"\x10" * 100, "b.safetensors")
    with pytest.raises(InputError, match="is a folder"):
        load_checkpoint(Tiny(), tmp_path, "tiny")
    with pytest.raises(InputError, match="no such file"):
        load_checkpoint(Tiny(), tmp_path / "gone.pth", "tiny")


def test_files_of_the_original_publications(tmp_path: Path) -> None:
    densenet = torchvision.models.densenet121()
    published = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", key): value
                 for key, value in densenet.state_dict().items()}  # fmt: skip
    torch.save(published, tmp_path / "densenet.pth")
    for name in ("densenet121", "torchvision:densenet121"):
        loaded = load_target(name, weights=tmp_path / "densenet.pth").model.state_dict()
        key = "features.denseblock1.denselayer2.conv1.weight"
        assert torch.equal(loaded[key], densenet.state_dict()[key])
    swin = timm.create_model("swin_tiny_patch4_window7_224")
    published = {"layers.0.blocks.1.attn.relative_position_index": torch.zeros(49, 49)}
    for key, value in swin.state_dict().items():
        parts = key.split(".")
        if "downsample" in parts:  # published one stage earlier
            parts[1] = str(int(parts[1]) - 1)
        published[".".join(parts).replace("head.fc", "head")] = value
    torch.save({"model": published}, tmp_path / "swin.pth")
    loaded = load_target("swin_tiny_patch4_window7_224", weights=tmp_path / "swin.pth").model
    assert isinstance(loaded, nn.Module)
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in swin.state_dict().items())


def dino(state: dict[str, torch.Tensor]) -> dict[str, Any]:
    """What the training of DINO saves: two networks, each with the head of its training."""
    head = {"head.mlp.0.weight": torch.ones(4, 3), "head.last_layer.weight_g": torch.ones(2, 1)}
    return {
        "student": prefixed("module.", prefixed("backbone.", other(state)) | head),
        "teacher": prefixed("backbone.", state) | head,
        "optimizer": {"state": {}}, "epoch": 3, "args": argparse.Namespace(arch="vit_small"),
        "dino_loss": {"center": torch.zeros(1, 4)},
    }  # fmt: skip


def dinov2(state: dict[str, torch.Tensor]) -> dict[str, Any]:
    """What the training of DINOv2 saves: a token that masks, and blocks in chunks."""
    chunked = {re.sub(r"^blocks\.(\d+)", lambda m: f"blocks.{int(m[1]) // 2}.{m[1]}", k): v
               for k, v in state.items()}  # fmt: skip
    return {"teacher": prefixed("backbone.", chunked | {"mask_token": torch.ones(1, 8)})
            | {"dino_head.mlp.0.weight": torch.ones(4, 3)}}  # fmt: skip


PUBLISHED: dict[str, Save] = {
    "hub": lambda s: s, "dino": dino, "dinov2": dinov2,
    "dinov2, published": lambda s: s | {"mask_token": torch.ones(1, 8)},
    "checkpoint key": lambda s: {"state_dict": prefixed("module.backbone.", s)},
}  # fmt: skip


@pytest.mark.parametrize("way", PUBLISHED)
def test_files_of_dino_load_by_the_literatures_name(way: str, tmp_path: Path) -> None:
    torch.manual_seed(4)
    source = timm.create_model("vit_small_patch16_224.dino", depth=12)
    torch.save(PUBLISHED[way](source.state_dict()), tmp_path / "a.pth")
    target = load_target("dino_vits16", weights=tmp_path / "a.pth")
    for key, value in target.model.state_dict().items():
        assert torch.equal(value, source.state_dict()[key]), key


def test_transformers_models_load_files_of_either_naming(tmp_path: Path) -> None:
    folder = save("vit", tmp_path)
    own = load_target(f"hf:{folder}")
    torch.save({"state_dict": prefixed("model.", own.model.state_dict())}, tmp_path / "a.pth")
    again = load_target(f"hf:{folder}", weights=tmp_path / "a.pth")
    saved = load_target(f"hf:{folder}", weights=folder / "model.safetensors")
    assert own.fingerprint == again.fingerprint == saved.fingerprint
