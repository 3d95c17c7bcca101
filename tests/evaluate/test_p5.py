"""P5: each measure against a library's, labels made worse as stated, and who passes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import pearsonr
from sklearn import metrics as sk
from torch import nn

from milanx.errors import InputError
from milanx.evaluate.common.names import accepted_names
from milanx.evaluate.p5 import known, protocol, worse
from milanx.evaluate.p5.measures import FLOOR, MEASURES, SCORE, Concept, Excited
from milanx.evaluate.protocols import Asked, run_protocols
from milanx.exemplars.request import ExtractSettings
from milanx.pipeline import extract
from milanx.report.metrics import markdown
from milanx.runs import Run, open_run
from milanx.scoring.simulator import Simulator
from tests.cli.commands import refused
from tests.cli.commands import run as command
from tests.helpers import PREPROCESS, write_parquet

N, D = 120, 7
CLASSES = ["n01440764", "n01443537", "n01484850"]  # logits 0 to 2


def unit_and_concept(seed: int = 0, labels_alone: bool = False) -> tuple[Excited, Concept]:
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 1, N).round(1)  # with ties
    unit = Excited.most(values, 20, np.repeat([0, 1], [70, 50]))
    signal = np.clip(rng.uniform(0, 1, (D, N)) + 0.2 * values, 0, 1).round(2)
    if labels_alone:
        signal = (signal >= 0.8).astype(float)
    return unit, Concept(signal, signal >= 0.8)


def plain_wpmi(unit: Excited, signal: np.ndarray, lam: float) -> float:
    given = [np.log(max(signal[i], FLOOR)) for i in range(N) if unit.active[i]]
    return float(sum(given) / len(given) - lam * np.log(signal.mean()))


def within(unit: Excited, signal: np.ndarray) -> float:
    sides = [unit.sources == s for s in (0, 1)]
    return float(np.mean([pearsonr(signal[s], unit.activations[s])[0] for s in sides]))


PLAIN = {
    SCORE: lambda u, s, b: within(u, s),
    "correlation": lambda u, s, b: pearsonr(s, u.activations)[0],
    "IoU": lambda u, s, b: sk.jaccard_score(u.active, b),
    "F1": lambda u, s, b: sk.f1_score(u.active, b),
    "average precision": lambda u, s, b: sk.average_precision_score(u.active, s),
    "AUROC": lambda u, s, b: sk.roc_auc_score(u.active, s),
    "AUROC, activation ranks labels": lambda u, s, b: sk.roc_auc_score(b, u.activations),
    "balanced accuracy": lambda u, s, b: sk.balanced_accuracy_score(u.active, b),
    "accuracy": lambda u, s, b: sk.accuracy_score(u.active, b),
    "recall": lambda u, s, b: sk.recall_score(u.active, b),
    "precision": lambda u, s, b: sk.precision_score(u.active, b),
    "WPMI, lambda 1": lambda u, s, b: plain_wpmi(u, s, 1.0),
    "WPMI, lambda 0.2": lambda u, s, b: plain_wpmi(u, s, 0.2),
}


@pytest.mark.parametrize("name", list(MEASURES))
@pytest.mark.parametrize("labels_alone", [False, True])
def test_measures_of_many_versions_are_those_of_each(name: str, labels_alone: bool) -> None:
    unit, concept = unit_and_concept(labels_alone=labels_alone)
    found = MEASURES[name](unit, concept)
    assert found == pytest.approx([PLAIN[name](unit, s, b) for s, b in
                                   zip(concept.signal, concept.labels, strict=True)])  # fmt: skip


def test_a_concept_that_is_nowhere_explains_nothing() -> None:
    unit, _ = unit_and_concept()
    nowhere = Concept(np.zeros((1, N)), np.zeros((1, N), bool))
    for name in ("precision", "recall", "F1", "IoU", "correlation", SCORE):
        assert MEASURES[name](unit, nowhere) == 0
    assert MEASURES["AUROC, activation ranks labels"](unit, nowhere) == 0.5


def test_labels_are_made_worse_as_stated() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(50) < 11
    missing, extra = worse.missing_labels(labels, 40, rng), worse.extra_labels(labels, 40, rng)
    assert (missing.sum(1) == 5).all()
    assert not missing[:, 11:].any()
    assert (extra.sum(1) == 22).all()
    assert extra[:, :11].all()
    assert len(np.unique(missing, axis=0)) > 30
    assert missing.mean(0)[:11] == pytest.approx(np.full(11, 5 / 11), abs=0.25)
    assert (worse.extra_labels(np.arange(10) < 8, 3, rng).sum(1) == 10).all()
    assert (worse.shuffled(labels, 40, rng).sum(1) == 11).all()


def test_signals_are_made_worse_as_stated() -> None:
    rng = np.random.default_rng(0)
    signal = rng.permutation(np.arange(40.0))
    missing, extra = worse.missing_signal(signal, 9, rng), worse.extra_signal(signal, 9, rng)
    low, high = signal < 20, signal >= 20
    assert (missing[:, low] == signal[low]).all()
    assert (missing < 20).all()
    assert (extra[:, high] == signal[high]).all()
    assert (extra >= 20).all()
    assert len(np.unique(missing, axis=0)) == 9


def ideal(frequency: float, images: int = 4000) -> known.Case:
    """A unit that does just what its concept says."""
    labels = np.random.default_rng(1).permutation(images) < round(frequency * images)
    unit = Excited.most(labels.astype(float), int(labels.sum()), np.zeros(images, int))
    return known.Case(unit, labels.astype(float))


@pytest.mark.parametrize("f", [0.1, 0.01])
def test_an_ideal_unit_loses_what_arithmetic_says(f: float) -> None:
    found = protocol.check([ideal(f)], worse.LABELS, np.random.default_rng(0))
    expected = {  # with labels as they are, with half of them missing, with as many extra
        "IoU": (1, 1 / 2, 1 / 2),
        "F1": (1, 2 / 3, 2 / 3),
        "recall": (1, 1 / 2, 1),
        "precision": (1, 1, 1 / 2),
        "accuracy": (1, 1 - f / 2, 1 - f),
        "balanced accuracy": (1, 3 / 4, 1 - f / (1 - f) / 2),
        "AUROC": (1, 3 / 4, 1 - f / (1 - f) / 2),
        "AUROC, activation ranks labels": (1, 1 - f / 4 / (1 - f / 2), 3 / 4),
        "correlation": (1, np.sqrt((1 - f) / 2 / (1 - f / 2)), np.sqrt((1 - 2 * f) / 2 / (1 - f))),
        "average precision": (1, 0.5 + 0.5 * f, 0.5),
        "WPMI, lambda 1": (-np.log(f), np.log(FLOOR) / 2 - np.log(f / 2), -np.log(2 * f)),
    }
    for name, values in expected.items():
        got = found[name]
        made = (got.true[0], got.worse["missing"][0], got.worse["extra"][0])
        assert made == pytest.approx(values, rel=0.03), name


def test_who_passes() -> None:
    """As in Oikarinen et al.: recall takes any extra label, precision any missing one."""
    rng = np.random.default_rng(0)
    for frequency in protocol.FREQUENCIES:
        cases = list(known.planted(frequency, 30, 5000, rng))
        found = protocol.check(cases, worse.LABELS, rng)
        for name in (SCORE, "correlation", "IoU", "F1", "average precision"):
            for test in protocol.TESTS:
                cell = found[name].cell(test)
                assert cell["estimate"] == 1, (name, test)
                assert cell["fall"] > 0.2, (name, test)
        assert found["recall"].cell("extra")["estimate"] == 0
        assert found["recall"].cell("missing")["estimate"] == 1
        assert found["precision"].cell("missing")["estimate"] < 0.9
        assert found["precision"].cell("extra")["estimate"] == 1
    rare = found  # of the last frequency, 1 %
    assert 0 < rare["balanced accuracy"].cell("extra")["fall"] < 0.02
    assert 0 < rare["AUROC, activation ranks labels"].cell("missing")["fall"] < 0.02


def test_a_fall_of_less_than_a_thousandth_of_the_range_is_none() -> None:
    true = np.array([0.5, 0.5, 0.5])
    lost = {"missing": true - [0.0009, 0.0011, -0.1], "extra": true}
    found = protocol.Found(true, true - 0.4, lost, 1.0)
    cell = found.cell("missing")
    assert cell["estimate"] == pytest.approx(1 / 3)
    assert cell["interval"] == pytest.approx([0.0615, 0.7923], abs=1e-3)
    assert cell["fall"] == pytest.approx((0.0009 + 0.0011 - 0.1) / 3 / 0.4)
    assert protocol.Found(true, true, lost, 1.0).cell("missing")["fall"] is None


def test_built_units_are_as_impure_as_stated() -> None:
    rng = np.random.default_rng(0)
    for case in known.planted(0.1, 40, 1000, rng):
        shows, excited = case.signal >= 0.5, case.unit.activations >= 0.5
        assert shows.sum() == 100
        assert case.unit.active.sum() == 100
        assert 0.69 <= excited[shows].mean() <= 1
        assert 0.69 <= shows[excited].mean() <= 1
        assert case.unit.activations[~excited].max() <= known.BACKGROUND


class Colours(Simulator):
    """Sees the mean colour of a view, and knows of three fishes which colour they have."""

    name, shared, features_key, fingerprint = "colours", (), "colours", "colours"

    def features(self, views: torch.Tensor) -> torch.Tensor:
        return views.float().mean((2, 3)) / 255

    def project(self, features: torch.Tensor) -> torch.Tensor:
        return features - features.mean(1, keepdim=True)

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        fishes = [accepted_names()[wnid][0] for wnid in CLASSES]
        return torch.eye(3)[[fishes.index(text) for text in texts]]


class Fishes(nn.Module):
    """Three logits, the first ones of ImageNet: how red, green or blue a picture is."""

    preprocess = PREPROCESS

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3, bias=False)
        self.head.weight.data = 1.5 * torch.eye(3) - 0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.mean((2, 3)))


def fishes() -> nn.Module:
    return Fishes()


def tinted(wnids: list[str]) -> list[Image.Image]:
    """Noise with more of the class's own colour."""
    rng = np.random.default_rng(0)
    made = []
    for wnid in wnids:
        small = rng.integers(0, 256, (6, 6, 3)).astype(float) * rng.uniform(0.4, 0.6, 3)
        small[..., CLASSES.index(wnid)] += 90
        picture = Image.fromarray(small.clip(0, 255).astype(np.uint8))
        made.append(picture.resize((40, 48), Image.Resampling.BICUBIC))
    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Logits over 720 pictures, most of them kept aside; the third class is rare."""
    folder = tmp_path_factory.mktemp("run")
    wnids = [CLASSES[0 if i % 10 == 0 else 2 if i % 60 == 1 else 1] for i in range(720)]
    photos = write_parquet(folder / "photos.parquet", tinted(wnids), wnid=wnids)
    extract("tests.evaluate.test_p5:fishes", layers=["head"], images=str(photos),
            out=folder / "run", settings=ExtractSettings(aside=0.85))  # fmt: skip
    return open_run(folder / "run")


def test_logits_are_those_with_enough_images(run: Run) -> None:
    logits = known.known_logits(run)
    assert logits.columns == (("head", 0), ("head", 1))
    assert [s.sum() >= known.POSITIVES for s in logits.shows] == [True, True]
    aside = {r["index"]: r["wnid"] for r in run.store.image_table() if r["split"] == "aside"}
    for unit, shows in enumerate(logits.shows):
        assert [aside[i] == CLASSES[unit] for i in logits.indices] == shows.tolist()
    maxima = run.store.maxima("head")
    assert logits.activations == pytest.approx(maxima[logits.indices, :2].T)
    cases = list(known.labelled(logits, 0.1, np.random.default_rng(0)))
    (case,) = cases  # too few images are not of the other's class
    assert case.signal.mean() == pytest.approx(0.1, abs=0.01)
    assert case.signal.sum() == case.unit.active.sum() >= known.POSITIVES
    assert not list(known.labelled(logits, 0.001, np.random.default_rng(0)))


def test_from_a_run_to_a_report(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "BUILT", 4)
    monkeypatch.setattr(protocol, "FREQUENCIES", (0.1,))
    monkeypatch.setattr(protocol, "BESIDE", 0.02)
    report = protocol.evaluate(run, simulator=Colours())
    assert set(report["rows"]) == {f"{k}: {m}" for k in ("logits", "planted") for m in MEASURES}
    assert report["units"] == {"logits, 10 %": 1, "logits, signal": 2, "planted, 10 %": 4,
                               "planted, 2 %": 4, "planted, signal": 4}  # fmt: skip
    ours = report["rows"][f"logits: {SCORE}"]
    assert ours["passed"]
    assert ours["signal extra"]["fall"] > 0.05
    assert report["rows"]["logits: recall"]["failed"] == ["10 % extra", "signal extra"]
    assert report["notes"] == []
    again = protocol.evaluate(run, simulator=Colours())
    assert again["rows"] == report["rows"]
    text = markdown(report)
    assert "| recall |" in text
    assert len({line.count("|") for line in text.splitlines() if line.startswith("| IoU")}) == 2


def test_the_command(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(protocol, "BUILT", 3)
    monkeypatch.setattr(known, "POSITIVES", 10_000)
    monkeypatch.setattr(protocol, "FREQUENCIES", (0.1,))
    monkeypatch.setattr(protocol, "BESIDE", 0.1)
    monkeypatch.setattr(protocol, "IMAGES", 500)
    code, out, _ = command("evaluate", run.root, "--check-metrics", "--json")
    assert code == 0
    (report,) = json.loads(out)
    assert not any(row.startswith("logits") for row in report["rows"])
    (note,) = report["notes"]
    assert "no logit's class is that of 10000 images kept aside" in note
    kept = json.loads((run.root / "evaluation-p5.json").read_text())
    assert kept["rows"] == report["rows"]
    code, out, _ = command("evaluate", run.root, "--protocol", "p5", "-q")
    assert code == 0
    assert "balanced accuracy" in out
    assert "no logit" in out


def test_what_cannot_be_checked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="p5 has no table of methods"):
        Asked(run.root, ("p5",), methods=("all",))
    monkeypatch.setattr(Colours, "tower", run.target, raising=False)
    with pytest.raises(InputError, match="cannot simulate"):
        protocol.evaluate(run, simulator=Colours())
    assert "the share kept aside cannot be 1.0" in refused(
        "exemplars", "tests.helpers:tiny", "-l", "bn1", "--aside", "1")  # fmt: skip


def test_the_builtin_images_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "run"
    extract("tests.helpers:tiny", layers=["head"], images="builtin:probe", limit=12, out=out)
    with pytest.raises(InputError, match="no protocol is run on the built-in images"):
        run_protocols(Asked(out, ("p5",)))
