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
from milanx.bench.families import huggingface, timms, torchvisions
from milanx.bench.models import LIBRARIES, bench_models
from milanx.bench.places import AtHome, at_home, by_quarters, is_shifted
from milanx.bench.table import BEGINS, ENDS, markdown, write_into
from milanx.errors import InputError
from milanx.images.preprocess import Preprocess
from milanx.targets.layers import discover
from milanx.targets.units import LayerInfo
from milanx.targets.zoo import Target, load_target
from tests.cli.commands import refused

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


@pytest.mark.parametrize("pool", [torch.amax, lambda x, dim: x.max(dim=dim).values])
def test_queries_that_were_pooled_look_where_they_come_from(
    pool: Callable[..., torch.Tensor],
) -> None:
    q, k, v = torch.randn(3, 2, 1, 8, 4)
    with AtHome():  # [several, queries, width], as Hiera unrolls its tokens
        q = pool(q.view(2, 1, 2, 4, 4), dim=2)
        found = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(found, (v[..., :4, :] + v[..., 4:, :]) / 2)


def test_every_family_of_timms_has_a_member() -> None:
    from timm.models import _registry

    assert set(timms.FAMILIES) == set(_registry._module_to_models)
    for family, member in timms.FAMILIES.items():
        assert member.name in _registry._module_to_models[family]


def test_every_kind_that_transformers_registers_has_a_member() -> None:
    registered = huggingface.registered()
    assert set(registered) <= set(huggingface.FAMILIES)
    assert registered["clip"] == "CLIPModel"  # the whole, of which the part for images is taken
    assert registered["vit"] == "ViTForImageClassification"
    assert set(registered) >= huggingface.OTHERS


def test_every_family_of_torchvisions_classifiers_has_a_member() -> None:
    import torchvision

    names = torchvision.models.list_models(module=torchvision.models)
    files = {name: torchvision.models.get_model_builder(name).__module__.rpartition(".")[2]
             for name in names}  # fmt: skip
    assert set(files.values()) == set(torchvisions.FAMILIES)
    for family, member in torchvisions.FAMILIES.items():
        assert files[member.name.removeprefix(torchvisions.PREFIX)] == family


# One of each way in: a tower, patches, a masked encoder, a trunk of timm's, pooled queries.
KINDS = ("clip", "siglip2", "vit_mae", "timm_backbone", "levit", "vitpose_backbone")


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_transformers_are_read(kind: str) -> None:
    row = bench_models([f"transformers:{kind}"])[0]
    assert "error" not in row
    assert row["wrong"] == 0 and row["untold"] == [] and row["maps"] > 20
    assert row["refused"] <= 1


def test_what_takes_no_image_says_so() -> None:
    rows = bench_models(["transformers:videoprism_vision_model", "transformers:imagegpt"])
    assert [row["image"] for row in rows] == [False, False]
    assert "takes videos" in rows[0]["error"] and "transformers:" in rows[0]["error"]
    assert "no pixel_values" in rows[1]["error"]
    text = markdown(rows)
    assert "0 of 0 models that take an image are read; 2 more take no image alone." in text


def test_rows_are_kept_and_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep = tmp_path / "rows.jsonl"
    with pytest.raises(InputError, match="no_such_model"):
        bench_models(["test_resnet", "no_such_model"], keep=keep)
    names = ["test_resnet", "transformers:imagegpt"]
    rows = bench_models(names, keep=keep)
    assert [row["model"] for row in rows] == names
    assert rows[0]["wrong"] == 0 and rows[0]["maps"] > 10
    assert "no pixel_values" in rows[1]["error"]

    def measured(library: str, member: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("milanx.bench.models._measured", measured)
    assert bench_models(names, keep=keep) == rows
    text = markdown(rows)
    assert "| `test_resnet` | 160 |" in text and "1 more" in text
    assert f"### {rows[0]['library']}" in text
    assert "1 of 1 models that take an image are read (100%)." in text
    changed = [json.dumps(row | {"code": "other"}) for row in rows]
    keep.write_text("\n".join(changed))
    with pytest.raises(AssertionError, match="measured again"):
        bench_models(names, keep=keep)
    keep.write_text("no rows")
    with pytest.raises(InputError, match="no rows of bench models"):
        bench_models(names, keep=keep)


def test_the_command_asks_which() -> None:
    for args in ([], ["--all", "resnet18"], ["--all", "--library", "timm"]):
        done = CliRunner().invoke(app, ["bench", "models", *args])
        assert done.exit_code == 2
        assert "which models?" in done.output


def test_a_library_that_is_not_known_is_said() -> None:
    with pytest.raises(InputError, match="did you mean torchvision"):
        bench_models(libraries=["torchvison"])
    assert list(LIBRARIES) == ["timm", "transformers", "torchvision"]


def test_the_tables_of_a_page_are_written_anew(tmp_path: Path) -> None:
    page, keep = tmp_path / "page.md", tmp_path / "rows.jsonl"
    page.write_text(f"above\n{BEGINS}\nformer\n{ENDS}\nbelow\n")
    args = ["bench", "models", "test_resnet", "--keep", str(keep), "--into", str(page)]
    done = CliRunner().invoke(app, args)
    assert done.exit_code == 0, done.output
    text = page.read_text()
    assert text.startswith(f"above\n{BEGINS}\n### timm ") and text.endswith(f"{ENDS}\nbelow\n")
    assert "| `test_resnet` | 160 |" in text and "former" not in text
    rows = [json.loads(line) for line in keep.read_text().splitlines()]
    write_into(page, rows)
    assert page.read_text() == text
    page.write_text("no marks")
    with pytest.raises(InputError, match="left as it is"):
        write_into(page, rows)
    with pytest.raises(InputError, match="cannot be read"):
        write_into(tmp_path / "none.md", rows)


def test_the_page_of_models_has_the_marks() -> None:
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    assert text.count(BEGINS) == text.count(ENDS) == 1


def test_models_that_there_are_not_are_refused() -> None:
    assert "no model 'nomodel'" in refused("bench", "models", "nomodel")
