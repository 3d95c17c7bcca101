"""`milanx recipes`: what is listed, shown and copied is what ships."""

import json
from pathlib import Path

import milanx.recipes
from milanx.cli import app
from typer.testing import CliRunner

runner = CliRunner()
FOLDER = Path(milanx.recipes.__path__[0])


def test_ls_says_what_each_is_for() -> None:
    names = {path.stem for path in FOLDER.glob("*.yaml")}
    lines = runner.invoke(app, ["recipes", "ls"]).stdout.splitlines()
    assert {line.split()[0] for line in lines} == names
    rows = json.loads(runner.invoke(app, ["recipes", "ls", "--json"]).stdout)
    assert {row["name"] for row in rows} == names
    for row, line in zip(rows, lines, strict=True):
        header = (FOLDER / f"{row['name']}.yaml").read_text().replace("\n# ", " ")
        assert header.startswith(f"# {row['purpose']}") and row["purpose"][-1] in ".?"
        assert line.endswith(f"  {row['purpose']}")
    assert [row["name"] for row in rows] == sorted(names)
    starts = {len(line) - len(row["purpose"]) for row, line in zip(rows, lines, strict=True)}
    assert len(starts) == 1, "the purposes stand under one another"


def test_show_prints_the_file() -> None:
    assert runner.invoke(app, ["recipes", "show", "smoke"]).stdout == (
        FOLDER / "smoke.yaml"
    ).read_text(encoding="utf-8")


def test_cp_into_a_folder_or_a_file_and_never_over_one(tmp_path: Path) -> None:
    original = (FOLDER / "smoke.yaml").read_text(encoding="utf-8")
    done = runner.invoke(app, ["recipes", "cp", "smoke", str(tmp_path)])
    assert done.stdout.strip() == str(tmp_path / "smoke.yaml")
    assert (tmp_path / "smoke.yaml").read_text() == original
    mine = original.replace("steps: 20", "steps: 21")
    (tmp_path / "smoke.yaml").write_text(mine)
    refused = runner.invoke(app, ["recipes", "cp", "smoke", str(tmp_path)])
    assert refused.exit_code == 2
    assert "there already" in refused.stderr
    assert (tmp_path / "smoke.yaml").read_text() == mine
    again = ["recipes", "cp", "smoke", str(tmp_path / "smoke.yaml"), "--overwrite"]
    assert runner.invoke(app, again).exit_code == 0
    assert (tmp_path / "smoke.yaml").read_text() == original


def test_validate_says_all_errors_at_once() -> None:
    assert runner.invoke(app, ["recipes", "validate", "smoke"]).stdout == "smoke is fine\n"
    done = runner.invoke(
        app, ["recipes", "validate", "smoke", "seed=many", "decoder.stps=3", "decoder.rank=x"]
    )
    assert done.exit_code == 2
    for part in (
        "3 errors",
        "seed must be a valid integer",
        "did you mean steps",
        "decoder.rank must be a valid integer",
    ):
        assert part in done.stderr
    unknown = runner.invoke(app, ["recipes", "validate", "smok"])
    assert unknown.exit_code == 2
    assert "did you mean smoke" in unknown.stderr
