"""Damage beside runs and describers: edits, rules, studies, results, and what caches keep.

What a cache keeps is made again, so that the result is the same; all else is an error in words.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from milanx.cli import app
from PIL import Image
from typer.testing import CliRunner

import milanx.act.audit.rules as shipped
from milanx.act.ablate import Edit, read_places
from milanx.act.audit.rules import load_rules
from milanx.act.export import read_edit, undo, write_edit
from milanx.act.robustness.results import Robustness, read_robustness
from milanx.act.weights import write_weights
from milanx.errors import FormatError, InputError
from milanx.evaluate.p4.reading import read_choices, score
from milanx.evaluate.p4.study import KEY
from milanx.evaluate.p4.study import VERSION as KEY_VERSION
from milanx.files import write_json, write_table
from milanx.files.arrays import keep_arrays, kept_arrays
from milanx.files.digests import FILES, is_whole, told
from milanx.images.probe import open_images
from milanx.report.check import check
from milanx.targets.zoo import load_target
from tests.act.models import SIDE, Plain
from tests.files.damaging import EACH, outcomes
from tests.helpers import noise, png

runner = CliRunner()
PLAIN = load_target(Plain())


# ------------------------------------------------------------------ edits


@pytest.fixture
def edited(tmp_path: Path) -> Path:
    """An edit with weights."""
    import torch

    edits, infos = [Edit("bn1", (1, 4))], read_places(PLAIN, ["bn1"])
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    write_edit(tmp_path / "edited", PLAIN, edits, infos,
               written=write_weights(PLAIN, edits, infos, [images]))  # fmt: skip
    return tmp_path / "edited"


def test_no_damage_of_an_edit_is_applied(edited: Path) -> None:
    def applied() -> object:
        stored = read_edit(edited)
        return [stored.content, stored.edits, stored.infos]

    found = outcomes(edited / "edit.json", applied)
    assert found.count("error") > 0.9 * len(found) and "other" not in found


@pytest.mark.parametrize("name", ["model.safetensors", "original.safetensors"])
def test_no_damage_of_edited_weights_is_undone(edited: Path, name: str) -> None:
    assert not check(edited).faults
    found = outcomes(edited / name, lambda: undo(edited, edited / "back").read_bytes())
    assert found == ["error"] * 2 * EACH
    (edited / name).write_bytes(b"")
    result = runner.invoke(app, ["check", str(edited)])
    assert result.exit_code == 2 and name in result.stderr


@pytest.mark.parametrize("change", [
    {"edits": 5}, {"edits": [5]}, {"edits": [{}]}, {"target": []}, {"target": {}}, {"weights": 3},
    {"files": 3}, {"files": {"../x": {"bytes": 1, "sha256": "0" * 64}}},
])  # fmt: skip
def test_an_edit_of_other_types(edited: Path, change: dict[str, Any]) -> None:
    path = edited / "edit.json"
    content = json.loads(path.read_text())
    del content["seal"]
    path.write_text(json.dumps(content | change))
    with pytest.raises(FormatError):
        read_edit(edited)


@pytest.mark.parametrize(("name", "value"), [
    ("unit", "1"), ("unit", -1), ("unit", 10**9), ("unit", 1.5), ("unit", None), ("kind", 3),
    ("kind", "explode"), ("positions", "all over"), ("read", {}), ("read", "bn1"),
    ("read", {"name": 3}), ("units", {}), ("layer", 3),
])  # fmt: skip
def test_an_edit_of_other_values(edited: Path, name: str, value: object) -> None:
    path = edited / "edit.json"
    content = json.loads(path.read_text())
    del content["seal"]
    (content["edits"][0]["units"][0] if name == "unit" else content["edits"][0])[name] = value
    path.write_text(json.dumps(content))
    result = runner.invoke(app, ["edit", "show", str(path)])
    assert not isinstance(result.exception, Exception) or result.exit_code == 2, result.exception


# ------------------------------------------------------------------ rules


def test_damaged_rules(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(Path(shipped.__file__).with_name("rules.yaml").read_bytes())
    content = path.read_bytes().replace(b"id: ", b"id: own-")
    path.write_bytes(content)
    assert "error" in outcomes(path, lambda: load_rules(path))


BOMB = "format: milanx-rules\nversion: 1\na: &a [x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]" for i in range(12)
)


@pytest.mark.parametrize("content", [
    BOMB, "- 1", "5", "a: " + "[" * 5000, "format: milanx-rules\nversion: 1\nrules: [1]",
    "format: milanx-rules\nversion: 1\nrules: {}", "? [1]\n: 2", "!!python/name:os.system",
    "format: milanx-rules\nversion: 1\nrules: [{id: a, words: {a: b}, severity: []}]",
    "format: milanx-rules\nversion: 1\ndrop: 5\n", "format: milanx-rules\nversion: [1]\n",
    "format: milanx-rules\nversion: 1\nrules: [{id: a, words: a, alike: .nan}]",
])  # fmt: skip
def test_rules_that_are_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        load_rules(path)
    assert len(str(caught.value)) < 3000


# ------------------------------------------------------------------ studies and results


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A key of four questions, and a reader's choices."""
    entry = {"list": "description", "kind": "far", "layer": "conv", "answer": "B"}
    write_json(tmp_path / "key" / "key.json", KEY, KEY_VERSION, {
        "questions": {f"q{i}": {**entry, "number": i} for i in range(4)},
        "layers": {"conv": {"dead": 0}}, "target": "tiny", "describers": {}, "variety": {},
    })  # fmt: skip
    (tmp_path / "mine.json").write_text(json.dumps({"q0": "B", "q1": "A", "q2": ""}))
    return tmp_path


def test_no_damage_of_a_key_is_scored(study: Path) -> None:
    found = outcomes(study / "key" / "key.json", lambda: repr(score(study, [study / "mine.json"])))
    assert found.count("error") > 0.9 * len(found) and "other" not in found


@pytest.mark.parametrize("change", [
    {"questions": 5}, {"questions": {"q0": {}}}, {"questions": {"q0": None}}, {"variety": 5},
    {"layers": None},
])  # fmt: skip
def test_a_key_of_other_types(study: Path, change: dict[str, Any]) -> None:
    path = study / "key" / "key.json"
    content = json.loads(path.read_text())
    write_json(path, KEY, KEY_VERSION, {**content, **change})
    (study / "mine.json").write_text('{"q0": "B"}')
    with pytest.raises(FormatError):
        score(study, [study / "mine.json"])


@pytest.mark.parametrize("content", [
    "[]", "5", '"B"', '{"q0": "AB"}', '{"q0": "F"}', '{"q0": 1}', '{"q0": []}', '{"q9": "A"}',
    '{"choices": 3}', "[" * 10**5, "{", "\x00",
])  # fmt: skip
def test_choices_that_are_none(study: Path, content: str) -> None:
    (study / "mine.json").write_text(content)
    with pytest.raises((FormatError, InputError)):
        score(study, [study / "mine.json"])


def test_damaged_choices(study: Path) -> None:
    key = {f"q{i}": {} for i in range(4)}
    outcomes(study / "mine.json", lambda: read_choices(study / "mine.json", key))


def test_no_damage_of_results_is_read(tmp_path: Path) -> None:
    path = tmp_path / "robustness.json"
    Robustness("labelled", "photos", "error", ("unedited",), 3, 2, {"seed": 0},
               {"clean": {"estimate": 0.5}}, ("a note",)).write(path)  # fmt: skip
    found = outcomes(path, lambda: read_robustness(path))
    assert found.count("error") > 0.9 * len(found) and "other" not in found


# ------------------------------------------------------------------ caches


def test_damaged_arrays_of_a_cache_are_not_there(tmp_path: Path) -> None:
    path, rng = tmp_path / "kept", np.random.default_rng(0)
    arrays = {"a": rng.standard_normal((7, 5)).astype(np.float16), "b": np.arange(3)}
    keep_arrays(path, arrays)

    def read() -> object:
        found = kept_arrays(path)
        return None if found is None else {n: a.tobytes() for n, a in found.items()}

    whole, content = read(), path.read_bytes()
    assert whole == {n: a.tobytes() for n, a in arrays.items()}
    for place in range(0, len(content), 3):
        path.write_bytes(content[:place])
        assert read() is None
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        assert read() in (None, whole)
    path.unlink()
    assert read() is None


def test_a_folder_of_a_cache_is_whole_or_made_again(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a.npy").write_bytes(b"abc")
    (tmp_path / "b.npy").write_bytes(b"d" * 100)
    index = tmp_path / "index.json"
    assert not is_whole(tmp_path, index)
    write_json(index, "some cache", 1, {"facts": {"n": 3}, FILES: told(tmp_path)})
    assert is_whole(tmp_path, index)
    for path in (index, tmp_path / "b.npy", tmp_path / "inner" / "a.npy"):
        content = path.read_bytes()
        for end in (0, 1, len(content) - 1):
            path.write_bytes(content[:end])
            assert is_whole(tmp_path, index) == (path == index and end == len(content) - 1)
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert not is_whole(tmp_path, index) or path == index
        path.write_bytes(content)
    write_json(index, "some cache", 1, {"facts": {}})
    assert not is_whole(tmp_path, index)  # of an earlier milanx, which told no files


def test_a_damaged_scan_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for i, image in enumerate(noise(3)):
        image.save(photos / f"{i}.png")
    monkeypatch.setenv("MILANX_CACHE", str(tmp_path / "cache"))
    open_images([photos])
    (kept,) = (tmp_path / "cache" / "scans").iterdir()
    found = outcomes(kept, lambda: open_images([photos]).records)
    assert set(found) == {"same"}


def test_damaged_tables_tell_themselves(tmp_path: Path) -> None:
    """Parquet keeps checksums of its pages, so that no other number is read."""
    import pyarrow as pa

    from milanx.files import read_table

    path, rng = tmp_path / "t.parquet", np.random.default_rng(0)
    write_table(path, pa.table({"x": rng.standard_normal(2000), "y": ["a", "b"] * 1000}), "t", 1)
    found = outcomes(path, lambda: read_table(path, "t", 1).to_pydict())
    assert found.count("error") > 0.9 * len(found) and "other" not in found


# ------------------------------------------------------------------ images


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "tiff", "bmp"])
def test_damaged_images_are_images_or_skipped(tmp_path: Path, suffix: str) -> None:
    """A file of the user's has no digest: what Pillow still reads is an image, else it is told."""
    (tmp_path / "a.png").write_bytes(png(noise(1)[0]))
    path = tmp_path / f"b.{suffix}"
    Image.effect_noise((40, 30), 60).convert("RGB").save(path)

    def read() -> object:
        opened = open_images([tmp_path])
        assert len(opened) + len(opened.skipped) == 2
        assert all(s.why for s in opened.skipped)
        return [opened.read(i).size for i in range(len(opened))]

    outcomes(path, read)
