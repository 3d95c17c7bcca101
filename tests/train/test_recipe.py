"""Recipes: every bundled one loads; all errors are said at once."""

from pathlib import Path

import milanx.recipes
import pytest
import yaml

from milanx.errors import InputError
from milanx.train.recipe import apply_overrides, load_recipe, recipe_path

BUNDLED = sorted(Path(milanx.recipes.__path__[0]).rglob("*.yaml"))


def test_there_are_recipes() -> None:
    assert {path.stem for path in BUNDLED} == {"mini", "simulator", "smoke"}


@pytest.mark.parametrize("path", BUNDLED, ids=lambda p: p.stem)
def test_every_recipe_loads_and_has_a_header(path: Path) -> None:
    assert load_recipe(path).name == path.stem
    header = path.read_text().split("name:")[0]
    assert "command" in header
    assert "hardware" in header


def test_all_errors_are_said_at_once(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump({
        "nam": "x", "seed": "many", "decoder": {"step": 3, "rank": 1.5},
        "data": {"photos": [{"views": 2}]},
    }))  # fmt: skip
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    for part in ("nam ", "did you mean name", "seed must be int", "decoder.step ", "decoder.rank",
                 "data.photos[0].file is missing"):  # fmt: skip
        assert part in caught.value.why


def test_values_out_of_range(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"decoder\.steps must be above zero") as caught:
        load_recipe(recipe_path("mini"), ["decoder.steps=0", "base.vocabulary=9000"])
    assert "base.vocabulary" in caught.value.why


def test_overrides_reach_deep_and_leave_the_rest() -> None:
    values = {"decoder": {"steps": 5, "rank": 2}, "seed": 0}
    made = apply_overrides(values, ["decoder.steps=7", "base.epochs=0.5", "name=x"])
    assert made == {"decoder": {"steps": 7, "rank": 2}, "seed": 0, "base": {"epochs": 0.5},
                    "name": "x"}  # fmt: skip
    assert values["decoder"] == {"steps": 5, "rank": 2}
    with pytest.raises(InputError, match="KEY=VALUE"):
        apply_overrides(values, ["decoder.steps"])


def test_unknown_recipe_suggests() -> None:
    with pytest.raises(InputError, match="did you mean mini"):
        recipe_path("mimi")
