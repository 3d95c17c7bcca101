"""Confidence: what is read, the model against scikit-learn, the folder, what is unclear, signs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

import milanx
from milanx.describing.confidence import (
    FILE,
    INPUTS,
    NATS,
    NEEDED,
    Calibration,
    Judge,
    read_calibration,
    read_inputs,
)
from milanx.describing.folder import (
    describer_root,
    keep_calibration,
    read_content,
    stamp_of,
    write_content,
)
from milanx.describing.signs import FEW, Crowd, read_signs
from milanx.errors import FormatError, InputError
from milanx.exemplars.planted import PixelUnits
from milanx.features.evidence import Evidence

ONES = (1.0,) * len(INPUTS)


def candidate(text: str, rank: float, log_p: float, agreement: float, response: float) -> dict:
    return {"text": text, "rank": rank, "log_p_given_exemplars": log_p, "log_p_prior": -9.0,
            "agreement": agreement, "response": response}  # fmt: skip


def row(**changes: Any) -> dict[str, Any]:
    """A row of a table: "dogs or cats" before "black dogs" and "grass"."""
    candidates = [candidate("Dogs or cats", 8.0, -3.0, 2.0, 0.2),
                  candidate("black dogs", 7.0, -2.0, 1.0, 0.1),
                  candidate("grass", 5.5, -4.0, 3.0, 0.0)]  # fmt: skip
    made = {"layer": "a", "unit": 1, "sign": "+", "status": "described",
            "description": "Dogs or cats", **candidates[0], "candidates": candidates,
            "alike": 0.4, "shown": 0.9, "score": 0.3, "images": [0, 1, 2, 3]}  # fmt: skip
    return made | changes


def calibration(**changes: Any) -> Calibration:
    made = Calibration((0.0,) * len(INPUTS), ONES, ONES, 0.0, 1.0, 0.0, 0.5, "d", {"units": 3})
    return replace(made, **changes)


def test_inputs_are_read_of_a_row() -> None:
    found = dict(zip(INPUTS, read_inputs(row()) or (), strict=True))
    kin = 1 + np.exp(-1 / NATS)  # "black dogs" shares a word, "grass" does not
    assert found == pytest.approx({
        "likeliest": -2.0, "response": 0.2, "behind": 0.0,
        "kin": kin / (kin + np.exp(-2.5 / NATS)), "words": 3.0,
    })  # fmt: skip
    second = row()["candidates"][1]
    low = dict(zip(INPUTS, read_inputs(row(**second, description="black dogs")) or (),
                   strict=True))  # fmt: skip
    assert (low["behind"], low["words"]) == (pytest.approx(-0.1), 2)
    alone = row(candidates=[row()["candidates"][0] | {"rank": None}])
    assert (read_inputs(alone) or [])[INPUTS.index("kin")] == 1


@pytest.mark.parametrize("lacking", NEEDED)
def test_without_what_it_depends_on_nothing_is_read(lacking: str) -> None:
    assert read_inputs(row(**{lacking: None})) is None
    assert read_inputs(row(description="")) is None


def test_the_model_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(300, len(INPUTS))) * 3 + 1
    right = (rng.random(300) < 1 / (1 + np.exp(-inputs[:, 2]))).astype(int)
    centre, scale = inputs.mean(0), inputs.std(0)
    model = LogisticRegression(C=0.3).fit((inputs - centre) / scale, right)
    logits = model.decision_function((inputs - centre) / scale)
    platt = LogisticRegression(C=1e6).fit(logits[:, None], right)
    own = calibration(
        centre=tuple(centre), scale=tuple(scale), weights=tuple(model.coef_[0]),
        offset=float(model.intercept_[0]), slope=float(platt.coef_[0, 0]),
        shift=float(platt.intercept_[0]),
    )  # fmt: skip
    assert own(inputs) == pytest.approx(platt.predict_proba(logits[:, None])[:, 1], abs=1e-9)


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_calibration(tmp_path) is None
    made = calibration(scale=tuple(i + 0.1 for i in range(len(INPUTS))), shift=-1 / 3)
    made.write(tmp_path)
    found = read_calibration(tmp_path)
    assert found == made
    assert found is not None and found.facts == {"units": 3}
    assert found.fingerprint == made.fingerprint != calibration().fingerprint


@pytest.mark.parametrize("damage", [
    {"threshold": 1.5}, {"offset": "x"}, {"slope": None}, {"inputs": []}, {"inputs": 7},
    {"facts": 1}, {"inputs": [{"name": n, "centre": 0, "scale": 0, "weight": 1} for n in INPUTS]},
    {"inputs": [{"name": n, "centre": 0, "scale": 1, "weight": float("inf")} for n in INPUTS]},
])  # fmt: skip
def test_damage_is_told(tmp_path: Path, damage: dict[str, Any]) -> None:
    calibration().write(tmp_path)
    content = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps(content | damage))
    with pytest.raises(FormatError, match=FILE):
        read_calibration(tmp_path)


def test_below_the_threshold_a_unit_is_unclear_and_keeps_its_best_guess() -> None:
    rows = [row(), row(unit=2, response=-30.0), row(unit=3, status="dead", description=""),
            row(unit=4, response=None)]  # fmt: skip
    Judge(calibration()).judge(rows)
    assert [r["status"] for r in rows] == ["described", "unclear", "dead", "described"]
    assert rows[1]["description"] == "Dogs or cats" and rows[1]["confidence"] < 0.5
    assert rows[0]["confidence"] >= 0.5 and rows[0]["confidence_reason"] is None
    assert rows[2]["confidence"] is None and rows[2]["confidence_reason"]
    assert rows[3]["confidence"] is None and "earlier milanx" in rows[3]["confidence_reason"]
    Judge(calibration(threshold=0.0)).judge(rows)  # another calibration
    assert rows[1]["status"] == "described"
    Judge(reason="nobody calibrated").judge(rows)
    assert {r["confidence_reason"] for r in rows if r["description"]} == {"nobody calibrated"}
    assert all(r["confidence"] is None for r in rows)


# ------------------------------------------------------------------ the describer's folder


def stamp(root: Path) -> str:
    return stamp_of(root, *read_content(root))


def test_a_calibration_changes_no_text_and_is_for_one_describer(tmp_path: Path) -> None:
    root = tmp_path / "mini"
    shutil.copytree(describer_root("builtin"), root)
    content, _ = read_content(root)
    (root / FILE).unlink(missing_ok=True)
    write_content(root, content)  # as it was before it was calibrated
    before = stamp(root)
    assert before == stamp(describer_root("builtin"))
    with pytest.raises(InputError, match="another describer"):
        keep_calibration(root, calibration())
    assert not (root / FILE).exists()
    keep_calibration(root, calibration(describer=before))
    assert stamp(root) == before
    assert read_content(root)[0]["search"] == content["search"]
    (root / FILE).write_text((root / FILE).read_text() + " ")
    with pytest.raises(FormatError):
        read_content(root)[1].check(FILE)


def test_a_describer_says_why_it_is_not_sure(describer: milanx.Describer, tmp_path: Path) -> None:
    from milanx.describing.ways import Way

    way = Way(describer, replace(describer.settings, lam=0.9), "describer", ())
    assert "own settings" in way.judge().reason
    assert "concepts" in replace(way, method="concepts").judge().reason
    own = describer.judge()
    assert (own.calibration is None) == bool(own.reason)
    if own.calibration is not None:
        assert own.calibration.describer == describer.fingerprint


def test_another_calibration_judges_a_run_again_without_describing(
    planted: milanx.Run,
    describer: milanx.Describer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(planted.root, tmp_path / "run")
    arguments = {"layers": ["units"], "images": "builtin:probe", "limit": 240,
                 "out": tmp_path / "run", "describer": describer}  # fmt: skip

    def forbidden(*given: Any, **named: Any) -> None:
        raise AssertionError("it was described anew")

    monkeypatch.setattr(type(describer), "describe", forbidden)
    weights = [0.0] * len(INPUTS)
    weights[INPUTS.index("response")] = 10.0
    for threshold in (0.7, 0.0):
        made = calibration(weights=tuple(weights), threshold=threshold)
        monkeypatch.setattr(type(describer), "judge", lambda self, made=made: Judge(made))
        run = milanx.describe(PixelUnits(), **arguments)  # type: ignore[arg-type]
        assert run.settings["confidence"] == Judge(made).facts()
        assert [u.description for u in run] == [u.description for u in planted]
        for unit in run:
            if unit.status != "dead":
                assert unit.confidence == pytest.approx(
                    1 / (1 + np.exp(-10 * unit.row["response"])), abs=1e-4
                )
                assert (unit.status == "unclear") == (unit.confidence < threshold)
                assert unit.sureness == unit.confidence
    assert len({unit.confidence for unit in run}) > 5


# ------------------------------------------------------------------ signs


class Space:
    """Stands for a text space: a text is an axis."""

    class SetEncoder:
        joint_mean = torch.tensor([0.1, 0.0, -0.1])

    set_encoder = SetEncoder()

    def split(self, text: str) -> tuple[str, ...] | None:
        parts = tuple(text.split())
        return parts if len(parts) == 3 else None

    def centred(self, texts: list[str]) -> torch.Tensor:
        return torch.eye(3)[["xyz".index(text) for text in texts]]


def evidence(joint: torch.Tensor, valid: torch.Tensor) -> Evidence:
    whole = torch.stack([joint, torch.zeros_like(joint)], 2)
    empty = torch.zeros(len(joint), 0, 3)
    return Evidence(whole, whole, valid, empty, empty, torch.zeros(len(joint), 0).bool())


@pytest.mark.parametrize("text", ["y", "x or z", "x and z", "y without x"])
def test_signs_equal_the_plain_version(text: str) -> None:
    generator = torch.Generator().manual_seed(1)
    joint = torch.randn(4, 5, 3, generator=generator)
    valid = torch.rand(4, 5, generator=generator) < 0.8
    valid[0] = True
    every, photos = evidence(joint, valid), np.array([[3, 3, 4, 5, 5]] * 4)
    crowd = Crowd.of(every, Space.SetEncoder.joint_mean)
    found = read_signs(every.rows(slice(0, 1)), photos[:1], crowd, [text], Space())  # type: ignore[arg-type]
    rows = F.normalize(joint - Space.SetEncoder.joint_mean, dim=-1)
    own, others = rows[0].tolist(), rows[valid].tolist()
    cosines = [np.dot(own[a], own[b]) for a in range(5) for b in range(5)
               if photos[0, a] != photos[0, b]]  # fmt: skip
    usual = np.mean([np.dot(a, b) for a in own for b in others])
    share = 4 / (4 + FEW)
    assert found[0].alike == pytest.approx(np.mean(cosines) - share * usual, abs=1e-5)
    parts = text.split()
    axes = ["xyz".index(part) for part in parts[::2]]
    mean, spread = np.mean(others, 0), np.std(others, 0)

    def fit(vector: list[float]) -> float:
        values = [(vector[a] - mean[a]) / spread[a] for a in axes]
        if len(values) == 1:
            return vector[axes[0]]
        if parts[1] == "without":
            values[1] = -values[1]
        return max(values) if parts[1] == "or" else min(values)

    pairs = [(fit(a) > fit(b)) + 0.5 * (abs(fit(a) - fit(b)) < 1e-7) for a in own for b in others]
    assert found[0].shown == pytest.approx(0.5 + share * (np.mean(pairs) - 0.5), abs=1e-3)


def test_views_of_one_photo_are_not_alike() -> None:
    joint = torch.ones(1, 4, 3)
    every = evidence(joint, torch.ones(1, 4).bool())
    crowd = Crowd.of(every, Space.SetEncoder.joint_mean)
    found = read_signs(every, np.zeros((1, 4), int), crowd, ["y"], Space())  # type: ignore[arg-type]
    assert found[0].alike == 0
