"""Blinded reading: the true sheet is where the key says, readers are blind, scores are counted."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from milanx.cli import app
from torch.nn.functional import interpolate
from typer.testing import CliRunner

from milanx.describing.describer import Description
from milanx.describing.ranker import Candidate
from milanx.errors import InputError
from milanx.evaluate.p4.questions import StudySettings, draw_questions
from milanx.evaluate.p4.reading import score, share_of_the_way
from milanx.evaluate.p4.sheets import (
    DIM,
    aside_sheets,
    dim,
    layout,
    reload_target,
    top_aside,
    variety,
)
from milanx.evaluate.p4.study import Material, make
from milanx.features.smallclip import SmallClipEncoder
from milanx.files import read_json
from milanx.images.probe import open_images
from milanx.pipeline import extract
from milanx.runs import Run, open_run, write_units
from milanx.targets.capture import Capture, find_layers
from tests.helpers import noise, write_parquet

TINY = "tests.helpers:tiny"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    return [write_parquet(folder / f"{name}.parquet", noise(40, seed=seed))
            for name, seed in (("one", 0), ("two", 1))]  # fmt: skip


@pytest.fixture(scope="module")
def run(sources: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "run"
    store = extract(TINY, layers=["conv2", "conv3"], images=sources, out=out)
    found = []
    for layer in store.layers:
        for unit, sign in store.units(layer):
            best = tuple(Candidate(f"{layer} {unit} {w}", 0.0, 0.0, 0.0) for w in "abcde")
            found.append(Description(layer, unit, sign, "described", best[0].text, 0.0, 0.0, 0.0,
                                     best))  # fmt: skip
    write_units(out, found, store)
    return open_run(out)


def test_units_that_no_image_kept_aside_excites_are_not_asked_for(
    sources: list[Path], tmp_path: Path
) -> None:
    """And the sheets of others hold nothing on which they are off."""
    store = extract("tests.helpers:sparse", layers=["conv"], images=sources, out=tmp_path / "run")
    found = [Description("conv", u, s, "described", f"text {u}") for u, s in store.units("conv")]
    write_units(tmp_path / "run", found, store)
    run = open_run(tmp_path / "run")
    best = top_aside(run, "conv", range(8), 5)
    maxima, aside = store.maxima("conv"), [r["split"] == "aside" for r in store.image_table()]
    for unit, images in best.items():
        excited = [(maxima[:, unit] > 0) & aside & [r["source"] == s for r in store.image_table()]
                   for s in ("one", "two")]  # fmt: skip
        assert (maxima[images, unit] > 0).all()
        assert len(images) == sum(min(5, int(e.sum())) for e in excited)
    lengths = sorted(map(len, best.values()))
    assert lengths[0] == 0 and lengths[-1] == 10 and len(set(lengths)) > 2
    excited_units = [u for u, images in best.items() if len(images)]
    assert len(excited_units) == 5  # of 8: as many as a question needs
    make(Material(run, ("conv",), (), tuple(sources)), tmp_path / "study",
         settings=StudySettings(6))  # fmt: skip
    asked = {u for q in key_of(tmp_path / "study").values() for u in q["units"]}
    assert asked <= set(excited_units)


@pytest.fixture(scope="module")
def encoder() -> SmallClipEncoder:
    return SmallClipEncoder()


@pytest.fixture(scope="module")
def study(
    run: Run,
    sources: list[Path],
    encoder: SmallClipEncoder,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    out = tmp_path_factory.mktemp("study") / "made"
    other = out.with_name("other")
    shutil.copytree(run.root, other)
    material = Material(run, ("conv3",), (open_run(other),), tuple(sources))
    make(material, out, encoder=encoder, settings=StudySettings(6, shared_sheets=True))
    return out


def key_of(study: Path) -> dict:
    return read_json(study / "key" / "key.json", "milanx-study-key", 1)["questions"]


def questions_of(study: Path, name: str) -> list[dict]:
    return json.loads((study / f"questions-{name}.json").read_text())["questions"]


def test_sheets_hold_the_best_kept_aside_images_of_each_source(
    run: Run, sources: list[Path]
) -> None:
    best = top_aside(run, "conv2", [3, 7], 5)
    table = run.store.image_table()
    maxima = run.store.maxima("conv2")
    for unit, shown in best.items():
        assert all(table[i]["split"] == "aside" for i in shown)
        assert Counter(table[i]["source"] for i in shown) == {"one": 5, "two": 5}
        for source in ("one", "two"):
            mine = [maxima[i, unit] for i in shown if table[i]["source"] == source]
            rest = [maxima[r["index"], unit] for r in table if r["split"] == "aside"
                    and r["source"] == source and r["index"] not in shown]  # fmt: skip
            assert min(mine) >= max(rest)
    target, probe = reload_target(run, None), open_images(sources)
    sheets = aside_sheets(run, "conv2", best, target, probe)
    info = next(i for i in find_layers(target, ["conv2"]))
    for unit, sheet in sheets.items():
        views = np.stack([target.preprocess.view(probe.read(int(i))) for i in sheet.images])
        views = views.transpose(0, 3, 1, 2)
        with Capture(target, [info]) as capture:
            maps = capture.run(target.preprocess.normalise(torch.from_numpy(views)))["conv2"]
        mine = maps[:, unit].numpy()
        assert mine.max((1, 2)) == pytest.approx(maxima[sheet.images, unit], abs=1e-4)
        stats = {n: float(v[unit]) for n, v in run.store.stats("conv2").items()}
        up = interpolate(maps[:, [unit]], (32, 32), mode="bilinear")[:, 0].numpy()
        above = up > max(stats["quantile"], 0)
        assert above.any()
        for number, inside in enumerate(above):
            colour = views[number].min(0) > 4  # a dark pixel looks the same when dimmed
            bright = (sheet.views[number] == views[number]).all(0)
            if inside.any():
                assert (bright == inside)[colour].all()
            else:  # the peak alone
                highest = up[number] >= up[number].max() - 1e-5
                assert bright[highest].any()
                assert not bright[colour & ~highest].any()


def test_dim_keeps_the_mask_and_darkens_the_rest() -> None:
    views = np.full((1, 3, 2, 2), 200, np.uint8)
    masks = np.array([[[True, False], [False, False]]])
    found = dim(views, masks)
    assert found[0, :, 0, 0].tolist() == [200] * 3
    assert found[0, :, 1, 1].tolist() == [round(200 * DIM)] * 3


def test_layout_fills_the_box() -> None:
    for count in (1, 5, 10, 15):
        across, side = layout(count, 1060, 250)
        rows = -(-count // across)
        assert across * side <= 1060
        assert rows * side <= 250
        assert side >= 70


def test_the_target_must_be_the_run_s(
    run: Run, sources: list[Path], encoder: SmallClipEncoder
) -> None:
    with pytest.raises(InputError, match="these are not the 80 images"):
        make(Material(run, images=tuple(sources[:1])), run.root / "x", encoder=encoder)
    changed = {**run.settings, "target": {**run.settings["target"], "fingerprint": "0"}}
    with pytest.raises(InputError, match="is not the model"):
        reload_target(Run(run.root, changed), None)


def test_questions() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 8)).astype(np.float32)
    units = list(range(1000, 1400))
    made = draw_questions("layer", units, features, StudySettings(50))
    assert made == draw_questions("layer", units, features, StudySettings(50))
    assert Counter(q.kind for q in made) == {"far": 50, "near": 50}
    for part in {q.part for q in made}:
        shown = [u for q in made if q.part == part for u in q.units]
        assert len(shown) == len(set(shown))
    assert {q.part for q in made if q.kind == "far"} == {1}
    centred = (features - features.mean(0)) / features.std(0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    likeness = centred @ centred.T
    for question in made:
        assert question.true in question.units
        assert len(set(question.units)) == 5
        if question.kind == "near":
            five = [u - 1000 for u in question.units]
            assert any(set(np.argsort(-likeness[i])[:5]) == set(five) for i in five)
    places = Counter(q.units.index(q.true) for q in made)
    assert max(places.values()) < 40


def test_readers_see_no_key(study: Path) -> None:
    key = key_of(study)
    assert {e["list"] for e in key.values()} == {"description", "words", "exemplars"}
    for name in ("description", "words", "exemplars"):
        asked = questions_of(study, name)
        assert len(asked) == 12
        for entry in asked:
            assert (study / entry["picture"]).is_file()
            assert not {"answer", "unit", "layer", "kind"} & entry.keys()
            truth = key[entry["id"]]
            assert truth["units"]["ABCDE".index(truth["answer"])] == truth["unit"]
            if name == "exemplars":
                assert (study / entry["exemplars"]).is_file()
                assert "text" not in entry
            elif name == "words":
                assert entry["text"] == ", ".join(f"conv3 {truth['unit']} {w}" for w in "abcd")
            else:
                assert entry["text"] == f"conv3 {truth['unit']} a"
    pictures = [{e["picture"] for e in questions_of(study, n)} for n in ("description", "words")]
    assert pictures[0] == pictures[1]
    assert len(list((study / "pictures").iterdir())) == 12


def test_scores_are_counted(study: Path, tmp_path: Path) -> None:
    key = key_of(study)

    def write(name: str, letters: dict[str, str]) -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(letters))
        return path

    def wrong(answer: str) -> str:
        return "A" if answer != "A" else "B"

    mine = {q: e for q, e in key.items() if e["list"] == "description"}
    far = sorted(q for q in mine if mine[q]["kind"] == "far")
    letters = {q: e["answer"] for q, e in mine.items()} | {q: wrong(mine[q]["answer"])
                                                          for q in far[:3]}  # fmt: skip
    first = write("first.json", letters)
    upper = write("upper.json", {q: e["answer"] for q, e in key.items()
                                 if e["list"] == "exemplars"})  # fmt: skip
    again = write("again.json", {far[0]: letters[far[0]], far[4]: wrong(letters[far[4]])})
    report = score(study, [first, upper, again])
    row = report["rows"]["description, all"]
    assert row["far"]["estimate"] == pytest.approx(0.5)
    assert row["near"]["estimate"] == 1
    assert row["far: share of the way"]["estimate"] == pytest.approx((0.5 - 0.2) / 0.8)
    assert report["agreement"]["description"]["estimate"] == pytest.approx(0.5)
    assert report["rows"]["exemplars, all"]["far"]["estimate"] == 1
    with pytest.raises(InputError, match="no such question"):
        score(study, [write("bad.json", {"nothing": "A"})])
    with pytest.raises(InputError, match="sheets are A to E"):
        score(study, [write("bad.json", {far[0]: "F"})])
    left = score(study, [write("none.json", {far[0]: ""})])
    assert left["rows"]["description, all"]["far"]["estimate"] == 0
    shown = CliRunner().invoke(app, ["study", "score", str(study), str(first), str(upper)])
    assert shown.exit_code == 0, shown.output
    assert "P4 blinded reading" in shown.output


def test_share_of_the_way_has_an_interval_over_questions() -> None:
    rng = np.random.default_rng(0)
    upper = {("far", "a", i): float(rng.random() < 0.9) for i in range(400)}
    text = {p: float(rng.random() < 0.55) for p in upper}
    found = share_of_the_way(text, upper, "far")
    assert found is not None
    assert found["estimate"] == pytest.approx(0.5, abs=0.1)
    low, high = found["interval"]
    assert 0.05 < high - low < 0.25
    assert share_of_the_way(text, {}, "far") is None


def test_variety_counts_paraphrases_once() -> None:
    found = variety(["dogs", "Dogs", "a dog", "steel bridges"])
    assert found["distinct"] == pytest.approx(0.5)
    assert found["most"] == pytest.approx(0.75)
