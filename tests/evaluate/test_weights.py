"""Weights of the ranking: chosen where no report looks, on stored terms that rank as before."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import timm
from PIL import Image, ImageDraw

import milanx
from milanx.describing.candidates import Candidate, Term
from milanx.describing.settings import RankSettings
from milanx.describing.trained import FILE as TRAINED
from milanx.errors import InputError
from milanx.evaluate.p2.photos import PlantedPhoto
from milanx.evaluate.weights.choose import (
    GRID,
    choose_weights,
    climb,
    gained,
    joined_share,
    share,
)
from milanx.evaluate.weights.gather import class_units, keeping_all
from milanx.evaluate.weights.lists import (
    DEVELOPMENT,
    HALVED,
    REPORTED,
    WeightsAsked,
    check_files,
    for_development,
)
from milanx.evaluate.weights.pools import FORETELLING, Pool, PoolSet
from tests.helpers import write_parquet

BELIEVE = (Path(milanx.__file__).parents[1] / "docs" / "believe.md").read_text("utf-8")


def photo_files(text: str) -> set[str]:
    """Names of files of photos; in capitals stand the user's, and one is a describer's own."""
    return set(re.findall(r"([a-z0-9_]+)\.parquet", text)) - {Path(TRAINED).stem}


def test_nothing_is_both_for_development_and_reported() -> None:
    assert not DEVELOPMENT.layers.keys() & REPORTED.layers.keys()
    layers = [{x for names in used.layers.values() for x in names} for used in
              (DEVELOPMENT, REPORTED)]  # fmt: skip
    assert not layers[0] & layers[1]
    assert not set(DEVELOPMENT.seeds) & set(REPORTED.seeds)
    assert not set(DEVELOPMENT.photos) & set(REPORTED.photos)


def test_the_lists_have_all_that_the_page_of_reports_names() -> None:
    """So whoever reports more must write it down, and it cannot be for development as well."""
    said = {
        "photos": photo_files(BELIEVE),
        "layers": set(re.findall(r"blocks\.\d+\.(?:\d+\.bn1|mlp\.fc1)", BELIEVE)),
        "targets": set(re.findall(r"(?:tf_efficientnet|vit)_\w*\d\w*", BELIEVE)),
    }
    reported = {x for names in REPORTED.layers.values() for x in names}
    development = {x for names in DEVELOPMENT.layers.values() for x in names}
    about, confidence = (
        BELIEVE.partition(f"## {title}\n")[2].partition("\n## ")[0]
        for title in ("On what numbers were chosen", "Confidence")
    )
    assert about, "the page says on what numbers were chosen"
    assert confidence, "the page says what confidence is calibrated on, by lists of its own"
    elsewhere = BELIEVE.replace(about, "").replace(confidence, "")
    assert said["photos"] <= {*REPORTED.photos, *DEVELOPMENT.photos}
    assert photo_files(elsewhere) <= {*REPORTED.photos, *HALVED}
    assert said["layers"] <= reported | development
    assert said["targets"] <= {*REPORTED.layers, *DEVELOPMENT.layers}
    for name in (*development, *DEVELOPMENT.layers, *DEVELOPMENT.photos):
        assert name in about  # the page says it, and nowhere but there, unless it is halved
        assert name in HALVED or name not in elsewhere


def test_layers_for_development_are_there_and_never_the_last_of_their_stage() -> None:
    for target, layers in DEVELOPMENT.layers.items():
        model = timm.create_model(target, pretrained=False)
        names = {name for name, _ in model.named_modules()}
        for layer in layers:
            stage, block = (int(n) for n in re.findall(r"\d+", layer)[:2])
            assert layer in names
            assert f"blocks.{stage}.{block + 1}" in names


@pytest.mark.parametrize("name", ["regions", "tiny_imagenet_val", "my-photos"])
def test_files_that_are_not_for_development_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="weights are not chosen on"):
        check_files([Path("parts.parquet"), Path(f"data/{name}.parquet")])
    with pytest.raises(InputError, match="no photos"):
        check_files([])
    assert not for_development("coco:000000000001") and for_development("0123456789abcdef")
    with pytest.raises(InputError, match="5 units are too few"):
        WeightsAsked((Path("parts.parquet"),), Path("out"), count=5)


@pytest.mark.usefixtures("views_encoded")
def test_stored_terms_rank_as_the_describer_does(
    planted: milanx.Run, describer: milanx.Describer
) -> None:
    """Describing anew under other weights gives the texts that the pools give without a model."""
    units = {"units": [(u, "+") for u in (0, 3, 5, 9, 12)]}
    wide = keeping_all(describer.settings)
    found = describer.describe(planted.store, units=units, settings=wide)
    pools = [Pool.of(d.candidates, dict.fromkeys((c.text for c in d.candidates), 0.0), [])
             for d in found]  # fmt: skip
    assert all(len(d.candidates) > 30 for d in found)
    assert [p.text(describer.settings) for p in pools] == [d.text for d in found]
    changed = 0
    for changes in ({"lam": 0.6}, {"agreement": 0.25, "response": 900.0},
                    {"absent": 9.0}, {"joined": -8.0, "without": -8.0, "length_penalty": -1.0},
                    {"dim": 0.3, "unsure": 8.0, "least": 0.0}):  # fmt: skip
        how = replace(describer.settings, **changes)
        again = describer.describe(planted.store, units=units, settings=how)
        assert [p.text(how) for p in pools] == [d.text for d in again]
        changed += sum(a.text != d.text for a, d in zip(again, found, strict=True))
    assert changed > 2


def toy(rng: np.random.Generator, lam: float, noise: float = 0.0) -> Pool:
    """Texts whose worth is their weighted PMI under one lambda, and nothing else."""
    candidates, worth = [], {}
    for i in range(8):
        given, prior = -rng.uniform(1, 9), -rng.uniform(1, 9)
        terms = (Term("length", 2.0, 0.0),)
        candidates.append(Candidate(f"thing {i}", 0.0, given, prior, rng.normal(),
                                    rng.uniform(-0.3, 0.3), 0.0, terms))  # fmt: skip
        worth[f"thing {i}"] = float(given - lam * prior) + 20 if noise == 0 else rng.random()
    return Pool.of(candidates, worth, [str(rng.integers(1000))])


SMALL = {"lam": (0.0, 0.2, 0.4, 0.6), "agreement": (0.0, 1.0), "response": (0.0, 60.0)}


@pytest.mark.parametrize("lam", [0.0, 0.4, 0.6])
def test_the_search_finds_the_weights_that_worth_was_made_of(lam: float) -> None:
    rng = np.random.default_rng(0)
    sets = [PoolSet(str(n), "pmi", tuple(toy(rng, lam) for _ in range(25))) for n in range(2)]
    start = RankSettings(lam=0.2, agreement=1.0, response=60.0)
    found = climb(sets, start, SMALL)
    assert (found.lam, found.agreement, found.response) == (lam, 0.0, 0.0)
    assert share(sets, found) == pytest.approx(1)
    every = [replace(start, **dict(zip(SMALL, values, strict=True)))
             for values in product(*SMALL.values())]  # fmt: skip
    assert share(sets, found) == max(share(sets, how) for how in every)
    assert climb(sets, found, SMALL) == found
    gain = gained(sets, start, SMALL)
    assert gain["estimate"] == pytest.approx(1 - share(sets, start), abs=0.01)
    assert gain["interval"][0] > 0


def test_hidden_units_texts_that_join_two_things_are_kept_rare() -> None:
    """The joined text foretells each unit a little better; only one weight keeps it rare."""
    candidates = [Candidate(text, 0.0, -1.0, -1.0, 0.0, response, 0.0, (Term("length", 2.0, 0.0),))
                  for text, response in (("dogs", 0.30), ("dogs or cats", 0.33))]  # fmt: skip
    pool = Pool.of(candidates, {"dogs": 0.30, "dogs or cats": 0.33}, ["a"])
    hidden = [PoolSet("hidden", FORETELLING, (pool,) * 20)]
    start = RankSettings(response=300.0, joined=1.0)
    grid = {"joined": (0.0, 1.0, 8.0)}
    assert joined_share(hidden, start) == 1 and share(hidden, start) == pytest.approx(1)
    found = climb(hidden, start, grid)
    assert found.joined == 8 and joined_share(hidden, found) == 0
    planted = [PoolSet("planted", "attribute F1", hidden[0].pools)]  # where "or" is meant
    assert climb(planted, start, grid) == start


def test_every_measure_counts_the_same_however_many_sets_it_has() -> None:
    rng = np.random.default_rng(0)
    many = [PoolSet(str(n), "one", tuple(toy(rng, 0.4) for _ in range(20))) for n in range(4)]
    few = PoolSet("few", "other", tuple(toy(rng, 0, noise=1) for _ in range(9)))
    how = RankSettings(lam=0.1)
    one = np.mean([s.worth(how).mean() / s.best for s in many])
    other = few.worth(how).mean() / few.best
    assert share([*many, few], how) == pytest.approx((one + other) / 2)


def test_units_of_classes_are_impure_sets_of_whole_views() -> None:
    whole = np.ones((14, 14), np.float32)
    picture = np.zeros((20, 20, 3), np.uint8)
    names = ["goldfish", "tench"]
    photos = [PlantedPhoto(picture, {names[i % 2]: whole, "red": whole * (i % 3 == 0)}, "ten",
                           "class", group=str(i)) for i in range(60)]  # fmt: skip
    photos += [PlantedPhoto(picture, {"sky": whole}, "r", "region") for _ in range(20)]
    units = class_units(photos, 3, 0)
    assert [u.meaning.atoms for u in units] == [("goldfish",)] * 3 + [("tench",)] * 3
    for unit in units:
        own = [unit.meaning.atoms[0] in photos[i].atoms for i in unit.images if i >= 0]
        assert (unit.maps == 1).all()
        assert 0.65 <= np.mean(own) <= 1


def test_what_is_gained_by_chance_is_not_counted() -> None:
    """Where worth is noise, weights that are chosen seem better on the very units, and are not."""
    gains, seeming = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        sets = [PoolSet("noise", "noise", tuple(toy(rng, 0, noise=1) for _ in range(30)))]
        start = RankSettings(lam=0.2, agreement=1.0)
        gains.append(gained(sets, start, SMALL, seed)["estimate"])
        seeming.append(share(sets, climb(sets, start, SMALL)) - share(sets, start))
    assert min(seeming) >= 0 and np.mean(seeming) > 0.03
    assert abs(np.mean(gains)) < 0.5 * np.mean(seeming)


def test_the_grid_holds_what_is_shipped(describer: milanx.Describer) -> None:
    for name, values in GRID.items():
        assert getattr(describer.settings, name) in values
        assert len(values) == len(set(values)) > 2


def shapes(count: int, seed: int) -> tuple[list[Image.Image], list[str]]:
    """Large shapes of a few colours, and how they are called."""
    rng = np.random.default_rng(seed)
    colours = {"plum": (120, 20, 140), "tomato": (220, 40, 30), "leaf": (30, 150, 40),
               "sky": (40, 70, 220), "lemon": (240, 220, 40), "snow": (250, 250, 250)}  # fmt: skip
    made, names = [], []
    for i in range(count):
        name = list(colours)[i % 6]
        grain = rng.integers(90, 150, (9, 9, 3), dtype=np.uint8)
        picture = Image.fromarray(grain).resize((96, 96), Image.Resampling.BICUBIC)
        x, y = (int(v) for v in rng.integers(0, 40, 2))
        ImageDraw.Draw(picture).ellipse((x, y, x + 55, y + 55), colours[name])
        made.append(picture)
        names.append(name)
    return made, names


def test_weights_are_chosen_from_photos_to_a_file(
    describer: milanx.Describer, tmp_path: Path
) -> None:
    pictures, names = shapes(120, 0)
    path = write_parquet(tmp_path / "attributes.parquet", pictures, name=names)
    report = choose_weights(describer, WeightsAsked((path,), tmp_path / "out", count=20, units=20))
    assert json.loads((tmp_path / "out" / "weights.json").read_text())["chosen"] == report["chosen"]
    layers = sum(map(len, DEVELOPMENT.layers.values()))
    assert len(report["sets"]) == len(DEVELOPMENT.seeds) + layers
    for row in report["sets"].values():
        assert row["n"] >= 10
        assert row["has"] <= row["best text"] and row["chosen"] <= row["best text"]
    assert report["share"]["chosen"] >= report["share"]["has"]
    assert report["has"]["response"] == describer.settings.response
    assert set(report["chosen"]) == set(GRID)
