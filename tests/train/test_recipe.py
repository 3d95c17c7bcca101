"""Recipes: every bundled one loads; all errors are said at once."""

from pathlib import Path

import milanx.recipes
import pytest
import yaml

from milanx.errors import InputError
from milanx.train.recipe import apply_overrides, load_recipe, recipe_path

BUNDLED = sorted(Path(milanx.recipes.__path__[0]).rglob("*.yaml"))


def test_there_are_recipes() -> None:
    assert {path.stem for path in BUNDLED} == {
        "clip-gpt2", "clip-gpt2-planted", "milan", "mini", "simulator", "smoke",
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
    for part in ("nam ", "did you mean name", "seed must be a valid integer, not 'many'",
                 "decoder.step ", "did you mean steps", "decoder.rank must be a valid integer",
                 "data.photos[0].file is missing"):  # fmt: skip
        assert part in caught.value.why


def test_values_out_of_range(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"base\.vocabulary must be from 300"):
        load_recipe(recipe_path("mini"), ["base.vocabulary=9000"])
    wrong = {
        "decoder.steps=0": "greater than 0, not 0", "seed=-1": "greater than or equal to 0",
        "encoder.learning_rate=.nan": "a finite number, not nan", "data.checked=1": "less than 1",
        "prior.learning_rate=-1e-3": "greater than 0", "critic.steps=2.0": "a valid integer",
        "decoder.min_purity=.inf": "a finite number", "base.accumulate=true": "a valid integer",
        "data.photos=x": "a valid list", "critic.width=[1]": "a valid integer",
        "encoder.kind=clip": "'timm' or 'open_clip'", "prior.rank=": "a valid integer, not None",
        "base.optimiser=sgd": "'adamw' or 'adamw8bit'", "precision=fp8": "'no', 'bf16' or 'fp16'",
    }  # fmt: skip
    with pytest.raises(InputError, match=f"has {len(wrong)} errors") as caught:
        load_recipe(recipe_path("mini"), [*wrong])
    for override, part in wrong.items():
        assert f"{override.partition('=')[0]} must be {part}" in caught.value.why


def test_what_is_no_recipe(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    for text, part in ((b"- 1", "must be a mapping"), (b"a: [", "is not yaml"),
                       (b"\xff\xfe", "is not yaml")):  # fmt: skip
        path.write_bytes(text)
        with pytest.raises(InputError, match=part):
            load_recipe(path)


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


def test_overrides_reach_deep_and_leave_the_rest() -> None:
    values = {"decoder": {"steps": 5, "rank": 2}, "seed": 0}
    made = apply_overrides(values, ["decoder.steps=7", "base.epochs=0.5", "name=x"])
    assert made == {"decoder": {"steps": 7, "rank": 2}, "seed": 0, "base": {"epochs": 0.5},
                    "name": "x"}  # fmt: skip
    assert values["decoder"] == {"steps": 5, "rank": 2}
    for wrong in ("decoder.steps", "decoder.targets=[a"):
        with pytest.raises(InputError, match="KEY=VALUE"):
            apply_overrides(values, [wrong])


def test_what_yaml_reads_otherwise() -> None:
    made = load_recipe(recipe_path("mini"), ["precision=no", "decoder.learning_rate=3e-4"])
    assert made.precision == "no" and made.decoder.learning_rate == 3e-4
    assert made.data.photos[0].views == 2 and isinstance(made.data.photos, tuple)


def test_unknown_recipe_suggests() -> None:
    with pytest.raises(InputError, match="did you mean mini"):
        recipe_path("mimi")
