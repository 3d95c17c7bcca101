"""What is written: weights that load without milanx, ``edit.json``, what is refused."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from milanx.act.ablate import Edit, ablate, read_places
from milanx.act.export import MODEL, Why, load_edited, read_edit, undo, write_edit
from milanx.act.select import Chosen
from milanx.act.weights import Written, write_weights
from milanx.errors import FormatError, InputError
from milanx.images.preprocess import Preprocess
from milanx.targets.units import LayerInfo
from milanx.targets.zoo import Target, load_target
from tests.act.models import PREPROCESS, SIDE, Gated, Plain
from tests.helpers import files_of_at_most


def images(count: int = 4, side: int = SIDE) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(3))


def shaken(model: nn.Module, scale: float = 0.1) -> nn.Module:
    """Move every weight, so that no branch is silent."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(2)) * scale)
    return model


def gap(target: Target, written: Written, edits: list[Edit], x: torch.Tensor) -> float:
    assert written.state is not None, written.ways
    edited = copy.deepcopy(target.model)
    edited.load_state_dict(written.state)
    with torch.inference_mode(), ablate(target, edits):
        return float((edited(x) - target.model(x)).abs().max())


def written(target: Target, edits: list[Edit], side: int = SIDE) -> Written:
    infos = read_places(target, [e.layer for e in edits])
    return write_weights(target, edits, infos, [images(side=side)])


PLAIN = load_target(Plain())
ZERO, MEAN = {"kind": "zero"}, {"kind": "mean", "values": (0.25, 1.5)}
HALF = {"kind": "scale", "factor": 0.5}


@pytest.mark.parametrize(
    ("layer", "how", "way"),
    [
        ("conv1", ZERO, "rows of conv1, which makes them"),
        ("conv1", MEAN, "rows of conv1, which makes them"),
        ("conv1", HALF, "rows of conv1, which makes them, scaled"),
        ("bn1", ZERO, "rows of bn1, which makes them"),
        ("bn1", MEAN, "rows of bn1, which makes them"),
        ("bn1", HALF, "rows of bn1, which makes them, scaled"),
        ("conv2", ZERO, "rows of conv2, which makes them"),
        ("conv2", MEAN, "rows of conv2, which makes them"),
        ("conv3", ZERO, "rows of conv3, which makes them"),
        ("norm3", ZERO, "rows of norm3, which makes them"),
        ("norm3", MEAN, "rows of norm3, which makes them"),
        ("fc1", ZERO, "rows of fc1, which makes them"),
        ("fc1", MEAN, "rows of fc1, which makes them"),
        ("fc1", {"kind": "mean", "values": (-0.1, -0.15)}, "rows of fc1, which makes them"),
        ("fc1", HALF, "columns of fc2, which reads them scaled"),
        ("fc2", ZERO, "rows of fc2, which makes them"),
        ("head", MEAN, "rows of head, which makes them"),
    ],
)
def test_weights_give_the_edited_models_logits(layer: str, how: dict, way: str) -> None:
    edits = [Edit(layer, (1, 4), **how)]
    found = written(PLAIN, edits)
    assert found.ways == (f"{layer}: {way}",)
    assert gap(PLAIN, found, edits, images(6)) < 1e-5
    assert found.gap <= 1e-5
    module = way.split()[2].rstrip(",")
    assert found.changed and all(name.startswith(f"{module}.") for name in found.changed)


@pytest.mark.parametrize(
    ("layer", "how", "why"),
    [
        ("conv2", HALF, "relu6 of a scaled value"),
        ("norm3", HALF, "silu of a scaled value"),
        ("fc1", {"kind": "mean", "values": (0.5, -0.2)}, ""),  # GELU never gives -0.2: by fc2
        ("conv3", MEAN, "has no bias"),
    ],
)
def test_the_maker_is_left_where_it_cannot(layer: str, how: dict, why: str) -> None:
    found = written(PLAIN, [Edit(layer, (1, 4), **how)])
    if why:
        assert found.state is None and why in found.ways[0]
    else:
        assert "columns of fc2, which reads them and fc2.bias" in found.ways[0]
        assert gap(PLAIN, found, [Edit(layer, (1, 4), **how)], images()) < 1e-5


def test_edits_of_several_layers_hold_together() -> None:
    edits = [
        Edit("head", (2,)), Edit("fc2", (0, 3), "mean", values=(0.5, -1.0)),
        Edit("fc1", (7,), "mean", values=(-0.3,)), Edit("bn1", (0,), "mean", values=(0.75,)),
        Edit("bn1", (2,)),
    ]  # fmt: skip
    found = written(PLAIN, edits)
    assert gap(PLAIN, found, edits, images(6)) < 1e-5
    before = PLAIN.model.state_dict()
    same = [k for k, v in (found.state or {}).items() if torch.equal(v, before[k])]
    assert set(same) == set(before) - set(found.changed)


class Stream(nn.Module):
    """A residual stream that a padded convolution reads alone, and one that two things read."""

    preprocess = PREPROCESS

    def __init__(self, padding: int = 1, again: bool = False, norm: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.branch = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1)
        self.out = nn.Identity() if norm else nn.ReLU()
        self.conv = nn.Conv2d(4, 6, 3, padding=padding, bias=not norm)
        self.bn = nn.BatchNorm2d(6) if norm else nn.Identity()
        self.head, self.again = nn.Linear(6, 3), again

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = self.out(self.branch(x) + x)
        y = self.bn(self.conv(x))
        if self.again:
            y = y + F.pad(x, (0, 0, 0, 0, 0, 2))
        return self.head(y.relu().mean((2, 3)))


def test_readers_hold_what_no_maker_can() -> None:
    target = load_target(shaken(Stream()))
    for how in ({"kind": "zero"}, {"kind": "scale", "factor": 3.0}):
        edits = [Edit("out", (1,), **how)]
        found = written(target, edits)
        assert "columns of conv" in found.ways[0]
        assert gap(target, found, edits, images()) < 1e-5


def test_the_border_of_a_padded_convolution_is_measured_and_said() -> None:
    mean = [Edit("out", (1,), "mean", values=(0.8,))]
    found = written(load_target(shaken(Stream())), mean)
    assert found.state is None
    assert "at the border of padded convolutions logits differ by up to 0." in found.ways[0]
    whole = load_target(shaken(Stream(padding=0)))
    found = written(whole, mean)
    assert "columns of conv, which reads them and conv.bias" in found.ways[0]
    assert gap(whole, found, mean, images()) < 1e-5


def test_a_reader_without_bias_passes_it_to_its_norm() -> None:
    target = load_target(shaken(Stream(padding=0, norm=True)))
    edits = [Edit("out", (1, 2), "mean", values=(0.8, -0.5))]
    infos = {"out": LayerInfo("out", "out", "conv", 4, (12, 12))}  # no layer of its own
    found = write_weights(target, edits, infos, [images()])
    assert found.state is not None and "bn.running_mean" in found.changed
    edited = copy.deepcopy(target.model)
    edited.load_state_dict(found.state)
    with torch.inference_mode(), ablate(target, edits, infos):
        torch.testing.assert_close(edited(images()), target.model(images()), atol=1e-5, rtol=0)


def test_a_residual_stream_is_refused_with_its_readers() -> None:
    found = written(load_target(shaken(Stream(again=True))), [Edit("out", (1,))])
    assert found.state is None and "it is read by add" in found.ways[0]


def small(name: str, **how: Any) -> Target:
    model = shaken(timm.create_model(name, num_classes=10, **how))
    return load_target(
        model, preprocess=Preprocess((64, 64), 64, "bilinear", (0.5,) * 3, (0.5,) * 3)
    )


@pytest.mark.parametrize(
    ("name", "layer", "way"),
    [
        ("test_efficientnet", "blocks.3.0.bn1", "rows of blocks.3.0.bn1"),
        ("test_resnet", "layer3.0.bn1", "rows of layer3.0.bn1"),
        ("test_resnet", "layer4", "columns of fc"),
        ("test_vit", "blocks.2.mlp.fc1", "rows of blocks.2.mlp.fc1"),
    ],
)
def test_layers_of_timm(name: str, layer: str, way: str) -> None:
    target = small(name, **({"img_size": 64} if "vit" in name else {}))
    x = images(side=64)
    for how in (ZERO, MEAN):
        edits = [Edit(layer, (1, 5), **how)]
        found = written(target, edits, 64)
        assert way in found.ways[0]
        largest = float(target.model(x).detach().abs().max())
        assert gap(target, found, edits, x) < 1e-5 * max(1, largest)


def test_gated_inputs_go_into_the_down_projection() -> None:
    target = load_target(Gated())
    for how in (ZERO, MEAN, HALF):
        edits = [Edit("mlp.up_proj", (1, 3), **how)]
        found = written(target, edits)
        assert "columns of mlp.down_proj" in found.ways[0]
        assert gap(target, found, edits, images()) < 1e-5


def test_tokens_and_residual_streams_are_refused_in_words() -> None:
    vit = small("test_vit", img_size=64)
    for edit, why in (
        (Edit("blocks.2", (1,)), "it is read by"),
        (Edit("blocks.2.mlp.fc1", (1,), positions="patches"), "weights treat all tokens alike"),
        (Edit("blocks.2.mlp.fc1@class", (1,)), "weights treat all tokens alike"),
    ):
        found = written(vit, [edit], 64)
        assert found.state is None and why in found.ways[0]


ALONE = """
import sys, timm, torch
from safetensors.torch import load_file
name, weights, inputs, out = sys.argv[1:]
how = {"img_size": 64} if "vit" in name else {}
model = timm.create_model(name, num_classes=10, **how).eval()
model.load_state_dict(load_file(weights))
x = load_file(inputs)["x"]
with torch.inference_mode():
    from safetensors.torch import save_file
    save_file({"logits": model(x)}, out)
assert "milanx" not in sys.modules
"""


@pytest.mark.parametrize(
    ("name", "layer"), [("test_resnet", "layer3.0.bn1"), ("test_vit", "blocks.2.mlp.fc1")]
)
def test_a_process_without_milanx_gives_the_edited_logits(
    name: str, layer: str, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    target = small(name, **({"img_size": 64} if "vit" in name else {}))
    x = images(side=64)
    save_file({"x": x}, tmp_path / "x.safetensors")
    for kind, values in (("zero", ()), ("mean", (0.25, 1.5))):
        edits = [Edit(layer, (1, 5), kind, values=values)]
        infos = read_places(target, [layer])
        folder = tmp_path / kind
        write_edit(folder, target, edits, infos, written=write_weights(target, edits, infos, [x]))
        subprocess.run(
            [
                sys.executable,
                "-c",
                ALONE,
                name,
                str(folder / MODEL),
                str(tmp_path / "x.safetensors"),
                str(tmp_path / "y.safetensors"),
            ],
            check=True,
            cwd=tmp_path,
        )
        found = load_file(tmp_path / "y.safetensors")["logits"]
        with torch.inference_mode(), ablate(target, edits, infos):
            expected = target.model(x)
        with torch.inference_mode():
            assert (expected - target.model(x)).abs().max() > 1e-3  # the edit does something
            by_hooks = load_edited(folder, target.model)(x)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        assert torch.equal(by_hooks, expected)


def store(folder: Path, target: Target = PLAIN, **how: Any) -> Path:
    edits = how.pop("edits", [Edit("bn1", (1, 4), "mean", values=(0.5, 0.25))])
    infos = read_places(target, [e.layer for e in edits])
    return write_edit(folder, target, edits, infos, **how)


def test_edit_json_says_what_and_why(tmp_path: Path) -> None:
    chosen = [Chosen("bn1", 4, "+", "white text", 0.5, "'text'", 1.0, Path("x"))]
    why = Why("runs/a", {"match": ["text"]}, chosen, "milanx prune --match text", {"count": 2})
    edits = [Edit("bn1", (1, 4)), Edit("fc1", (0,), "scale", factor=0.25)]
    path = store(tmp_path / "edited", edits=edits, why=why)
    content = json.loads(path.read_text())
    assert (content["format"], content["version"]) == ("milanx-edit", 1)
    assert content["target"]["fingerprint"] == PLAIN.fingerprint
    assert content["edits"][0]["units"] == [
        {"unit": 1},
        {"unit": 4, "text": "white text", "score": 0.5, "why": "'text'"},
    ]
    assert content["edits"][1]["factor"] == 0.25
    assert content["why"]["selection"] == {"match": ["text"]}
    assert content["why"]["command"] == "milanx prune --match text"
    assert content["weights"] == {"file": None, "reason": "no weights were asked for"}
    stored = read_edit(tmp_path / "edited")
    assert list(stored.edits) == edits and stored.infos["bn1"].nonlinearity == "relu"


def test_undo_gives_the_original_weights(tmp_path: Path) -> None:
    edits = [Edit("bn1", (1, 4), "mean", values=(0.5, 0.25))]
    infos = read_places(PLAIN, ["bn1"])
    folder = tmp_path / "edited"
    write_edit(folder, PLAIN, edits, infos, written=write_weights(PLAIN, edits, infos, [images()]))
    assert {p.name for p in folder.iterdir()} == {"edit.json", MODEL, "original.safetensors"}
    restored = load_file(undo(folder))
    before = PLAIN.model.state_dict()
    assert restored.keys() == before.keys()
    assert all(torch.equal(restored[k], before[k]) for k in before)
    (folder / MODEL).write_bytes(b"other")
    with pytest.raises(FormatError, match=r"model\.safetensors is damaged"):
        undo(folder)
    with pytest.raises(InputError, match="is there already"):
        store(folder)
    store(folder, overwrite=True)
    with pytest.raises(InputError, match="changed no weights"):
        undo(folder)


def test_weights_that_changed_since_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "edited"
    store(folder)
    given = Plain()
    hooks = sum(len(m._forward_hooks) for m in given.modules())
    load_edited(folder, given)
    assert sum(len(m._forward_hooks) for m in given.modules()) == hooks  # a copy was edited
    with torch.no_grad():
        given.fc1.weight[0] += 1
    with pytest.raises(InputError, match="are not those of") as error:
        load_edited(folder, given)
    assert PLAIN.fingerprint in error.value.why


def test_what_is_no_edit_is_said(tmp_path: Path) -> None:
    other = tmp_path / "photos"
    other.mkdir()
    (other / "a.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match="is not overwritten"):
        store(other, overwrite=True)
    with pytest.raises(InputError, match="no edit at"):
        read_edit(tmp_path / "nothing")
    path = store(tmp_path / "edited")
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "version": 2}))
    with pytest.raises(FormatError, match="version 2"):
        read_edit(path)
    del content["edits"][0]["units"]
    path.write_text(json.dumps(content))
    with pytest.raises(FormatError, match="damaged"):
        read_edit(path)
    bank = torch.zeros(2, 1, 8, 8)
    with pytest.raises(InputError, match="resamples is not written"):
        store(tmp_path / "r", edits=[Edit("bn1", (1,), "resample", bank=bank)])


def test_a_full_disk_in_the_middle_leaves_the_old_edit(tmp_path: Path) -> None:
    folder = tmp_path / "edited"
    old = store(folder).read_text()
    state = {k: v.clone() for k, v in PLAIN.model.state_dict().items()}
    written = Written(state, ("bn1.weight",), ("x",), 0.0, 1)
    with pytest.raises(InputError, match=f"cannot write {folder}"), files_of_at_most(100):
        store(folder, written=written, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["edited"]
    assert (folder / "edit.json").read_text() == old
