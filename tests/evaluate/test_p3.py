"""P3: every figure against its plain version; planted texts; the way from photos to a report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import roc_auc_score
from torch import nn

import milanx
from milanx.describing.describer import Description
from milanx.errors import FormatError, InputError
from milanx.evaluate.p3 import resampling as rs
from milanx.evaluate.p3.aside import read_probe, run_features
from milanx.evaluate.p3.simulate import LayerScores
from milanx.evaluate.protocols import Asked, run_protocols
from milanx.files import read_json
from milanx.pipeline import extract
from milanx.runs import write_units
from milanx.scoring import correlate as co
from milanx.scoring.simulator import Simulator, Where
from milanx.train.recipe import Data, EncoderSettings, PhotoData, Recipe
from milanx.train.stages.simulator import simulator_spec, train_simulator
from tests.helpers import PREPROCESS, write_parquet

ORIGIN = np.repeat([0, 1], [70, 50])  # the source of each image


def planted(units: int = 24, seed: int = 0, strength: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Activations [u, 120] that follow similarities [u, 120], with sources apart in both."""
    rng = np.random.default_rng(seed)
    similarity = rng.normal(0, 0.05, (units, 120)) + 0.2 * ORIGIN
    noise = rng.normal(0, 0.05, similarity.shape)
    return similarity, np.exp(20 * (strength * similarity + noise))


def by_source(measure, first: np.ndarray, second: np.ndarray) -> list[float]:
    return [
        float(np.mean([measure(a[s == ORIGIN], b[s == ORIGIN]) for s in (0, 1)]))
        for a, b in zip(first, second, strict=True)
    ]


def test_correlations_are_within_source() -> None:
    similarity, activations = planted()
    found = co.correlations(similarity, activations, ORIGIN)
    assert found == pytest.approx(
        by_source(lambda a, b: pearsonr(a, b)[0], similarity, activations)
    )
    sources_alone = np.tile(ORIGIN.astype(float), (24, 1))
    assert co.correlations(sources_alone, activations, ORIGIN) == pytest.approx(np.zeros(24))
    pooled = co.correlations(sources_alone, activations, np.zeros_like(ORIGIN))
    assert pooled.min() > 0.2


def test_spearman_and_auroc() -> None:
    similarity, activations = planted()
    activations = np.maximum(activations, 2)  # ties, as rectifiers make them
    ranks = co.correlations(rs.ranked(similarity, ORIGIN), rs.ranked(activations, ORIGIN), ORIGIN)
    assert ranks == pytest.approx(
        by_source(lambda a, b: spearmanr(a, b)[0], similarity, activations)
    )

    def area(guess: np.ndarray, true: np.ndarray) -> float:
        count = round(0.05 * len(true))
        marked = true > np.sort(true)[::-1][count]
        return float(roc_auc_score(marked, guess))

    assert rs.aurocs(similarity, activations, ORIGIN) == pytest.approx(
        by_source(area, similarity, activations), abs=1e-6
    )


def test_top_images_where_values_tie() -> None:
    values = np.zeros((3, 40))
    values[0, :5] = 6.0  # more images reach the maximum than 5 %
    values[1, 7] = 1.0  # fewer images than 5 % are above zero
    values[2] = np.arange(40)
    marked = rs.top_images(values)
    assert marked.sum(1).tolist() == [5, 1, 2]
    assert marked[1, 7]
    assert marked[2, 38:].all()


def test_silent_sources_are_left_out_and_constant_predictions_are_nothing() -> None:
    similarity, activations = planted(3)
    activations[0, ORIGIN == 1] = 0.0
    similarity[1] = 0.3
    found = co.correlations(similarity, activations, ORIGIN)
    first = ORIGIN == 0
    assert found[0] == pytest.approx(pearsonr(similarity[0, first], activations[0, first])[0])
    assert found[1] == 0
    assert co.varying(activations, ORIGIN).tolist() == [[True, False], [True, True], [True, True]]


def test_sigmoids_are_fitted_on_other_units() -> None:
    similarity, activations = planted(30)
    fold = np.arange(30) % 3
    found = co.fit_sigmoids(similarity, activations, fold)
    wanted = co.normalised(activations)
    for number in range(3):
        others = fold != number
        z = similarity / similarity.std()

        def loss(p: np.ndarray, others: np.ndarray = others, z: np.ndarray = z) -> float:
            return float(((expit(p[0] * z[others] + p[1]) - wanted[others]) ** 2).mean())

        plain = minimize(loss, [1.0, -2.0], method="Nelder-Mead", options={"xatol": 1e-6})
        mine = np.array([found[number].a * similarity.std(), found[number].b])
        assert loss(mine) <= plain.fun * 1.002
    changed = activations.copy()
    changed[fold == 0] = np.random.default_rng(1).random((10, 120))
    again = co.fit_sigmoids(similarity, changed, fold)
    assert again[0] == found[0]
    assert again[1] != found[1]


def test_the_slope_is_never_negative() -> None:
    similarity, activations = planted(strength=-1)
    fold = np.arange(24) % 5
    for sigmoid in co.fit_sigmoids(similarity, activations, fold):
        assert sigmoid.a > 0
        scores = co.correlations(sigmoid(similarity), activations, ORIGIN)
        assert scores.max() < 0  # a text that its unit avoids is never rewarded


def test_the_table_holds_what_each_pair_gives_alone() -> None:
    similarity, activations = planted(12)
    fold = np.arange(12) % 4
    sigmoids = co.fit_sigmoids(similarity, activations, fold)
    texts = np.random.default_rng(1).normal(0, 0.05, (7, 120))
    table = rs.correlation_table(texts, activations, ORIGIN, sigmoids, fold)
    for unit in range(12):
        prediction = sigmoids[fold[unit]](texts)
        alone = co.correlations(prediction, np.tile(activations[unit], (7, 1)), ORIGIN)
        assert table[unit] == pytest.approx(alone)


def drawn(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Repeat the columns of ``values`` as often as they were drawn."""
    return np.repeat(values, counts.astype(int), axis=1)


def test_draws_are_scores_of_resampled_units_and_images() -> None:
    similarity, activations = planted(10)
    resampling = rs.Resampling(10, ORIGIN, seed=5, draws=6)
    correlation = resampling.correlation(similarity, activations)
    pooled = resampling.correlation(similarity, activations, pooled=True)
    for draw in range(6):
        counts, units = resampling.images[draw], resampling.units[draw]
        assert counts[ORIGIN == 0].sum() == 70
        x, y = drawn(similarity, counts), drawn(activations, counts)
        sources = np.repeat(ORIGIN, counts.astype(int))
        plain = co.correlations(x, y, sources)
        assert correlation[draw] == pytest.approx((units * plain).sum() / 10, abs=1e-4)
        plain = co.correlations(x, y, np.zeros_like(sources))
        assert pooled[draw] == pytest.approx((units * plain).sum() / 10, abs=1e-4)


def test_drawn_auroc() -> None:
    similarity, activations = planted(4)
    resampling = rs.Resampling(4, ORIGIN, seed=5, draws=4)
    found = resampling.auroc(similarity, activations)
    for draw in range(4):
        total = 0.0
        for unit in range(4):
            for source in (0, 1):
                here = source == ORIGIN
                counts = resampling.images[draw, here].astype(int)
                marked = np.repeat(rs.top_images(activations[:, here])[unit], counts)
                guess = np.repeat(similarity[unit, here], counts)
                area = roc_auc_score(marked, guess) if 0 < marked.sum() < len(marked) else 0.5
                total += resampling.units[draw, unit] * area / 2
        assert found[draw] == pytest.approx(total / 4, abs=1e-5)


def test_drawn_shuffled_is_the_mean_over_all_texts() -> None:
    similarity, activations = planted(6)
    columns, fold = np.array([0, 1, 1, 2, 3, 3]), np.arange(6) % 2
    predictions = [expit(4 * similarity[:4]), expit(9 * similarity[:4] - 2)]
    resampling = rs.Resampling(6, ORIGIN, seed=2, draws=3)
    found = resampling.shuffled(predictions, columns, activations, fold)
    for draw in range(3):
        units = np.repeat(np.arange(6), resampling.units[draw].astype(int))
        sources = np.repeat(ORIGIN, resampling.images[draw].astype(int))
        y = drawn(activations, resampling.images[draw])
        scores = []
        for unit in units:
            x = drawn(predictions[fold[unit]], resampling.images[draw])[columns]
            scores.append(co.correlations(x, np.tile(y[unit], (6, 1)), sources).mean())
        assert found[draw] == pytest.approx(np.mean(scores), abs=1e-4)


@pytest.fixture(scope="module")
def layer() -> tuple[LayerScores, list[str]]:
    """Sixty units that follow one of eight texts each, on images of two sources."""
    rng = np.random.default_rng(0)
    texts = [f"text {i}" for i in range(8)]
    aside, search = rng.normal(0, 0.05, (8, 120)), rng.normal(0, 0.05, (8, 300))
    own = np.arange(60) % 8

    def activations(similarity: np.ndarray) -> np.ndarray:
        noise = rng.normal(0, 0.08, (60, similarity.shape[1]))
        return np.maximum(similarity[own] + noise, 0)

    made = LayerScores(
        activations(aside) + ORIGIN, ORIGIN, activations(search), np.arange(300) % 2,
        lambda asked: aside[[texts.index(t) for t in asked]],
        lambda asked: search[[texts.index(t) for t in asked]],
    )  # fmt: skip
    return made, [texts[i] for i in own]


def test_the_right_texts_win(layer: tuple[LayerScores, list[str]]) -> None:
    made, texts = layer
    right = made.row(made.predict(texts, made.sigmoids(texts)))
    wrong_texts = texts[1:] + texts[:1]
    wrong = made.row(made.predict(wrong_texts, made.sigmoids(wrong_texts)))
    rows = made.controls(texts, made.sigmoids(texts))
    assert right.figures["correlation"]["estimate"] > 0.4
    assert right.figures["AUROC top 5 %"]["estimate"] > 0.75
    low, high = right.figures["correlation"]["interval"]
    assert low < right.figures["correlation"]["estimate"] < high
    assert abs(wrong.figures["correlation"]["estimate"]) < 0.1
    for row in (wrong, *rows.values()):
        assert np.percentile(right.draws - row.draws, 2.5) > 0.2
    assert rows["shuffled"].scores.mean() == pytest.approx(rows["shuffled"].draws.mean(), abs=0.05)
    assert made.best_texts(sorted(set(texts)), made.sigmoids(texts)) == texts


def test_source_only_is_nothing_within_and_much_across(
    layer: tuple[LayerScores, list[str]],
) -> None:
    made, _ = layer
    made = LayerScores(
        made.aside, made.sources, made.search + made.search_sources, made.search_sources,
        made.similar_aside, made.similar_search,
    )  # fmt: skip
    figures = made.source_only().figures
    assert figures["correlation"] == 0
    assert figures["pooled"]["estimate"] > 0.8


# From photos to a report, with a simulator that is trained here.

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220)}


def photos(count: int, seed: int) -> tuple[list[Image.Image], list[str]]:
    """Shapes of one colour on grounds of grey."""
    rng = np.random.default_rng(seed)
    pictures, names = [], []
    for number in range(count):
        name = list(COLOURS)[number % 3]
        ground = rng.integers(60, 180, (5, 5, 1), dtype=np.uint8).repeat(3, 2)
        picture = Image.fromarray(ground).resize((48, 48), Image.Resampling.BICUBIC)
        x, y, side = (int(v) for v in rng.integers((0, 0, 16), (24, 24, 32)))
        ImageDraw.Draw(picture).rectangle((x, y, x + side, y + side), COLOURS[name])
        pictures.append(picture)
        names.append(name)
    return pictures, names


class ColourUnits(nn.Module):
    """One unit for each colour: how much of it there is, at a quarter of the view's size."""

    preprocess = PREPROCESS

    def __init__(self) -> None:
        super().__init__()
        self.units = nn.Conv2d(3, 3, 4, 4)
        wanted = torch.eye(3) * 1.5 - 0.5
        self.units.weight.data = wanted[:, :, None, None].repeat(1, 1, 4, 4) / 16
        self.units.bias.data.zero_()
        self.head = nn.Linear(3, 3, bias=False)
        nn.init.eye_(self.head.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.units(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulator trained on captioned shapes."""
    folder = tmp_path_factory.mktemp("simulator")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MILANX_CACHE", str(folder / "cache"))
        pictures, names = photos(48, 1)
        captions = [[f"a {n} square", f"something {n}"] for n in names]
        write_parquet(folder / "photos.parquet", pictures, captions=captions)
        write_parquet(folder / "shown.parquet", pictures[:5])
        recipe = Recipe(
            "shapes",
            data=Data(
                root=str(folder),
                photos=(PhotoData("photos.parquet"),),
                without=(str(folder / "shown.parquet"),),
            ),
            encoder=EncoderSettings("tf_efficientnet_lite0", steps=100, batch_size=48),
        )
        return train_simulator(recipe, folder / "made")


@pytest.fixture(scope="module")
def loaded(simulator: Path) -> Simulator:
    return Simulator.load(simulator)


def make_run(folder: Path, texts: dict[int, str]) -> milanx.Run:
    """A run of the colour units on 110 shapes, with these texts."""
    source = folder / "shapes.parquet"
    if not source.exists():
        write_parquet(source, photos(110, 2)[0])
    out = folder / f"run-{'-'.join(texts.values()).replace(' ', '')}"
    extract(ColourUnits(), layers=["units"], images=str(source), out=out)
    run = milanx.open_run(out)
    write_units(out, [Description("units", u, "+", "described", t) for u, t in texts.items()],
                run.store)  # fmt: skip
    return run


def test_the_folder_says_what_was_left_out_of_its_training(simulator: Path) -> None:
    told = read_json(simulator / "simulator.json", "milanx simulator", 1)["training"]
    assert told["without"] == ["shown.parquet"]
    assert told["files"] == ["photos.parquet"]


RIGHT = {0: "a red square", 1: "a green square", 2: "a blue square"}
WRONG = {0: "a green square", 1: "a blue square", 2: "a red square"}


def test_from_photos_to_a_report(simulator: Path, tmp_path: Path) -> None:
    run, other = make_run(tmp_path, RIGHT), make_run(tmp_path, WRONG)
    source = str(tmp_path / "shapes.parquet")
    vocabulary = tmp_path / "words.txt"
    vocabulary.write_text("something red\n\nsomething blue\n")
    asked = Asked(run.root, ("p3",), images=(source,), simulator=str(simulator),
                  against=(other.root,), vocabulary=vocabulary)  # fmt: skip
    report = run_protocols(asked)[0]
    assert report["n"] == 3
    figures = {name: row["correlation"]["estimate"] for name, row in report["rows"].items()}
    assert set(figures) == {
        "description", other.root.name, "constant", "shuffled", "best of vocabulary"}  # fmt: skip
    assert figures["description"] > 0.3
    assert figures["description"] > max(figures["constant"], figures[other.root.name]) + 0.2
    scores = [u["correlation"] for u in report["units"]]
    assert np.mean(scores) == pytest.approx(figures["description"])
    assert report["paired"][f"description - {other.root.name}"]["estimate"] > 0.2
    assert any("were kept aside; the protocol asks for 150" in note for note in report["notes"])
    assert any("text tower" in text for text in report["shared"])
    written = read_json(run.root / "evaluation-p3.json", "milanx evaluation", 1)
    assert written["rows"] == json.loads(json.dumps(report["rows"]))


def test_the_simulator_computes_where_and_as_it_is_asked_to(
    simulator: Path, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, seen = make_run(tmp_path, RIGHT), []
    moved = Simulator._move

    def noting(self: Simulator, where: Where) -> None:
        moved(self, where)
        seen.append((self.device, self.dtype))

    monkeypatch.setattr(Simulator, "_move", noting)
    found = [
        run_protocols(Asked(run.root, ("p3",), simulator=str(simulator), device="cpu",
                            dtype=dtype))[0]["rows"]["description"]["correlation"]["estimate"]
        for dtype in ("float32", "bfloat16")
    ]  # fmt: skip
    cpu = torch.device("cpu")
    assert seen == [(cpu, torch.float32)] * 2 + [(cpu, torch.bfloat16), (cpu, torch.float32)]
    assert found[0] != found[1] and found[0] == pytest.approx(found[1], abs=0.05)
    assert len(list((own_cache / "simulator").iterdir())) == 4  # of each, two sides of the images
    with pytest.raises(InputError, match="the device 'nowhere' cannot be used"):
        run_protocols(Asked(run.root, ("p3",), device="nowhere"))
    with pytest.raises(InputError, match="no dtype 'float8'"):
        Asked(run.root, ("p3",), dtype="float8")


def test_moved_and_changed_images_are_said(loaded: Simulator, tmp_path: Path) -> None:
    run = make_run(tmp_path, RIGHT)
    source = tmp_path / "shapes.parquet"
    found = run_features(loaded, run, [3, 5], [str(source)])
    moved = source.rename(tmp_path / "moved.parquet")
    assert (run_features(loaded, run, [3, 5]) == found).all()  # kept: no image is read
    with pytest.raises(InputError, match="--images"):
        run_features(loaded, run, [3, 6])
    later = run_features(loaded, run, [5, 3], [str(moved)])
    assert later == pytest.approx(found[::-1], abs=1e-2)
    changed = write_parquet(tmp_path / "other.parquet", photos(110, 9)[0])
    with pytest.raises(InputError, match="2 of 2 images of the run are not among these"):
        run_features(loaded, run, [3, 6], [str(changed)])


def test_what_cannot_be_scored_is_said(tmp_path: Path) -> None:
    assert simulator_spec("tf_efficientnet_lite2").image_size == 260
    with pytest.raises(InputError, match="no simulator 'RN5O'"):
        Simulator.load("RN5O")
    with pytest.raises(FormatError, match=r"simulator\.json"):
        Simulator.load(tmp_path)
    with pytest.raises(InputError, match="no protocol 'p33'"):
        Asked(tmp_path, ("p33",))
    made = extract(ColourUnits(), layers=["units"], images="builtin:probe", limit=60,
                          out=tmp_path / "run")  # fmt: skip
    assert made is not None
    with pytest.raises(InputError, match="built-in images"):
        read_probe(milanx.open_run(tmp_path / "run"))
