"""The tail of a network gives the whole network's logits, bit by bit, and leaves nothing behind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

from milanx.act.ablate import Edit, ablate, read_places
from milanx.act.calls import before, record_calls
from milanx.act.data import EvalSet
from milanx.act.tail import Tail
from milanx.errors import InputError
from milanx.images.preprocess import Preprocess
from milanx.targets.zoo import Target, load_target
from tests.act.models import PREPROCESS, SIDE, Gated, Plain
from tests.helpers import files_of_at_most


def pictures(count: int = 7, side: int = SIDE) -> EvalSet:
    views = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    return EvalSet("noise", views.__getitem__, tuple(map(str, range(count))))


def whole(target: Target, edits: list[Edit], images: EvalSet, size: int) -> torch.Tensor:
    with torch.inference_mode(), ablate(target, edits):
        return torch.cat([target.model(target.inputs(v)) for v in images.batches(size)])


def check(target: Target, layers: list[str], side: int, runs_alone: bool = True) -> Tail:
    infos, images = read_places(target, layers), pictures(7, side)
    with Tail(target, list(infos.values()), images, batch_size=3) as tail:
        assert tail.whole is not runs_alone, tail.notes
        assert torch.equal(tail.before, whole(target, [], images, 3))
        for edits in (
            [],
            [Edit(name, (0, 2)) for name in infos],
            [Edit(name, (1,), "scale", factor=-2.0) for name in infos],
            [Edit(name, (1,), "mean", values=(0.5,)) for name in list(infos)[-1:]],
        ):
            expected = whole(target, edits, images, 3)
            assert torch.equal(tail.logits(edits), expected)
            assert not edits or not torch.equal(expected, tail.before)
        assert sum(f.stat().st_size for f in cache_files()) == tail.bytes
        assert (tail.bytes > 0) is runs_alone
    assert not cache_files()
    return tail


def cache_files() -> list[Path]:
    return [p for p in Path(os.environ["MILANX_CACHE"]).rglob("*") if p.is_file()]


@pytest.mark.parametrize(
    "layers", [["conv1"], ["bn1"], ["conv2"], ["conv3"], ["norm3"], ["fc1"], ["fc2"], ["head"],
               ["conv2", "fc1"]],
)  # fmt: skip
def test_equals_the_whole_model_at_every_place(layers: list[str]) -> None:
    check(load_target(Plain()), layers, SIDE)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("test_resnet", ["layer4.0.bn1"]),
        ("test_resnet", ["layer3.0.conv1", "layer4"]),
        ("test_efficientnet", ["blocks.4.0.bn1"]),
        ("test_vit", ["blocks.3.mlp.fc1", "blocks.3.mlp.fc1@class"]),
        ("test_vit", ["blocks.2"]),
        ("test_convnext", ["stages.2.blocks.0.mlp.fc1"]),
    ],
)
def test_equals_the_whole_model_for_timms(name: str, layers: list[str], layout: Any) -> None:
    size = {"img_size": 64} if "vit" in name else {}
    model = timm.create_model(name, num_classes=10, **size)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(2)) * 0.1)
    target = load_target(
        model.to(memory_format=layout),
        preprocess=Preprocess((64, 64), 64, "bilinear", (0.5,) * 3, (0.5,) * 3),
    )
    check(target, layers, 64)


def test_inputs_of_a_down_projection() -> None:
    check(load_target(Gated()), ["mlp.up_proj"], SIDE)


def test_only_what_is_read_later_is_kept() -> None:
    target = load_target(Plain())
    info = read_places(target, ["conv3"])["conv3"]
    root = record_calls(target.model, torch.zeros(2, 3, SIDE, SIDE))
    keys = before(root, [info])
    assert [k[0] for k in keys] == ["conv1", "bn1", "act1", "conv2", "conv3"]
    tail = check(target, ["conv3"], SIDE)
    # Read are conv3's, to be edited, conv2's by a function, and act1's, which is added to it; act1
    # works in place, so that its result and bn1's are one tensor. conv1's is not.
    each = 4 * (SIDE // 2) ** 2
    assert tail.bytes == 7 * each * (8 + 6 + 6 + 6)


class Shared(nn.Module):
    """One activation module called twice, and one result changed in place by a later module."""

    preprocess = PREPROCESS

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.act, self.head = nn.ReLU(inplace=in_place), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = self.conv1(x)
        x = self.act(before)
        x = self.act(self.conv2(x))
        return self.head(x.mean((2, 3)) + before.mean((2, 3)))


def test_a_module_that_is_called_twice() -> None:
    check(load_target(Shared(False)), ["conv2"], SIDE)


def test_where_the_tail_alone_would_differ_the_whole_model_runs() -> None:
    """What is read later was changed in place by a call that does not run again."""
    tail = check(load_target(Shared(True)), ["conv2"], SIDE, runs_alone=False)
    assert tail.notes[0].startswith(
        "the whole model runs for every point: its tail alone: its logits differ"
    )


def test_too_much_for_the_disk_runs_the_whole_model() -> None:
    target, images = load_target(Plain()), pictures()
    infos = list(read_places(target, ["fc1"]).values())
    with Tail(target, infos, images, batch_size=3, limit=100) as tail:
        assert tail.whole and "on disk" in tail.notes[0]
        edits = [Edit("fc1", (1,))]
        assert torch.equal(tail.logits(edits), whole(target, edits, images, 3))


def test_a_full_disk_in_the_middle_leaves_nothing() -> None:
    target = load_target(Plain())
    infos = list(read_places(target, ["fc1"]).values())
    forwards = [m.forward for m in target.model.modules()]
    with (
        pytest.raises(InputError, match="cannot write"),
        files_of_at_most(40_000),
        Tail(target, infos, pictures(), batch_size=3),
    ):
        pass
    assert not cache_files()
    assert [m.forward for m in target.model.modules()] == forwards
    assert not any("forward" in m.__dict__ for m in target.model.modules())


def test_what_dead_processes_left_is_removed(own_cache: Path) -> None:
    left = own_cache / "tails" / "999999999-dead"
    left.mkdir(parents=True)
    (left / "results.bin").write_bytes(b"x")
    check(load_target(Plain()), ["fc1"], SIDE)
    assert not left.exists()
