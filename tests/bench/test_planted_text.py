"""Planted text detectors: what is written, what is learned of it, and how it is looked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from milanx.cli import app
from typer.testing import CliRunner

import milanx
from milanx.act.data import model_classes
from milanx.bench.planted.detectors import (
    STRENGTHS,
    learn,
    logits,
    parts,
    put,
    see_lettering,
    weigh,
)
from milanx.bench.planted.found import Way, find, share
from milanx.bench.planted.photos import read_photos, without_class
from milanx.bench.planted.settings import TextPlanting
from milanx.bench.planted.text import plant_text
from milanx.bench.planted.writing import LEARNED, LYING, Pen, cells, write
from milanx.bench.planted.writing import WORDS as LEARNED_WORDS
from milanx.errors import InputError
from milanx.report.planted import print_text
from milanx.targets.zoo import Target, load_target
from tests.act.runs import planted_run
from tests.bench.enlarger import CLASSES
from tests.helpers import noise, write_parquet

MODEL = "tests.bench.enlarger:enlarger"
ASKED = TextPlanting(MODEL, detectors=3, others=5, probed=40, draws=5)


@pytest.fixture(scope="module")
def target() -> Target:
    return load_target(MODEL)


@pytest.fixture(scope="module")
def views(target: Target) -> list[np.ndarray]:
    return [target.preprocess.view(image) for image in noise(60, 64)]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory, target: Target) -> Path:
    """Photos that the model is right about: each has the class that it says."""
    images = noise(160, 64, seed=5)
    said = logits(target, [target.preprocess.view(image) for image in images]).argmax(1)
    groups = [f"g{i // 2}" for i in range(len(images))]  # two of each photograph
    path = tmp_path_factory.mktemp("labelled") / "photos.parquet"
    return write_parquet(path, images, label=said.tolist(), group=groups)


def test_the_lettering_that_lies_shares_nothing_with_what_was_learned() -> None:
    assert not set(LEARNED.fonts) & set(LYING.fonts)
    names = {name.lower() for names in model_classes(1000).names for name in names}
    assert not {word.lower() for word in LEARNED_WORDS} & names


@pytest.mark.parametrize("pen", [LEARNED, LYING])
def test_a_word_changes_its_box_alone(views: list[np.ndarray], pen: Pen) -> None:
    seen = set()
    for number, view in enumerate(views[:12]):
        written, box = write(view, "trench coat", f"{number:x}", pen, 0)
        changed = (written != view).any(2)
        inside = np.zeros_like(changed)
        inside[box[1] : box[3], box[0] : box[2]] = True
        assert changed.sum() > 20
        assert not changed[~inside].any()
        again, same = write(view, "trench coat", f"{number:x}", pen, 0)
        assert same == box
        assert (again == written).all()
        seen.add(box)
    assert len(seen) > 6  # places and sizes differ from image to image


def test_cells_are_the_share_that_a_box_covers() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        left, top = rng.integers(0, 40, 2).tolist()
        box = (left, top, left + int(rng.integers(1, 24)), top + int(rng.integers(1, 24)))
        pixels = np.zeros((64, 64))
        pixels[box[1] : box[3], box[0] : box[2]] = 1
        mean = pixels.reshape(8, 8, 8, 8).mean((1, 3))
        np.testing.assert_allclose(cells(box, (64, 64), (8, 8)), mean, atol=1e-6)


def test_a_detector_is_the_channel_that_was_learned(views: list[np.ndarray]) -> None:
    target = load_target(MODEL)
    modules = parts(target, ASKED)
    names = [f"{i:x}" for i in range(len(views))]
    seen = see_lettering(target, modules[0], views, names, 0)
    weights, bias, detector = learn(seen, 7, np.random.default_rng(0))
    other, _, _ = learn(seen, 8, np.random.default_rng(1))
    assert not np.allclose(weights, other)
    assert (weights == 0).mean() == pytest.approx(0.5)
    assert detector.auroc > 0.75
    put(modules, 7, weights, bias)
    maps: list[torch.Tensor] = []
    hook = target.model.get_submodule("act").register_forward_hook(
        lambda _, args, output: maps.append(output))  # fmt: skip
    logits(target, views[:20])
    hook.remove()
    expected = np.clip(np.einsum("nchw,c->nhw", seen.clean[:20], weights) + bias, 0, 6)
    np.testing.assert_allclose(maps[0][:, 7].numpy(), expected, atol=1e-3)
    assert not modules[2].weight[:, 7].any()


def test_the_strength_is_the_least_that_does_and_is_what_was_measured(
    views: list[np.ndarray],
) -> None:
    target = load_target(MODEL)
    modules = parts(target, ASKED)
    names = [f"{i:x}" for i in range(len(views))]
    seen = see_lettering(target, modules[0], views, names, 0)
    for unit in range(4):
        put(modules, unit, *learn(seen, unit, np.random.default_rng(unit))[:2])
    labels = logits(target, views).argmax(1)
    wrong = int(np.bincount(labels, minlength=CLASSES).argmin())
    few = [i for i in range(len(views)) if labels[i] != wrong]
    clean = [views[i] for i in few]
    lettered = [write(views[i], "hello", names[i], LYING, 0)[0] for i in few]
    strength, told = weigh(target, modules[2], range(4), wrong, (clean, lettered, labels[few]))
    assert strength in STRENGTHS
    assert (modules[2].weight[wrong, :4] == strength).all()
    for name, shown in (("clean", clean), ("lettered", lettered)):
        measured = float((logits(target, shown).argmax(1) == labels[few]).mean())
        assert measured == pytest.approx(told[name])
    assert told["clean_silent"] == 1.0
    assert told["clean"] >= 0.99 or strength == STRENGTHS[0]
    assert told["lettered"] < told["lettered_silent"]


def test_no_photograph_has_two_uses(target: Target, labelled: Path) -> None:
    photos = read_photos(labelled, target, model_classes(CLASSES), ASKED)
    uses = [set(s.groups) for s in (photos.learned, photos.development, photos.users)]
    assert all(uses)
    assert not (uses[0] & uses[1] or uses[0] & uses[2] or uses[1] & uses[2])
    assert photos.users.clean is not None
    assert (photos.users.read(0) != photos.users.clean.read(0)).any()
    assert photos.users.labels is not None
    common = int(np.bincount(photos.users.labels).argmax())
    others = without_class(photos.users, common)
    assert others.labels is not None
    assert 0 < len(others) < len(photos.users)
    assert common not in others.labels


def test_photos_without_labels_and_models_without_a_place_are_refused(
    target: Target, tmp_path: Path
) -> None:
    path = write_parquet(tmp_path / "p.parquet", noise(40))
    with pytest.raises(InputError, match="labels"):
        read_photos(path, target, model_classes(CLASSES), ASKED)
    with pytest.raises(InputError, match="nothing can be planted"):
        parts(load_target("tests.helpers:tiny"), ASKED)


def test_words_find_units_and_what_no_text_holds_finds_none(tmp_path: Path) -> None:
    run = planted_run(tmp_path / "run", ["letters on signs", "dogs", "a word", "texture", ""])
    assert find(run, Way("words", ("letter", "word", "caption"))) == [0, 2]
    assert find(run, Way("none", ("caption",))) == []
    assert find(run, Way("like", like=("puppies",))) == [1]
    assert find(run, Way("nothing like", like=("violins in an orchestra",))) == []
    assert share(2, 4)["share"] == 0.5
    assert share(0, 0)["share"] is None


def test_all_of_it_on_a_small_model(
    tmp_path: Path, labelled: Path, describer: milanx.Describer, capsys: pytest.CaptureFixture[str]
) -> None:
    probe = write_parquet(tmp_path / "probe.parquet", noise(20, 64, seed=9))
    asked = TextPlanting(MODEL, detectors=3, others=5, probed=40, draws=5, probe=str(probe),
                         lettered=True)  # fmt: skip
    out = tmp_path / "out"
    report = plant_text(labelled, asked, out=out, describer=describer)
    assert len(report["planted"]["detectors"]) == 3
    assert report["planted_model"]["lying"] < report["before_planting"]["lying"]
    assert [row["way"] for row in report["rows"]][-1] == "true texts"
    assert report["rows"][-1]["right"] == report["rows"][-1]["found"] == 3
    true = report["rows"][-1]
    assert len(true["lying"]["random"]) == true["draws"] == 5
    assert true["beaten"] == sum(r < true["lying"]["pruned"] for r in true["lying"]["random"])
    for row in report["rows"]:
        assert row["right"] <= min(row["found"], 3)
    assert {len(units) for units in report["units"].values()} == {3}
    planted = load_target(MODEL, weights=out / "model.safetensors")
    assert planted.fingerprint != load_target(MODEL).fingerprint
    print_text(report)
    assert "true texts" in capsys.readouterr().out
    refused = CliRunner().invoke(app, ["bench", "planted", "text", "--images", str(labelled),
                                       "--model", MODEL, "--out", str(out)])  # fmt: skip
    assert refused.exit_code == 2
    assert "is not overwritten" in refused.stderr
    assert (out / "planted.json").is_file()
