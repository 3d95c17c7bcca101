"""Robustness: against plain loops, the published layout, workers, kills, cues in conflict."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import milanx
from milanx import InputError
from milanx.act.ablate import Edit, ablate, read_places
from milanx.act.alexnet import ALEXNET_CLEAN, ALEXNET_ERRORS
from milanx.act.corruptions import (
    CORRUPTIONS,
    SEVERITIES,
    as_released,
    corrupt,
    generator_for,
    makers,
)
from milanx.act.data import EvalSet
from milanx.act.export import write_edit
from milanx.act.robustness import made
from milanx.act.robustness.cues import categories
from milanx.act.robustness.figures import CLEAN, corruption_figures
from milanx.act.robustness.measure import FORMAT, VERSION, Options, Piece, by_label, measure
from milanx.act.robustness.resampling import draw_means
from milanx.act.robustness.results import read_robustness
from milanx.act.robustness.subjects import as_subjects
from milanx.act.robustness.together import Together
from milanx.files import write_table
from milanx.images.preprocess import Preprocess
from milanx.progress import Silent
from milanx.targets.zoo import load_target
from tests.act.levels import CENTRES, NAMES, SIDE, Levels, pictures, without_noon, write_folder
from tests.act.models import Plain
from tests.act.test_tail import Shared
from tests.helpers import png

SOME = ("gaussian_noise", "fog", "brightness", "contrast")


class Lines(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def clean_set(count: int = 12, labelled: bool = True) -> EvalSet:
    made = pictures(count)
    labels = np.array([label for _, label in made]) if labelled else None
    groups = tuple(f"photo {i // 2}" for i in range(count))
    return EvalSet("pictures", lambda i: made[i][0], groups, labels)


def guess(view: np.ndarray, without: int | None = None) -> int:
    """What the planted model says, computed by hand."""
    far = [abs(view.mean() - c) if k != without else 999 for k, c in enumerate(CENTRES)]
    return int(np.argmin(far))


def key(view: np.ndarray) -> str:
    return hashlib.sha256(str(view.shape).encode() + view.tobytes()).hexdigest()[:32]


def test_errors_equal_a_plain_loop(tmp_path: Path) -> None:
    whole = Levels()
    models = {"whole": whole, "pruned": without_noon(whole)}
    found = milanx.evaluate_robustness(
        models, clean_set(), corruptions=SOME, severities=(1, 5), seed=4, keep=tmp_path
    )
    errors: dict[str, dict[str, list[float]]] = {m: {n: [] for n in SOME} for m in models}
    for name in SOME:
        for severity in (1, 5):
            wrong = {m: 0 for m in models}
            for view, label in pictures():
                draws = generator_for(4, key(view), name, severity)
                bad = corrupt(view, name, severity, draws)
                wrong["whole"] += guess(bad) != label
                wrong["pruned"] += guess(bad, without=3) != label
            for m in models:
                errors[m][name].append(100 * wrong[m] / 12)
    figures = found.figures["models"]
    assert found.figures["corruptions"] == list(SOME)
    for m in models:
        for name in SOME:
            assert figures[m]["errors"][name]["by_severity"] == pytest.approx(errors[m][name])
            ratio = 100 * sum(errors[m][name]) / sum(errors["whole"][name])
            assert figures[m]["normalised"][name] == pytest.approx(ratio)
    difference = found.figures["differences"]["pruned"]
    for name in SOME:
        expected = (sum(errors["pruned"][name]) - sum(errors["whole"][name])) / 2
        assert difference["errors"][name]["estimate"] == pytest.approx(expected)
    assert difference["mean"]["estimate"] != 0  # the edit is seen
    clean = {m: 100 * sum(guess(v, w) != y for v, y in pictures()) / 12
             for m, w in (("whole", None), ("pruned", 3))}  # fmt: skip
    assert figures["pruned"]["clean"]["estimate"] == pytest.approx(clean["pruned"])
    assert figures["whole"]["normalised_mean"]["estimate"] == pytest.approx(100)
    low, high = figures["pruned"]["mean"]["interval"]
    assert low < figures["pruned"]["mean"]["estimate"] < high
    assert not found.figures["mce"] and any("No mCE" in note for note in found.notes)
    assert not whole._forward_hooks  # the model came back as it was
    found.write(tmp_path / "found.json")
    assert read_robustness(tmp_path / "found.json") == found


def test_every_picture_is_made_once_for_all_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0

    def counted(*args: Any) -> np.ndarray:
        nonlocal count
        count += 1
        return corrupt(*args)

    monkeypatch.setattr(makers, "corrupt", counted)
    asked: Any = dict(corruptions=("contrast",), severities=(1, 2), keep=tmp_path)
    whole = Levels()
    models = {"whole": whole, "pruned": without_noon(whole)}
    both = milanx.evaluate_robustness(models, clean_set(), **asked)
    assert count == 2 * 12
    again = milanx.evaluate_robustness(models, clean_set(), **asked)
    assert count == 2 * 12 and again == both  # all of it was kept
    milanx.evaluate_robustness(models, clean_set(), seed=1, **asked)
    assert count == 4 * 12  # another seed makes other pictures


def test_workers_change_no_byte(tmp_path: Path) -> None:
    tables = []
    for workers in (1, 4):
        found = milanx.evaluate_robustness(
            {"whole": Levels()}, clean_set(6), severities=(3,), workers=workers, batch_size=4,
            keep=tmp_path / str(workers),
        )  # fmt: skip
        files = sorted((tmp_path / str(workers)).rglob("*.parquet"))
        assert len(files) == 1 + len(CORRUPTIONS)
        tables.append((found, [f.read_bytes() for f in files], [f.parent.name for f in files]))
    assert tables[0] == tables[1]
    images = clean_set(6)
    keys = made.view_keys(images, 3)
    turned = images.subset([5, 4, 3, 2, 1, 0])
    for name in CORRUPTIONS:
        one = made.corrupted(images, name, 4, keys)
        other = made.corrupted(turned, name, 4, keys[::-1])
        alone = torch.cat(list(one.batches(4, workers=1)))
        many = torch.cat(list(other.batches(6, workers=4)))
        assert torch.equal(alone, many.flip(0)), name
        assert not torch.equal(alone, torch.cat(list(images.batches(6)))), name


def test_processes_change_no_byte_and_may_end(tmp_path: Path) -> None:
    """Four processes, one of which is killed in the middle, make what this one makes."""
    Image.new("RGB", (40, 50), (90, 160, 220)).save(tmp_path / "ice.png")
    images = clean_set(6)
    keys = made.view_keys(images, 1)
    for frost in (None, tmp_path):
        with makers.Makers(1, frost) as here, makers.Makers(4, frost) as there:
            for number, name in enumerate(CORRUPTIONS):
                one, other = (torch.cat(list(
                    made.corrupted(images, name, 2, keys, 5, m).batches(4, workers=4)
                )) for m in (here, there))  # fmt: skip
                assert torch.equal(one, other), name
                processes = [w._process for w in there._workers if w._process]
                assert len(processes) == 4 and not here._workers
                if number == 1:
                    processes[0].kill()
        assert all(p.poll() is not None for p in processes)  # none is left behind


def test_processes_begin_where_nothing_of_the_caller_is_imported(tmp_path: Path) -> None:
    """A script without a guard that lies beside a file named as a library's."""
    (tmp_path / "numpy.py").write_text("raise SystemExit('the wrong numpy')")
    script = tmp_path / "script.py"
    script.write_text(
        "import sys; sys.path.pop(0)\n"
        "import numpy as np\n"
        "from milanx.act.corruptions.makers import Makers\n"
        "print('once')\n"
        "with Makers(2) as m:\n"
        "    m.make(np.zeros((8, 8, 3), np.uint8), 'fog', 1, 0, 'a')\n"
        "    print(m._workers[0]._process.poll(), m._workers[0]._ended)\n"
    )
    ran = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True)
    assert ran.stdout.split("\n") == ["once", "None False", ""], ran.stderr


def test_a_picture_that_cannot_be_corrupted_is_said_by_processes_too() -> None:
    small = np.zeros((7, 9, 3), np.uint8)
    with makers.Makers(2) as some, pytest.raises(InputError, match="7 x 9"):
        some.make(small, "fog", 1, 0, "a")


class Counted(nn.Module):
    """Counts its runs."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.runs = inner, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        return self.inner(x)


@pytest.mark.parametrize("layers", [["conv2"], ["fc1"], ["conv3", "head"]])
def test_an_edit_shares_the_first_part_of_its_model(layers: list[str]) -> None:
    model = Plain()
    model.conv1 = Counted(model.conv1)  # type: ignore[assignment]
    target = load_target(model)
    infos = read_places(target, layers)
    edits = [Edit(name, (0, 2)) for name in layers]
    edited = milanx.Subject(target, lambda: ablate(target, edits, infos), "e", (*infos.values(),))
    subjects = as_subjects({"whole": target, "edited": edited})
    together = Together(subjects)
    rng = np.random.default_rng(0)
    for number in range(3):
        views = torch.from_numpy(rng.integers(0, 256, (5, 3, 16, 16), np.uint8))
        expected = {name: subject.logits(views) for name, subject in subjects.items()}
        model.conv1.runs = 0
        found = together.logits(views, {"whole", "edited"})
        assert list(found) == ["whole", "edited"]
        assert all(torch.equal(found[name], expected[name]) for name in subjects)
        assert not torch.equal(found["whole"], found["edited"])
        assert number == 0 or model.conv1.runs == 1
    assert together.logits(views, {"edited"}).keys() == {"edited"}
    assert not any("forward" in m.__dict__ for m in model.modules())


def test_where_the_first_part_cannot_be_shared_the_whole_model_runs() -> None:
    target = load_target(Shared(True))
    infos = read_places(target, ["conv2"])
    edited = milanx.Subject(
        target, lambda: ablate(target, [Edit("conv2", (0,))], infos), "e", (*infos.values(),)
    )
    subjects = as_subjects({"whole": target, "edited": edited})
    together = Together(subjects)
    for seed in range(2):
        draws = np.random.default_rng(seed).integers(0, 256, (4, 3, 16, 16), np.uint8)
        found = together.logits(torch.from_numpy(draws), {"whole", "edited"})
        for name, subject in subjects.items():
            assert torch.equal(found[name], subject.logits(torch.from_numpy(draws)))


def test_a_killed_evaluation_goes_on(tmp_path: Path) -> None:
    folder, keep = write_folder(tmp_path / "images"), tmp_path / "keep"
    worker = [sys.executable, "-m", "tests.act.robustness_worker", str(folder), str(keep), "12"]
    done = subprocess.run(worker, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    kept = len(list(keep.rglob("*.parquet")))
    assert 0 < kept < 7  # clean, and three corruptions at two severities
    asked: Any = dict(corruptions=("contrast", "fog", "pixelate"), severities=(1, 5), classes=NAMES)
    lines = Lines()
    resumed = milanx.evaluate_robustness(
        {"whole": Levels()}, folder, keep=keep, progress=lines, **asked
    )
    order = ["clean", "fog", "fog", "contrast", "contrast", "pixelate", "pixelate"]
    told = [line.split()[0] for line in lines.lines if "images/s" in line]
    assert told == list(dict.fromkeys(order[kept:]))
    assert all("left" in line for line in lines.lines)
    fresh = milanx.evaluate_robustness({"whole": Levels()}, folder, keep=tmp_path / "new", **asked)
    assert resumed == fresh


def test_damaged_answers_are_measured_again(tmp_path: Path) -> None:
    asked: Any = dict(corruptions=("contrast",), severities=(1,), keep=tmp_path)
    first = milanx.evaluate_robustness({"whole": Levels()}, clean_set(), **asked)
    for path in tmp_path.rglob("*.parquet"):
        path.write_bytes(path.read_bytes()[:50])
    assert milanx.evaluate_robustness({"whole": Levels()}, clean_set(), **asked) == first


def test_images_without_labels_give_disagreement(tmp_path: Path) -> None:
    whole = Levels()
    found = milanx.evaluate_robustness(
        {"whole": whole, "pruned": without_noon(whole)}, clean_set(labelled=False),
        corruptions=("brightness",), severities=(1, 5), keep=tmp_path,
    )  # fmt: skip
    assert found.measure == "disagreement"
    assert found.figures["models"]["whole"]["clean"]["estimate"] == 0
    noon = sum(guess(view) == 3 for view, _ in pictures())
    assert noon > 0
    pruned = found.figures["models"]["pruned"]["clean"]["estimate"]
    assert pruned == pytest.approx(100 * noon / 12)


def test_a_sample_is_seeded(tmp_path: Path) -> None:
    def groups(seed: int) -> tuple[str, ...]:
        return made.sampled(clean_set(), 5, seed).groups

    assert groups(1) == groups(1) and len(groups(1)) == 5
    assert len({groups(seed) for seed in range(5)}) > 1
    with pytest.raises(InputError, match="0 images"):
        milanx.evaluate_robustness({"a": Levels()}, clean_set(), sample=0, keep=tmp_path)


# The published layout.

WNIDS = ("n01440764", "n01443537", "n01484850", "n01491361")


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ImageNet-C of five pictures; what the planted model sees in each is known."""
    root = tmp_path_factory.mktemp("imagenet-c")
    rng = np.random.default_rng(0)
    for name in CORRUPTIONS:
        for severity in SEVERITIES:
            for i in range(5):
                level = CENTRES[rng.integers(4)] + int(rng.integers(-15, 15))
                picture = as_released(np.full((224, 224, 3), level, np.uint8))
                path = root / name / str(severity) / WNIDS[i % 4] / f"val_{i}.JPEG"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(path, "JPEG", quality=85)
    for i in range(5):
        path = root.parent / "clean" / WNIDS[i % 4] / f"val_{i}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        level = CENTRES[i % 4 if i else 3]
        Image.fromarray(np.full((16, 20, 3), level, np.uint8)).save(path, "JPEG")
    return root


def test_the_published_layout_gives_mce(released: Path, tmp_path: Path) -> None:
    found = milanx.evaluate_robustness(
        {"whole": Levels()}, released.parent / "clean", released=released, classes=WNIDS,
        keep=tmp_path,
    )  # fmt: skip
    ratios, relative = [], []
    for name in CORRUPTIONS:
        errors = []
        for severity in SEVERITIES:
            files = sorted((released / name / str(severity)).rglob("*.JPEG"))
            wrong = 0
            for file in files:
                middle = np.asarray(Image.open(file))[104:120, 104:120]
                wrong += guess(middle) != WNIDS.index(file.parent.name)
            errors.append(100 * wrong / len(files))
        got = found.figures["models"]["whole"]["errors"][name]
        assert got["by_severity"] == pytest.approx(errors)
        ratios.append(100 * sum(errors) / sum(ALEXNET_ERRORS[name]))
        added = sum(errors) - 5 * 20.0  # one of five clean pictures is seen wrongly
        relative.append(100 * added / (sum(ALEXNET_ERRORS[name]) - 5 * ALEXNET_CLEAN))
    figures = found.figures["models"]["whole"]
    assert found.figures["mce"] and found.figures["normalised_by"] == "AlexNet"
    assert figures["clean"]["estimate"] == pytest.approx(20)
    assert figures["normalised_mean"]["estimate"] == pytest.approx(np.mean(ratios))
    assert figures["relative_mean"]["estimate"] == pytest.approx(np.mean(relative))
    low, high = figures["normalised_mean"]["interval"]
    assert low < np.mean(ratios) < high


def test_a_part_of_the_released_images_gives_no_mce(released: Path, tmp_path: Path) -> None:
    found = milanx.evaluate_robustness(
        {"whole": Levels()}, released=released, classes=WNIDS, keep=tmp_path, severities=(1, 2)
    )
    assert not found.figures["mce"] and found.figures["normalised_by"] == "whole"
    assert found.figures["models"]["whole"]["relative_mean"] is None
    assert any("needs the clean" in note for note in found.notes)


def test_missing_folders_and_odd_ones_are_named(released: Path, tmp_path: Path) -> None:
    def evaluate(root: Path, **more: Any) -> Any:
        return milanx.evaluate_robustness(
            {"whole": Levels()}, released=root, classes=WNIDS, keep=tmp_path / "keep", **more
        )

    root = tmp_path / "part"
    for name in CORRUPTIONS:
        for severity in SEVERITIES:
            if (name, severity) not in {("fog", 3), ("snow", 5)}:
                (root / "archive" / name).mkdir(parents=True, exist_ok=True)
                here = root / "archive" / name / str(severity)
                here.symlink_to(released / name / str(severity), target_is_directory=True)
    with pytest.raises(InputError, match="lacks 2 of 75") as error:
        evaluate(root)
    assert "snow/5, fog/3" in str(error.value)
    assert evaluate(root, corruptions=("contrast",)).images == 5  # a folder in between is fine
    with pytest.raises(InputError, match="lacks 75 of 75"):
        evaluate(tmp_path / "nowhere")
    small = root / "archive" / "fog" / "3" / WNIDS[0] / "a.JPEG"
    small.parent.mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(small)
    with pytest.raises(InputError, match="does not hold the images"):
        evaluate(root, corruptions=("fog",))
    with pytest.raises(InputError, match="64 x 64"):
        evaluate(root, corruptions=("fog",), severities=(3,))
    with pytest.raises(InputError, match="fit no class") as error:
        milanx.evaluate_robustness(
            {"whole": Levels()}, released=released, classes=("n1", "n2", "n3", "n4"), keep=tmp_path
        )
    assert WNIDS[0] in str(error.value) and "n1" in str(error.value)
    with pytest.raises(InputError, match="clean images"):
        milanx.evaluate_robustness(
            {"whole": Levels()}, tmp_path, released=released, classes=WNIDS, keep=tmp_path
        )


def test_alexnet_has_an_mce_of_100(tmp_path: Path) -> None:
    """AlexNet's own answers, as many as there are images, read, kept, taken up and summed."""
    count = 50_000
    labels = np.zeros(count, np.int64)
    read = by_label(labels)
    groups = tuple(map(str, range(count)))
    images = EvalSet("released", lambda i: np.zeros((8, 8, 3), np.uint8), groups, labels)
    subjects = as_subjects({"AlexNet the model": Levels()})
    cells = {(name, s): ALEXNET_ERRORS[name][s - 1] for name in CORRUPTIONS for s in SEVERITIES}
    pieces = []
    for (name, severity), percent in {CLEAN: ALEXNET_CLEAN, **cells}.items():
        wrong = round(percent * count / 100)
        logits = torch.tensor([[0.0, 1.0], [1.0, 0.0]])[(torch.arange(count) >= wrong).long()]
        pieces.append(Piece(name, severity, images, f"{name} {severity}"))
        path = tmp_path / pieces[-1].key / f"{subjects['AlexNet the model'].key}.parquet"
        write_table(path, pa.table(read(logits, range(count))), FORMAT, VERSION)
    answers = measure(subjects, pieces, read, tmp_path, Options(Silent()))
    found = corruption_figures(answers, groups, published=True, draws=20)["models"][
        "AlexNet the model"
    ]
    assert found["normalised_mean"]["estimate"] == pytest.approx(100, abs=1e-9)
    assert found["relative_mean"]["estimate"] == pytest.approx(100, abs=1e-9)
    low, high = found["normalised_mean"]["interval"]
    assert 99 < low < 100 < high < 101
    made_here = corruption_figures(answers, groups, published=False, draws=2)
    assert not made_here["mce"] and made_here["normalised_by"] == "AlexNet the model"


# Labelled images.


def test_a_labelled_folder_gives_top_1_by_class(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "images")
    whole = Levels()
    found = milanx.evaluate_robustness(
        {"whole": whole, "pruned": without_noon(whole)}, folder, kind="labelled", classes=NAMES,
        keep=tmp_path / "keep",
    )  # fmt: skip
    right = [guess(view) == label for view, label in pictures()]
    pruned = [guess(view, without=3) == label for view, label in pictures()]
    figures = found.figures["models"]
    assert figures["whole"]["top1"]["estimate"] == pytest.approx(100 * np.mean(right))
    difference = found.figures["differences"]["pruned"]["top1"]["estimate"]
    assert difference == pytest.approx(100 * (np.mean(pruned) - np.mean(right)))
    for row in figures["whole"]["classes"]:
        here = [r for r, (_, y) in zip(right, pictures(), strict=True) if NAMES[y] == row["name"]]
        assert row["images"] == len(here)
        assert row["top1"]["estimate"] == pytest.approx(100 * np.mean(here))
    with pytest.raises(InputError, match="fit no class") as error:
        milanx.evaluate_robustness(whole, folder, kind="labelled", classes=("a", "b", "c", "d"))
    assert "'dusk'" in str(error.value) and "'a'" in str(error.value)


def test_ranks_of_labels() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0], [1.0, 1.0, 1.0], [0.0, 5.0, float("nan")]])
    for labels, ranks in (([0, 0, 1], [0, 0, 3]), ([2, 2, 2], [2, 2, 3]), ([1, 1, 0], [1, 1, 3])):
        read = by_label(np.array(labels))
        assert read(logits, range(3))["rank"].tolist() == ranks


def test_images_of_a_group_are_drawn_together() -> None:
    columns = np.array([[0.0], [0.0], [100.0], [100.0]])
    together = draw_means(columns, ["a", "a", "b", "b"], draws=300)
    apart = draw_means(columns, ["a", "b", "c", "d"], draws=300)
    assert set(together[:, 0]) == {0, 50, 100}
    assert set(apart[:, 0]) == {0, 25, 50, 75, 100}
    weighted = draw_means(columns[:3], ["a", "a", "b"], draws=300)
    assert np.allclose(sorted(set(weighted[:, 0].round(9))), [0, 100 / 3, 100])


# Cues in conflict.


class Coded(nn.Module):
    """Says the first class of the category whose number the first pixel holds."""

    preprocess = Preprocess((SIDE, SIDE), None, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    def __init__(self, wnids: list[str]) -> None:
        super().__init__()
        first = [wnids.index(ids[0]) for ids in categories().values()]
        self.register_buffer("first", torch.tensor(first))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        said = (x[:, 0, 0, 0] * 255).round().long()
        logits = torch.zeros(len(x), 1000)
        logits[torch.arange(len(x)), self.first[said]] = 20.0
        return logits


@contextmanager
def towards_knives(model: nn.Module, knife: int, dogs: list[int]) -> Iterator[None]:
    """All that is sure: a dog of any breed, and beside it a knife."""
    logits = torch.full((1000,), -20.0)
    logits[dogs] = 0.0
    logits[knife] = 1.0  # less than the sum of all dogs, more than their mean
    handle = model.register_forward_hook(lambda m, i, out: logits.expand(len(out), -1))
    try:
        yield
    finally:
        handle.remove()


def imagenet_wnids() -> list[str]:
    from timm.data import ImageNetInfo

    return list(ImageNetInfo("imagenet-1k").label_names())


# shape, texture, what the model is made to say
CASES = (("airplane", "bicycle", "airplane"), ("airplane", "clock", "clock"),
         ("bear", "oven", "bear"), ("cat", "knife", "truck"), ("dog", "dog", "dog"),
         ("knife", "dog", "knife"))  # fmt: skip


def conflicts() -> list[tuple[str, bytes]]:
    names = list(categories())
    made = []
    for i, (shape, texture, said) in enumerate(CASES):
        picture = np.full((SIDE, SIDE, 3), 7 * i, np.uint8)
        picture[0, 0, 0] = names.index(said)
        made.append((f"{shape}{i + 1}-{texture}2.png", png(Image.fromarray(picture))))
    return made


@pytest.mark.parametrize("layout", ["folders", "parquet"])
def test_shape_bias(tmp_path: Path, layout: str) -> None:
    source = tmp_path / "cues"
    if layout == "folders":
        for (name, content), (shape, _, _) in zip(conflicts(), CASES, strict=True):
            (source / shape).mkdir(parents=True, exist_ok=True)
            (source / shape / name).write_bytes(content)
    else:
        source = tmp_path / "cues.parquet"
        rows = [{"image": {"bytes": c, "path": n}, "shape": s, "texture": t, "group": s}
                for (n, c), (s, t, _) in zip(conflicts(), CASES, strict=True)]  # fmt: skip
        pq.write_table(pa.Table.from_pylist(rows), source)
    wnids = imagenet_wnids()
    model = Coded(wnids)
    target = load_target(model)
    dogs = [wnids.index(w) for w in categories()["dog"]]
    knife = wnids.index(categories()["knife"][0])
    edited = milanx.Subject(target, lambda: towards_knives(model, knife, dogs), "knives")
    found = milanx.evaluate_robustness(
        {"whole": target, "knives": edited}, source, kind="cue-conflict", keep=tmp_path / "keep"
    )
    whole = found.figures["models"]["whole"]
    assert found.images == 5  # the dog with a dog's texture is left out, and it is said
    assert any("one category: 1" in note for note in found.notes)
    assert whole["shape"]["estimate"] == pytest.approx(60)
    assert whole["texture"]["estimate"] == pytest.approx(20)
    assert whole["neither"]["estimate"] == pytest.approx(20)
    assert whole["shape_bias"]["estimate"] == pytest.approx(75)
    assert whole["by_category"]["airplane"] == {"images": 2, "shape": 1, "texture": 1}
    assert whole["by_category"]["dog"]["images"] == 0
    # Probabilities are averaged over a category's classes, not added: 109 dogs are no knife.
    knives = found.figures["models"]["knives"]
    assert knives["shape"]["estimate"] == pytest.approx(20)
    assert knives["texture"]["estimate"] == pytest.approx(20)
    change = found.figures["differences"]["knives"]["shape_bias"]
    assert change["estimate"] == pytest.approx(50 - 75)


def test_categories_are_the_published_classes() -> None:
    wnids = imagenet_wnids()
    places = {name: [wnids.index(w) for w in ids] for name, ids in categories().items()}
    assert list(places) == sorted(places) and len(places) == 16
    assert {n: len(p) for n, p in places.items()} == {
        "airplane": 1, "bear": 4, "bicycle": 2, "bird": 49, "boat": 5, "bottle": 7, "car": 3,
        "cat": 6, "chair": 4, "clock": 3, "dog": 109, "elephant": 2, "keyboard": 2, "knife": 1,
        "oven": 1, "truck": 8,
    }  # fmt: skip
    assert places["truck"] == [555, 569, 656, 675, 717, 734, 864, 867]
    assert places["boat"] == [472, 554, 625, 814, 914]
    assert places["bear"] == [294, 295, 296, 297]


def test_odd_cues_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "zebra1-cat2.png")
    model = Coded(imagenet_wnids())
    with pytest.raises(InputError, match=r"zebra1-cat2\.png"):
        milanx.evaluate_robustness(model, tmp_path, kind="cue-conflict")
    with pytest.raises(InputError, match="16 categories"):
        milanx.evaluate_robustness(Levels(), tmp_path, kind="cue-conflict")


# What is asked, and the commands.


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        ({"kind": "imagenet-d"}, "imagenet-d"),
        ({"corruptions": ("fogg",)}, "fogg"),
        ({"severities": (0, 1)}, "severities"),
        ({"severities": ()}, "severities"),
        ({"classes": ("a", "b")}, "2 classes"),
    ],
)
def test_bad_questions_are_refused(asked: dict[str, Any], what: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "images", 4)
    with pytest.raises(InputError, match=what):
        milanx.evaluate_robustness(Levels(), folder, **{"classes": NAMES, **asked})


def test_models_that_see_differently_are_refused(tmp_path: Path) -> None:
    images = dataclasses.replace(clean_set(), labels=np.arange(12))
    with pytest.raises(InputError, match="from 0 to 11; there are 4"):
        milanx.evaluate_robustness(Levels(), images, keep=tmp_path)
    wider = Levels()
    wider.centres = nn.Parameter(torch.arange(5) / 5)
    with pytest.raises(InputError, match="a has 4 outputs, b has 5"):
        milanx.evaluate_robustness({"a": Levels(), "b": wider}, clean_set(), keep=tmp_path)
    other = Levels()
    other.preprocess = Preprocess((SIDE, SIDE), SIDE)  # type: ignore[assignment]
    with pytest.raises(InputError, match="see images differently"):
        milanx.evaluate_robustness({"a": Levels(), "b": other}, clean_set())


def test_an_edit_json_is_compared_with_its_model(tmp_path: Path) -> None:
    from milanx.cli import app

    target = load_target("tests.act.models:plain")
    views = torch.from_numpy(np.stack([view for view, _ in pictures()])).permute(0, 3, 1, 2)
    labels = torch.tensor([label for _, label in pictures()])
    with torch.no_grad():
        said = int(target.model(target.inputs(views)).argmax(1).mode().values)
    shares = labels.bincount(minlength=5)
    other = next(k for k in range(4) if shares[k] != shares[said])
    edits = [Edit("head", (other,), "mean", values=(99.0,))]  # from now on it says nothing else
    path = write_edit(tmp_path / "edit", target, edits, read_places(target, ["head"]))
    folder = write_folder(tmp_path / "images", 12)
    command = ["robustness", str(path), "--images", str(folder), "--corruption", "contrast"]
    names = tmp_path / "classes.txt"
    names.write_text("\n".join([*NAMES, "never"]))
    out = tmp_path / "found.json"
    shown = CliRunner().invoke(app, [*command, "--classes", str(names), "--out", str(out)])
    assert shown.exit_code == 0, shown.output
    found = read_robustness(out)
    assert found.models == ("tests.act.models:plain", str(path))
    edited = milanx.load_edited(path)
    for name, model in zip(found.models, (target.model, edited), strict=True):
        with torch.no_grad():
            wrong = (model(target.inputs(views)).argmax(1) != labels).double().mean()
        clean = found.figures["models"][name]["clean"]["estimate"]
        assert clean == pytest.approx(100 * float(wrong))
    assert found.figures["differences"][str(path)]["clean"]["estimate"] != 0


def test_the_command(tmp_path: Path) -> None:
    from milanx.cli import app

    folder = write_folder(tmp_path / "images", 6)
    names = tmp_path / "classes.txt"
    names.write_text("\n".join(NAMES))
    command = ["robustness", "tests.act.levels:levels", "--classes", str(names)]
    made = ["--images", str(folder), "--corruption", "contrast", "--severities", "1,5"]
    out = tmp_path / "found.json"
    shown = CliRunner().invoke(app, [*command, *made, "--out", str(out)])
    assert shown.exit_code == 0, shown.output
    assert "contrast" in shown.output and "No mCE" in shown.output
    as_json = CliRunner().invoke(app, [*command, *made, "--json"])
    assert json.loads(as_json.stdout) == json.loads(json.dumps(read_robustness(out).to_dict()))
    tops = CliRunner().invoke(app, [*command, "--eval", str(folder), "-q"])
    assert "top-1" in tops.output and "dusk" in tops.output
    wrong = CliRunner().invoke(app, [*command, *made, "--severities", "one"])
    assert wrong.exit_code == 2


def test_the_bench_of_corruptions() -> None:
    from milanx.cli import app

    command = ["bench", "corrupt", "--count", "1", "--workers", "1,2", "--json"]
    found = json.loads(CliRunner().invoke(app, command).stdout)
    assert found["pictures"] == 75 and set(found["types"]) == set(CORRUPTIONS)
    assert sum(row["share"] for row in found["types"].values()) == pytest.approx(1)
    total = sum(row["seconds"] for row in found["types"].values())
    assert total == pytest.approx(found["workers"]["1"]["seconds"])
    two = found["workers"]["2"]
    assert two["speedup"] == pytest.approx(total / two["seconds"])
    assert two["pictures_per_s"] == pytest.approx(75 / two["seconds"])
    wrong = CliRunner().invoke(app, ["bench", "corrupt", "--workers", "0"])
    assert wrong.exit_code == 2


def test_the_bench_of_a_curve() -> None:
    from milanx.cli import app

    command = ["bench", "act", "test_resnet", "-l", "layer4", "--units", "10", "--images", "8"]
    (row,) = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert (row["layer"], row["points"], row["images"]) == ("layer4", 10, 8)
    through = row["first pass s"] + 10 * row["tail s"]
    assert row["ratio"] == pytest.approx(10 * row["whole s"] / through)
    assert row["MiB"] > 0 and row["note"] == ""
    shown = CliRunner().invoke(app, command)
    assert "layer4" in shown.output and "ratio" in shown.output
    unnamed = CliRunner().invoke(app, ["bench", "act", "test_resnet"])
    assert unnamed.exit_code == 2 and "no layer" in unnamed.output
