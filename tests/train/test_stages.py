"""Stages: exact after a kill, made again when their code changes, never made by two at once."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import platform
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import milanx
from milanx.errors import InputError
from milanx.files.lock import held
from milanx.progress import SilentStage
from milanx.train.code_key import APART, ROOT, code_key
from milanx.train.loop import STAGES
from milanx.train.stages.desk import Desk, Made
from milanx.train.stages.probe import make_probe
from milanx.train.stages.projection import contrastive
from milanx.train.stages.stage import Stage, make_all, stage_key
from milanx.train.stages.table import make_table
from milanx.train.units.corpus import Unit
from milanx.train.units.meanings import Meaning, halves
from milanx.train.units.planted import PlantedUnits
from milanx.train.units.table import build_table
from tests.train import stage_worker
from tests.train.stage_worker import RECIPE, life
from tests.train.tiny import launch


@pytest.fixture(scope="module")
def processes() -> Any:
    """Processes that have imported torch before they begin."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.train.stage_worker", "torch._dynamo"])
    return context


@pytest.fixture(scope="module")
def calm(processes: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed life."""
    folder = tmp_path_factory.mktemp("calm")
    process = processes.Process(target=life, args=(folder,))
    process.start()
    process.join()
    assert process.exitcode == 0
    return folder


def steps(folder: Path) -> list[str]:
    path = folder / "steps.txt"
    return path.read_text().splitlines() if path.exists() else []


def until(folder: Path, step: str, process: Any) -> None:
    """Wait until a life has done a step."""
    while step not in steps(folder):
        assert process.is_alive(), f"it ended before {step}"
        time.sleep(0.005)


def files(folder: Path) -> dict[str, Any]:
    """Return what a life made, by stage and file; without its seconds."""
    found: dict[str, Any] = {}
    for path in sorted((folder / "cache" / "train").glob("*/*")):
        name = f"{path.parent.name}/{path.name}"
        if path.name == "stage.json":
            found[name] = json.loads(path.read_text())["facts"] | {"seconds": 0}
        else:
            found[name] = path.read_bytes()
    return found


# ------------------------------------------------------------------ kills


def test_killed_in_projection_and_critic(processes: Any, calm: Path, tmp_path: Path) -> None:
    """SIGKILL in both trainings, after their first checkpoint; all that is made is the same."""
    rng = random.Random()
    for kill in (f"projection {rng.randint(230, 300)}", f"critic {rng.randint(210, 260)}"):
        process = processes.Process(target=life, args=(tmp_path, 0.003))
        process.start()
        until(tmp_path, kill, process)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        before = len(steps(tmp_path))
    process = processes.Process(target=life, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 0
    done = steps(tmp_path)
    assert done.count("projection 1") == 3, "halves and whole: none began anew"
    assert done.count("critic 1") == 1 and done.count("critic 201") == 2
    assert done[before:][0] == "critic 201", "only the steps after the checkpoint were repeated"
    found, expected = files(tmp_path), files(calm)
    assert found.keys() == expected.keys()
    assert {name.split("/")[1] for name in found} > {
        "half-0.safetensors",
        "set_encoder.safetensors",
    }
    for name, content in expected.items():
        assert found[name] == content, name
    said = (tmp_path / "said.txt").read_text()
    assert f"on {platform.node()}" in said and "was ended while it made the stage critic" in said
    left = {p.suffix for p in (tmp_path / "cache" / "train").iterdir()} - {"", ".lock"}
    assert not left, "no checkpoint, no note of a holder, no half-written folder"
    log = (tmp_path / "logs" / "critic.jsonl").read_text().splitlines()
    losses = [line["step"] for line in map(json.loads, log) if "loss" in line]
    assert losses == list(range(1, 321))


def test_what_was_trained_is_better_than_what_it_began_with(calm: Path) -> None:
    facts = {name.split("-")[0]: value for name, value in files(calm).items()
             if name.endswith("stage.json")}  # fmt: skip
    assert facts["critic"]["first_right"]["region"][0] > 0.9
    losses = [value for _, value in facts["critic"]["held_out"]]
    assert min(losses) == dict(facts["critic"]["held_out"])[facts["critic"]["best_step"]]
    assert facts["projection"]["pairs"] == 2 * 4 * 48
    (log,) = (calm / "logs").glob("projection.jsonl")
    first, *_, last = [json.loads(line)["loss"] for line in log.read_text().splitlines()]
    assert last < first


def test_a_critic_that_diverges_is_refused_in_words(calm: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").symlink_to(calm / "cache")
    course = stage_worker.course(tmp_path)
    make_all(stage_worker.STAGES[:2], course)
    wild = dataclasses.replace(RECIPE.critic, learning_rate=1e30)
    course = dataclasses.replace(course, recipe=dataclasses.replace(RECIPE, critic=wild))
    with pytest.raises(InputError, match="training has diverged"):
        make_all(stage_worker.STAGES[2:], course)


# ------------------------------------------------------------------ several processes of one


def losses(folder: Path, stage: str) -> list[float]:
    lines = map(json.loads, (folder / "logs" / f"{stage}.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def test_two_processes_give_one_processs_curves(processes: Any, tmp_path: Path) -> None:
    alone, both = tmp_path / "1", tmp_path / "2"
    for folder in (alone, both):
        folder.mkdir()
    process = processes.Process(target=stage_worker.together, args=(alone,))
    process.start()
    process.join()
    assert process.exitcode == 0
    launch(Path(stage_worker.__file__), both)
    assert [(f / "processes.txt").read_text() for f in (alone, both)] == ["1", "2"]
    for stage in ("projection-half-0", "projection", "critic"):
        expected = losses(alone, stage)
        assert len(expected) >= 30
        assert losses(both, stage) == pytest.approx(expected, rel=1e-3), stage
    one, two = (
        next(f for n, f in files(folder).items() if n.startswith("critic") and n.endswith("json"))
        for folder in (alone, both)
    )
    assert two["best_step"] == one["best_step"] and two["set_encoder"] == one["set_encoder"]
    assert dict(two["held_out"]) == pytest.approx(dict(one["held_out"]), rel=1e-2)


def test_parts_of_a_contrastive_loss_are_its_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    images, texts = (torch.randn(7, 3, generator=generator) for _ in range(2))
    same = torch.tensor([0, 1, 2, 0, 3, 3, 4])
    whole, n = contrastive(images, texts, same, 0.5, slice(0, 7))
    parts = [contrastive(images, texts, same, 0.5, part) for part in (slice(0, 3), slice(3, 7))]
    assert n == 7 == sum(count for _, count in parts)
    assert float(sum(part for part, _ in parts)) == pytest.approx(float(whole), rel=1e-6)
    plain = 0.0
    for a, b in ((images, texts), (texts, images)):  # both ways, a row at a time
        for i in range(7):
            chance = (a[i] @ b.T / 0.5).log_softmax(0)
            plain -= float(chance[same == same[i]].mean()) / 2
    assert float(whole) == pytest.approx(plain, rel=1e-5)


# ------------------------------------------------------------------ the probe


def test_the_probe_names_classes(tmp_path: Path) -> None:
    course = stage_worker.course(tmp_path)
    views = stage_worker.views()
    views.photos.photos = [dataclasses.replace(p, wnid=f"n{stage_worker.WORDS.index(p.name):08}")
                           for p in views.photos.photos]  # fmt: skip
    units = PlantedUnits(RECIPE.data, views, 0)
    pure = dataclasses.replace(RECIPE.decoder, min_purity=1.0)
    recipe = dataclasses.replace(RECIPE, decoder=pure)
    course = dataclasses.replace(course, recipe=recipe, units=units)
    grids = np.full((stage_worker.EACH, 64), 255, np.uint8)
    meanings = [Meaning((word,), "class", np.arange(60 * i, 60 * (i + 1)), grids)
                for i, word in enumerate((*stage_worker.WORDS[:3], "no class"))]  # fmt: skip
    table = tmp_path / "table"
    table.mkdir()
    build_table(course.encoder, views, meanings, table, 0)
    course.made["table"] = Made(table, {})
    facts = make_probe(Desk(course, "probe", tmp_path, tmp_path / "probe", SilentStage()))
    assert (facts["classes"], facts["steps"]) == (3, 300)
    with safe_open(tmp_path / "probe.safetensors", "pt") as file:
        assert json.loads(file.metadata()["wnids"]) == [f"n{i:08}" for i in range(3)]
    state = {k: v.float() for k, v in load_file(tmp_path / "probe.safetensors").items()}
    corpus, rng = course.corpus(), np.random.default_rng(1)
    for label, entry in enumerate(corpus.by_kind["class"][:3]):  # sets that were not drawn before
        assert entry.texts == (stage_worker.WORDS[label],)
        rows = [entry.start + rng.permutation(corpus.views[entry.start])[:15] * entry.variants
                for _ in range(30)]  # fmt: skip
        none = np.zeros(0, np.int64)
        sets = corpus.evidence([Unit(row, False, none, "", "class") for row in rows])
        seen = (sets.features.mean(1).flatten(1) - state["mean"]) * state["scale"]
        named = (seen @ state["weight"].T + state["bias"]).argmax(1)
        assert float((named == label).float().mean()) > 0.9
    assert (state["scale"] == 0).any(), "some features, such as a whole view's place, are constants"
    assert facts["loss"] < 0.1


# ------------------------------------------------------------------ two at once


def test_two_trainings_never_make_one_stage(processes: Any, tmp_path: Path) -> None:
    process = processes.Process(target=life, args=(tmp_path, 0.01))
    process.start()
    until(tmp_path, "projection 3", process)
    course = stage_worker.course(tmp_path)
    with pytest.raises(InputError, match="the stage projection is being made by") as caught:
        make_all(stage_worker.STAGES, course)
    assert f"process {process.pid} on {platform.node()} (since " in caught.value.what
    process.kill()
    process.join()
    (note,) = (tmp_path / "cache" / "train").glob(".projection-*.holder")
    assert str(process.pid) in note.read_text()
    make_all(stage_worker.STAGES[:1], course)  # the lock of a killed process is free
    assert f"process {process.pid} on" in (tmp_path / "said.txt").read_text()
    assert not note.exists()


def test_a_lock_is_free_after_its_block(tmp_path: Path) -> None:
    said: list[str] = []
    with held(tmp_path / "x", said.append):
        with (
            pytest.raises(InputError, match="a describer is being made"),
            held(tmp_path / "x", said.append, "a describer"),
        ):
            raise AssertionError
        with held(tmp_path / "y", said.append):
            pass
    with pytest.raises(OSError), held(tmp_path / "x", said.append):
        raise OSError
    with held(tmp_path / "x", said.append):
        pass
    assert not said
    (tmp_path / ".x.holder").write_text("{")  # a note that was being written at a power cut
    with held(tmp_path / "x", said.append):
        pass
    assert not said


# ------------------------------------------------------------------ keys


def test_the_key_of_code_is_that_of_what_it_computes(tmp_path: Path) -> None:
    root = tmp_path / "package"
    (root / "deep").mkdir(parents=True)
    low, high = root / "deep" / "low.py", root / "high.py"
    text = (
        '"""Doc."""\nimport typing\n\nSHARE = 0.5  # of all\n\n\n'
        'def f(x):\n    """Half."""\n    return SHARE * x\n'
    )

    def key(changed: str = text) -> str:
        low.write_text(changed)
        high.write_text("def g(x):\n    from package.deep.low import f\n    return f(x)\n")
        milanx.train.code_key._read.cache_clear()  # type: ignore[attr-defined]
        return code_key("package.high", root)

    first = key()
    assert key() == first
    types = "if typing.TYPE_CHECKING:\n    import os\n"
    for same in (text.replace("of all", "of some"), text.replace("Half.", "A half."),
                 text.replace("Doc", "What this is"), text.replace("\n\n\ndef", "\n\ndef"),
                 text.replace("return SHARE * x", "return (SHARE * x)")):  # fmt: skip
        assert key(same) == first
    assert key(text + types) == key(text + types.replace("os", "sys"))
    raising = text + "\n\ndef h():\n    raise ValueError('one')\n"
    assert key(raising) == key(raising.replace("one", "two")) != first
    for other in (text.replace("0.5", "0.6"), text.replace("SHARE * x", "SHARE + x"),
                  text + "X = 1\n"):  # fmt: skip
        assert key(other) != first


def test_the_key_holds_what_a_stage_is_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """The critic's key changes with the numbers of files that it builds on, and no others."""
    read = milanx.train.code_key._read  # type: ignore[attr-defined]
    seen: list[Path] = []

    def noted(path: Path, package: str) -> Any:
        seen.append(path)
        return read(path, package)

    monkeypatch.setattr("milanx.train.code_key._read", noted)
    code_key("milanx.train.stages.critic")
    named = {path.relative_to(ROOT).with_suffix("").as_posix() for path in seen}
    assert {"train/stages/critic", "train/units/corpus", "train/units/table", "train/units/phrases",
            "train/engine/schedule", "train/engine/fit", "describing/set_encoder",
            "describing/critic", "language/connectives", "features/encoder"} <= named  # fmt: skip
    assert not {"train/stages/probe", "train/stages/decoder", "train/card", "errors"} & named
    for name in APART:
        place = ROOT.joinpath(*name.split("."))
        assert place.is_dir() or place.with_suffix(".py").is_file(), f"{name} is not there"


def test_a_key_stands_for_settings_and_for_the_stages_before(calm: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").symlink_to(calm / "cache")
    course = stage_worker.course(tmp_path)
    make_all(stage_worker.STAGES, course)
    assert not (tmp_path / "steps.txt").exists(), "all was found made"
    critic = stage_worker.STAGES[2]
    key = stage_key(critic, course)
    wider = dataclasses.replace(RECIPE, critic=dataclasses.replace(RECIPE.critic, width=64))
    later = dataclasses.replace(RECIPE, prior=dataclasses.replace(RECIPE.prior, steps=5))
    assert stage_key(critic, dataclasses.replace(course, recipe=wider)) != key
    assert stage_key(critic, dataclasses.replace(course, recipe=later)) == key
    moved = dict(course.made)
    moved["table"] = dataclasses.replace(moved["table"], folder=Path("table-other"))
    assert stage_key(critic, dataclasses.replace(course, made=moved)) != key


def test_the_chain_says_what_each_stage_uses() -> None:
    names = [stage.name for stage in STAGES]
    assert len(set(names)) == len(names)
    for i, stage in enumerate(STAGES):
        assert set(stage.after) <= set(names[:i]), f"{stage.name} uses a stage that comes later"
        for setting in stage.reads:
            value: Any = RECIPE
            for part in setting.split("."):
                value = getattr(value, part)


def test_a_stage_that_a_recipe_lacks_is_passed_over(tmp_path: Path) -> None:
    course = stage_worker.course(tmp_path)
    never = Stage("never", lambda desk: {}, only=lambda recipe: recipe.name != "mini")
    always = Stage("always", lambda desk: {"found": sorted(desk.course.made)}, after=("never",))
    make_all([never, always], course)
    assert course.made.keys() == {"always"}
    assert course.made["always"].facts["found"] == []


def test_the_table_is_made_by_projections_that_did_not_see_its_views(
    calm: Path, tmp_path: Path
) -> None:
    """Also where the projection was found made: the encoder begins with random weights."""
    (tmp_path / "cache").symlink_to(calm / "cache")
    course = stage_worker.course(tmp_path)
    make_all(stage_worker.STAGES[:1], course)
    folder, found = course.made["projection"].folder, dict[str, np.ndarray]()

    class Units(PlantedUnits):
        def build_table(self, encoder: Any, folder: Path, joint: Any, advance: Any) -> dict:
            found["joint"] = joint(features, np.arange(len(features)))
            return {}

    views = stage_worker.views()
    features = views.photos.dense.astype(np.float32).mean(1)
    course = dataclasses.replace(course, units=Units(RECIPE.data, views, 0))
    make_table(Desk(course, "table", tmp_path, tmp_path, SilentStage()))
    half = halves(views.photos)
    for name, rows in (("encoder", views.checked), ("half-0", views.trained & half),
                       ("half-1", views.trained & ~half)):  # fmt: skip
        plain = stage_worker.encoder()
        plain.projection.load_state_dict(load_file(folder / f"{name}.safetensors"))
        with torch.no_grad():
            expected = plain.joint(torch.from_numpy(features[rows]))
        assert rows.sum() > 40
        torch.testing.assert_close(torch.from_numpy(found["joint"][rows]).float(), expected,
                                   atol=1e-3, rtol=0)  # fmt: skip
