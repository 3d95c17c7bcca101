"""The command line: help, examples, exit codes, and each kind of bad input in three lines."""

from __future__ import annotations

import json
import os
import pickle
import platform
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from milanx.cli import app
from safetensors.torch import save_file
from typer.main import get_command
from typer.testing import CliRunner

from tests.cli.commands import refused
from tests.helpers import Tiny, noise, write_parquet

runner = CliRunner()
TINY = "tests.helpers:tiny"
COMMANDS = ["describe", "exemplars", "layers", "show", "page", "evaluate", "train", "env",
            "export", "import", "recipes", "bench", "study", "push", "pull"]  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parquet(tmp_path_factory.mktemp("photos") / "p.parquet", noise(30))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    result = runner.invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below one, with the words that call it."""
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from _commands(below, (*path, name))


def test_help_shows_every_text_whole() -> None:
    bracketed = 0
    for path, command in _commands(get_command(app)):
        shown = runner.invoke(app, [*path, "--help"], env={"COLUMNS": "100"}).output
        assert not re.search(r" \.(\s|$)", shown), path
        words = "".join(shown.split())
        for parameter in command.params:
            told = "".join((getattr(parameter, "help", None) or "").split())
            assert told in words, (path, told)
            bracketed += "[" in told
        for below in getattr(command, "commands", {}).values():
            first = below.help.partition("\n")[0]
            assert "".join(first.split()) in words, (path, first)
    assert bracketed > 10


def test_bare_command_shows_help_and_version_is_one_line() -> None:
    assert "describe" in runner.invoke(app, []).output
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", runner.invoke(app, ["--version"]).output)


def test_layers_and_exemplars(photos: Path, tmp_path: Path) -> None:
    listed = runner.invoke(app, ["layers", TINY, "--json"])
    assert {row["name"] for row in json.loads(listed.stdout)} >= {"conv1", "bn1", "head"}
    out = tmp_path / "run"
    done = runner.invoke(app, ["exemplars", TINY, "-l", "bn1:0-3", "--images", str(photos), "-o",
                               str(out), "--json"])  # fmt: skip
    assert json.loads(done.stdout) == {"run": str(out), "layers": {"bn1": 4}}
    settings = json.loads((out / "run.json").read_text())
    assert settings["target"]["name"] == TINY
    assert settings["seconds"]["extract"] > 0


def test_unknown_model_layer_and_units(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    assert "did you mean resnet18" in refused("layers", "resnet18x")
    assert "no layer 'convv1'" in refused("exemplars", TINY, "-l", "convv1", "--images", photos,
                                          "-o", out)  # fmt: skip
    assert "its units are 0 to 7" in refused("exemplars", TINY, "-l", "bn1", "--units", "3-9",
                                             "--images", photos, "-o", out)  # fmt: skip
    assert "cannot read the units" in refused("exemplars", TINY, "-l", "bn1", "--units", "x",
                                              "--images", photos, "-o", out)  # fmt: skip
    assert "cannot import" in refused("layers", "no_such_module:thing")
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--method", "bar"], "no method 'bar'"),
        (["--method", "concepts", "--concepts", "nowhere.txt"], "nowhere.txt"),
        (["--senses", "9"], "9"),
        (["--senses", "2", "--no-score"], "no senses without scores"),
        (["--read", "foo"], "cannot read units 'foo'"),
        (["--dtype", "int8"], "no dtype 'int8'"),
        (["--images", "nowhere/"], "no images at nowhere"),
        (["--weights", "nowhere.pth"], "no checkpoint nowhere.pth"),
    ],
)
def test_what_is_asked_for_in_vain_is_refused_before_the_describer(
    options: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the describer is not there either
    told = refused("describe", TINY, "-l", "bn1", "--describer", "nobody", *options)
    assert said in told and "nobody" not in told


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--sign", "x"], "no sign 'x' there are +, -"),
        (["--quantile", "2"], "the quantile cannot be 2.0"),
        (["--quantile", "nan"], "between 0 and 1"),
        (["-k", "0"], "k, the exemplars of a unit, cannot be 0"),
        (["--seed", "-1"], "the seed cannot be -1"),
        (["--batch-size", "0"], "the batch size cannot be 0"),
        (["--workers", "0"], "the number of workers cannot be 0"),
        (["--dtype", "foo"], "no dtype 'foo' there are float32, bfloat16, float16"),
        (["--dtype", "float23"], "did you mean float32"),
        (["--read", "both"], "--read is auto or raw"),
        (["--device", "foo"], "the device 'foo' cannot be used"),
        (["--random-weights", "--weights", "x.pth"], "cannot both be used"),
    ],
)
def test_values_that_cannot_be(options: list[str], said: str, photos: Path, tmp_path: Path) -> None:
    for command in ("exemplars", "describe"):
        found = refused(command, TINY, "-l", "bn1", "--images", photos, "-o", tmp_path / "r",
                        *options)  # fmt: skip
        assert said in re.sub(r" +(why|do): ", " ", found)
    assert not (tmp_path / "r").exists()


def test_which_layer_is_asked_where_none_was_named(photos: Path, tmp_path: Path) -> None:
    said = refused("describe", "resnet18", "--random-weights")
    assert "which layer of resnet18?" in said
    assert "milanx layers resnet18 lists them" in said
    # The default's name is a layer as any other when it is given.
    said = refused("describe", TINY, "-l", "blocks.5.3.bn1", "--images", photos, "-o", tmp_path)
    assert "no layer 'blocks.5.3.bn1' to describe" in said


def test_image_sources(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("x")
    for name, said in (("empty", "the folder is empty"), ("texts", "is an image"),
                       ("absent", "no such file")):  # fmt: skip
        assert said in refused("exemplars", TINY, "-l", "bn1", "--images", tmp_path / name)


def test_checkpoints(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    evil = tmp_path / "evil.pth"
    with evil.open("wb") as file:
        pickle.dump({"a": Evil()}, file)
    assert "could run code" in refused("layers", TINY, "--weights", evil)
    torch.save({"x": Evil()}, evil)
    assert "could run code" in refused("layers", TINY, "--weights", evil)
    assert not (tmp_path / "ran").exists()
    other = tmp_path / "other.safetensors"
    save_file({"conv9.weight": torch.zeros(2, 2), "head.bias": torch.zeros(3)}, other)
    said = refused("layers", TINY, "--weights", other)
    assert "missing" in said
    assert "unexpected (conv9.weight)" in said
    assert "of another shape (head.bias: (3,) for (5,))" in said
    good = tmp_path / "good.pth"
    torch.save({"state_dict": {f"module.{k}": v for k, v in Tiny().state_dict().items()}}, good)
    assert runner.invoke(app, ["layers", TINY, "--weights", str(good)]).exit_code == 0
    assert "no such file" in refused("layers", TINY, "--weights", tmp_path / "absent.pth")


def test_weights_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    said = refused("exemplars", "resnet50", "-l", "layer4")
    assert "--weights FILE" in said
    assert "--random-weights" in said
    assert "PyPI" in said


def test_read_only_folder(photos: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(stat.S_IREAD | stat.S_IEXEC)
    if os.access(locked, os.W_OK):  # root writes anywhere but to the kernel's own files
        locked = Path("/proc/milanx")
    assert "cannot write" in refused("exemplars", TINY, "-l", "bn1", "--images", photos, "-o",
                                     locked / "run")  # fmt: skip


def test_run_folder_of_another_model(photos: Path, tmp_path: Path) -> None:
    base = [
        "exemplars",
        TINY,
        "-l",
        "bn1",
        "--images",
        str(photos),
        "-o",
        str(tmp_path / "r"),
        "-q",
    ]
    assert runner.invoke(app, base).exit_code == 0
    assert "holds another run" in refused(*base, "--random-weights", "-k", "3")
    assert runner.invoke(app, [*base, "-k", "3", "--overwrite"]).exit_code == 0
    (tmp_path / "r" / "thesis.txt").write_text("x")
    assert "not overwritten" in refused(*base, "--overwrite")
    assert (tmp_path / "r" / "thesis.txt").exists()


def test_debug_gives_the_traceback() -> None:
    result = runner.invoke(app, ["layers", "resnet18x", "--debug"])
    assert type(result.exception).__name__ == "InputError"


def test_show_and_page_of_no_run(tmp_path: Path) -> None:
    assert "is no run folder" in refused("show", tmp_path)
    assert "no such folder" in refused("page", tmp_path / "x")


def test_recipes(tmp_path: Path) -> None:
    assert "mini" in runner.invoke(app, ["recipes", "ls"]).output
    target = tmp_path / "mine.yaml"
    assert runner.invoke(app, ["recipes", "cp", "mini", str(target)]).exit_code == 0
    assert runner.invoke(app, ["recipes", "validate", str(target)]).exit_code == 0
    assert "lost" in refused("recipes", "cp", "mini", target)
    wrong = refused("recipes", "validate", "mini", "decoder.steps=x")
    assert "decoder.steps must be a valid integer" in wrong


def test_env_is_json() -> None:
    facts = json.loads(runner.invoke(app, ["env", "--json"]).stdout)
    assert {"milanx", "torch", "device", "cache"} <= facts.keys()


def test_memory_that_is_freed_stays_with_the_process() -> None:
    """A large block that was freed and is asked for again costs the kernel nothing anew."""
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("glibc alone hands large blocks back at once")
    code = (
        "import resource, sys\n"
        "import numpy as np\n"
        "from milanx.environment import keep_memory\n"
        "if sys.argv[1] == 'keep': keep_memory()\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "np.ones(2**23)\n"
        "before = faults()\n"
        "for _ in range(5): np.ones(2**23)\n"
        "print(faults() - before)\n"
    )
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", code, how], check=True, capture_output=True,
                           text=True).stdout)
        for how in ("keep", "default")
    )  # fmt: skip
    assert kept < given_back / 10
