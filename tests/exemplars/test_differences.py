"""What is refused before anything is loaded, and which difference is named."""

from __future__ import annotations

from pathlib import Path

import pytest

import milanx
from milanx.errors import InputError, MissingWeights
from milanx.exemplars.differences import check_same, differences
from milanx.exemplars.request import ExtractSettings, Request
from milanx.files import write_json
from milanx.pipeline import check


def request(**given: object) -> Request:
    return Request("nobody:model", ("conv",), ("photos",), **given)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder as far as it tells what was asked for."""
    asked = request(units="0-63").to_dict()
    write_json(tmp_path / "run.json", "milanx-run", 1, {"settings": asked})
    (tmp_path / "exemplars").mkdir()
    write_json(tmp_path / "exemplars" / "index.json", "milanx-exemplars", 1, {"fingerprint": "0"})
    return tmp_path


def test_other_units_are_refused_before_the_model_is_looked_for(folder: Path) -> None:
    for more in ({}, {"units": "0-15"}):
        with pytest.raises(InputError, match="holds another run") as refused:
            milanx.describe("nobody:model", layers=["conv"], images="photos", out=folder, **more)
        assert refused.value.why == f"units 0-63 there, {more.get('units', 'all')} asked"
    with pytest.raises(InputError, match="exemplars a unit 15 there, 3 asked"):
        check("nobody:model", layers=["conv"], images="photos", units="0-63", out=folder,
              settings=ExtractSettings(k=3))  # fmt: skip


def test_the_same_units_in_other_words_and_other_speeds_are_no_difference(folder: Path) -> None:
    fast = ExtractSettings(workers=7, batch_size=3)
    for units in ("0-63", "0-31,32-63"):
        check_same(folder, request(units=units, settings=fast))
    assert differences(folder, request(units="0-63", dtype="float16")) == [
        "dtype float32 there, float16 asked"
    ]
    check_same(folder / "elsewhere", request())


def test_units_beyond_the_end_are_said_to_be(folder: Path) -> None:
    told = {"settings": request(units="0-63").to_dict(), "layers": [{"name": "conv", "units": 64}]}
    write_json(folder / "run.json", "milanx-run", 1, told)
    with pytest.raises(InputError, match="conv has no unit 64") as refused:
        check_same(folder, request(units="0-99"))
    assert refused.value.why == "its units are 0 to 63"


def test_a_model_that_there_is_not_is_asked_for_no_layer() -> None:
    with pytest.raises(InputError, match="no model 'resnet18x'") as refused:
        check("resnet18x")
    (way,) = refused.value.ways_out
    names = way.removeprefix("did you mean ").rstrip("?").split(", ")
    assert "resnet18" in names and len(set(names)) == len(names)
    with pytest.raises(InputError, match=r"which layer of resnet18\?"):
        check("resnet18")


def test_what_may_be_found_by_other_layers_is_left_to_the_pass(folder: Path) -> None:
    check_same(folder, Request("nobody:model", ("conv:0-63",), ("photos",)))


def test_weights_are_asked_for_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingWeights, match="the weights of resnet18 cannot be had") as refused:
        milanx.describe("resnet18", layers=["layer4"], images="nowhere", describer="nobody")
    assert any("tf_efficientnet_lite1" in way for way in refused.value.ways_out)
    check("resnet18", layers=["layer4"], random_weights=True)
    check("tf_efficientnet_lite0")
    assert not list(tmp_path.iterdir())
