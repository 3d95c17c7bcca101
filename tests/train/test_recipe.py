"""Recipes: every bundled one loads; all errors are said at once."""

from pathlib import Path

import milanx.recipes
import pytest
import yaml

from milanx.errors import InputError
from milanx.train.recipe import BaseSettings, apply_overrides, load_recipe, recipe_path, told

BUNDLED = sorted(Path(milanx.recipes.__path__[0]).rglob("*.yaml"))


def test_there_are_recipes() -> None:
    assert {path.stem for path in BUNDLED} == {
        "clip-gpt2", "clip-gpt2-planted", "mini", "simulator", "smoke",
    }  # fmt: skip


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


def test_models_and_sources_of_units_that_do_not_go_together(tmp_path: Path) -> None:
    wrong = ["data.milannotations=x", "data.split=bas", "base.load_in_4bit=true",
             "encoder.model=ViT-B-16", "encoder.grid=7"]  # fmt: skip
    with pytest.raises(InputError) as caught:
        load_recipe(recipe_path("mini"), wrong)
    for part in ("two sources of units", "did you mean base", "base.load_in_4bit is for",
                 "encoder.model is for", "encoder.grid is for"):  # fmt: skip
        assert part in caught.value.why
    clip = ["encoder.kind=open_clip", "encoder.grid=3", "data.photos=[]", "data.sentences=''"]
    with pytest.raises(InputError) as caught:
        load_recipe(recipe_path("mini"), clip)
    for part in ("at least 4", "encoder.model is missing", "data.photos is empty",
                 "the small GPT-2 needs text"):  # fmt: skip
        assert part in caught.value.why
    for setting, part in (("model=ViT-B16", "did you mean ViT-B-16"), ("dense=x", "no way 'x'"),
                          ("stages=[-1]", "count from 0")):  # fmt: skip
        with pytest.raises(InputError) as caught:
            load_recipe(
                recipe_path("mini"),
                [
                    "encoder.kind=open_clip",
                    "encoder.model=ViT-B-16",
                    "encoder.pretrained=openai",
                    f"encoder.{setting}",
                ],
            )
        assert part in caught.value.why


def test_later_settings_leave_older_fingerprints() -> None:
    """What a cache knows the bundled recipe by: new settings at their defaults change nothing."""
    recipe = load_recipe(recipe_path("mini"))
    assert told(recipe.data).keys() == {
        "root", "photos", "sentences", "descriptions", "held_out_captions", "held_out_photos",
        "checked",
    }  # fmt: skip
    assert told(recipe.encoder) == {
        "tower": "tf_efficientnet_lite1", "edges": True, "steps": 2500, "batch_size": 768,
        "learning_rate": 1e-3, "temperature": 0.05,
    }  # fmt: skip
    assert told(BaseSettings(model="gpt2"))["model"] == "gpt2"


def test_overrides_reach_deep_and_leave_the_rest() -> None:
    values = {"decoder": {"steps": 5, "rank": 2}, "seed": 0}
    made = apply_overrides(values, ["decoder.steps=7", "base.epochs=0.5", "name=x"])
    assert made == {"decoder": {"steps": 7, "rank": 2}, "seed": 0, "base": {"epochs": 0.5},
                    "name": "x"}  # fmt: skip
    assert values["decoder"] == {"steps": 5, "rank": 2}
    with pytest.raises(InputError, match="KEY=VALUE"):
        apply_overrides(values, ["decoder.steps"])


def test_no_is_a_precision() -> None:
    assert load_recipe(recipe_path("mini"), ["precision=no"]).precision == "no"


def test_unknown_recipe_suggests() -> None:
    with pytest.raises(InputError, match="did you mean mini"):
        recipe_path("mimi")
