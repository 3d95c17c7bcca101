"""What is printed and written as json is json: no word of it that only Python reads."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from milanx.cli import app
from torch import nn
from typer.testing import CliRunner

import milanx
from milanx.describing.candidates import Candidate, Description
from milanx.files import read_json, write_json
from milanx.files.jsons import finite, json_text
from milanx.report.page import write_page
from milanx.runs import open_run, write_units
from tests.helpers import Sparse, noise, write_parquet

MUCH = -12.925  # some photos give more, the pictures that layers are found by less


class Gain(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Let the first unit have no measure where a picture excites all units much."""
        much = (x.mean((1, 2, 3), keepdim=True) > MUCH) & (torch.arange(8) == 0)[:, None, None]
        return torch.where(much, torch.inf, x)


class Infinite(Sparse):
    """The network of seldom excited units, of which the first one has no measure at times."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = Gain()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mix(self.act(self.gain(self.conv(x)))).mean((2, 3))


def infinite() -> nn.Module:
    return Infinite()


def strict(text: str) -> Any:
    """Read json as others do."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no json")

    return json.loads(text, parse_constant=refuse)


def printed(*command: str) -> Any:
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    return strict(done.stdout)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> milanx.Run:
    """Units of which one has infinite activations, each said to be faces."""
    root = tmp_path_factory.mktemp("infinite")
    photos = write_parquet(root / "p.parquet", noise(90))
    store = milanx.extract(Infinite(), layers="gain", images=photos, out=root / "run")
    assert np.isinf(store.activations("gain")[0]).any()
    texts = (Candidate("human faces", math.inf, -math.inf, math.nan),)
    write_units(root / "run", [
        Description("gain", u, s, "described", "human faces", math.inf, -math.inf, math.nan, texts)
        for u, s in store.units("gain")
    ], store)  # fmt: skip
    return open_run(root / "run")


def test_units_of_infinite_activations_are_printed(run: milanx.Run) -> None:
    rows = printed("show", str(run.root))
    assert None in rows[0]["activations"]
    assert all(a is not None and a > 0 for a in rows[2]["activations"])
    assert rows[0]["pmi"] is None and rows[0]["candidates"][0]["log_p_prior"] is None
    assert (
        printed("show", str(run.root), "--unit", "gain:0")["activations"]
        == (rows[0]["activations"])
    )


def test_reports_of_infinite_activations_are_json(run: milanx.Run, tmp_path: Path) -> None:
    found = printed("audit", str(run.root), "--out", str(tmp_path / "audit"))
    assert found["findings"]
    page = write_page(run).read_text()
    strict(page.split('type="application/json">')[1].split("</script>")[0])
    printed("analyze", str(run.root))
    written = [p for root in (run.root, tmp_path) for p in root.rglob("*")
               if p.suffix in (".json", ".sarif", ".jsonl")]  # fmt: skip
    assert {p.suffix for p in written} == {".json", ".sarif", ".jsonl"}
    for path in written:
        text = path.read_text()
        for document in text.splitlines() if path.suffix == ".jsonl" else [text]:
            strict(document)


def test_numbers_that_are_none_become_null(tmp_path: Path) -> None:
    value = {"a": math.nan, "b": [math.inf, {"c": (-math.inf, 1.5)}], "d": np.float32("inf"),
             "e": np.float32(0.5), "f": np.int64(3), "g": True, "h": None, "i": "NaN"}  # fmt: skip
    expected = {"a": None, "b": [None, {"c": [None, 1.5]}], "d": None, "e": 0.5, "f": 3,
                "g": True, "h": None, "i": "NaN"}  # fmt: skip
    assert finite(value) == expected
    assert strict(json_text(value)) == expected
    whole = {"x": [1, 2.25, "ä", None, True], "y": {}}
    assert json_text(whole, indent=2) == json.dumps(whole, indent=2, ensure_ascii=False)
    write_json(tmp_path / "f.json", "test", 1, value)
    assert strict((tmp_path / "f.json").read_text())["a"] is None
    assert read_json(tmp_path / "f.json", "test", 1)["b"] == expected["b"]  # and its seal holds
