"""Units of known meaning and the rules of the audit: which photos, which units, what counts."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import milanx
from milanx.act.audit.rules import load_rules
from milanx.bench.planted.annotated import UnitsAsked, read_annotated
from milanx.bench.planted.audited import audit_planted, draw_units, score
from milanx.bench.planted.meanings import ABSENT, CONCERNS, captioned
from milanx.errors import InputError
from milanx.images.splits import held_out
from milanx.report.planted import print_audit
from tests.helpers import noise, png

HALVES = {"person head": np.s_[:20], "dog head": np.s_[20:]}


def regions(*names: str) -> list[dict[str, Any]]:
    """Regions of a picture of 40 x 48: the upper or the lower half."""
    found = []
    for name in names:
        mask = np.zeros((48, 40), np.uint8)
        mask[HALVES[name]] = 255
        buffer = io.BytesIO()
        Image.fromarray(mask).save(buffer, "PNG")
        found.append({"name": name, "mask": buffer.getvalue()})
    return found


def annotated(path: Path, names: list[str], count: int = 60) -> Path:
    """Photos with a region each, the names by turns."""
    images = [{"bytes": png(image), "path": f"coco_{i:012d}.png"}
              for i, image in enumerate(noise(count, 40))]  # fmt: skip
    rows = [regions(names[i % len(names)]) for i in range(count)]
    pq.write_table(pa.table({"image": images, "regions": rows}), path)
    return path


def test_every_rule_has_things_or_a_reason_and_all_rules_are_known() -> None:
    ids = {rule.id for rule in load_rules()}
    named = {rule for concern in CONCERNS.values() for rule in concern.must | concern.may}
    assert named <= ids
    shown = {rule for concern in CONCERNS.values() for rule in concern.must}
    assert shown.isdisjoint(ABSENT)
    assert shown | ABSENT.keys() == ids
    assert all(not concern.must & concern.may for concern in CONCERNS.values())


def test_captions_must_agree_and_none_gainsay() -> None:
    both = [["a", "woman", "run"], ["a", "woman"], ["a", "lady", "in", "red"]]
    assert captioned(both) == ["woman"]
    assert captioned([*both, ["man", "and", "woman"]]) == []
    assert captioned([["a", "woman"], ["someone"], ["a", "person"]]) == []
    assert captioned([]) == []


def test_photos_that_were_trained_on_are_left_out(tmp_path: Path) -> None:
    path = annotated(tmp_path / "p.parquet", ["person head", "dog head"], 80)
    unseen = sum(held_out(f"coco:{i:012d}", 0.2) for i in range(80))
    assert 0 < unseen < 80
    for asked in (UnitsAsked(images=(path,)), UnitsAsked(whole=(path,))):  # of COCO either way
        photos = read_annotated(asked)
        assert sum(p.text is None for p in photos) == unseen
    with pytest.raises(InputError, match="no such file"):
        read_annotated(UnitsAsked(images=(tmp_path / "none.parquet",)))
    with pytest.raises(InputError, match="no photos"):
        UnitsAsked()


@pytest.mark.parametrize("impure", [False, True])
def test_units_of_each_thing_are_drawn_from_photos_that_show_it(
    tmp_path: Path, impure: bool
) -> None:
    path = annotated(tmp_path / "p.parquet", ["person head", "dog head"], 400)
    asked = UnitsAsked(images=(path,), impure=impure)
    photos = read_annotated(asked)
    units = draw_units(photos, asked)
    meant = [u.meaning.phrase for u in units]
    assert meant.count("person head") == asked.meant
    assert meant.count("dog head") == asked.other
    for unit in units:
        shown = [i for i in unit.images.tolist() if i >= 0]
        right = np.mean([unit.meaning.phrase in photos[i].atoms for i in shown])
        assert right >= 0.65 if impure else right == 1
        if not impure:
            first = photos[shown[0]].atoms[unit.meaning.phrase]
            np.testing.assert_array_equal(unit.maps[0], first)
            peaks = [(m.max(), m.mean()) for m in unit.maps[: len(shown)]]
            assert peaks == sorted(peaks, reverse=True)
    assert len({tuple(u.images.tolist()) for u in units}) == len(units)
    assert len(draw_units(photos, UnitsAsked(images=(path,), limit=2))) == 2


def test_figures_of_rules() -> None:
    meanings = ["person head", "nose", "dog head", "dress", "sky"]
    texts = ["faces of people", "dogs", "a woman's face", "women in dresses", "blue sky"]
    rows = {row["rule"]: row for row in score(meanings, texts)["rows"]}
    faces = rows["faces"]["described"]
    assert (faces["right"], faces["missed"], faces["wrong"]) == (1, 1, 1)
    assert faces["recall"]["share"] == faces["precision"]["share"] == 0.5
    assert (rows["faces"]["must"], rows["faces"]["must_not"]) == (2, 2)  # a dress may have one
    gender = rows["gender"]["described"]
    assert (gender["right"], gender["wrong"]) == (0, 1)  # "women in dresses" is allowed
    assert rows["backgrounds"]["described"]["recall"]["share"] == 1
    true = rows["faces"]["true"]
    assert (true["right"], true["missed"], true["wrong"]) == (2, 0, 0)
    assert rows["rulers"]["absent"]
    assert rows["rulers"]["described"]["recall"]["share"] is None


def test_planted_units_are_described_and_audited(
    tmp_path: Path, describer: milanx.Describer, capsys: pytest.CaptureFixture[str]
) -> None:
    path = annotated(tmp_path / "p.parquet", ["person head", "dog head"], 300)
    out = tmp_path / "out"
    report = audit_planted(UnitsAsked(images=(path,), limit=3), out=out, describer=describer)
    assert report["n"] == len(report["units"]) == 3
    assert all(unit["description"] for unit in report["units"])
    assert (out / "planted.json").is_file()
    print_audit(report)
    assert "faces" in capsys.readouterr().out
    with pytest.raises(InputError, match="not overwritten"):
        audit_planted(UnitsAsked(images=(path,)), out=out, describer=describer)
