"""Damaged files of every format that is read: an error in words, or the same result."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import milanx.recipes
import numpy as np
import pytest
import torch
from milanx.cli import app
from typer.testing import CliRunner

import milanx.assets
from milanx.describing.candidates import Candidate, Description
from milanx.describing.checks import check_listed, part_names, settings_of
from milanx.describing.describer import Describer
from milanx.describing.folder import (
    load_language,
    load_set_encoder,
    read_content,
    read_words,
    write_content,
)
from milanx.describing.parts import fingerprint_weights
from milanx.describing.set_encoder import SetEncoder, SetEncoderSpec
from milanx.describing.settings import SearchSettings
from milanx.errors import FormatError, InputError
from milanx.files import write_json
from milanx.files.digests import FILES, SEAL
from milanx.language.gpt2 import build_gpt2, train_tokenizer
from milanx.pipeline import extract
from milanx.report.check import check, seal
from milanx.runs import open_run, tell_table, write_settings, write_units
from milanx.train.recipe import load_recipe
from tests.files.damaging import EACH, outcomes
from tests.helpers import noise, write_parquet

ASSETS = Path(milanx.assets.__path__[0])
RECIPES = Path(milanx.recipes.__path__[0])
SPEC = SetEncoderSpec(features=6, joint=4, width=16, prefix=2, layers=1, heads=2, words=1,
                      vocabulary=1, pixels=1, components=2, critic=8)  # fmt: skip
runner = CliRunner()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with descriptions of a tiny model."""
    root = tmp_path_factory.mktemp("run")
    photos = write_parquet(root / "p.parquet", noise(24))
    store = extract("tests.helpers:tiny", layers=["conv2", "head"], images=photos, out=root / "run")
    terms = (Candidate("a dog", 1.0, -2.0, -3.0), Candidate("a cat", 0.5, -2.5, -3.0))
    found = [Description(layer, u, s, "described", f"thing {u}", 1.0, -2.0, -3.0, terms)
             for layer in store.layers for u, s in store.units(layer)]  # fmt: skip
    write_units(root / "run", found, store)
    return root / "run"


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def older(root: Path) -> Path:
    """Take digests and seals out of a run, as an earlier milanx wrote it."""
    for path in (root / "run.json", root / "exemplars" / "index.json"):
        content = json.loads(path.read_text())
        path.write_text(json.dumps({k: v for k, v in content.items() if k not in (FILES, SEAL)}))
    return root


def served(root: Path) -> object:
    """All that a run gives whoever asks."""
    opened = open_run(root)
    store = opened.store
    layers = [
        [store.units(layer), store.status(layer), store.images(layer).tolist(),
         store.activations(layer).tobytes(), store.maps(layer).tobytes(),
         {n: v.tobytes() for n, v in store.stats(layer).items()},
         np.asarray(store.maxima(layer)).tobytes(), np.asarray(store.means(layer)).tobytes()]
        for layer in store.layers
    ]  # fmt: skip
    views = [store.view(i).tobytes() for i in store.view_indices()]
    rows = repr(opened.rows)
    return [opened.settings, rows, layers, views, store.image_table(), store.view_size]


FILES_OF_A_RUN = [
    "run.json", "units.parquet", "views.parquet", "images.parquet", "exemplars/index.json",
    *(f"exemplars/conv2/{name}" for name in
      ("index.parquet", "maps.safetensors", "stats.safetensors", "max.npy", "mean.npy")),
]  # fmt: skip


@pytest.mark.parametrize("name", FILES_OF_A_RUN)
def test_no_damage_of_a_run_is_served(run: Path, name: str) -> None:
    found = outcomes(run / name, lambda: served(run))
    assert "other" not in found
    assert found.count("error") > 0.9 * len(found)
    assert not check(run).faults


@pytest.mark.parametrize("name", FILES_OF_A_RUN)
def test_damage_of_an_older_run_is_no_traceback(run: Path, name: str) -> None:
    found = outcomes(older(run) / name, lambda: served(run))
    assert found[:EACH].count("error") >= EACH - 2  # of truncations


@pytest.mark.parametrize("name", FILES_OF_A_RUN[1:])
def test_check_names_what_is_damaged(run: Path, name: str) -> None:
    content = (run / name).read_bytes()
    (run / name).write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    result = runner.invoke(app, ["check", str(run)])
    assert result.exit_code == 2 and Path(name).name in result.stderr
    (run / name).unlink()
    assert runner.invoke(app, ["check", str(run)]).exit_code == 2
    (run / name).write_bytes(content)
    result = runner.invoke(app, ["check", str(run)])
    assert result.exit_code == 0 and "what was written" in result.stdout
    assert "without digests" in runner.invoke(app, ["check", str(older(run))]).stdout


def test_a_store_without_a_file_is_not_opened(run: Path) -> None:
    (run / "exemplars" / "head" / "mean.npy").unlink()
    with pytest.raises(FormatError, match=r"mean\.npy does not exist"):
        open_run(run).store  # noqa: B018
    shutil.rmtree(run / "exemplars" / "head")
    assert runner.invoke(app, ["page", str(run)]).exit_code == 2


@pytest.mark.parametrize("change", [
    {"images": []}, {"images": {"sources": [1]}}, {"target": "x"}, {"score": 3}, {"layers": {}},
    {"settings": "x"}, {"describer": []}, {"files": {"units.parquet": 5}}, {"files": [1]},
    {"files": {"../x": {"bytes": 1, "sha256": "0" * 64}}}, {"seconds": 5},
])  # fmt: skip
def test_a_run_json_of_other_types(run: Path, change: dict[str, Any]) -> None:
    path = run / "run.json"
    content = json.loads(path.read_text())
    del content[SEAL]
    path.write_text(json.dumps(content | change))
    result = runner.invoke(app, ["show", str(run)])
    assert result.exit_code == 2, result.output
    assert [line.split(":")[0].strip() for line in result.stderr.splitlines()] == [
        "error", "why", "do"]  # fmt: skip


def test_another_table_than_run_json_tells_of(run: Path) -> None:
    other = run / "units.parquet"
    other.write_bytes(other.read_bytes() + b"x")
    with pytest.raises(FormatError, match="is not the table that"):
        len(open_run(run))
    settings = open_run(run).settings
    write_settings(run, settings | {FILES: tell_table(run)})
    with pytest.raises(FormatError, match="cannot be read"):
        len(open_run(run))


# ------------------------------------------------------------------ describers


@pytest.fixture(scope="module")
def little(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A describer's folder of small networks, without an image tower's projection."""
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import save_file

    root = tmp_path_factory.mktemp("describers") / "little"
    (root / "tokenizer").mkdir(parents=True)
    tokenizer = train_tokenizer(["red dogs", "blue sky over water", "striped cats"] * 4, 300)
    tokenizer.save_pretrained(root / "tokenizer")
    torch.manual_seed(0)
    build_gpt2(len(tokenizer), 2, 16, 2, 24).save_pretrained(root / "base")
    for name in ("decoder", "prior"):
        lora = LoraConfig(r=2, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True,
                          task_type="CAUSAL_LM", base_model_name_or_path="../base")  # fmt: skip
        get_peft_model(build_gpt2(len(tokenizer), 2, 16, 2, 24), lora).save_pretrained(root / name)
        (root / name / "README.md").unlink(missing_ok=True)
    set_encoder = SetEncoder(SPEC)
    save_file(set_encoder.state_dict(), root / "set_encoder.safetensors")
    write_json(root / "words.json", "milanx words", 1, {"words": ["dog"], "vocabulary": ["dogs"]})
    write_content(root, {"name": "little", "encoder": {"tower": "none"}, "search": {"lam": 0.1},
                         "set_encoder": asdict(SPEC), "contrast": 1, "training": {}})  # fmt: skip
    return root


@pytest.fixture
def small(little: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(little, tmp_path / "small"))


def parts(root: Path) -> list[object]:
    """What a describer's folder gives, its encoder aside."""
    content, _ = read_content(root)
    spec = settings_of(root / "describer.json", SetEncoderSpec, content["set_encoder"])
    search = settings_of(root / "describer.json", SearchSettings, content["search"])
    part_names(root)
    set_encoder, (decoder, prior) = load_set_encoder(root, spec), load_language(root, content)
    words = read_words(root)
    weights = fingerprint_weights([set_encoder, decoder, prior.model])
    return [content, spec, search, words, weights, prior.tokenizer("red dogs")["input_ids"]]


def test_every_damage_of_a_describer_is_noticed(small: Path) -> None:
    names = [*read_content(small)[1].to_dict(), "describer.json"]
    assert len(names) >= 10
    for name in names:
        found = outcomes(small / name, lambda: check(small).require())
        assert found == ["error"] * 2 * EACH, name


def test_damage_of_an_older_describer_is_no_traceback(small: Path) -> None:
    content = json.loads((small / "describer.json").read_text())
    del content[FILES], content[SEAL]
    (small / "describer.json").write_text(json.dumps(content))
    assert check(small).untold
    for name in ("describer.json", "words.json", "set_encoder.safetensors", "base/config.json",
                 "base/model.safetensors", "prior/adapter_config.json",
                 "prior/adapter_model.safetensors", "tokenizer/tokenizer.json"):  # fmt: skip
        found = outcomes(small / name, lambda: parts(small))
        assert found[:EACH].count("error") >= EACH - 3, name


def test_no_damage_of_the_bundled_describer_is_read(tmp_path: Path) -> None:
    root = Path(shutil.copytree(ASSETS / "mini", tmp_path / "mini"))
    listing = read_content(root)[1]
    assert not check(root).untold and not check(ASSETS / "simulator").untold
    assert len(listing.files or ()) == 15
    for name in listing.to_dict():
        content = (root / name).read_bytes()
        (root / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(FormatError, match=r"damaged|cannot be read"):
            loaded = Describer.load(root)
            loaded.judge()
            loaded.trained  # noqa: B018 - read when it is asked for
        (root / name).write_bytes(content)
    before = (root / "describer.json").read_bytes()
    seal(root)
    assert (root / "describer.json").read_bytes() == before


def rewrite(path: Path, **changes: object) -> None:
    """Change a json file; None takes an entry out."""
    content = json.loads(path.read_text()) | changes
    content.pop(SEAL, None)
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def nan(path: Path, name: str | None = None) -> None:
    """Put what is no number into a tensor, the first unless named."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    tensors[name or next(iter(tensors))].view(-1)[0] = float("nan")
    save_file(tensors, path, {"format": "pt"})


def lose(path: Path) -> None:
    """Take a tensor out of a file."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    tensors.pop(next(iter(tensors)))
    save_file(tensors, path, {"format": "pt"})


WRONG: dict[str, Callable[[Path], object]] = {
    "lam of NaN": lambda r: rewrite(r / "describer.json", search={"lam": float("nan")}),
    "lam of text": lambda r: rewrite(r / "describer.json", search={"lam": "x"}),
    "a list": lambda r: (r / "describer.json").write_text("[]"),
    "no search": lambda r: rewrite(r / "describer.json", search=None),
    "layers": lambda r: rewrite(r / "describer.json",
                                set_encoder=asdict(SPEC) | {"layers": 10**6}),
    "a layer without tensors": lambda r: rewrite(r / "describer.json",
                                                 set_encoder=asdict(SPEC) | {"layers": 2}),
    "NaN in the set encoder": lambda r: nan(r / "set_encoder.safetensors"),
    "NaN in the base": lambda r: nan(r / "base" / "model.safetensors"),
    "NaN in an adapter": lambda r: nan(r / "prior" / "adapter_model.safetensors"),
    "an adapter's tensor": lambda r: lose(r / "prior" / "adapter_model.safetensors"),
    "a tensor of the base": lambda r: lose(r / "base" / "model.safetensors"),
    "fewer layers": lambda r: rewrite(r / "base" / "config.json", n_layer=1),
    "a million layers": lambda r: rewrite(r / "base" / "config.json", n_layer=10**6),
    "layers of text": lambda r: rewrite(r / "base" / "config.json", n_layer="2"),
    "another family": lambda r: rewrite(r / "base" / "config.json", model_type="llama"),
    "code": lambda r: rewrite(r / "base" / "config.json",
                              auto_map={"AutoConfig": "evil.Config"}),
    "kernels": lambda r: rewrite(r / "base" / "config.json", attn_implementation="a/b"),
    "a rank": lambda r: rewrite(r / "prior" / "adapter_config.json", r=10**9),
    "another adapter": lambda r: rewrite(r / "prior" / "adapter_config.json", peft_type="VERA"),
    "a module": lambda r: rewrite(r / "prior" / "adapter_config.json",
                                  auto_mapping={"parent_library": "evil"}),
    "words": lambda r: rewrite(r / "words.json", words=[1]),
    "a pipe": lambda r: ((r / "words.json").unlink(), os.mkfifo(r / "words.json")),
    "a device": lambda r: ((r / "set_encoder.safetensors").unlink(),
                           (r / "set_encoder.safetensors").symlink_to("/dev/zero")),
    "a sparse file": lambda r: os.truncate(r / "tokenizer" / "tokenizer.json", 2**40),
    "a sparse network": lambda r: os.truncate(r / "base" / "model.safetensors", 2**40),
    "a pickle": lambda r: (r / "base" / "pytorch_model.bin").write_bytes(b"x"),
    "code beside": lambda r: (r / "tokenizer" / "evil.py").write_text("raise SystemExit"),
    "a folder": lambda r: ((r / "words.json").unlink(), (r / "words.json").mkdir()),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_no_describer_is_is_refused(small: Path, what: str) -> None:
    content = json.loads((small / "describer.json").read_text())
    del content[FILES], content[SEAL]  # as of an earlier milanx: nothing tells but what they are
    (small / "describer.json").write_text(json.dumps(content))
    assert parts(small)
    WRONG[what](small)
    with pytest.raises(FormatError) as caught:
        parts(small)
    assert caught.value.why


def test_a_file_that_came_later_is_not_read(small: Path) -> None:
    (small / "tokenizer" / "added_tokens.json").write_text('{"x": 5}')
    with pytest.raises(FormatError, match="is not told by"):
        check_listed(small, read_content(small)[1])


# ------------------------------------------------------------------ recipes

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]" for i in range(12)
)
RECIPES_OF_OTHERS = {
    "a list": "[1, 2]", "text": "hello", "a number": "5", "not UTF-8": b"name: caf\xe9",
    "deep": "a: " + "[" * 5000 + "]" * 5000, "deeper": "{a: " * 3000, "a bomb": BOMB,
    "itself": "a: &a [*a]", "a number for a key": "1: 2", "a list for a key": "? [1]\n: 3",
    "a date": "name: 2020-99-99", "digits": "seed: " + "9" * 6000,
    "code": "!!python/object/apply:os.system ['id']", "bytes": b"\x00\xff\xfe",
    "NaN": "decoder: {dropout: .nan}", "NaN as text": "decoder: {learning_rate: 'nan'}",
    "infinite": "encoder: {temperature: .inf}", "below zero": "decoder: {learning_rate: -1}",
    "no steps": "decoder: {steps: 0}", "no targets": "decoder: {targets: []}",
    "no file": "data: {photos: [{file: 3}]}", "nothing": "decoder:", "no seed": "seed: -1",
}  # fmt: skip


@pytest.mark.parametrize("what", RECIPES_OF_OTHERS)
def test_recipes_that_are_none(tmp_path: Path, what: str) -> None:
    content = RECIPES_OF_OTHERS[what]
    path = tmp_path / "r.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    assert len(str(caught.value)) < 3000
    assert runner.invoke(app, ["recipes", "validate", str(path)]).exit_code == 2


def test_damaged_recipes(tmp_path: Path) -> None:
    path = Path(shutil.copy(RECIPES / "smoke.yaml", tmp_path / "r.yaml"))
    assert "error" in outcomes(path, lambda: load_recipe(path))
