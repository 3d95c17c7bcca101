"""What is asked for: everything wrong with it is said when it is made, in words."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import milanx
from milanx.errors import InputError
from milanx.exemplars.inputs import open_inputs
from milanx.exemplars.request import ExtractSettings, Request
from tests.helpers import PREPROCESS, Tiny, noise, write_parquet

GOOD: dict[str, Any] = {"target": "resnet18", "layers": ("layer4",), "images": ("builtin:probe",)}
NAN = float("nan")
OTHER = dataclasses.replace(PREPROCESS, resize=40)


@pytest.mark.parametrize(
    "wrong",
    [
        {"k": 0}, {"k": -3}, {"k": 2.5}, {"k": True}, {"k": "5"},
        {"quantile": 0}, {"quantile": 1}, {"quantile": 2}, {"quantile": NAN}, {"quantile": "x"},
        {"aside": -0.1}, {"aside": 1}, {"aside": NAN}, {"seed": -1}, {"seed": 0.5},
        {"batch_size": 0}, {"batch_size": 1.5}, {"workers": 0}, {"checkpoint_seconds": -1},
        {"checkpoint_seconds": NAN},
    ],
)  # fmt: skip
def test_settings_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        ExtractSettings(**wrong)
    assert repr(*wrong.values()) in caught.value.what
    assert caught.value.why
    assert caught.value.ways_out


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"target": 3}, "no target is a int"),
        ({"layers": ()}, "no layers"),
        ({"images": ()}, "no probe images"),
        ({"units": ""}, "cannot read the units ''"),
        ({"units": "7-3"}, "neither a number nor a range"),
        ({"limit": 0}, "the limit cannot be 0"),
        ({"read": "both"}, "auto or raw"),
        ({"signs": ()}, "no sign"),
        ({"signs": ("+", "x")}, "no sign 'x'"),
        ({"dtype": "foo"}, "no dtype 'foo'"),
        ({"dtype": "float64"}, "did you mean"),
        ({"weights": Path("w.pth"), "random_weights": True}, "cannot both be used"),
        ({"preprocess": "centre crop"}, "a str is no preprocessing"),
    ],
)
def test_requests_that_cannot_be(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        Request(**GOOD | wrong)
    assert said in str(caught.value)
    assert caught.value.why
    assert caught.value.ways_out


def test_signs_are_those_asked_for_and_those_of_addresses() -> None:
    assert Request(**GOOD).signs == ("+",)
    assert Request(**GOOD | {"signs": ("-", "+", "-")}).signs == ("-", "+")
    assert Request(**GOOD | {"layers": ("layer4:-17",)}).signs == ("-",)
    assert Request(**GOOD | {"layers": ("layer4:-17", "layer3")}).signs == ("+", "-")


def test_faces_say_what_is_wrong_before_anything_is_loaded(tmp_path: Path) -> None:
    wrong: list[dict[str, Any]] = [
        {"layers": []}, {"signs": "x"}, {"dtype": "foo"}, {"units": "a"}, {"images": []},
        {"read": "?"},
    ]  # fmt: skip
    for face in (milanx.extract, milanx.describe):
        for arguments in wrong:
            with pytest.raises(InputError):
                face("no-such-model", **{"layers": "x", "out": tmp_path / "r", **arguments})
        with pytest.raises(InputError, match="which layer of Tiny"):
            face(Tiny(), out=tmp_path / "r")
    with pytest.raises(InputError, match="did you mean nearest"):
        milanx.describe(layers="x", method="nearst")
    assert not (tmp_path / "r").exists()


def test_keys_tell_requests_apart(tmp_path: Path) -> None:
    photos = write_parquet(tmp_path / "p.parquet", noise(12))

    def key(**changes: Any) -> str:
        asked = {"target": Tiny(), "layers": ("bn1", "head"), "images": (photos,), **changes}
        return open_inputs(Request(**asked)).key

    plain = key()
    same: list[dict[str, Any]] = [
        {"settings": ExtractSettings(batch_size=3, workers=1, checkpoint_seconds=0)},
        {"device": "cpu"}, {"layers": ("head", "bn1")},
    ]  # fmt: skip
    others: list[dict[str, Any]] = [
        {"dtype": "bfloat16"}, {"dtype": "float16"}, {"read": "raw"}, {"signs": ("-",)},
        {"units": "0-3"}, {"limit": 6}, {"layers": ("bn1",)}, {"preprocess": OTHER},
        *({"settings": ExtractSettings(**s)} for s in
          ({"k": 3}, {"quantile": 0.9}, {"aside": 0.5}, {"seed": 1})),
    ]  # fmt: skip
    assert [key(**changes) for changes in same] == [plain] * len(same)
    keys = [key(**changes) for changes in others]
    assert len({plain, *keys}) == 1 + len(others)


def test_ways_out_are_options_of_the_commands() -> None:
    with pytest.raises(InputError) as refused:
        ExtractSettings(aside=2)
    assert list(refused.value.ways_out) == ["--aside 0.2"]
