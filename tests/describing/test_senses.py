"""Senses: what is proposed, the table with them and without, terminal and page."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from milanx.cli import app
from typer.testing import CliRunner

import milanx
from milanx.describing.candidates import Candidate, Description
from milanx.describing.senses import SenseSettings, of_photos, propose_senses
from milanx.errors import InputError
from milanx.exemplars.planted import PixelUnits
from milanx.exemplars.store import ExemplarStore
from milanx.features.encoded import encoded_views
from milanx.report.page import write_page
from milanx.rows import UNITS_VERSION
from milanx.runs import open_run, write_units
from milanx.scoring.senses import Sense

TWO = (Sense("red things", 0.6, 0.31, (0.1, 0.5), (0, 2, 3)),
       Sense("shiny cars", 0.4, 0.2, (0.05, 0.4), (1, 4)))  # fmt: skip


def with_senses(run: milanx.Run, root: Path) -> milanx.Run:
    """A copy of a run whose second unit has two senses, and whose table has two units."""
    shutil.copytree(run.root, root)
    said = [Description.of("units", unit, "+", [Candidate.of_pmi("red", 1.0)]) for unit in (0, 1)]
    write_units(root, said, run.store, senses={("units", 1, "+"): TWO})
    return open_run(root)


def test_a_table_without_senses_is_what_it_was(planted: milanx.Run) -> None:
    assert "senses" not in pq.read_schema(planted.root / "units.parquet").names
    assert all(row["senses"] is None for row in planted.rows)
    assert planted["units", 0].senses == []
    assert UNITS_VERSION == 4


def test_a_table_keeps_senses(planted: milanx.Run, tmp_path: Path) -> None:
    run = with_senses(planted, tmp_path / "run")
    assert run["units", 0].senses == []
    first, second = run["units", 1].senses
    assert (first["text"], second["text"]) == ("red things", "shiny cars")
    assert first["exemplars"] == [0, 2, 3]
    assert first["share"] == pytest.approx(0.6)
    assert second["score_interval"] == pytest.approx([0.05, 0.4])
    known = pq.read_table(tmp_path / "run" / "units.parquet").drop_columns(["senses"])
    assert known.schema.names == pq.read_schema(planted.root / "units.parquet").names


def test_terminal_and_page_show_senses(planted: milanx.Run, tmp_path: Path) -> None:
    run = with_senses(planted, tmp_path / "run")
    shown = CliRunner().invoke(app, ["show", str(run.root)], env={"COLUMNS": "140"})
    assert "60% red things" in shown.output
    assert "1 of several senses" in shown.output
    images = run.rows[1]["images"]
    one = CliRunner().invoke(app, ["show", str(run.root), "--unit", "units:1"],
                             env={"COLUMNS": "140"})  # fmt: skip
    assert f"sense: 40% shiny cars, score 0.20 [0.05, 0.40], exemplars {images[1]}, {images[4]}" \
        in one.output  # fmt: skip
    page = write_page(run).read_text(encoding="utf-8")
    assert '"se":[["red things",0.6,0.31,[0,2,3]],["shiny cars",0.4,0.2,[1,4]]]' in page
    assert page.count('"se":') == 1
    assert '"se":' not in (planted.root / "page" / "index.html").read_text(encoding="utf-8")


def test_a_csv_file_has_a_column_of_senses(planted: milanx.Run, tmp_path: Path) -> None:
    run = with_senses(planted, tmp_path / "run")
    for made, name in ((run, "two"), (planted, "one")):
        done = CliRunner().invoke(app, ["export", str(made.root), "csv", "-o",
                                        str(tmp_path / f"{name}.csv")])  # fmt: skip
        assert done.exit_code == 0, done.output
    with (tmp_path / "two.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["senses"] for row in rows] == ["", "60% red things; 40% shiny cars"]
    assert [row["description"] for row in rows] == ["red", "red"]
    with (tmp_path / "one.csv").open(newline="") as file:
        assert "senses" not in next(csv.reader(file))  # as in the table
    back = CliRunner().invoke(app, ["import", "csv", str(tmp_path / "two.csv"), "-o",
                                    str(tmp_path / "back")])  # fmt: skip
    assert back.exit_code == 0 and "the columns senses" in back.output


@pytest.mark.usefixtures("views_encoded")
def test_proposals_share_out_the_exemplars(
    planted: milanx.Run, describer: milanx.Describer
) -> None:
    store = ExemplarStore.open(planted.root)
    features = encoded_views(describer.encoder, store)
    assert propose_senses(describer, store, features, SenseSettings(1)) == {}
    loose = SenseSettings(2, narrower=-99.0, alike=0.0, near=2.0)
    found = propose_senses(describer, store, features, loose)
    assert found
    for (layer, unit, sign), senses in found.items():
        row = store.units(layer).index((unit, sign))
        there = np.flatnonzero(store.images(layer)[row] >= 0).tolist()
        assert sorted(place for sense in senses for place in sense.places) == there
        assert sum(sense.share for sense in senses) == pytest.approx(1)
        photos = [set(store.photos[store.images(layer)[row][list(s.places)]]) for s in senses]
        assert not photos[0] & photos[1]
        assert min(map(len, photos)) >= loose.least
        assert senses[0].share >= senses[1].share
    assert found == propose_senses(describer, store, features, loose)


def test_several_exemplars_of_a_photo_are_one_point() -> None:
    points = np.array([[0.0, 1.0], [2.0, 1.0], [5.0, 5.0]])
    means, place = of_photos(points, np.array([7, 7, 3]))
    assert means.tolist() == [[5.0, 5.0], [1.0, 1.0]]
    assert place.tolist() == [1, 1, 0]


def test_senses_that_cannot_be_are_refused_before_the_work(
    describer: milanx.Describer, tmp_path: Path
) -> None:
    given = {"layers": ["units"], "out": tmp_path / "run", "describer": describer}
    for wrong, why in (({"senses": 4}, "1 to 3"), ({"senses": 2, "score": False}, "kept aside"),
                       ({"senses": 2, "method": "concepts"}, "describer alone")):  # fmt: skip
        with pytest.raises(InputError) as error:
            milanx.describe(PixelUnits(), **{**given, **wrong})  # type: ignore[arg-type]
        assert why in f"{error.value.what} {error.value.why}"
    assert not (tmp_path / "run").exists()


def test_describing_says_what_became_of_senses(describer: milanx.Describer, tmp_path: Path) -> None:
    run = milanx.describe(PixelUnits(), layers=["units"], units="0-3", images="builtin:probe",
                          limit=120, out=tmp_path / "run", describer=describer,
                          senses=2)  # fmt: skip
    told = run.settings["score"]["senses"]
    assert told["asked"] == 2
    assert "photos were kept aside" in told["reason"]
    assert run.settings["describer"]["senses"] == 2
    assert all(row["senses"] is None for row in run.rows)
