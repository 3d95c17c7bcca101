"""The score of each description: against a plain version, and a reason wherever there is none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import pearsonr
from torch import nn

import milanx
from milanx.images.probe import open_images
from milanx.measures.folds import folds
from milanx.pipeline import extract
from milanx.runs import open_run
from milanx.scoring import column
from milanx.scoring import correlate as co
from milanx.scoring.column import Score, Scores, score_texts
from milanx.scoring.simulator import Simulator
from tests.helpers import PREPROCESS, Tiny, noise

COLOURS = ("red", "green", "blue")


class Colours(Simulator):
    """Sees the mean colour of a view, and knows three words for it."""

    name, shared, features_key, fingerprint = "colours", (), "colours", "colours"

    def features(self, views: torch.Tensor) -> torch.Tensor:
        return views.float().mean((2, 3)) / 255

    def project(self, features: torch.Tensor) -> torch.Tensor:
        return features - features.mean(1, keepdim=True)

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.eye(3)[[COLOURS.index(text) for text in texts]]


class Means(nn.Module):
    """Three units that see one colour each, one that sees nothing, and two more."""

    preprocess = PREPROCESS

    def __init__(self) -> None:
        super().__init__()
        self.units = nn.Conv2d(3, 6, 1)
        self.act = nn.ReLU()
        self.head = nn.Linear(6, 2)
        with torch.no_grad():
            self.units.weight.zero_()
            for unit, colour in enumerate([0, 1, 2, 0, 1]):
                others = [c for c in range(3) if c != colour]
                self.units.weight[unit, colour] = 1.0
                self.units.weight[unit, others] = -0.5
            self.units.bias.zero_()
            self.units.bias[:5] = 0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.act(self.units(x)).mean((2, 3)))


def tinted(count: int, seed: int = 0) -> list[Image.Image]:
    """Pictures of rough noise, each with a tint of its own."""
    rng = np.random.default_rng(seed)
    made = []
    for picture in noise(count, seed=seed):
        tint = rng.uniform(0.3, 1, 3)
        made.append(Image.fromarray((np.asarray(picture) * tint).astype(np.uint8)))
    return made


def folder(root: Path, pictures: list[Image.Image]) -> Path:
    root.mkdir()
    for number, picture in enumerate(pictures):
        picture.save(root / f"{number:04}.png")
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Exemplars of the six units over two sources, opened as describing has them."""
    root = tmp_path_factory.mktemp("column")
    specs = [folder(root / "a", tinted(200)), folder(root / "b", tinted(150, seed=1))]
    store = extract(Means(), layers="units", images=specs, out=root / "run", signs=("+", "-"))
    target = SimpleNamespace(name="means", preprocess=PREPROCESS)
    return SimpleNamespace(store=store, images=open_images(specs), target=target)


TEXTS = {
    ("units", 0, "+"): "red", ("units", 1, "+"): "green", ("units", 2, "+"): "blue",
    ("units", 3, "+"): "green", ("units", 4, "+"): "green", ("units", 5, "+"): "",
    ("units", 0, "-"): "red",
}  # fmt: skip


def test_a_score_is_the_correlation_with_what_a_plain_version_foretells(made: Any) -> None:
    found = score_texts(TEXTS, made.store, made.images, made.target, simulator=Colours(), seed=3)
    right, wrong = (found.units["units", unit, "+"] for unit in (0, 3))
    assert right.value is not None and wrong.value is not None
    assert right.value > 0.6 > 0 > wrong.value  # "green" for a unit that sees red
    table = made.store.image_table()
    aside = [row["index"] for row in table if row["split"] == "aside"]
    assert found.facts["images"] == found.facts["photos"] == len(aside)
    assert found.facts["sources"] == ["a", "b"]
    # The same, image by image, with the sigmoid that the other folds' units were given.
    judge, keys = Colours(), [("units", unit, "+") for unit in range(5)]
    rows = [row["index"] for row in table if row["split"] != "aside"]
    drawn = np.random.default_rng(3).permutation(len(rows))[: column.SEARCHED]
    searched = np.array(rows)[np.sort(drawn)]

    def seen(indices: Sequence[int]) -> np.ndarray:
        views = np.stack([PREPROCESS.view(made.images.read(int(i))) for i in indices])
        features = judge.features(torch.from_numpy(views).permute(0, 3, 1, 2)).half().float()
        return np.asarray(judge.texts([TEXTS[k] for k in keys]) @ judge.project(features).T)

    maxima = np.asarray(made.store.maxima("units"), np.float64)
    sigmoids = co.fit_sigmoids(seen(searched), maxima[searched, :5].T, folds(5, 3))
    sources = np.array([table[i]["source"] for i in aside])
    for unit, key in enumerate(keys):
        guess = sigmoids[folds(5, 3)[unit]](seen(aside)[unit])
        parts = [pearsonr(guess[sources == s], maxima[aside, unit][sources == s])[0]
                 for s in ("a", "b")]  # fmt: skip
        assert found.units[key].value == pytest.approx(np.mean(parts), abs=1e-4)


def test_intervals_draw_photographs_whole(made: Any) -> None:
    side = column.Images(np.arange(60), np.zeros(60, int), np.arange(60))
    crops = column.Images(np.arange(60), np.zeros(60, int), np.arange(60) // 6)
    rng = np.random.default_rng(0)
    photo = np.repeat(rng.normal(size=10), 6)
    guess, true = (photo + 0.1 * rng.normal(size=60) for _ in range(2))
    true += np.repeat(rng.normal(size=10), 6)
    alone, grouped = (column._intervals(guess[None], true[None], s, 0) for s in (side, crops))
    value = pearsonr(guess, true)[0]
    for values, low, high in (alone, grouped):
        assert values[0] == pytest.approx(value)
        assert low[0] < value < high[0]
    # Six crops of ten photos say little more than ten photos.
    assert grouped[2][0] - grouped[1][0] > 1.5 * (alone[2][0] - alone[1][0])


def test_where_there_is_no_score_the_table_says_why(made: Any) -> None:
    found = score_texts(TEXTS, made.store, made.images, made.target, simulator=Colours())
    low, silent = found.units["units", 0, "-"], found.units["units", 5, "+"]
    assert low.value is None and "low side" in low.reason
    assert silent == Score(reason="it has no description")
    for place in ("top of the image", "red areas on the left", "bright areas"):
        said = {**TEXTS, ("units", 0, "+"): place}
        found = score_texts(said, made.store, made.images, made.target, simulator=Colours())
        assert found.units["units", 0, "+"].value is None
        assert "a place in the view" in found.units["units", 0, "+"].reason
        assert found.units["units", 1, "+"].value is not None
    told = {**TEXTS, ("units", 5, "+"): "red"}  # a dead unit with a text gives one value everywhere
    found = score_texts(told, made.store, made.images, made.target, simulator=Colours())
    assert "one value" in found.units["units", 5, "+"].reason
    judge = Colours()
    judge.tower = "means"
    found = score_texts(TEXTS, made.store, made.images, made.target, simulator=judge)
    assert all("target itself" in score.reason for score in found.units.values())
    assert "target itself" in found.facts["reason"]


def test_few_photos_are_said_and_copies_are_no_photos(tmp_path: Path) -> None:
    pictures = tinted(60)
    images = folder(tmp_path / "photos", [picture for picture in pictures for _ in range(6)])
    store = extract(Means(), layers="units", images=images, out=tmp_path / "run")
    target = SimpleNamespace(name="means", preprocess=PREPROCESS)
    texts = {("units", 0, "+"): "red"}
    found = score_texts(texts, store, open_images([images]), target, simulator=Colours())
    assert found.units["units", 0, "+"].value is None
    assert "12 of 60 distinct photos" in found.units["units", 0, "+"].reason


def test_describe_fills_the_column_and_a_later_call_adds_it(tmp_path: Path) -> None:
    images = folder(tmp_path / "photos", noise(320))
    asked: dict[str, Any] = {"layers": "bn1", "units": "0-3", "images": images,
                             "out": tmp_path / "run", "method": "nearest"}  # fmt: skip
    without = milanx.describe(Tiny(), **asked, score=False)
    assert all(row["score"] is None for row in without.rows)
    assert all(row["score_reason"] == "--no-score was given" for row in without.rows)
    assert without.settings["score"] == {"reason": "--no-score was given"}
    run = milanx.describe(Tiny(), **asked)
    assert run.settings["score"]["photos"] >= column.MIN_PHOTOS
    for before, row in zip(without.rows, run.rows, strict=True):
        if row["status"] == "dead":
            continue
        low, high = row["score_interval"]
        assert -1 <= low <= row["score"] <= high <= 1
        assert row["score_reason"] is None
        changed = {name for name in row if row[name] != before[name]}
        assert changed <= {"score", "score_interval", "score_reason"}
    written = (tmp_path / "run" / "units.parquet").read_bytes()
    milanx.describe(Tiny(), **asked)
    milanx.describe(Tiny(), **asked, score=False)  # what is known is kept
    assert (tmp_path / "run" / "units.parquet").read_bytes() == written
    assert open_run(tmp_path / "run")["bn1", 0].score_interval is not None


def test_scores_without_a_reason_for_all() -> None:
    scores = Scores.none([("a", 0, "+")], "why")
    assert scores.units["a", 0, "+"] == Score(reason="why")
    assert scores.facts == {"reason": "why"}
