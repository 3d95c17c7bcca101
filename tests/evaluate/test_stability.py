"""Stability: similarities against the plainest version, settings, the way to a report, kills."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import milanx
from milanx.describing.describer import Describer
from milanx.errors import FormatError, InputError
from milanx.evaluate.stability import figures
from milanx.evaluate.stability.measure import command, measure_stability
from milanx.evaluate.stability.settings import AXES, StabilityAsked, read_axes
from milanx.evaluate.stability.vary import Said, read_said
from milanx.report.stability import markdown
from tests.cli.commands import refused
from tests.cli.commands import run as run_command
from tests.evaluate.stability_worker import asked
from tests.helpers import noise, write_parquet

WORDS = ("red", "green", "dogs", "cats", "sky")


def embed(texts: Sequence[str]) -> np.ndarray:
    """Which of five words a text has, as unit rows."""
    rows = np.array([[float(word in text.lower()) for word in WORDS] for text in texts])
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def said(texts: dict[tuple[str, int], str], scores: Sequence[float] = ()) -> Said:
    return Said("k", 5, texts, dict(zip(texts, scores, strict=False)))


FIRST = said({("a", 0): "red dogs", ("a", 1): "green cats", ("a", 2): "sky", ("b", 0): "dogs",
              ("b", 1): "cats", ("c", 0): "sky", ("b", 2): ""}, (0.5, 0.1, 0.3))  # fmt: skip
SECOND = said({("a", 0): "Red dogs", ("a", 1): "cats", ("a", 2): "sky", ("b", 0): "dogs",
               ("b", 1): "dogs", ("c", 0): "red", ("b", 2): "sky"}, (0.4, 0.4))  # fmt: skip


def test_similarities_are_those_of_every_pair() -> None:
    found = figures.compare(FIRST, SECOND, embed)
    within, between, values = [], [], []
    for layer, count in (("a", 3), ("b", 2)):
        for u in range(count):
            one = [embed([FIRST.texts[layer, u]])[0], embed([SECOND.texts[layer, u]])[0]]
            own = float(one[0] @ one[1])
            others = []
            for v in set(range(count)) - {u}:
                other = [embed([FIRST.texts[layer, v]])[0], embed([SECOND.texts[layer, v]])[0]]
                others += [float(one[0] @ other[1]), float(one[1] @ other[0])]
            within.append(own)
            between.append(np.mean(others))
            values.append(own - np.mean(others))
    assert found["within"] == pytest.approx(np.mean(within))
    assert found["between"] == pytest.approx(np.mean(between))
    assert found["stability"]["estimate"] == pytest.approx(np.mean(values))
    low, high = found["stability"]["interval"]
    assert low < np.mean(values) < high
    assert found["n"] == 6  # the unit without a text is left out; one alone in its layer counts
    assert found["same"]["estimate"] == pytest.approx(3 / 6)
    assert found["distinct"] == pytest.approx((3 + 1 + 1) / 6)
    assert found["most"] == pytest.approx(2 / 6)
    assert found["scored"] == 2
    assert found["score"]["estimate"] == pytest.approx(0.4)
    assert found["gain"]["estimate"] == pytest.approx(0.1)


def test_one_text_for_all_is_stable_and_worth_nothing() -> None:
    same = said({("a", u): "sky" for u in range(20)})
    found = figures.compare(same, same, embed)
    assert found["within"] == found["between"] == pytest.approx(1)
    assert found["stability"]["estimate"] == pytest.approx(0)
    assert found["distinct"] == pytest.approx(1 / 20)
    assert "score" not in found


def test_what_is_varied_is_read() -> None:
    assert read_axes(()) == {name: axis.values for name, axis in AXES.items()}
    assert read_axes(["k", "lam=0,0.2", "strategy=nucleus"]) == {
        "k": (5, 10, 15, 30), "lam": (0.0, 0.2), "strategy": ("nucleus",)}  # fmt: skip
    wrong = {"kk": "nothing called 'kk' is varied", "k=a": "exemplars a unit cannot be",
             "images=x": "not varied by values"}  # fmt: skip
    for text, why in wrong.items():
        with pytest.raises(InputError, match=why):
            read_axes([text])
    with pytest.raises(InputError, match="two sets of probe images have one name"):
        StabilityAsked("m", ("l",), ("i",), Path("o"), probes=("a/x.parquet", "b/x.parquet"))
    with pytest.raises(InputError, match="1 units of a layer"):
        StabilityAsked("m", ("l",), ("i",), Path("o"), units=1)
    with pytest.raises(InputError, match="nothing to describe"):
        StabilityAsked("m", (), ("i",), Path("o"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise, each picture with a tint of its own."""
    rng = np.random.default_rng(0)
    made = [Image.fromarray((np.asarray(picture) * rng.uniform(0.2, 1, 3)).astype(np.uint8))
            for picture in noise(40)]  # fmt: skip
    return write_parquet(tmp_path_factory.mktemp("photos") / "p.parquet", made)


def texts(out: Path) -> dict[str, Any]:
    """What was kept of each search, and every run's texts."""
    kept = {p.name: json.loads(p.read_text())["units"] for p in (out / "texts").glob("*.json")}
    runs = {p.name: [row["description"] for row in milanx.open_run(p).rows]
            for p in (out / "runs").iterdir() if p.is_dir()}  # fmt: skip
    return kept | runs


@pytest.fixture(scope="module")
def measured(
    photos: Path, describer: Describer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("measured") / "out"
    return out, measure_stability(describer, asked(out, photos))


def test_settings_are_described_beside_the_usual_ones(
    measured: tuple[Path, dict[str, Any]], describer: Describer
) -> None:
    out, report = measured
    rows = report["settings"]
    assert [(r["axis"], r["value"]) for r in rows] == [
        ("base", ""), ("k", 4), ("lam", 0.0), ("lam", 0.6), ("beam", 1)]  # fmt: skip
    base = rows[0]
    assert base["within"] == pytest.approx(1)
    assert base["same"]["estimate"] == 1
    assert report["usual"] == {"k": 15, "lam": describer.settings.lam, "beam": 50}
    run, fewer = (milanx.open_run(out / "runs" / name) for name in ("base", "k-4"))
    assert run.store.images("bn1").shape == (5, 15)
    assert fewer.store.images("bn1").shape == (5, 4)
    kept = read_said(next((out / "texts").glob("lam-0.6-*.json")))
    alone = describer.describe(run.store, settings=describer.search_defaults(lam=0.6))
    assert list(kept.texts.values()) == [d.text for d in alone]
    assert kept.scores == {}  # too few photos are kept aside
    assert [row["layer"] for row in report["layers"]] == ["bn1"]
    assert report["layers"][0]["score"] is None
    assert json.loads((out / "stability.json").read_text())["settings"] == rows
    assert "--vary k=4 --vary lam=0.0,0.6 --vary beam=1" in report["command"]
    text = markdown(report)
    assert text.count("| lambda |") == 2
    assert report["fingerprint"] in text


def test_what_was_described_is_not_described_again(
    measured: tuple[Path, dict[str, Any]],
    photos: Path,
    describer: Describer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, report = measured

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("described again")

    monkeypatch.setattr(Describer, "describe", never)
    again = measure_stability(describer, asked(out, photos))
    assert again["settings"] == report["settings"]


def test_a_killed_process_goes_on(
    measured: tuple[Path, dict[str, Any]], photos: Path, describer: Describer, tmp_path: Path,
    own_cache: Path,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    worker = subprocess.Popen(
        [sys.executable, "-m", "tests.evaluate.stability_worker", str(out), str(photos)],
        env=os.environ | {"MILANX_CACHE": str(own_cache)}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    started = time.monotonic()
    while not list((out / "texts").glob("*.json")):
        assert worker.poll() is None, "it ended by itself"
        assert time.monotonic() - started < 500
        time.sleep(0.02)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert not (out / "stability.json").exists()
    report = measure_stability(describer, asked(out, photos))
    assert texts(out) == texts(measured[0])
    assert report["settings"] == measured[1]["settings"]


def test_damaged_texts_are_told(tmp_path: Path, measured: tuple[Path, dict[str, Any]]) -> None:
    kept = next((measured[0] / "texts").glob("beam-1-*.json"))
    damaged = tmp_path / "texts.json"
    damaged.write_text(kept.read_text()[:-40])
    with pytest.raises(FormatError, match=r"texts\.json"):
        read_said(damaged)


def test_the_command(photos: Path, tmp_path: Path) -> None:
    out, page = tmp_path / "out", tmp_path / "page.md"
    common = ("bench", "stability", out, "--model", "tests.helpers:tiny", "-l", "bn1",
              "--images", photos, "--units", "3")  # fmt: skip
    assert "nothing called 'kay' is varied" in refused(*common, "--vary", "kay")
    assert "the quantile cannot be 2.0" in refused(*common, "--vary", "quantile=2")
    assert "no search strategy 'best'" in refused(*common, "--vary", "strategy=best")
    assert "a share of 0.0 of the probe images" in refused(*common, "--vary", "share=0")
    assert not out.exists()
    marks = ("<!-- tables: milanx bench stability --into -->", "<!-- end of tables -->")
    page.write_text(f"above\n{marks[0]}\n{marks[1]}\nbelow\n")
    code, printed, _ = run_command(
        *common, "--vary", "share=0.5", "--vary", "images", "--probe", "builtin:probe",
        "--depth", "conv3", "--into", page,
    )  # fmt: skip
    assert code == 0
    assert "stability.png" in printed
    with Image.open(out / "stability.png") as picture:
        assert picture.size[0] > 1000
    report = json.loads((out / "stability.json").read_text())
    assert [(r["axis"], r["value"]) for r in report["settings"][1:]] == [
        ("share", 0.5), ("images", "builtin:probe")]  # fmt: skip
    assert milanx.open_run(out / "runs" / "share-0.5").settings["images"]["count"] == 20
    assert [row["layer"] for row in report["layers"]] == ["bn1", "conv3"]
    text = page.read_text()
    assert text.startswith(f"above\n{marks[0]}\n")
    assert text.endswith(f"{marks[1]}\nbelow\n")
    assert "| conv3 |" in text


def test_the_command_is_told(tmp_path: Path) -> None:
    told = command(StabilityAsked("m", ("l",), ("/some/where/p.parquet",), tmp_path, 8))
    assert told == "milanx bench stability OUT --model m --layer l --images p.parquet --units 8"
    again = command(asked(tmp_path, tmp_path / "p.parquet"))
    assert again.endswith("--units 5 --vary k=4 --vary lam=0.0,0.6 --vary beam=1")


def test_layers_are_told_apart() -> None:
    rows = []
    for layer, unit in itertools.product(("a", "b"), range(4)):
        low = 0.1 if layer == "a" or unit == 0 else -0.1
        rows.append({
            "layer": layer, "unit": unit, "description": "sky" if layer == "b" else f"text {unit}",
            "status": "dead" if (layer, unit) == ("a", 3) else
            "unclear" if layer == "b" and unit else "described",
            "score": None if (layer, unit) == ("a", 3) else low + 0.1,
            "score_interval": [low, low + 0.2],
        })  # fmt: skip
    fake: Any = SimpleNamespace(rows=rows, store=SimpleNamespace(layers=["a", "b"]),
                                settings={"confidence": {"fingerprint": "x"}})  # fmt: skip
    first, second = figures.by_layer(fake)
    assert (first["n"], first["dead"], first["distinct"]) == (3, 1, 1.0)
    assert first["unclear"]["estimate"] == 0
    assert first["above"]["estimate"] == 1
    assert (second["n"], second["distinct"]) == (4, 0.25)
    assert second["unclear"]["estimate"] == 0.75
    assert second["above"]["estimate"] == 0.25
    assert second["score"]["estimate"] == pytest.approx(0.05)
    fake.settings = {"confidence": {"reason": "not calibrated"}}
    assert figures.by_layer(fake)[1]["unclear"] is None
