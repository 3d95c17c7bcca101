"""The check of families finds what is read wrongly, keeps its rows, and covers timm."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from milanx.cli import app
from typer.testing import CliRunner

from milanx.bench import checks
from milanx.bench.models import FAMILIES, bench_models, markdown
from milanx.bench.places import AtHome, at_home, by_quarters, is_shifted
from milanx.errors import InputError
from milanx.images.preprocess import Preprocess
from milanx.targets.layers import discover
from milanx.targets.units import LayerInfo
from milanx.targets.zoo import Target, load_target

GRID = 16


@pytest.fixture(scope="module")
def windows() -> Target:
    """Swin at 64 pixels: layers whose rows are windows, shifted ones too."""
    model = timm.models.swin_transformer.SwinTransformer(
        img_size=64, window_size=4, embed_dim=24, depths=(2, 2), num_heads=(2, 4), num_classes=5
    )
    return load_target(model, preprocess=Preprocess((64, 64), 64))


def rolled(info: LayerInfo, by: int) -> LayerInfo:
    order = torch.tensor(info.order).view(info.map_size).roll(by, 1)
    return dataclasses.replace(info, order=tuple(order.flatten().tolist()))


def wrong_order(info: LayerInfo) -> LayerInfo:
    return dataclasses.replace(info, order=tuple(range(len(info.order))))


Mistake = Callable[[LayerInfo], LayerInfo]
MISTAKES: dict[str, tuple[Mistake, str]] = {
    "windows one after another": (wrong_order, "placed"),
    "not rolled back": (lambda i: rolled(i, 2), "shifted"),
    "mirrored": (lambda i: dataclasses.replace(i, order=i.order[::-1]), "placed"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_layer_that_is_read_at_the_wrong_places_is_found(
    mistake: str, windows: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "layers.0.blocks.1.attn.qkv"
    change, kind = MISTAKES[mistake]

    def mistaken(target: Target) -> list[LayerInfo]:
        return [change(info) if info.name == name else info for info in discover(target)]

    monkeypatch.setattr(checks, "discover", mistaken)
    found = checks.check_model(windows)
    assert getattr(found, kind) == [name]
    assert found.wrong == 1


def test_a_nonlinearity_that_is_missed_or_invented_is_found(
    windows: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    fc1 = "layers.0.blocks.0.mlp.fc1"

    def mistaken(target: Target) -> list[LayerInfo]:
        found = {info.name: info for info in discover(target)}
        bare = {"nonlinearity": None, "consumed": None}
        found[fc1] = dataclasses.replace(found[fc1], linear=True, **bare)
        other = found["layers.0.blocks.0.mlp.fc2"]
        found[other.name] = dataclasses.replace(other, rectified=True)
        return list(found.values())

    monkeypatch.setattr(checks, "discover", mistaken)
    found = checks.check_model(windows)
    assert found.bent == [fc1, "layers.0.blocks.0.mlp.fc2"]


def test_what_is_right_is_right(windows: Target) -> None:
    found = checks.check_model(windows)
    assert found.wrong == 0 and found.untold == []
    assert found.maps > 40


def spots(cells: int, shift: int = 0) -> torch.Tensor:
    """How far a map moves at spots of a picture, with a little everywhere."""
    part = GRID // cells
    moved = torch.full((cells**2, GRID, GRID), 0.1, dtype=torch.float64)
    for number, map_ in enumerate(moved):
        row, column = divmod(number, cells)
        map_[row * part : (row + 1) * part, column * part : (column + 1) * part] = 1
    return moved.roll(shift, 2)


def test_rules_of_places() -> None:
    quarters = spots(2)[None]
    assert by_quarters(quarters) is True
    assert by_quarters(quarters[:, [1, 0, 3, 2]]) is False
    assert by_quarters(torch.ones_like(quarters)) is None
    assert not is_shifted(spots(4))
    assert not is_shifted(spots(4, 1))  # half a step of a convolution is no fault
    assert is_shifted(spots(4, 3))
    noise = torch.rand(1, 4, GRID, GRID, generator=torch.Generator().manual_seed(0)).double()
    assert by_quarters(1 + 0.01 * noise) is not False


def test_attention_at_home_keeps_places() -> None:
    look = at_home(16, 4, torch.zeros(1))
    assert look is not None
    assert look.argmax(1).view(4, 4).tolist() == [[0, 0, 1, 1]] * 2 + [[2, 2, 3, 3]] * 2
    assert at_home(17, 5, torch.zeros(1)) is not None  # a class token
    assert at_home(1, 50, torch.zeros(1)) is None
    q, k, v = torch.randn(3, 2, 1, 9, 4)
    with AtHome():
        found = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        assert torch.equal(found, v)
        conv = torch.nn.Conv2d(4, 4, 7, padding=3, bias=False)
        spot = torch.zeros(1, 4, 9, 9)
        spot[..., 4, 4] = 1
        assert int(conv(spot).abs().sum(1).argmax()) == 4 * 9 + 4


def test_every_family_of_timms_has_a_member() -> None:
    from timm.models import _registry

    assert set(FAMILIES) == set(_registry._module_to_models)
    for family, member in FAMILIES.items():
        assert member.name in _registry._module_to_models[family]


def test_rows_are_kept_and_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep = tmp_path / "rows.jsonl"
    names = ["test_resnet", "no_such_model"]
    rows = bench_models(names, keep=keep)
    assert [row["model"] for row in rows] == names
    assert rows[0]["wrong"] == 0 and rows[0]["maps"] > 10
    assert "neither timm" in rows[1]["error"]

    def measured(member: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("milanx.bench.models._measured", measured)
    assert bench_models(names, keep=keep) == rows
    text = markdown(rows)
    assert "| `test_resnet` | 160 |" in text and "neither timm" in text
    changed = [json.dumps(row | {"code": "other"}) for row in rows]
    keep.write_text("\n".join(changed))
    with pytest.raises(AssertionError, match="measured again"):
        bench_models(names, keep=keep)
    keep.write_text("no rows")
    with pytest.raises(InputError, match="no rows of bench models"):
        bench_models(names, keep=keep)


def test_the_command_asks_which() -> None:
    for args in ([], ["--all", "resnet18"]):
        done = CliRunner().invoke(app, ["bench", "models", *args])
        assert done.exit_code == 2
        assert "which models?" in done.output
