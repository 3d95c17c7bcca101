"""All methods in one table: same exemplars, rows whose figures are known, cells that say why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from milanx.describing.describer import Describer, Description
from milanx.describing.ranker import Candidate
from milanx.errors import InputError
from milanx.evaluate.common.claims import settled
from milanx.evaluate.methods import planted, tables
from milanx.evaluate.methods.say import ARGMAX, Harness, Said, methods_of, runs_of
from milanx.evaluate.methods.tables import WHY, Scoring, Tools, weighted
from milanx.evaluate.p2.protocol import Planting
from milanx.evaluate.p3.simulate import LayerScores
from milanx.evaluate.protocols import Asked, run_protocols
from milanx.files import read_json
from milanx.measures.intervals import paired
from milanx.pipeline import extract
from milanx.runs import Run, open_run, write_units
from tests.evaluate.test_p1 import CLASSES, NAMES
from tests.evaluate.test_p3 import planted as follow
from tests.helpers import noise, write_parquet

ALL = ("describer", "milan", "concepts", "nearest", "netdissect", "compexp")
RIVALS = ["tench", "sharks", "fish", "sea", "goldfish"]


def told(root: Path, method: str) -> Run:
    """Say in a run's settings what described it."""
    content = json.loads((root / "run.json").read_text())
    content["describer"] = {"method": method, "name": method}
    content.pop("seal", None)
    content.pop("files", None)
    (root / "run.json").write_text(json.dumps(content))
    return open_run(root)


def written(run: Run, texts: list[str], method: str, out: Path) -> Run:
    """Copy a run with other descriptions, by another method."""
    shutil.copytree(run.root, out, dirs_exist_ok=True)
    (out / "units.parquet").unlink(missing_ok=True)
    found = []
    for unit, text in enumerate(texts):
        best = (Candidate(text, 0.0, -2.0, -1.0), Candidate(NAMES[unit], -1.0, -1.0, -1.0))
        found.append(Description("head", unit, "+", "described", text, 0.0, -2.0, -1.0, best))
    write_units(out, found, run.store)
    return told(out, method)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Five logits, of which three descriptions name their class; all likeliest texts do."""
    folder = tmp_path_factory.mktemp("run")
    wnids = [CLASSES[i % 5] for i in range(60)]
    photos = write_parquet(folder / "photos.parquet", noise(60), wnid=wnids)
    extract("tests.helpers:tiny", layers=["head"], images=photos, out=folder / "run")
    made = open_run(folder / "run")
    return written(made, [*NAMES[:3], "sea", "sky"], "describer", folder / "ours")


def estimate(report: dict[str, Any], row: str, figure: str) -> float:
    value = report["rows"][row][figure]["estimate"]
    assert value == pytest.approx(value) and len(report["rows"][row][figure]["interval"]) == 2
    return float(value)


def test_p1_has_a_row_a_method(run: Run, describer: Describer, tmp_path: Path) -> None:
    other = written(run, RIVALS, "netdissect", tmp_path / "netdissect")
    report = tables.p1_table(run, [other], Tools(ALL, describer))
    assert list(report["rows"]) == ["describer", ARGMAX, *ALL[1:]]
    assert estimate(report, "describer", "top-1") == pytest.approx(0.6)
    assert estimate(report, "describer", "top-5") == 1
    assert estimate(report, ARGMAX, "top-1") == 1
    assert "top-5" not in report["rows"][ARGMAX]
    assert estimate(report, "netdissect", "top-1") == pytest.approx(0.2)
    # Each of three right texts is at its own unit in a fifth of the permutations.
    assert estimate(report, "describer", "shuffled") == pytest.approx(3 / 25, abs=0.06)
    assert estimate(report, "netdissect", "constant") <= 0.4
    assert report["rows"]["milan"] == {WHY: "no folder of MILAN's was given"}
    assert "needs images with regions" in report["rows"]["compexp"][WHY]
    for method in ("concepts", "nearest"):
        assert 0 <= estimate(report, method, "top-1") <= 1
    claim = report["paired"]["describer - netdissect"]
    assert claim["estimate"] == pytest.approx(0.4) and 0 < claim["p_holm"] <= 1
    assert report["paired"][f"describer - {ARGMAX}"]["estimate"] == pytest.approx(-0.4)


def test_the_command_writes_the_table_into_the_run(run: Run) -> None:
    report = run_protocols(Asked(run.root, ("p1",), methods=("describer",)))[0]
    assert list(report["rows"]) == ["describer", ARGMAX]
    known = read_json(run.root / "evaluation-p1-methods.json", "milanx evaluation", 1)
    assert known["rows"] == json.loads(json.dumps(report["rows"]))
    assert not (run.root / "evaluation-p1.json").exists()


def test_methods_are_compared_on_the_same_exemplars(run: Run, tmp_path: Path) -> None:
    again = written(run, RIVALS, "describer", tmp_path / "again")
    with pytest.raises(InputError, match="both of describer"):
        runs_of(run, [again])
    photos = write_parquet(tmp_path / "photos.parquet", noise(60, seed=3), wnid=CLASSES * 12)
    extract("tests.helpers:tiny", layers=["head"], images=photos, out=tmp_path / "others")
    with pytest.raises(InputError, match="other exemplars"):
        runs_of(run, [told(tmp_path / "others", "compexp")])
    assert methods_of(["all"])[0] == "describer" and methods_of(["nearest"]) == ("nearest",)
    with pytest.raises(InputError, match="no method 'conceptz'"):
        methods_of(["conceptz"])
    with pytest.raises(InputError, match="kin has no table"):
        Asked(run.root, ("kin",), images=("x",), methods=("all",))


def test_a_method_says_the_same_as_alone(run: Run, describer: Describer) -> None:
    units = [("head", unit, "+") for unit in (3, 1)]
    harness = Harness(run.store, units, describer, None)
    said = harness.say("describer")
    alone = {d.unit: d for d in describer.describe(run.store)}
    assert said.texts == (alone[3].text, alone[1].text)
    assert said.five[0] == tuple(c.text for c in alone[3].candidates)
    assert harness.likeliest().texts == (alone[3].likeliest, alone[1].likeliest)
    assert len(harness.say("nearest").texts[0].split(", ")) == 4


def test_p2_on_planted_units(describer: Describer, tmp_path: Path) -> None:
    names = ["goldfish", "tench", "koala", "lion", "ox", "bee"]
    photos = write_parquet(tmp_path / "photos.parquet", noise(96, side=64), name=names * 16)
    tools = Tools(("describer", "concepts", "netdissect"), describer)
    report = planted.p2_table(Planting((photos,), count=8), tmp_path / "run", tools)
    assert list(report["rows"]) == ["describer", ARGMAX, "concepts", "netdissect"]
    assert "needs the target" in report["rows"]["netdissect"][WHY]
    for row in ("describer", ARGMAX, "concepts"):
        for figure in ("attribute F1", "forced choice", "connective", "shuffled", "constant"):
            assert 0 <= estimate(report, row, figure) <= 1
    assert len(report["units"]) == 8 == report["n"]
    assert {"meaning", "describer", ARGMAX, "concepts"} == report["units"][0].keys()
    assert (tmp_path / "run" / "exemplars").is_dir()


def test_texts_that_foretell_are_ahead_in_p3() -> None:
    similarity, activations = follow(24)
    origin = np.repeat([0, 1], [70, 50])
    texts = [f"text {i}" for i in range(24)]
    place = {text: i for i, text in enumerate(texts)}

    def similar(asked: Any) -> np.ndarray:
        return similarity[[place[text] for text in asked]]

    made = LayerScores(activations, origin, activations, origin, similar, similar)
    right, own, draws = tables._simulated(made, Said(tuple(texts)))
    wrong, other, worse = tables._simulated(made, Said((*texts[1:], texts[0])))
    assert right["correlation"]["estimate"] == pytest.approx(own.mean()) and own.mean() > 0.4
    assert right["shuffled"]["estimate"] < 0.2 > wrong["correlation"]["estimate"]
    assert {"correlation", "shuffled", "constant"} <= right.keys()
    claims = settled(tables._compared({"a": (own, draws), "b": (other, worse)}, "x: "))
    assert claims["x: a - b"]["ahead"]


def test_differences_are_those_of_paired_bootstrap() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random(40) < 0.7, rng.random(40) < 0.4
    said = {"a": Said(tuple("x" * 40)), "b": Said(tuple("y" * 40)), "c": Said(why="no reason")}
    scores = {"x": first.astype(float), "y": second.astype(float)}
    counts = rng.multinomial(40, np.full(40, 1 / 40), size=4000)
    report = Scoring(said, lambda s: scores[s.texts[0]], lambda s, own: {"mean": own.mean()},
                     weighted(counts)).report("t", 40, 0.0)  # fmt: skip
    plain = paired(scores["x"], scores["y"])
    claim = report["paired"]["a - b"]
    assert claim["estimate"] == pytest.approx(plain["estimate"])
    assert claim["interval"] == pytest.approx(plain["interval"], abs=0.03)
    assert claim["ahead"] == (plain["interval"][0] > 0)
    assert report["rows"]["c"] == {WHY: "no reason"} and list(report["paired"]) == ["a - b"]
