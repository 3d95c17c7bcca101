"""What the acting commands refuse: exit code 2, what and why and what to do, nothing half-written.

The command line is the real one, and what is bad about the input is really there.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

import milanx
from milanx.act.corruptions import CORRUPTIONS
from milanx.targets.zoo import load_target
from tests.act.liar import Liar, make_run
from tests.act.runs import planted_run, write_texts
from tests.act.voter import UNITS, colours
from tests.cli.commands import LIAR, refused, run
from tests.helpers import contents, files_of_at_most, noise, write_parquet

RUN = Path("milanx-runs/liar/conv")
PRUNE = ("prune", RUN, "--match", "text", "--images", "photos", "--out", "edited")
WNIDS = ("n01440764", "n01443537", "n01484850")


def left_alone(*args: object) -> str:
    """Run a command that must fail and write nothing; returns its three lines."""
    before = contents(Path())
    said = refused(*args)
    assert contents(Path()) == before
    return said


# A run without descriptions


@pytest.mark.parametrize("command", [("prune", "--match", "text"), ("audit",), ("analyze",)])
def test_a_run_of_exemplars_alone(command: tuple[str, ...], work: Path) -> None:
    photos = write_parquet(work / "p.parquet", noise(20))
    code, _, error = run("exemplars", "tests.helpers:tiny", "-l", "bn1:0-3", "--images", photos,
                         "-o", "bare")  # fmt: skip
    assert code == 0, error
    said = left_alone(command[0], "bare", *command[1:])
    assert "bare holds no descriptions" in said and "there is no units.parquet" in said
    assert "milanx describe ... --out bare" in said


@pytest.mark.parametrize("command", [("prune", "--match", "text"), ("audit",), ("analyze",),
                                     ("audit", "--fail-on", "error")])  # fmt: skip
def test_a_run_in_which_no_unit_has_a_text(command: tuple[str, ...], work: Path) -> None:
    planted_run(work / "dead", ["", ""])
    said = left_alone(command[0], "dead", *command[1:])
    assert "dead holds no descriptions" in said and "describe" in said.partition("do:")[2]


@pytest.mark.parametrize("other", ["first", "second"])
def test_a_comparison_with_a_run_in_which_no_unit_has_a_text(other: str, work: Path) -> None:
    planted_run(work / "dead", ["", ""])
    planted_run(work / "alive", ["faces"])
    runs = ("alive", "dead") if other == "second" else ("dead", "alive")
    assert "dead holds no descriptions" in left_alone("audit", runs[0], "--versus", runs[1])


# A match of nothing


def test_what_matches_nothing_says_what_is_near(work: Path) -> None:
    for option, what, near in (
        (("--match", "txet"), "no description holds 'txet'", "by letters: text"),
        (("--match", "lettering"), "no description holds 'lettering'", "'text' (0."),
        (("--regex", "--match", "^zebra"), "no description holds '^zebra'", "nearest by meaning"),
        (("--like", "a zebra", "--threshold", ".9"), "is like 'a zebra'", "nearest by meaning"),
        (("--rule", "faces"), "no description falls under the rule 'faces'", "nearest by meaning"),
    ):  # fmt: skip
        said = left_alone("prune", RUN, *option, "--dry-run")
        assert what in said and near in said
        assert "--threshold" in said.partition("do:")[2]


def test_a_rule_that_is_not_there_says_which_are(work: Path) -> None:
    said = left_alone("prune", RUN, "--rule", "fases", "--out", "edited")
    assert "there is no rule 'fases'" in said and "did you mean faces" in said
    assert "there are faces, people, skin" in said and "rulers" in said
    (work / "own.yaml").write_text("format: milanx-rules\nversion: 1\nrules: [{id: x}]\n")
    assert "rule 1 (x): it has no severity" in left_alone(
        "prune", RUN, "--rule", "x", "--rules", "own.yaml"
    )


# Labels that fit no class


def folder_of(root: Path, *classes: str) -> Path:
    for i in range(24):
        path = root / classes[i % len(classes)] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise(1, seed=i)[0].save(path)
    return root


def test_labels_that_fit_no_class_show_both_sides(work: Path) -> None:
    folder_of(work / "animals", "cat", "dog", "owl", "pig")
    (work / "classes.txt").write_text("red\ngreen\nblue\n")
    analyze = ("analyze", voters(work), "--images", "animals", "--out", "there")
    for command in (
        (*PRUNE[:4], "--images", "animals", "--out", "edited"),
        (*PRUNE, "--eval", "animals"),
        (*PRUNE, "--adversarial", "animals"),
        ("robustness", LIAR, "--eval", "animals", "--out", "found.json"),
        analyze,
    ):
        said = left_alone(*command)
        assert "the labels of animals fit no class of the model" in said
        assert "4 names ('cat', 'dog', 'owl', 'pig')" in said and "3 outputs" in said
        assert "--classes FILE" in said.partition("do:")[2]
    for command in (
        (*PRUNE[:4], "--images", "animals", "--out", "edited"),
        ("robustness", LIAR, "--eval", "animals", "--out", "found.json"),
        analyze,
    ):
        said = left_alone(*command, "--classes", "classes.txt")
        assert "the labels of animals fit no class of the model" in said
        assert "'cat', 'dog', 'owl', 'pig'; the model's are 'red', 'green', 'blue'" in said
    (work / "short.txt").write_text("red\ngreen\n")
    assert "2 classes are given for a model with 3 outputs" in left_alone(
        *PRUNE, "--classes", "short.txt"
    )


# A whole layer


@pytest.mark.parametrize("how", [
    ("--units", "conv"), ("--match", ".", "--regex"), ("--units", "conv", "--mode", "mean"),
    ("--units", "conv", "--dry-run"), ("--units", "*", "--out", "edited"),
])  # fmt: skip
def test_a_whole_layer_is_not_removed(how: tuple[str, ...], work: Path) -> None:
    said = left_alone("prune", RUN, "--images", "photos", *how)
    assert "this would remove the whole of conv" in said and "all of its 6 units" in said
    assert "--max-units" in said and "--exclude" in said


# Weights that changed since the run


MODEL = """
from safetensors.torch import load_file
from milanx.targets.zoo import load_target
from tests.act.liar import Liar

def build():
    model = Liar()
    model.load_state_dict(load_file("weights.safetensors"))
    return model
"""


def test_weights_that_changed_since_the_run(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(work))
    (work / "changing.py").write_text(MODEL)
    save_file(Liar().state_dict(), work / "weights.safetensors")
    make_run(work / "run", load_target("changing:build"))
    assert run("prune", "run", "--match", "text", "--images", "photos", "--out", "old")[0] == 0
    other = Liar()
    other.head.weight.data += 1
    save_file(other.state_dict(), work / "weights.safetensors")
    for command, what in (
        (("prune", "run", *PRUNE[2:]), "the run"),
        (("robustness", "old/edit.json", "--images", "photos"), "old/edit.json"),
    ):
        said = left_alone(*command)
        assert f"the weights of changing:build are not those of {what}" in said
        assert "fingerprint" in said and "--weights FILE" in said.partition("do:")[2]
    said = left_alone("analyze", "run", "--images", "photos", "--out", "there")
    assert "importance cannot be measured" in said
    assert "the weights of changing:build are not those of the run" in said
    assert "--weights FILE" in said.partition("do:")[2]


def test_edited_weights_that_were_changed_are_not_undone(work: Path) -> None:
    assert run(*PRUNE)[0] == 0
    weights = work / "edited" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    said = left_alone("edit", "undo", "edited", "--out", "back.safetensors")
    assert "model.safetensors is damaged" in said and "load the original weights" in said
    weights.unlink()
    assert "cannot be undone" in left_alone("edit", "undo", "edited")
    for name in ("edited/nothing", "photos"):
        assert f"no edit at {name}" in left_alone("edit", "show", name)


# Images to evaluate on that are not all there


def imagenet_c(root: Path, *severities: int) -> Path:
    rng = np.random.default_rng(0)
    for name in CORRUPTIONS:
        for severity in severities:
            for i in range(6):
                path = root / name / str(severity) / WNIDS[i % 3] / f"val_{i}.JPEG"
                path.parent.mkdir(parents=True, exist_ok=True)
                grey = np.full((224, 224, 3), rng.integers(40, 200), np.uint8)
                Image.fromarray(grey).save(path, "JPEG")
    return root


def with_wnids(work: Path) -> None:
    for number, wnid in enumerate(WNIDS):
        (work / "photos" / f"class{number}").rename(work / "photos" / wnid)
    (work / "wnids.txt").write_text("\n".join(WNIDS))


@pytest.mark.parametrize("command", [PRUNE, ("robustness", LIAR, "--out", "found.json")])
def test_imagenet_c_without_all_its_severities(command: tuple[str, ...], work: Path) -> None:
    with_wnids(work)
    imagenet_c(work / "released", 1, 3)
    asked = (*command, "--eval", "imagenet-c", "--classes", "wnids.txt")
    said = left_alone(*asked, "--eval-images", "released")
    assert "released lacks 45 of 75 folders of ImageNet-C" in said
    assert "there is no gaussian_noise/2, gaussian_noise/4" in said and "and 35 more" in said
    assert "unpack all of blur.tar" in said and "--severities" in said
    assert "lacks 75 of 75" in left_alone(*asked, "--eval-images", "photos")
    assert "lacks 75 of 75" in left_alone(*asked, "--eval-images", "nowhere")


def test_the_released_images_are_missed_before_anything_is_measured(work: Path) -> None:
    imagenet_c(work / "released", 1)
    (work / "others.txt").write_text("n02084071\nn02121808\nn01503061\n")
    of_others = ("--eval-images", "released", "--severities", "1", "--classes", "others.txt")
    for options, said in (
        (("imagenet-c", *of_others), "the labels of the released images fit no class"),
        (("imagenet-c", "--eval-images", "nowhere"), "nowhere lacks 75 of 75"),
        (("imagenet-c", "--severities", "0"), "severities are 1, 2, 3, 4 and 5"),
        (("imagenet-c", "--severities", "1,7"), "severities are 1, 2, 3, 4 and 5"),
        (("imagenet-c", "--severities", "x"), "whole numbers with commas"),
        (("cue-conflict",), "no images of cues in conflict"),
        (("cue-conflict", "--eval-images", "photos"), "do not hold the 16 categories"),
    ):
        code, _, error = run(*PRUNE, "--eval", *options)
        assert code == 2 and said in error, error
        assert "open images" not in error  # a stage, told when it is over


def test_the_released_images_that_are_there_are_measured(work: Path) -> None:
    with_wnids(work)
    imagenet_c(work / "released", 1, 3)
    code, out, error = run(
        *PRUNE, "--eval", "imagenet-c", "--eval-images", "released", "--severities", "1,3",
        "--classes", "wnids.txt", "--json",
    )  # fmt: skip
    assert code == 0, error
    table = json.loads(out)["robustness"]
    assert table["images"] == 6
    assert not any("made here" in note for note in table["notes"])


@pytest.mark.parametrize("options", [
    ("--eval", "nowhere"), ("--images", "nowhere"), ("--adversarial", "nowhere.parquet"),
])  # fmt: skip
def test_images_that_are_not_there(options: tuple[str, str], work: Path) -> None:
    said = left_alone(*PRUNE, *options)
    assert options[1] in said and "no such file" in said


# A disk that is full in the middle


def voters(work: Path) -> Path:
    """Make a run of a model whose units are described by hand, with its images."""
    images = colours(work / "colours.parquet")
    milanx.extract("tests.act.voter:voter", layers=["conv"], images=str(images),
                   out=work / "voters", device="cpu")  # fmt: skip
    write_texts(work / "voters", (["red faces", "texts"] + ["walls"] * UNITS)[:UNITS], "conv")
    return Path("voters")


def test_a_disk_that_is_full_when_the_edit_is_written(work: Path) -> None:
    """A model whose weights are larger than all else: they are what no longer fits."""
    make_run(work / "run", load_target("tests.act.liar:heavy"))
    command = ("prune", "run", *PRUNE[2:])
    with files_of_at_most(1_000_000):
        said = left_alone(*command)
    assert "cannot write edited" in said and "a file may not grow so large there" in said
    assert "another disk with --out" in said
    code, out, error = run(*command, "--json")
    assert code == 0, error
    before = contents(Path("edited"))
    with files_of_at_most(1_000_000):
        assert "cannot write edited" in left_alone(*command, "--overwrite")
    assert contents(Path("edited")) == before and json.loads(out)["count"] > 0


def test_a_curve_that_does_not_fit_loses_no_result(work: Path) -> None:
    make_run(work / "run", load_target("tests.act.liar:coarse"))
    with files_of_at_most(20_000):
        code, out, error = run("prune", "run", *PRUNE[2:], "--json")
    assert code == 2 and "cannot write edited/curve.png" in error
    assert json.loads(out)["count"] > 0
    assert {p.name for p in Path("edited").iterdir()} == {
        "edit.json", "prune.json", "model.safetensors", "original.safetensors"
    }  # fmt: skip
    assert run("edit", "show", "edited")[0] == 0


def test_a_disk_that_is_full_while_it_is_measured(work: Path, own_cache: Path) -> None:
    """What the tail of the network needs lies in the cache, which is not where --out points."""
    with files_of_at_most(20_000):
        said = left_alone(*PRUNE)
    assert f"cannot write {own_cache}" in said and "results.bin" in said
    assert "MILANX_CACHE" in said and "--out" not in said
    assert not list((own_cache / "tails").iterdir())


def test_a_disk_that_is_full_when_reports_are_written(work: Path) -> None:
    run_of = voters(work)
    for size, command in (
        (3_000, ("audit", run_of, "--ablate", "0", "--out", "report/audit")),
        (9_000, ("audit", run_of, "--ablate", "0", "--out", "report/audit")),
        (9_000, ("audit", run_of, "--ablate", "0")),
        (9_000, ("analyze", run_of, "--out", "report/analysis")),
        (9_000, ("analyze", run_of)),
        (100, ("edit", "undo", "edited", "--out", "back.safetensors")),
        (300, ("robustness", "tests.act.voter:voter", "--eval", "colours.parquet",
               "--out", "found.json")),
    ):  # fmt: skip
        if command[0] == "edit":
            assert run(*PRUNE)[0] == 0
        with files_of_at_most(size):
            said = left_alone(*command, *(("-q",) if command[0] != "edit" else ()))
        assert "cannot write" in said and ".tmp" not in said
        assert "a file may not grow so large there" in said
