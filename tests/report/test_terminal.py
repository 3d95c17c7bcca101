"""What the terminal says of a run: addresses that other commands take, hits by word and meaning."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from milanx.cli import app
from rich.progress import Progress
from typer.testing import CliRunner

from milanx.files import write_table
from milanx.report.cells import confidence_note, score_note
from milanx.report.page import write_page
from milanx.report.terminal import TerminalReporter, _Count
from milanx.rows import UNITS, UNITS_VERSION, units_schema
from milanx.runs import Run
from milanx.scoring.column import _lack
from tests.act.runs import planted_run, set_texts
from tests.act.test_select import make_run
from tests.cli.commands import refused

NARROW = {"COLUMNS": "80"}
LONG = {
    (layer, unit): (f"a striped thing with very many words of number {unit}", ["dogs", "cats"])
    for layer in ("features.10.conv.2.norm", "features.11.conv.2.norm")
    for unit in (7, 1041)
}


def said(*arguments: Any) -> str:
    done = CliRunner().invoke(app, [str(a) for a in arguments], env=NARROW)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def two(tmp_path: Path) -> Run:
    """A run of two layers with long names and scores."""
    return make_run(tmp_path / "two", LONG, scores=dict.fromkeys(LONG, 0.5))


def test_tables_of_80_columns_hold_whole_addresses(two: Run) -> None:
    for sort in ("score", "number"):
        table = said("show", two.root, "--sort", sort)
        assert "…" not in table
        for layer, unit in LONG:
            assert f" {layer}:{unit} " in table
            assert f"{layer}:{unit}" in said("show", two.root, "--unit", f"{layer}:{unit}")
    found = said("find", "striped", two.root, "--words")
    assert all(re.search(rf" {re.escape(layer)}:{unit}[ ,]", found) for layer, unit in LONG)


def test_of_one_layer_the_title_names_it_and_its_numbers_are_addresses(tmp_path: Path) -> None:
    texts = {pair: text for pair, text in LONG.items() if "10" in pair[0]}
    run = make_run(tmp_path / "one", texts, scores=dict.fromkeys(texts, 0.5))
    table = said("show", run.root, "--sort", "score")
    title, body = table.split("┏")
    assert "features.10.conv.2.norm" in title
    assert "features.10.conv.2.norm" not in body
    units = re.findall(r"│ +(\d+) +│", body)
    assert sorted(units) == ["1041", "7"]
    for unit in units:
        alone = said("show", run.root, "--unit", unit)
        assert f"features.10.conv.2.norm:{unit}" in alone


def test_an_address_wider_than_the_terminal_goes_on_in_the_next_line(tmp_path: Path) -> None:
    layer = ".".join(["module"] * 20)
    run = make_run(tmp_path / "wide", {(layer, 3): ("dogs", []), ("other", 0): ("cats", [])})
    table = said("show", run.root)
    cells = re.findall(r"(?m)^│ (\S+) +│", table)
    assert f"{layer}:3" in "".join(cells)


WATER = {
    ("a", 3): ("waters", ["boats"]),
    ("a", 17): ("ocean water", []),
    ("a", 5): ("food", ["water towers"]),
    ("a", 8): ("swimming", []),
    ("a", 9): ("swimming", []),
    ("a", 11): ("food", []),
}


def test_those_that_say_it_stand_apart_from_those_near_in_meaning(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", WATER)
    found = said("find", "water", run.root)
    says, near = found.split("2 units nearest by meaning")
    near, beside = near.split("1 unit with another candidate that says water")
    assert "5 of 6 units" in says
    assert "2 units say water" in says
    assert "waters" in says
    assert "ocean water" in says
    assert re.search(r"swimming +│ +0\.\d+ │ 2 units: 8, 9 ", near)
    assert "water towers" in beside
    assert "food" not in found
    only = said("find", "water", run.root, "--words", "--in", "description")
    assert "2 of 6 units" in only


def test_confidence_stands_beside_the_description_alone_and_guesses_are_marked(
    tmp_path: Path,
) -> None:
    sure = {("a", 3): 0.9, ("a", 17): 0.25, ("a", 5): 0.75, ("a", 8): 0.9, ("a", 9): 0.125}
    run = make_run(tmp_path / "run", WATER, sure=sure)
    rows = run.units.to_pylist()
    for row in rows:
        row["status"] = "unclear" if row["unit"] in (9, 17) else "described"
    write_table(run.root / "units.parquet", pa.Table.from_pylist(rows, schema=units_schema()),
                UNITS, UNITS_VERSION)  # fmt: skip
    says, rest = said("find", "water", run.root).split("2 units nearest by meaning")
    near, beside = rest.split("1 unit with another candidate")
    assert re.search(r"waters +│ 3 +│ +0\.90 │", says)
    assert re.search(r"ocean water +│ 17 +│ +0\.25 unclear │", says)
    assert re.search(r"2 units, 1 unclear: 8, 9 +│ +0\.90 │", near)
    assert "water towers" in beside
    assert "0.75" not in beside and "confidence" not in beside
    table = said("show", run.root)
    assert len(re.findall(r"0\.\d\d unclear │", table)) == 2


def test_where_no_unit_says_it_one_sentence_tells(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {("a", 0): ("boats", []), ("a", 1): ("seats", [])})
    found = said("find", "sea", run.root)
    assert "no unit says sea; 1 unit nearest by meaning:" in found
    assert "seats" not in found
    done = CliRunner().invoke(app, ["find", "algebra", str(run.root)], env=NARROW)
    assert done.exit_code == 2
    assert re.search("nearest by meaning: .(seats|boats)", done.output)


def test_few_photos_are_told_above_the_table(tmp_path: Path) -> None:
    run = planted_run(tmp_path / "few", ["dogs", "cats", "trees"])
    for row, rank in zip(run.rows, (1.0, 2.0, 3.0), strict=True):
        row["rank"] = rank
    write_table(run.root / "units.parquet", pa.Table.from_pylist(run.rows, schema=units_schema()),
                UNITS, UNITS_VERSION)  # fmt: skip
    table = said("show", run.root)
    assert "surer than" in table
    assert table.index("With 80 distinct photos the order says little") < table.index("┏")


def test_of_confidence_and_score_no_more_is_said_than_is_known(tmp_path: Path) -> None:
    run = set_texts(planted_run(tmp_path / "imported", ["dogs", "cats"]), {}, confidence=0.5,
                    score=0.5)  # fmt: skip
    page = write_page(run).read_text(encoding="utf-8").split("<script")[0]
    for text in (said("show", run.root), page):
        assert "it is no probability of being right" in " ".join(text.split())
        assert not re.search(r"\bNone\b|below 0\.00", text)
    run.settings["confidence"] = {"threshold": 0.4}
    run.settings["score"] = {"photos": 63}
    assert "below 0.40 a unit is unclear" in confidence_note(run)
    assert "on 63 distinct images" in score_note(run)


def test_a_run_says_how_many_photos_a_score_needs() -> None:
    def table(kept: int, searched: int, sources: int = 1) -> list[dict[str, Any]]:
        return [{"index": i, "group": f"g{i}", "source": f"s{i % sources}",
                 "split": "aside" if i < kept else "exemplars"}
                for i in range(kept + searched)]  # fmt: skip

    assert _lack(table(12, 48), 0) == (
        "12 of 60 distinct photos were kept aside, and a score needs 50: give about 250 photos or "
        "more"
    )
    assert "about 250 photos" in _lack(table(0, 60), 0)
    many = _lack(table(60, 240, 6), 0)
    assert "of 60 distinct photos kept aside 0 are of sources with 20" in many
    assert "fewer sources" in many


def test_a_unit_tells_its_files_its_run_and_its_place_on_the_page(tmp_path: Path) -> None:
    names = [f"holiday {i}.jpg" for i in range(80)]
    run = planted_run(tmp_path / "a run", ["dogs", "cats"], paths=names)
    (run.root / "page").mkdir()
    (run.root / "page" / "index.html").write_text("")
    layer = run.rows[1]["layer"]
    shown = said("show", run.root, "--unit", "1")
    for image in run.rows[1]["images"]:
        assert f"holiday {image}.jpg" in shown
    assert f"{run.target} · {layer} · 80 images" in shown
    assert f"run   {run.root}" in shown
    assert f"{(run.root / 'page' / 'index.html').as_uri()}#{layer}/1" in shown


def test_without_a_terminal_stages_say_what_they_do_and_that_they_go_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    reporter = TerminalReporter(every=0.02)
    with reporter.stage("extract", 8) as bar:
        bar.advance(3)
        time.sleep(0.3)
    with reporter.stage("page"):
        time.sleep(0.3)
    told = capsys.readouterr().err
    first, second = told.split("page", 1)
    assert first.startswith("extract        ... shows the images to the model")
    assert "extract        ... 3 of 8, 0 s" in first
    assert re.search(r"extract +\d+\.\d s\n$", first)
    assert "?" not in told
    assert "page           ... 0 s" in "page" + second


def test_a_stage_of_unknown_length_has_no_count() -> None:
    progress = Progress(_Count())
    for total in (8, None):
        progress.add_task("x", total=total)
    known, unknown = progress.tasks
    column = _Count()
    assert "8" in column.render(known).plain
    assert column.render(unknown).plain == ""


def test_a_run_is_shown_without_language_models(two: Run) -> None:
    """Their library takes seconds to load, and a shown run asks it nothing."""
    code = ("import sys\nfrom milanx.cli import app\n"
            "app(sys.argv[1:], standalone_mode=False)\n"
            "heavy = {'transformers', 'peft', 'scipy'}\n"
            "sys.exit(', '.join(heavy & set(sys.modules)) or 0)")  # fmt: skip
    for more in ([], ["--unit", "features.10.conv.2.norm:7"]):
        done = subprocess.run([sys.executable, "-c", code, "show", str(two.root), *more],
                              capture_output=True, text=True)  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "a striped thing" in " ".join(done.stdout.split())


def test_a_likeness_that_cannot_be_is_refused(two: Run) -> None:
    for threshold in ("5", "-2", "nan"):
        told = refused("find", "striped", two.root, "--threshold", threshold)
        assert "no similarity is" in told and "from -1 to 1" in told
