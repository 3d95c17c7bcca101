"""Runs whose units are latents or projections: known meanings, resuming, what a run says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import milanx
import milanx.exemplars.job as passes
from milanx.errors import InputError, Interrupted
from milanx.evaluate.p4.sheets import aside_sheets, top_aside
from milanx.exemplars.extract import extract
from milanx.exemplars.inputs import open_inputs
from milanx.exemplars.request import ExtractSettings, Request
from milanx.images.probe import open_images
from milanx.images.sources import open_sources
from milanx.report.page import write_page
from milanx.targets.zoo import load_target
from tests.cli.commands import refused, run
from tests.helpers import TinyViT, noise, write_directions, write_parquet, write_sae

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
CORNERS = ((0, 0), (0, 16), (16, 0), (16, 16))


def colour_vit() -> nn.Module:
    """A transformer whose tokens hold the mean red, green and blue of their patch, and no more."""
    model = TinyViT()
    for name, parameter in model.named_parameters():
        if name.startswith(("patch", "blocks", "token", "place")):
            parameter.data.zero_()
    for channel in range(3):
        model.patch.weight.data[channel, channel] = 1 / 64
    return model


def colour_sae(folder: Path) -> Path:
    """Write latents that are red, green and blue, by what exceeds the other two, and a dead one."""
    encoder = torch.zeros(16, 4)
    encoder[:3, :3] = torch.full((3, 3), -0.5).fill_diagonal_(1.0)
    tensors = {"W_enc": encoder, "b_enc": torch.tensor([0.0, 0, 0, -1]),
               "W_dec": encoder.T.contiguous(), "b_dec": torch.zeros(16)}  # fmt: skip
    return write_sae(folder, width=16, latents=4, tensors=tensors)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey pictures with a square of one colour in one corner, by turns, and some without."""
    pictures, names = [], []
    for turn in range(64):
        shades = np.random.default_rng(turn).integers(90, 160, (32, 32, 1))
        picture = np.repeat(shades, 3, 2).astype(np.uint8)
        name = [*COLOURS, "grey"][turn % 4]
        if name in COLOURS:
            top, left = CORNERS[turn // 4 % 4]
            picture[top : top + 16, left : left + 16] = COLOURS[name]
        pictures.append(Image.fromarray(picture))
        names.append(name)
    labels = [[*COLOURS, "grey"].index(n) for n in names]
    return write_parquet(tmp_path_factory.mktemp("p") / "p.parquet", pictures, label=labels)


def names_of(store: Any, images: np.ndarray) -> set[str]:
    table = store.image_table()
    return {[*COLOURS, "grey"][table[int(i)]["label"]] for i in images}


def test_planted_latents_have_the_right_exemplars_and_masks(
    photos: Path, tmp_path: Path, describer: milanx.Describer
) -> None:
    sae = colour_sae(tmp_path / "sae")
    made = milanx.describe(colour_vit(), layers=["blocks.1"], images=photos, sae=sae,
                           out=tmp_path / "run", describer=describer,
                           settings=ExtractSettings(k=5, quantile=0.9))  # fmt: skip
    store = made.store
    assert store.layers == ["blocks.1@sae"]
    assert store.status("blocks.1@sae") == ["alive", "alive", "alive", "dead"]
    for unit, (name, colour) in enumerate(COLOURS.items()):
        found = store.get("blocks.1@sae", unit)
        assert names_of(store, found.images) == {name}
        for view, mask in zip(found.views, found.masks, strict=True):
            inside = np.abs(view.astype(int) - np.array(colour)[:, None, None]).max(0) < 60
            assert mask[inside].mean() > 0.5
            assert mask[~inside].mean() < 0.2
    assert [u.row["status"] for u in made][3] == "dead"
    assert made["blocks.1@sae", 0].description

    known = json.loads((made.root / "run.json").read_text())
    facts = {k: known["lens"][k] for k in ("kind", "format", "architecture", "width", "latents")}
    assert facts == {"kind": "sae", "format": "SAELens", "architecture": "standard", "width": 16,
                     "latents": 4}  # fmt: skip
    assert known["layers"][0]["through"] == known["lens"]["fingerprint"]
    assert known["settings"]["sae"] == str(sae)


def test_directions_have_two_sides(photos: Path, tmp_path: Path) -> None:
    rows = torch.zeros(1, 16)
    rows[0, :3] = torch.tensor([3.0, 0, -3])  # from blue to red
    path = write_directions(tmp_path / "d.safetensors", rows, ["blue to red"])
    store = milanx.extract(colour_vit(), layers="blocks.1", images=photos, directions=path,
                           signs=("+", "-"), out=tmp_path / "run",
                           settings=ExtractSettings(k=5))  # fmt: skip
    for sign, name in (("+", "red"), ("-", "blue")):
        found = store.get("blocks.1@directions", 0, sign)
        assert names_of(store, found.images) == {name}


def asked(photos: Path, sae: Path | None, **changes: Any) -> Any:
    settings = ExtractSettings(k=4, batch_size=8, checkpoint_seconds=0)
    return open_inputs(Request(TinyViT(), ("blocks.0", "blocks.1"), (photos,), sae=sae,
                               settings=settings, **changes))  # fmt: skip


def test_the_key_of_a_run_holds_what_its_latents_are(photos: Path, tmp_path: Path) -> None:
    plain = asked(photos, None).key
    first = asked(photos, write_sae(tmp_path / "a", width=16, latents=20)).key
    moved = asked(photos, write_sae(tmp_path / "b", width=16, latents=20)).key
    other = asked(photos, write_sae(tmp_path / "c", width=16, latents=20, seed=1)).key
    assert first == moved
    assert len({plain, first, other}) == 3


def test_a_run_of_latents_that_was_stopped_goes_on_to_the_same_bytes(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sae = write_sae(tmp_path / "sae", width=16, latents=20)
    whole = extract(asked(photos, sae), tmp_path / "whole")
    take, seen = passes.Pass.take, []

    def stopped(self: passes.Pass, *batch: Any) -> None:
        take(self, *batch)
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(passes.Pass, "take", stopped)
    with pytest.raises(Interrupted):
        extract(asked(photos, sae), tmp_path / "parts")
    monkeypatch.undo()
    other = write_sae(tmp_path / "other", width=16, latents=20, seed=1)
    assert asked(photos, other).key != asked(photos, sae).key
    parts = extract(asked(photos, sae), tmp_path / "parts")
    assert parts.layers == whole.layers == ["blocks.0@sae", "blocks.1@sae"]
    for file in sorted((whole.root / "exemplars").rglob("*")):
        if file.is_file():
            same = parts.root / file.relative_to(whole.root)
            assert same.read_bytes() == file.read_bytes(), file.name


def test_units_and_addresses_name_latents(photos: Path, tmp_path: Path) -> None:
    sae = write_sae(tmp_path / "sae", width=16, latents=20)
    request = Request(TinyViT(), ("blocks.0:3", "blocks.1@sae:0-2"), (photos,), sae=sae)
    inputs = open_inputs(request)
    assert inputs.units == {"blocks.0@sae": [3], "blocks.1@sae": [0, 1, 2]}
    with pytest.raises(InputError, match="its units are 0 to 19"):
        open_inputs(Request(TinyViT(), ("blocks.0:20",), (photos,), sae=sae))


def test_images_kept_aside_are_shown_as_latents_see_them(photos: Path, tmp_path: Path) -> None:
    milanx.extract(colour_vit(), layers="blocks.1", images=photos, sae=colour_sae(tmp_path / "s"),
                   out=tmp_path / "run", settings=ExtractSettings(k=5, quantile=0.9))  # fmt: skip
    run = milanx.open_run(tmp_path / "run")
    wanted = top_aside(run, "blocks.1@sae", [0, 2], 2)
    images = open_images(open_sources([photos]))
    sheets = aside_sheets(run, "blocks.1@sae", wanted, load_target(colour_vit()), images)
    table = run.store.image_table()
    for unit, name in ((0, "red"), (2, "blue")):
        assert {[*COLOURS, "grey"][table[i]["label"]] for i in sheets[unit].images} == {name}
        for view in sheets[unit].views:
            # Bright inside the mask, which is the square of a quarter; dark elsewhere.
            bright = view.max(0) > 200
            assert 0.15 < bright.mean() < 0.4
    (tmp_path / "s" / "sae_weights.safetensors").unlink()
    with pytest.raises(InputError):
        aside_sheets(run, "blocks.1@sae", wanted, load_target(colour_vit()), images)


# The command line


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_parquet(tmp_path / "p.parquet", noise(20))
    return tmp_path


VIT = ("exemplars", "tests.helpers:tiny_vit", "-l", "blocks.0", "--images", "p.parquet", "-o", "r")


@pytest.mark.parametrize("method", ["describer", "concepts", "nearest"])
def test_latents_that_nothing_excites_are_dead_even_alone(
    photos: Path, tmp_path: Path, method: str
) -> None:
    """Of a run in which no unit has an exemplar there is no view that could be encoded."""
    made = milanx.describe(
        colour_vit(), layers="blocks.0", images=photos, sae=colour_sae(tmp_path / "sae"),
        units="3", out=tmp_path / "run", method=method,
        preprocess=milanx.Preprocess(size=(32, 32), resize=32),
    )  # fmt: skip
    (row,) = made.rows
    assert (row["unit"], row["status"], row["description"]) == (3, "dead", "")
    assert row["score"] is None and row["score_reason"]
    told = f"units are latents of the sparse autoencoder {tmp_path / 'sae'}"
    assert told in write_page(made).read_text(encoding="utf-8")
    assert told in run("show", made.root, "--unit", "blocks.0@sae:3")[1]
    milanx.check(made.root).require()


def test_what_cannot_be_read_is_told_in_three_lines(work: Path) -> None:
    wide = write_sae(work / "wide", width=24, latents=8)
    said = refused(*VIT, "--sae", wide)
    assert "these latents do not fit blocks.0" in said
    assert "made of 24 units, and blocks.0 has 16" in said
    assert "no autoencoder nowhere" in refused(*VIT, "--sae", "nowhere")
    assert "no directions none" in refused(*VIT, "--directions", "none.safetensors")
    assert "cannot both be asked for" in refused(*VIT, "--sae", wide, "--directions", "d")
    (wide / "sae_weights.safetensors").write_bytes(b"damaged")
    assert "cannot be read" in refused(*VIT, "--sae", wide)
    assert not (work / "r").exists()


def test_another_place_is_told_and_latents_are_not_pruned(work: Path) -> None:
    sae = write_sae(work / "sae", width=16, latents=8, hook="blocks.1.hook_resid_post")
    code, out, error = run("describe", *VIT[1:], "--sae", sae, "--units", "0-3")
    assert code == 0, error
    assert "trained on blocks.1.hook_resid_post; blocks.0 seems to be another place" in " ".join(
        error.split()
    )
    assert "blocks.0@sae" in out
    said = refused("prune", "r", "--units", "blocks.0@sae:1", "--images", "p.parquet", "--dry-run")
    assert "units of blocks.0@sae cannot be edited" in said
    assert "describe blocks.0 itself" in said
    said = refused("show", "r", "--unit", "blocks.0@sae:7")
    assert f"or describe it: --layer blocks.0:7 --sae {sae}" in said
    for command in (("audit", "r", "--json"), ("show", "r", "--unit", "blocks.0@sae:1")):
        code, out, error = run(*command)
        assert code == 0, error
