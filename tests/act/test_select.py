"""Which units are chosen: words, meaning, addresses; what is near where nothing matches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from milanx.act.audit.rules import Rule, pick_rules
from milanx.act.select import Choice, Selection, choose
from milanx.errors import InputError
from milanx.files import write_table
from milanx.language.compare import Sentences
from milanx.rows import units_schema
from milanx.runs import Run, open_run, write_settings

TEXTS = {
    ("a", 0): ("words and text", ["signs"]),
    ("a", 1): ("texture", ["fabric"]),
    ("a", 2): ("dogs", ["text on signs", "cats"]),
    ("a", 3): ("", []),
    ("b", 0): ("white texts", ["letters"]),
    ("b", 1): ("red things", ["red cars"]),
    ("b", 7): ("letters", []),
}


def make_run(
    root: Path,
    texts: Any = TEXTS,
    scores: dict | None = None,
    reason: str | None = None,
    sure: dict | None = None,
) -> Run:
    rows = [
        {
            "layer": layer,
            "unit": unit,
            "sign": "+",
            "status": "described" if text else "unclear",
            "description": text,
            "score": (scores or {}).get((layer, unit)),
            "confidence": (sure or {}).get((layer, unit)),
            "candidates": [{"text": t} for t in [text, *others] if t],
            "images": [],
            "activations": [],
        }
        for (layer, unit), (text, others) in texts.items()
    ]
    root.mkdir(exist_ok=True)
    write_settings(
        root,
        {
            "target": {"name": "tiny", "fingerprint": "0"},
            "layers": [],
            "images": {"sources": []},
            "score": {"reason": reason} if reason else None,
        },
    )
    write_table(
        root / "units.parquet", pa.Table.from_pylist(rows, schema=units_schema()), "milanx-units", 1
    )
    return open_run(root)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "run")


def letters(texts: list[str]) -> np.ndarray:
    """Stands for a text tower: which letters a text holds."""
    rows = np.array([[t.count(c) for c in "abcdefghijklmnopqrstuvwxyz"] for t in texts], np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def found(choice: Choice) -> list[str]:
    return [c.address for c in choice.units]


def test_match_looks_at_descriptions_or_candidates(run: Run) -> None:
    choice = choose(run, Selection(match=("text",)))
    assert found(choice) == ["a:0", "b:0"]
    assert [c.why for c in choice.units] == ["'text'", "'text'"]
    assert choice.units[0].exemplars == run.root / "exemplars" / "a"
    wide = choose(run, Selection(match=("text",), within="candidates"))
    assert found(wide) == ["a:0", "b:0", "a:2"]  # the candidate comes last
    assert wide.units[2].why == "'text' in candidate 'text on signs'"
    assert choice.layers == {"a": (0,), "b": (0,)}


def test_several_words_and_regular_expressions(run: Run) -> None:
    assert found(choose(run, Selection(match=("text", "dog")))) == ["a:0", "a:2", "b:0"]
    assert found(choose(run, Selection(match=("^TEXT",), regex=True))) == ["a:1"]


def test_addresses_and_exclusions(run: Run) -> None:
    assert found(choose(run, Selection(units=("b:1,7", "a:3")))) == ["a:3", "b:1", "b:7"]
    assert found(choose(run, Selection(units=("*",), exclude=("a",)))) == ["b:0", "b:1", "b:7"]
    choice = choose(run, Selection(units=("*",), exclude=("b:0-1", "text", "nothing")))
    assert found(choice) == ["a:1", "a:2", "a:3", "b:7"]
    assert choice.notes[-1] == "'nothing' excludes 0 of the units found"
    for wrong, text in ((("c:1",), "no layer 'c'"), (("b:5",), "no unit 5 in b")):
        with pytest.raises(InputError, match=text):
            choose(run, Selection(units=wrong))


def test_at_most_so_many_by_strength_then_score(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", scores={("a", 0): 0.2, ("b", 0): 0.4, ("a", 2): 0.9})
    wide = Selection(match=("text",), within="candidates", max_units=2)
    choice = choose(run, wide)
    assert found(choice) == ["b:0", "a:0"]
    assert "3 units match; the first 2 are kept" in choice.notes
    assert found(choose(run, Selection(match=("text",), min_score=0.3))) == ["b:0"]
    with pytest.raises(InputError, match="no unit is left"):
        choose(run, Selection(match=("text",), min_score=0.5))


def test_a_least_confidence(run: Run, tmp_path: Path) -> None:
    known = {("a", 0): 0.25, ("b", 0): 0.75}
    sure = make_run(tmp_path / "sure", sure=known)
    choice = choose(sure, Selection(match=("text", "letters"), min_confidence=0.5))
    assert found(choice) == ["b:0"]
    assert choice.units[0].confidence == 0.75
    assert any("less sure than 0.5" in note for note in choice.notes)
    with pytest.raises(InputError, match="does not say how sure"):
        choose(run, Selection(match=("text",), min_confidence=0.5))
    with pytest.raises(InputError, match="from 0 to 1"):
        Selection(match=("text",), min_confidence=1.5)


def test_a_run_without_scores_refuses_a_least_score(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no scores"):
        choose(run, Selection(match=("text",), min_score=0.1))
    few = make_run(tmp_path / "other", reason="only 12 distinct photos were kept aside")
    with pytest.raises(InputError, match="only 12 distinct photos"):
        choose(few, Selection(match=("text",), min_score=0.1))


def test_meaning_with_the_describers_text_tower(run: Run) -> None:
    choice = choose(run, Selection(like=("written words",)))
    assert set(found(choice)) == {"a:0", "b:7"}
    embed = Sentences()
    close = (embed(["letters"]) @ embed(["written words"])[0])[0]
    assert [c.why for c in choice.units if c.unit == 7] == [f"like 'written words' ({close:.2f})"]
    both = choose(run, Selection(match=("letters",), like=("written words",)))
    assert both.units[0].address == "b:7" and both.units[0].why == "'letters'"


BOATS = Rule("boats", "note", "t", "a", words=("boat",), meaning=("written words",), alike=0.5)


def test_rules_of_the_audit_choose_units(run: Run) -> None:
    rules = pick_rules(["text"])
    choice = choose(run, Selection(rules=rules))
    assert found(choice) == ["a:0", "b:0", "b:7"]
    assert [c.why for c in choice.units] == [
        'rule text: it says "text"', 'rule text: it says "text"', 'rule text: it says "letter"',
    ]  # fmt: skip
    wide = choose(run, Selection(rules=rules, within="candidates", exclude=("b",)))
    assert [(c.address, c.why) for c in wide.units] == [
        ("a:0", 'rule text: it says "text"'),
        ("a:2", "rule text: it says \"text\" in candidate 'text on signs'"),
    ]
    assert found(choose(run, Selection(rules=rules, max_units=1))) == ["a:0"]
    both = choose(run, Selection(match=("letters",), rules=rules, units=("a:1",)))
    assert {c.address: c.why for c in both.units}["b:7"] == "'letters'"
    assert len(both.units) == 4


def test_a_rule_finds_by_meaning_what_its_words_do_not(run: Run) -> None:
    choice = choose(run, Selection(rules=(BOATS,)))
    assert set(found(choice)) == {"a:0", "b:7"}
    assert all(c.why.startswith('rule boats: it lies near "written words" (cosine 0.')
               for c in choice.units)  # fmt: skip
    assert all(0.5 <= c.strength < 1 for c in choice.units)


def test_a_rule_that_finds_nothing_says_what_is_near(run: Run) -> None:
    signs = Rule("signs", "note", "t", "a", words=("sign", "zebra crossing"))
    with pytest.raises(InputError, match="no description falls under the rule 'signs'") as error:
        choose(run, Selection(rules=(*pick_rules(["text"]), signs)))
    assert error.value.ways_out[0] == "--in candidates: 2 units have it among theirs"
    assert "nearest by meaning: '" in error.value.why
    rule = Rule("x", "note", "t", "a", meaning=("animals",), alike=0.99)
    with pytest.raises(InputError, match="the rule 'x'") as error:
        choose(run, Selection(rules=(rule,)))
    assert error.value.why.startswith("nearest by meaning: 'dogs' (")
    way = error.value.ways_out[0]
    assert way.startswith('--like "animals" --threshold 0.')
    assert found(choose(run, Selection(like=("animals",), threshold=float(way.split()[-1])))) == [
        "a:2"
    ]


def test_rules_are_picked_by_name(tmp_path: Path) -> None:
    assert [rule.id for rule in pick_rules(["text", "faces", "text"])] == ["text", "faces"]
    assert pick_rules([]) == () and pick_rules(["boats"], [BOATS]) == (BOATS,)
    own = tmp_path / "own.yaml"
    own.write_text("format: milanx-rules\nversion: 1\nrules: [{id: boats, severity: note, "
                   "text: t., advice: a., words: boat}]\n")  # fmt: skip
    assert pick_rules(["boats", "faces"], own)[0].words == ("boat",)
    with pytest.raises(InputError, match="no rule 'face'") as error:
        pick_rules(["face"])
    assert error.value.why.startswith("there are faces, ")
    assert "faces" in error.value.ways_out[0]
    with pytest.raises(InputError, match="none of the rules is named") as error:
        pick_rules([], own)
    assert "boats" in error.value.ways_out[0]


def test_nothing_found_says_what_is_near(run: Run) -> None:
    with pytest.raises(InputError) as error:
        choose(run, Selection(match=("textur",)), embed=letters)
    assert "'texture' (" in error.value.why and "by letters: texture" in error.value.why
    with pytest.raises(InputError) as error:
        choose(run, Selection(match=("signs",)), embed=letters)
    assert error.value.ways_out[0].startswith("--in candidates: 2 units")
    with pytest.raises(InputError) as error:
        choose(run, Selection(like=("frabic",), threshold=0.99), embed=letters)
    assert error.value.ways_out[0].startswith("--in candidates: 1 units")
    with pytest.raises(InputError, match=r"no description is like 'zzz' \(0.50 or more\)"):
        choose(run, Selection(like=("zzz",)), embed=letters)


def test_what_is_no_choice_is_refused(tmp_path: Path) -> None:
    for make, text in (
        (lambda: Selection(), "no units are chosen"),
        (lambda: Selection(match=(" ",)), "empty"),
        (lambda: Selection(match=("...",)), "holds no word"),
        (lambda: Selection(match=("(",), regex=True), "no regular expression"),
        (lambda: Selection(match=("a",), within="page"), "cannot look in"),
        (lambda: Selection(match=("a",), max_units=0), "none"),
        (lambda: Selection(like=("a",), threshold=2.0), "cosine"),
        (lambda: Selection(match=("a",), min_score=float("nan")), "no score is nan"),
    ):
        with pytest.raises(InputError, match=text):
            make()
    write_settings(tmp_path, {"target": {"name": "x"}})
    with pytest.raises(InputError, match="holds no descriptions"):
        choose(open_run(tmp_path), Selection(match=("text",)))
    empty = make_run(tmp_path / "empty", {("a", 0): ("", [])})
    with pytest.raises(InputError, match="holds no descriptions"):
        choose(empty, Selection(match=("text",)))
