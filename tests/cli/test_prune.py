"""`milanx prune` and `milanx edit` from the terminal: the newest run, what is written, errors."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from milanx.errors import InputError
from milanx.runs import newest_run
from tests.act.liar import LIARS, make_run
from tests.cli.commands import LIAR, run


def test_prune_show_and_undo(work: Path) -> None:
    code, out, error = run("prune", "--match", "text", "--images", "photos", "--out", "edited",
                           "--json")  # fmt: skip
    assert code == 0, error
    report = json.loads(out)
    assert report["measure"] == "accuracy" and report["target"] == LIAR
    assert {unit for _, unit in report["gone"]} <= {3, 4, 5}
    assert report["count"] == len(report["gone"]) > 0
    names = {p.name for p in (work / "edited").iterdir()}
    assert {"edit.json", "prune.json", "model.safetensors", "curve.png", "index.html"} <= names
    code, out, _ = run("edit", "show", "edited")
    assert code == 0 and "rows of conv" in out and "white texts" in out
    code, out, _ = run("edit", "show", "edited", "--json")
    assert json.loads(out)["format"] == "milanx-edit"
    code, out, error = run("edit", "undo", "edited", "--out", "restored.safetensors")
    assert code == 0 and (work / "restored.safetensors").is_file(), error


def test_an_edit_has_a_place_of_its_own(work: Path) -> None:
    for name in ("text", "text-2"):  # an earlier edit is never replaced unasked
        code, out, error = run("prune", "--match", "text", "--images", "photos")
        assert code == 0, error
        folder = next((work / "milanx-edits").glob(f"*/{name}"))
        assert (folder / "index.html").is_file() and (folder / "curve.png").is_file()
        assert f"{name}/index.html" in out.replace("\n", "")


def test_the_table_names_every_figure(work: Path) -> None:
    code, out, error = run("prune", "--match", "text", "--images", "photos", "--quiet")
    assert code == 0, error
    for text in ("units removed", "what the edit is for", "clean", "worst group",
                 "random units of the same", "reversed order"):  # fmt: skip
        assert text in out


def test_a_dry_run_lists_units(work: Path) -> None:
    code, out, _ = run("prune", "--match", "text", "--exclude", "conv:5", "--dry-run")
    assert code == 0
    assert all(f"conv:{unit}" in out for unit in LIARS) and "words and text" not in out
    assert "'conv:5' excludes 1 of the units found" in out


OWN = """format: milanx-rules
version: 1
rules: [{id: marks, severity: note, text: t., advice: a., words: "white text, mark"}]
"""


def test_a_rule_of_the_audit_chooses_units(work: Path) -> None:
    code, out, error = run("prune", "--rule", "text", "--exclude", "conv:5", "--dry-run")
    assert code == 0, error
    assert 'rule text: it says "text"' in out
    assert all(f"conv:{unit}" in out for unit in LIARS) and "words and text" not in out
    (work / "own.yaml").write_text(OWN)
    code, out, error = run("prune", "--rule", "marks", "--rule", "text", "--rules", "own.yaml",
                           "--images", "photos", "--out", "edited", "--json")  # fmt: skip
    assert code == 0, error
    assert {u["unit"] for u in json.loads(out)["units"]} == {3, 4, 5}
    edit = json.loads((work / "edited" / "edit.json").read_text())
    asked = edit["why"]["selection"]["rules"]
    assert [rule["id"] for rule in asked] == ["marks", "text"]
    assert asked[0]["words"] == ["white text", "mark"]
    reasons = {u["unit"]: u["why"] for u in edit["edits"][0]["units"]}
    assert reasons[4] == 'rule marks: it says "white text"'
    assert reasons[3] == 'rule text: it says "text"'
    code, out, _ = run("edit", "show", "edited")
    assert code == 0 and 'rule marks: it says "white' in out


def test_errors_say_what_to_do(work: Path) -> None:
    for args, what in (
        (["prune"], "no units are chosen"),
        (["prune", "--match", "zebra"], "no description holds 'zebra'"),
        (["prune", "nothing", "--match", "text"], "is no run folder"),
        (["prune", "--rule", "txet"], "there is no rule 'txet'"),
        (["prune", "--rule", "text", "--rules", "absent.yaml"], "cannot read the rules"),
        (["prune", "--units", "conv"], "would remove the whole of conv"),
        (["prune", "--match", "text", "--mode", "cut"], "no ablation 'cut'"),
        (["prune", "--match", "text", "--images", "photos", "--out", "photos"],
         "photos is there already"),
        (["edit", "show", "photos"], "no edit at photos"),
    ):  # fmt: skip
        code, _, error = run(*args)
        assert code == 2 and what in error.replace("\n", " "), (args, error)


def test_the_newest_run(work: Path, tmp_path: Path) -> None:
    assert newest_run().root.name == "conv"
    with pytest.raises(InputError, match="no run with descriptions"):
        newest_run(tmp_path / "nowhere")


def test_what_must_be_known_of_the_images_is_told(work: Path) -> None:
    (work / "photos" / "notes.pages").write_text("no image")
    (work / "photos" / "broken.png").write_bytes(b"no png")
    for command in (("prune", "--match", "text", "--out", "told"), ("robustness", LIAR)):
        code, out, error = run(*command, "--images", "photos", "--json")
        assert code == 0, error
        notes = " ".join(json.loads(out)["notes"])
        assert "broken.png" in notes and ".pages" in notes, notes


def test_unclear_units_are_marked_and_counted(work: Path) -> None:
    root = work / "guesses"
    make_run(root, texts=("a",) * 5 + ("b",), status=["unclear"] * 6, confidence=[0.125] * 6)
    code, out, err = run("prune", root, "--match", "a", "--dry-run")
    assert code == 0, err
    assert len(re.findall(r"0\.12 unclear", out)) == 5
    assert "5 of the 5 units chosen are unclear" in " ".join(out.split())
    make_run(work / "sure", texts=("a",) * 5 + ("b",), confidence=[0.9] * 6)
    out = run("prune", work / "sure", "--match", "a", "--dry-run")[1]
    assert not re.search(r"0\.90 unclear|are unclear", out)
