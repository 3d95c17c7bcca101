"""Layers read through a lens: against plain hooks, with other layers, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from milanx.errors import InputError
from milanx.targets.capture import Capture, find_again, find_layers
from milanx.targets.directions import open_directions
from milanx.targets.through import open_lens, reopen
from milanx.targets.zoo import Target, load_target
from tests.helpers import TinyViT, write_directions, write_sae


@pytest.fixture
def target() -> Target:
    return load_target(TinyViT())


@torch.inference_mode()
def test_latents_are_those_of_the_layer_at_its_places(target: Target, tmp_path: Path) -> None:
    lens = open_lens(write_sae(tmp_path / "sae", width=16, latents=40), None)
    assert lens is not None
    x = torch.randn(3, 3, 32, 32)
    infos = find_layers(target, ["blocks.0", "blocks.0@class", "blocks.1@sae"], lens=lens)
    assert [i.name for i in infos] == ["blocks.0@sae", "blocks.0@class@sae", "blocks.1@sae"]
    assert {(i.kind, i.units, i.rectified, i.linear) for i in infos} == {
        ("latents", 40, True, False)}  # fmt: skip
    with Capture(target, infos) as capture:
        found = capture.run(x)
    kept = {}
    for n in (0, 1):
        target.model.blocks[n].register_forward_hook(
            lambda m, a, o, n=n: kept.__setitem__(n, o.clone()))  # fmt: skip
    target.model(x)
    w = torch.load(tmp_path / "sae-plain.pt", weights_only=True)

    def plain(tokens: torch.Tensor) -> torch.Tensor:
        return torch.relu((tokens - w["b_dec"]) @ w["W_enc"] + w["b_enc"])

    for n in (0, 1):
        patches = plain(kept[n][:, 1:]).transpose(1, 2).reshape(3, 40, 4, 4)
        torch.testing.assert_close(found[f"blocks.{n}@sae"], patches)
    torch.testing.assert_close(found["blocks.0@class@sae"][..., 0, 0], plain(kept[0][:, 0]))


@torch.inference_mode()
def test_a_layer_and_its_latents_do_not_disturb_one_another(target: Target, tmp_path: Path) -> None:
    lens = open_lens(write_sae(tmp_path / "sae", width=16, latents=40), None)
    x = torch.randn(2, 3, 32, 32)
    plain = find_layers(target, ["blocks.0", "blocks.0.mlp.fc1"])
    seen = find_layers(target, ["blocks.0"], lens=lens)
    with Capture(target, plain) as capture:
        before = capture.run(x)
    with Capture(target, [*plain, *seen]) as capture:
        together = capture.run(x)
    assert set(together) == {"blocks.0", "blocks.0.mlp.fc1", "blocks.0@sae"}
    for name, maps in before.items():
        assert torch.equal(together[name], maps)


@torch.inference_mode()
def test_projections_are_on_directions_of_length_one(target: Target, tmp_path: Path) -> None:
    torch.manual_seed(3)
    rows = torch.randn(5, 16) * 7
    path = write_directions(tmp_path / "d.safetensors", rows, ["a", "b", "c", "d", "e"])
    lens = open_lens(None, path)
    assert lens is not None and lens.facts()["names"] == ["a", "b", "c", "d", "e"]
    x = torch.randn(2, 3, 32, 32)
    info = find_layers(target, ["blocks.1"], lens=lens)[0]
    assert (info.name, info.linear, info.rectified) == ("blocks.1@directions", True, False)
    with Capture(target, [info]) as capture:
        found = capture.run(x)[info.name]
    kept = []
    target.model.blocks[1].register_forward_hook(lambda m, a, o: kept.append(o.clone()))
    target.model(x)
    unit = rows / rows.norm(dim=1, keepdim=True)
    plain = torch.einsum("bnd,ud->bun", kept[0][:, 1:], unit).reshape(2, 5, 4, 4)
    torch.testing.assert_close(found, plain)
    assert bool((found < 0).any())


def test_a_lens_of_another_width_is_refused_with_both_numbers(
    target: Target, tmp_path: Path
) -> None:
    lens = open_lens(write_sae(tmp_path / "sae", width=24, latents=40), None)
    with pytest.raises(InputError, match=r"made of 24 units, and blocks\.0 has 16"):
        find_layers(target, ["blocks.0"], lens=lens)
    with pytest.raises(InputError, match="--sae FOLDER"):
        find_layers(target, ["blocks.0@sae"])


def test_two_lenses_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot both"):
        open_lens(tmp_path, tmp_path)


def test_other_files_of_directions_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.safetensors"

    def refused(tensors: dict[str, torch.Tensor], **metadata: str) -> str:
        save_file(tensors, path, metadata or None)
        with pytest.raises(InputError) as caught:
            open_directions(path)
        return f"{caught.value.what}: {caught.value.why}"

    rows = torch.ones(3, 16)
    assert "named 'directions'" in refused({"vectors": rows})
    assert "named 'directions'" in refused({"directions": rows, "more": rows.clone()})
    assert "[16] of float32" in refused({"directions": rows[0].clone()})
    assert "[3, 16] of int64" in refused({"directions": rows.long()})
    assert "row 1 has the length 0.0" in refused(
        {"directions": rows * torch.tensor([[1.0], [0], [1]])})  # fmt: skip
    assert "row 2 has the length nan" in refused(
        {"directions": rows * torch.tensor([[1.0], [1], [float("nan")]])})  # fmt: skip
    assert "names that do not fit" in refused({"directions": rows}, names='["a", "b"]')
    assert "names that do not fit" in refused({"directions": rows}, names="a, b, c")
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="cannot be read"):
        open_directions(path)
    with pytest.raises(InputError, match="no such file"):
        open_directions(tmp_path / "none.safetensors")


def test_a_stored_layer_is_found_again_with_its_lens(target: Target, tmp_path: Path) -> None:
    folder = write_sae(tmp_path / "sae", width=16, latents=40)
    lens = open_lens(folder, None)
    assert lens is not None
    info = find_layers(target, ["blocks.0"], lens=lens, read="raw")[0]
    stored = json.loads(json.dumps(info.to_dict()))
    facts = json.loads(json.dumps(lens.facts()))
    assert stored["through"] == facts["fingerprint"] and "lens" not in stored
    again = find_again(target, stored, facts)
    assert again == info and again.lens is not None
    with pytest.raises(ValueError, match="does not carry what it is read through"):
        Capture(target, [type(info)(**stored | {"map_size": tuple(stored["map_size"])})])
    write_sae(folder, width=16, latents=40, seed=1)
    with pytest.raises(InputError, match="is not what the run was made with"):
        find_again(target, stored, facts)
    (folder / "sae_weights.safetensors").unlink()
    with pytest.raises(InputError):
        reopen(facts)


def test_layers_of_their_own_are_written_as_ever(target: Target) -> None:
    for info in find_layers(target, ["*"]):
        assert not {"through", "lens", "consumed"} & set(info.to_dict())


def test_places_that_differ_are_told(target: Target, tmp_path: Path) -> None:
    folder = write_sae(tmp_path / "sae", width=16, latents=40, hook="blocks.1.hook_resid_post")
    lens = open_lens(folder, None)
    assert lens is not None
    assert lens.notes("blocks.1", True) == []
    assert "trained on blocks.1.hook_resid_post" in lens.notes("blocks.0", True)[0]
