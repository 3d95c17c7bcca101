"""Shares by layer against counts by hand; importance on a model whose deciding units are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from milanx.cli import app
from PIL import Image
from typer.testing import CliRunner

import milanx
from milanx.act.analyze import NOTHING, analyze
from milanx.act.categories import UNSURE
from milanx.act.importance import ImportanceSettings
from milanx.errors import InputError
from milanx.measures.intervals import wilson
from milanx.report.analysis import write_analysis
from milanx.runs import Run, open_run
from tests.act.runs import planted_run, write_texts
from tests.act.voter import UNITS, colours
from tests.helpers import noise, write_parquet

TEXTS = ["red areas", "red dogs", "dogs running", "", "objects", "vertical lines"]
RUNNER = CliRunner()


def test_shares_are_the_counts(tmp_path: Path) -> None:
    run = planted_run(tmp_path / "r", TEXTS)
    made = milanx.analyze(run)
    (layer,) = made.layers.values()
    assert layer["units"] == 5
    counted = {kind: row["units"] for kind, row in layer["kinds"].items() if row["units"]}
    assert counted == {"colour": 2, "animal": 2, "action": 1, "shape": 1, NOTHING: 1}
    assert layer["kinds"]["colour"]["interval"] == list(wilson(2, 5))
    nouns = layer["parts_of_speech"]["noun"]  # areas; dogs; dogs; objects; lines
    assert nouns["estimate"] == pytest.approx(np.mean([0.5, 0.5, 0.5, 1, 0.5]))
    assert nouns["interval"][0] <= nouns["estimate"] <= nouns["interval"][1]
    assert layer["parts_of_speech"]["verb"]["estimate"] == pytest.approx(0.1)
    assert made.words == {"lexicon": 9, "similarity": 0, UNSURE: 0}


def test_a_run_without_descriptions_is_refused(tmp_path: Path) -> None:
    run = planted_run(tmp_path / "r", ["", ""])
    with pytest.raises(InputError, match="holds no descriptions"):
        analyze(run)


@pytest.fixture(scope="module")
def voters(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """A run of a model whose first three units decide: they alone name colours."""
    root = tmp_path_factory.mktemp("voters")
    images = colours(root / "colours.parquet")
    milanx.extract("tests.act.voter:voter", layers=["conv"], images=str(images), out=root / "run",
                   device="cpu")  # fmt: skip
    texts = ["red", "green", "blue"] + ["vertical lines", "dogs", "walls"] * 9
    assert len(texts) == UNITS
    write_texts(root / "run", texts, "conv")
    return open_run(root / "run"), images


SETTINGS = ImportanceSettings(step=0.05, most=0.1, orders=3, draws=400)


def test_units_that_decide_are_worth_more_than_random_ones(voters: tuple[Run, Path]) -> None:
    run, images = voters
    made = analyze(run, images, settings=SETTINGS, classes=["red", "green", "blue"])
    assert made.importance is not None
    assert made.importance["accuracy"] == 1.0
    rows = made.importance["kinds"]
    colour, animal = rows["colour"], rows["animal"]
    assert colour["sizes"] == [2, 3]
    # Without its three units the model gives one class for all: a third is right.
    assert colour["accuracy"][1] == pytest.approx(1 / 3)
    assert colour["difference"] < -0.3
    assert colour["interval"][1] < 0
    assert colour["p_holm"] < 0.05
    assert animal["accuracy"] == [1.0, 1.0]
    assert animal["p_holm"] >= animal["p"]
    assert animal["difference"] > -0.01
    assert rows["adjective"]["units"] >= 3


def test_a_kind_with_few_units_says_why_it_was_not_measured(voters: tuple[Run, Path]) -> None:
    run, images = voters
    few = ImportanceSettings(step=0.2, most=0.2, orders=2, draws=200)
    made = analyze(run, images, settings=few, classes=["red", "green", "blue"])
    assert made.importance is not None
    assert "fewer than the first step of 6" in made.importance["kinds"]["colour"]["why"]
    assert "p_holm" in made.importance["kinds"]["animal"]


def test_random_units_are_of_the_same_layers_and_share_passes() -> None:
    from collections import Counter

    from milanx.act.importance import _plan

    everything = [(layer, u) for layer in ("a", "b") for u in range(40)]
    members = [("a", u) for u in range(10)] + [("b", u) for u in range(5)]
    plan = list(_plan(members, everything, [4, 12, 30], SETTINGS))
    assert {size for _, size, _, _ in plan} == {4, 12}  # 30 are more than there are
    assert {order for order, _, _, _ in plan} == {0, 1, 2}
    for _, size, chosen, random in plan:
        assert len(chosen) == len(random) == size
        assert chosen <= set(members)
        assert Counter(layer for layer, _ in chosen) == Counter(layer for layer, _ in random)
    small, large = (next(s for o, n, s, _ in plan if (o, n) == (1, k)) for k in (4, 12))
    assert small < large  # steps go on from one another
    other = list(_plan(members[:10], everything, [4], SETTINGS))
    again = list(_plan([("a", u) for u in range(20, 36)], everything, [4], SETTINGS))
    assert [r for *_, r in other] == [r for *_, r in again]  # so they run once


@pytest.mark.parametrize("changes", [{"step": 0}, {"step": 0.3, "most": 0.2}, {"orders": 1}])
def test_settings_check_themselves(changes: dict[str, float]) -> None:
    with pytest.raises(InputError):
        ImportanceSettings(**changes)  # type: ignore[arg-type]


def test_what_importance_needs(voters: tuple[Run, Path], tmp_path: Path) -> None:
    run, _ = voters
    plain = write_parquet(tmp_path / "p.parquet", noise(12))
    with pytest.raises(InputError, match="have no labels"):
        analyze(run, plain, settings=SETTINGS)
    gone = planted_run(tmp_path / "r", TEXTS)
    with pytest.raises(InputError, match="importance cannot be measured"):
        analyze(gone, plain, settings=SETTINGS)


def test_the_command_writes_figures_that_show_something(voters: tuple[Run, Path]) -> None:
    run, images = voters
    out = run.root / "analysis"
    done = RUNNER.invoke(app, ["analyze", str(run.root), "--images", str(images), "--step", "0.05",
                               "--most", "0.1", "--orders", "2", "-q"])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "colour" in done.output
    content = json.loads((out / "analysis.json").read_text())
    assert content["format"] == "milanx-analysis"
    for name in ("kinds", "importance"):
        picture = np.asarray(Image.open(out / f"{name}.png").convert("L"))
        assert picture.std() > 5


def test_many_layers_are_drawn_over_depth(tmp_path: Path) -> None:
    from dataclasses import replace

    made = analyze(planted_run(tmp_path / "r", TEXTS))
    (counted,) = made.layers.values()
    deep = replace(made, layers={**{f"layer{i}": counted for i in range(6)}, "all": counted})
    files = write_analysis(deep, tmp_path / "o")
    wide, high = Image.open(files["kinds"]).size
    assert wide > 1000 and high > 1000
    assert files.keys() == {"json", "kinds"}
