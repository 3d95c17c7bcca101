"""The experiment of spurious text: pruning beside its controls, the whole run, its table."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from milanx.cli import app
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

import milanx
from milanx.act.shortcut.change import change_by_text
from milanx.act.shortcut.fit import FitSettings, fit
from milanx.act.shortcut.folder import LYING, PLAIN, Experiment, Images
from milanx.act.shortcut.make import make
from milanx.act.shortcut.network import LAYER, SmallResNet
from milanx.act.shortcut.prune import MATCH, matched, prune_layer
from milanx.act.shortcut.run import RunSettings, run
from milanx.errors import FormatError
from milanx.report.shortcut import shortcut_table, write_shortcut
from milanx.targets.zoo import load_target
from tests.act.shortcut_photos import SETTINGS, photos


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    folder = tmp_path_factory.mktemp("shortcut")
    return make(photos(folder / "photos.parquet"), folder / "made", settings=SETTINGS)


def right_by_hand(
    network: SmallResNet, images: Images, units: list[int], layer: str = "stage3"
) -> np.ndarray:
    """Plain oracle: the whole network runs, and a hook sets channels to zero."""

    def zero(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        changed = output.clone()
        changed[:, units] = 0
        return changed

    handle = network.get_submodule(layer).register_forward_hook(zero)
    with torch.no_grad():
        logits = network(network.preprocess.normalise(images.views))
    handle.remove()
    return (logits.argmax(1) == images.labels).numpy()


@pytest.fixture(scope="module")
def network(made: Experiment, tmp_path_factory: pytest.TempPathFactory) -> SmallResNet:
    path = tmp_path_factory.mktemp("network") / "weights.safetensors"
    return fit(made.load("train", "text50"), 3, FitSettings(epochs=6, batch=8), path)


def test_pruning_equals_the_whole_network_by_hand(made: Experiment, network: SmallResNet) -> None:
    units = [3, 17, 40, 41, 90]
    found = prune_layer(load_target(network), LAYER, units, made, 50, seed=0, draws=3)
    lying, choosing = made.load("test", LYING), made.load("validation", LYING)
    figures = found.figures["orders"][LYING]
    order = figures["order"]
    effect = [right_by_hand(network, choosing, [u]).mean() for u in order]
    assert sorted(order) == units and effect == sorted(effect, reverse=True)
    curve = [right_by_hand(network, choosing, order[:n]).mean() for n in range(len(units) + 1)]
    assert figures["curves"]["match"]["validation"] == pytest.approx(curve)
    assert figures["count"] == int(np.argmax(curve))
    for n, accuracy in enumerate(figures["curves"]["match"]["test"]):
        assert accuracy == pytest.approx(right_by_hand(network, lying, order[:n]).mean())
    pruned = right_by_hand(network, lying, order[: figures["count"]])
    assert (found.right[f"{LYING}: match"] == pruned).all()
    assert (found.right["unedited"] == right_by_hand(network, lying, [])).all()
    assert len(found.figures["random_curve"]) == len(units) + 1
    assert found.figures["random_curve"][0] == pytest.approx(found.right["unedited"].mean())
    assert len(figures["curves"]["all"]["test"]) == 50


def test_the_change_by_text_is_that_of_plain_forward_passes(
    made: Experiment, network: SmallResNet
) -> None:
    """Oracle: image after image through the stages, by hand."""
    with torch.no_grad():
        means = {}
        for version in (PLAIN, LYING):
            rows = []
            for view in made.load("validation", version).views:
                x = network.preprocess.normalise(view[None])
                for part in (network.stem, network.stage1, network.stage2, network.stage3):
                    x = part(x)
                rows.append(x[0].mean((1, 2)).numpy())
            means[version] = np.stack(rows).astype(float)
    spread = means[PLAIN].std(0)
    expected = np.abs(means[LYING] - means[PLAIN]).mean(0) / np.where(spread > 0, spread, 1)
    found = change_by_text(network, LAYER, made)
    assert found.shape == (128,) and np.allclose(found, expected, rtol=1e-3, atol=1e-5)
    hooks = network.get_submodule(LAYER)._forward_hooks
    assert not hooks


def test_the_most_changed_units_are_pruned_beside(made: Experiment, network: SmallResNet) -> None:
    units = [3, 17, 40, 41, 90]
    found = prune_layer(load_target(network), LAYER, units, made, 50, seed=0, draws=2)
    change = np.array(found.figures["change"])
    assert (change == change_by_text(network, LAYER, made)).all()
    most = [int(u) for u in np.argsort(-change, kind="stable")[:5]]
    choosing, lying = made.load("validation", LYING), made.load("test", LYING)
    order = sorted(most, key=lambda u: -right_by_hand(network, choosing, [u]).mean())
    figures = found.figures["orders"][LYING]
    assert figures["curves"]["changed"]["test"][5] == pytest.approx(
        right_by_hand(network, lying, order).mean()
    )
    values = figures["curves"]["changed"]["validation"]
    assert figures["count_changed"] == int(np.argmax(values))
    wins = [(change[u] > v) + (change[u] == v) / 2
            for u in units for v in np.delete(change, units)]  # fmt: skip
    assert found.figures["auroc"] == pytest.approx(np.mean(wins))


class Texts:
    """A run that holds texts and nothing else."""

    rows: ClassVar = [
        {"layer": LAYER, "unit": 7, "description": "school bus or words", "candidates": []},
        {"layer": LAYER, "unit": 2, "description": "office without letters",
         "candidates": [{"text": "office without letters"}, {"text": "desk"}]},
        {"layer": LAYER, "unit": 4, "description": "bank",
         "candidates": [{"text": "bank"}, {"text": "written text"}, {"text": "letters"}]},
        {"layer": LAYER, "unit": 5, "description": "a texture", "candidates": None},
        {"layer": LAYER, "unit": 6, "description": None, "candidates": None},
        {"layer": "head", "unit": 0, "description": "text", "candidates": []},
    ]  # fmt: skip


def test_words_are_looked_for_in_descriptions_or_all_that_they_won_against() -> None:
    run: Any = Texts()
    assert matched(run, LAYER, MATCH) == {7: "school bus or words"}
    assert matched(run, LAYER, MATCH, "candidates") == {
        4: "written text", 7: "school bus or words",
    }  # fmt: skip
    assert matched(run, LAYER, ("zebra",), "candidates") == {}


def test_what_pruning_costs_where_no_text_is_is_measured_by_hand(
    made: Experiment, network: SmallResNet
) -> None:
    """Every unit is chosen, so the order of all is the order of those that match."""
    found = prune_layer(load_target(network), LAYER, range(128), made, 50, seed=0, draws=1)
    for order in ("lying", "alike"):
        figures = found.figures["orders"][order]
        assert figures["count"] == figures["count_all"] == figures["count_changed"]
        gone = figures["order"][: figures["count"]]
        for version, test in ((PLAIN, "plain"), ("text50", "alike"), (LYING, "")):
            images, end = made.load("test", version), f", {test}" if test else ""
            expected = right_by_hand(network, images, gone)
            for row in ("match", "all", "all, own count", "changed"):
                assert (found.right[f"{order}: {row}{end}"] == expected).all(), (row, test)


def test_no_unit_that_matches_changes_nothing(made: Experiment, network: SmallResNet) -> None:
    found = prune_layer(load_target(network), LAYER, [], made, 50, seed=0, draws=2)
    assert found.figures["auroc"] is None
    for order in ("lying", "alike"):
        assert found.figures["orders"][order]["count"] == 0
        for row in ("match", "all", "random"):
            assert (found.right[f"{order}: {row}"] == found.right["unedited"]).all()


@pytest.fixture(scope="module")
def quick() -> milanx.Describer:
    """The bundled describer with a narrow search."""
    describer = milanx.Describer.load("builtin")
    describer.settings = dataclasses.replace(describer.settings, beam=4, retrieved=2, composed=0)
    return describer


def test_run_resumes_and_writes_table_and_figure(
    made: Experiment, quick: milanx.Describer, tmp_path: Path
) -> None:
    how = RunSettings((50,), seeds=1, draws=3, fit=FitSettings(epochs=2, batch=8), device="cpu")
    out = tmp_path / "results"
    found = run(made.root, out, settings=how, describer=quick)
    (share,) = found["shares"]
    assert share["seeds"] == [0] and share["units"] == 128
    (seed,) = share["per_seed"]
    described = milanx.open_run(out / "runs" / "text50-0")
    assert len(described) == 128
    said = matched(described, LAYER, how.match, how.within)
    assert list(said) == seed["matched"] and list(said.values()) == seed["because"]
    assert seed["texts"] == [described[LAYER, u].description for u in seed["matched"]]
    written = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
    again = run(made.root, out, settings=dataclasses.replace(how, seeds=1), describer=quick)
    assert again == found
    changed = [p.name for p, at in written.items() if p.stat().st_mtime_ns != at]
    assert changed == ["results.json"]
    table, picture = write_shortcut(found, out)
    assert Image.open(picture).width > 500
    text = table.read_text()
    assert "1 seeds (fewer than 10" in text and "over random" in text
    assert shortcut_table(found) + "\n" == text
    with pytest.raises(FormatError, match="another experiment"):
        other = make(photos(tmp_path / "p.parquet", seed=5), tmp_path / "o", settings=SETTINGS)
        run(other.root, out, settings=how, describer=quick)


def test_parts_of_the_seeds_join_and_the_table_makes_one_again(
    made: Experiment, quick: milanx.Describer, tmp_path: Path
) -> None:
    """Seeds 4 and 5 by two calls; the table's command makes seed 4 again with the same figures."""
    how = RunSettings((50,), 1, 4, draws=2, fit=FitSettings(2, batch=8), device="cpu")
    out = tmp_path / "results"
    run(made.root, out, settings=how, describer=quick)
    found = run(made.root, out, settings=dataclasses.replace(how, first=5), describer=quick)
    (share,) = found["shares"]
    assert share["seeds"] == [4, 5]
    assert found["images"] == made.settings and found["threads"] == torch.get_num_threads()
    again = run(made.root, tmp_path / "again", settings=how, describer=quick)
    assert again["shares"][0]["per_seed"] == share["per_seed"][:1]
    for name in ("networks/text50-4.safetensors", "networks/plain-4.safetensors"):
        first, second = load_file(out / name), load_file(tmp_path / "again" / name)
        assert first and all(torch.equal(second[key], tensor) for key, tensor in first.items())
    text = shortcut_table(found)
    every, one = (line for line in text.splitlines() if "milanx shortcut run" in line)
    assert "--first-seed 4 --seeds 2 " in every and "--epochs 2 --shift 0" in every
    assert "-o again --share 50 --first-seed 4 --seeds 1 " in one
    assert "make photos --share 10 --share 50 --side 32 --roam 0.0 --colours 1 --seed 3" in text
    help_of = CliRunner().invoke(app, ["shortcut", "run", "--help"], env={"COLUMNS": "200"})
    for option in re.findall(r"--[a-z-]+", one):
        assert option in help_of.output, option
