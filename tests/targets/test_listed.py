"""Lists of layers are kept: the same again, without building the model, and only while true."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants
from milanx.cli import app
from typer.testing import CliRunner

from milanx.targets import layers, listed

MODEL = "test_resnet"  # timm's own for tests; its weights lie on the Hub alone
RUN = "import sys; from milanx.cli import app\ntry: app(['layers', *sys.argv[1:]])\n" \
      "except SystemExit: pass\nassert not {'torch', 'timm'} & set(sys.modules)"  # fmt: skip


def said(*options: str) -> tuple[str, str]:
    done = CliRunner().invoke(app, ["layers", MODEL, *options])
    assert done.exit_code == 0, done.output
    return done.stdout, done.stderr


@pytest.fixture(autouse=True)
def offline(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def discovered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every discovery, by the model's name."""
    done: list[str] = []
    usual = layers.discover
    monkeypatch.setattr(layers, "discover", lambda t: (done.append(t.name), usual(t))[1])
    return done


def test_a_list_is_the_same_again_and_nothing_is_built(
    discovered: list[str], own_cache: Path
) -> None:
    first = said()
    assert "layers are listed with random ones" in first[1]
    assert said() == first
    assert discovered == [MODEL]
    as_json = json.loads(said("--json")[0])
    assert [row["name"] for row in as_json] and discovered == [MODEL]
    assert json.loads(said("--json", "--random-weights")[0]) == as_json
    assert discovered == [MODEL]
    subprocess.run([sys.executable, "-c", RUN, MODEL], check=True, timeout=300,
                   env=_environment(own_cache))  # fmt: skip


def _environment(cache: Path) -> dict[str, str]:
    import os

    return {**os.environ, "MILANX_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}


def test_a_list_is_made_anew_where_it_may_be_another(
    discovered: list[str], offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said()
    place = listed.place(MODEL)
    assert place is not None
    content = place.read_text(encoding="utf-8")
    place.write_text(content.replace("conv", "cnov", 1), encoding="utf-8")  # its seal is another's
    said()
    assert discovered == [MODEL] * 2
    monkeypatch.setattr(listed, "LIBRARIES", ("torch",))
    said()
    assert discovered == [MODEL] * 3
    (offline / "models--timm--test_resnet.r160_in1k").mkdir(parents=True)  # weights may be here
    said()
    assert discovered == [MODEL] * 4


@pytest.mark.parametrize("name", ["hf:folder", "package.module:function", "clip:ViT-B-32/x", "a/b"])
def test_nothing_is_kept_of_what_no_library_names(name: str) -> None:
    assert listed.place(name) is None
    listed.keep(name, [])
    assert listed.kept(name) is None
