"""Rules: read, checked all at once, and right on descriptions labelled by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from milanx.act.audit.match import Hit, Matcher, recall_and_precision
from milanx.act.audit.rules import SEVERITIES, Rule, load_rules
from milanx.errors import InputError
from milanx.language.compare import Sentences

HERE = Path(__file__).parent
ASKED = {"faces", "people", "skin", "gender", "age", "religion", "text", "watermarks", "logos",
         "medical-devices", "rulers", "backgrounds"}  # fmt: skip


def labelled(half: str) -> tuple[list[str], list[tuple[set[str], set[str]]]]:
    """Read the sentences of a half, with the rules that they must and may fall under."""
    texts, labels = [], []
    for line in (HERE / "sentences.txt").read_text().splitlines():
        if line.startswith("#") or not line.startswith(half):
            continue
        _, rules, text = (part.strip() for part in line.split("|"))
        texts.append(text)
        named = rules.split()
        labels.append(({n for n in named if n[0] not in "-?"},
                       {n[1:] for n in named if n[0] == "?"}))  # fmt: skip
    return texts, labels


def test_shipped_rules_are_whole() -> None:
    rules = load_rules()
    assert {rule.id for rule in rules} == ASKED
    for rule in rules:
        assert rule.severity in SEVERITIES
        assert rule.words and rule.meaning and rule.title and rule.advice and rule.text


@pytest.mark.parametrize("half", ["d", "h"])
def test_rules_find_what_they_must_and_little_else(half: str) -> None:
    """Words and thresholds were chosen on half d, with all found and nothing wrong there."""
    texts, labels = labelled(half)
    assert len(texts) >= 100
    found = Matcher(load_rules(), Sentences())(texts)
    totals = [0, 0, 0]
    for rule in sorted(ASKED):
        right, missed, wrong = recall_and_precision(found, labels, rule)
        totals = [a + b for a, b in zip(totals, (right, missed, wrong), strict=True)]
        assert right >= 3
        if half == "d":
            assert (missed, wrong) == (0, 0), rule
        else:
            assert right / (right + missed) >= 0.75, rule
            assert right / (right + wrong) >= 0.6, rule
    assert totals[0] / (totals[0] + totals[1]) >= 0.95
    assert totals[0] / (totals[0] + totals[2]) >= 0.9


def test_counting_right_missed_and_wrong() -> None:
    hit = {"r": Hit("words", "x")}
    labels: list[tuple[set[str], set[str]]] = [({"r"}, set()), ({"r"}, set()), (set(), set()),
                                               (set(), {"r"}), (set(), set())]  # fmt: skip
    assert recall_and_precision([hit, {}, hit, hit, {}], labels, "r") == (1, 1, 1)


@pytest.mark.parametrize(("text", "found"), [
    ("faces", True), ("dog faces", False), ("faces of dogs", False), ("men with dogs", False),
    ("faces of men with dogs", True), ("animal heads and human faces", True),
    ("dogs and faces", True), ("dog eyes and faces", False), ("faces and eyes of dogs", False),
    ("face masks", False), ("surfaces", False), ("objects without faces", False),
])  # fmt: skip
def test_parts_count_unless_they_are_an_animals_or_a_things(text: str, found: bool) -> None:
    rule = Rule("faces", "note", "t", "a", words=("face", "head"), whose="people")
    assert bool(Matcher([rule])([text])[0]) is found


def test_meaning_finds_what_words_do_not() -> None:
    rule = Rule("pets", "note", "t", "a", words=("pet",), meaning=("dogs and cats",), alike=0.6)
    hits = Matcher([rule], Sentences())(["puppies and kittens", "pets", "bridges", ""])
    assert [h["pets"].way if h else None for h in hits] == ["meaning", "words", None, None]
    assert hits[0]["pets"].similarity is not None
    assert "cosine" in hits[0]["pets"].text


def write(path: Path, text: str) -> Path:
    path.write_text("format: milanx-rules\nversion: 1\n" + text)
    return path


def test_rules_of_the_user_extend_replace_and_drop(tmp_path: Path) -> None:
    path = write(
        tmp_path / "r.yaml",
        """drop: [skin, age]
rules:
  - {id: faces, severity: error, text: t., advice: a., words: "visage, face"}
  - {id: boats, severity: note, text: t., advice: a., words: [boat, ship]}
""",
    )
    rules = {rule.id: rule for rule in load_rules(path)}
    assert set(rules) == ASKED - {"skin", "age"} | {"boats"}
    assert rules["faces"].severity == "error"
    assert rules["boats"].words == ("boat", "ship")
    own = write(
        tmp_path / "own.yaml",
        """shipped: false
rules: [{id: boats, severity: note, text: t., advice: a., meaning: boats}]
""",
    )
    assert [rule.id for rule in load_rules(own)] == ["boats"]


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path / "bad.yaml",
        """extra: 1
drop: [noses]
rules:
  - {id: Bad Name, severity: fatal, text: t, advice: a, words: x, alike: 2}
  - {id: twin, severity: note, text: t, advice: a, wrods: x}
  - {id: twin, severity: note, text: t, words: 5, whose: dogs}
  - just text
""",
    )
    with pytest.raises(InputError) as caught:
        load_rules(path)
    why = caught.value.why
    for part in ("'extra' is not known", "no rule 'noses'", "rule 1 (Bad Name): id takes",
                 "severity is 'fatal'", "alike is 2", "rule 2 (twin): 'wrods' is not known (did "
                 "you mean words", "rule 2 (twin): it has neither words nor a meaning",
                 "rule 3 (twin): it has no advice", "words is neither a list", "whose is 'dogs'",
                 "rule 4: it is no mapping", "two rules are called 'twin'"):  # fmt: skip
        assert part in why
    assert "12 mistakes" in caught.value.what


@pytest.mark.parametrize(("text", "says"), [
    ("a: [", "is not yaml"), ("- 1\n", "holds no rules"), ("format: milanx-rules\nversion: 9", "9"),
    ("format: milanx-rules\nversion: 1\n", "a mistake"),
])  # fmt: skip
def test_what_is_no_file_of_rules(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=says):
        load_rules(path)
    with pytest.raises(InputError, match="cannot read"):
        load_rules(tmp_path / "absent.yaml")
