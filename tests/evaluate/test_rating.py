"""Ratings: readers see pictures and texts alone, and their grades are counted by the key."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from milanx.cli import app
from typer.testing import CliRunner

from milanx.describing.describer import Description
from milanx.errors import FormatError, InputError
from milanx.evaluate.p4.rated import alpha, read_grades, score_ratings
from milanx.evaluate.p4.rating import GRADES, RatingSettings, make_ratings
from milanx.evaluate.p4.study import Material
from milanx.files import read_json
from milanx.pipeline import extract
from milanx.runs import Run, open_run, write_units
from tests.helpers import noise, write_parquet

UNITS = 8


def described(folder: Path, images: Path, name: str, texts: dict[int, str]) -> Run:
    """A run of the units of conv3 with these texts."""
    out = folder / name
    store = extract("tests.helpers:tiny", layers=[f"conv3:0-{UNITS - 1}"], images=images, out=out)
    found = [Description("conv3", unit, sign, "described", texts.get(unit, f"{name} {unit}"))
             for unit, sign in store.units("conv3")]  # fmt: skip
    write_units(out, found, store)
    return open_run(out)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    folder = tmp_path_factory.mktemp("runs")
    images = write_parquet(folder / "photos.parquet", noise(40, seed=0))
    return (described(folder, images, "ours", {0: "dogs or cats"}),
            described(folder, images, "theirs", {}))  # fmt: skip


@pytest.fixture(scope="module")
def study(runs: tuple[Run, Run], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("studies") / "study"
    made = make_ratings(Material(runs[0], against=(runs[1],)), out,
                        settings=RatingSettings(units=5, seed=3))  # fmt: skip
    assert made == 10
    return out


def key_of(study: Path) -> dict:
    return read_json(study / "key" / "ratings.json", "milanx-ratings-key", 1)["entries"]


def test_readers_see_pictures_and_texts_alone(study: Path, runs: tuple[Run, Run]) -> None:
    given = read_json(study / "ratings.json", "milanx-ratings", 1)
    assert all(set(e) == {"id", "picture", "text"} for e in given["entries"])
    assert all((study / e["picture"]).is_file() for e in given["entries"])
    ids = [e["id"] for e in given["entries"]]
    assert ids == sorted(ids)  # digests: neither by unit nor by method
    key = key_of(study)
    assert {key[i]["list"] for i in ids} == {"description", "words"}
    for entry in given["entries"]:
        told = key[entry["id"]]
        run = runs[told["list"] == "words"]
        assert entry["text"] == run["conv3", told["unit"]].description
    assert given["grades"] == list(GRADES)


def test_both_methods_are_read_of_the_same_units(study: Path) -> None:
    units = {name: {e["unit"] for e in key_of(study).values() if e["list"] == name}
             for name in ("description", "words")}  # fmt: skip
    assert units["description"] == units["words"]
    assert len(units["words"]) == 5


def test_a_seed_draws_the_units(runs: tuple[Run, Run], tmp_path: Path) -> None:
    drawn = []
    for number, seed in enumerate((1, 1, 2)):
        make_ratings(Material(runs[0]), tmp_path / str(number),
                     settings=RatingSettings(units=4, seed=seed))  # fmt: skip
        drawn.append({e["unit"] for e in key_of(tmp_path / str(number)).values()})
    assert drawn[0] == drawn[1] != drawn[2]


def written(path: Path, grades: dict[str, str]) -> Path:
    path.write_text(json.dumps(grades))
    return path


def with_confidence(study: Path, out: Path) -> Path:
    """The study as if its run were calibrated: half of its units are unclear."""
    from milanx.files import write_json

    content = read_json(study / "key" / "ratings.json", "milanx-ratings-key", 1)
    mine = [e for e in content["entries"].values() if e["list"] == "description"]
    for number, entry in enumerate(mine):
        entry |= {"confidence": 0.1 * number, "status": "unclear" if number < 3 else "described"}
    (out / "key").mkdir(parents=True)
    write_json(out / "key" / "ratings.json", "milanx-ratings-key", 1, content)
    return out


def test_grades_are_counted(study: Path, tmp_path: Path) -> None:
    told = with_confidence(study, tmp_path / "told")
    key = key_of(told)
    mine = [i for i, e in key.items() if e["list"] == "description"]  # least sure first
    first = dict(zip(mine, ("wrong", "wrong", "half", "nearly", "right"), strict=True))
    second = first | {mine[0]: "right"}
    theirs = dict.fromkeys([i for i in key if i not in mine], "wrong")
    report = score_ratings(told, [written(tmp_path / "one.json", first | theirs),
                                  written(tmp_path / "two.json", second)])  # fmt: skip
    row = report["rows"]["description"]
    assert row["right or nearly"]["estimate"] == pytest.approx((0.5 + 0 + 0 + 1 + 1) / 5)
    assert row["right"] == pytest.approx(1.5 / 5)
    assert sum(row[grade] for grade in GRADES) == pytest.approx(1)
    assert row["n"] == 5
    assert report["rows"]["words"]["right or nearly"]["estimate"] == 0
    assert report["rows"]["  description, described"]["right or nearly"]["estimate"] == 1
    assert report["rows"]["  description, unclear"]["right or nearly"]["estimate"] == (
        pytest.approx(0.5 / 3))  # fmt: skip
    joined = [i for i in mine if key[i]["text"] == "dogs or cats"]
    assert report["rows"].get("  description, two things", {"n": 0})["n"] == len(joined)
    assert any("one.json" in n and "AUROC 1.00" in n for n in report["notes"])
    assert not any("two.json" in n and "AUROC 1.00" in n for n in report["notes"])


def plain_alpha(grades: list[list[float]]) -> float:
    """Krippendorff's alpha by its definition: observed over expected squared differences."""
    pairs = [(a, b, len(v) - 1) for v in grades if len(v) > 1
             for i, a in enumerate(v) for j, b in enumerate(v) if i != j]  # fmt: skip
    values = [x for v in grades if len(v) > 1 for x in v]
    n = len(values)
    seen = sum((a - b) ** 2 / m for a, b, m in pairs) / n
    expected = sum((a - b) ** 2 for i, a in enumerate(values)
                   for j, b in enumerate(values) if i != j) / (n * (n - 1))  # fmt: skip
    return 1 - seen / expected


def test_alpha_is_what_its_definition_gives() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        grades = [list(rng.integers(0, 4, int(rng.integers(1, 4))).astype(float))
                  for _ in range(12)]  # fmt: skip
        assert alpha(grades) == pytest.approx(plain_alpha(grades))
    assert alpha([[0.0, 0.0], [3.0, 3.0]]) == 1
    assert np.isnan(alpha([[0.0], [1.0]]))
    assert np.isnan(alpha([[1.0, 1.0], [1.0, 1.0]]))


def test_what_is_no_grade_is_refused(study: Path, tmp_path: Path) -> None:
    key = key_of(study)
    one = next(iter(key))
    for content, match in (({one: "good"}, "right, nearly, half, wrong"),
                           ({"nothing": "right"}, "no such entry")):  # fmt: skip
        with pytest.raises(InputError) as error:
            read_grades(written(tmp_path / "grades.json", content), key)
        assert match in f"{error.value}{error.value.why}"
    (tmp_path / "list.json").write_text("[]")
    for name in ("list.json", "absent.json"):
        with pytest.raises(FormatError):
            read_grades(tmp_path / name, key)


def test_a_study_of_another_kind_is_never_replaced_unasked(
    study: Path, runs: tuple[Run, Run], tmp_path: Path
) -> None:
    with pytest.raises(InputError):
        make_ratings(Material(runs[0]), study)
    foreign = tmp_path / "notes"
    foreign.mkdir()
    (foreign / "mine.txt").write_text("keep")
    with pytest.raises(InputError):
        make_ratings(Material(runs[0]), foreign, overwrite=True)
    assert (foreign / "mine.txt").read_text() == "keep"


def test_on_the_command_line(runs: tuple[Run, Run], tmp_path: Path) -> None:
    call = CliRunner().invoke
    out = tmp_path / "study"
    made = call(app, ["study", "rate", str(runs[0].root), "-o", str(out), "--units", "3"])
    assert made.exit_code == 0, made.output
    grades = dict.fromkeys(key_of(out), "nearly")
    told = call(app, ["study", "score", str(out), str(written(tmp_path / "a.json", grades))])
    assert told.exit_code == 0, told.output
    assert "1.000 [1.000, 1.000]" in told.output
    wrong = call(app, ["study", "rate", str(runs[0].root), "-o", str(tmp_path / "x"), "-l", "no"])
    assert wrong.exit_code == 2, wrong.output
    assert "conv3" in wrong.output
