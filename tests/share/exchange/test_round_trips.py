"""A run that was written for another tool and read again is the run that it was."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import milanx
from milanx.progress import Silent
from milanx.report.page import write_page
from milanx.share.exchange.building import GREY
from milanx.share.exchange.export import FORMATS
from tests.cli.commands import run
from tests.hub.server import Hub

PICTURES = ("milan", "maia", "fiftyone")  # formats with views and masks
BOTH_SIGNS = ("fiftyone", "csv", "jsonl")


def there_and_back(odd: milanx.Run, form: str, tmp_path: Path) -> milanx.Run:
    done = milanx.export_run(odd, form, tmp_path / "out")
    assert done.notes and done.bytes > 100
    return milanx.import_run(form, done.root, tmp_path / "back")


@pytest.mark.parametrize("form", FORMATS)
def test_units_texts_and_exemplars_come_back(odd: milanx.Run, form: str, tmp_path: Path) -> None:
    back = there_and_back(odd, form, tmp_path)
    signs = "+-" if form in BOTH_SIGNS else "+"
    wanted = {(u.layer, u.unit, u.sign): u for u in odd if u.sign in signs}
    found = {(u.layer, u.unit, u.sign): u for u in back}
    assert found.keys() == wanted.keys()
    for key, unit in wanted.items():
        assert found[key].description == unit.description, key
        if form == "clip-dissect":
            assert not found[key].row["images"]
            assert found[key].rank == (unit.rank if unit.description else None)
            continue
        assert found[key].row["images"] == unit.row["images"]
        assert found[key].row["activations"] == unit.row["activations"]
        one, two = found[key].exemplars, unit.exemplars
        if form in PICTURES:
            assert (one.views == two.views).all() and (one.masks == two.masks).all()
        else:
            assert (one.views == GREY).all() and one.masks.all()


@pytest.mark.parametrize("form", FORMATS)
def test_an_imported_run_is_one_as_any(odd: milanx.Run, form: str, tmp_path: Path) -> None:
    back = there_and_back(odd, form, tmp_path)
    milanx.check(back.root).require()
    assert write_page(back).stat().st_size > 1000
    code, out, _ = run("show", str(back.root), "--json")
    assert code == 0 and json.loads(out) == back.rows
    code, out, err = run("show", str(back.root), "--unit", "conv2:7")
    assert code == 0 and "plain" in out and "earlier milanx" not in out, err
    if form == "milan":
        code, out, err = run("analyze", str(back.root))
        assert code == 0, err
    if form in ("fiftyone", "milan", "maia", "semanticlens"):
        assert back.target == odd.target


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_tables_keep_their_figures(odd: milanx.Run, form: str, tmp_path: Path) -> None:
    back = there_and_back(odd, form, tmp_path)
    kept = ("status", "score", "pmi", "log_p_given_exemplars", "log_p_prior", "rank", "images")
    for one, two in zip(back.rows, odd.rows, strict=True):
        assert {n: one[n] for n in kept} == {n: two[n] for n in kept}
        assert [c["text"] for c in one["candidates"]] == [c["text"] for c in two["candidates"]]
        if form == "jsonl":
            assert one == two


def test_statuses_and_candidates_go_with_fiftyone(odd: milanx.Run, tmp_path: Path) -> None:
    assert there_and_back(odd, "fiftyone", tmp_path).rows == odd.rows


def test_twice_there_and_back_is_once(odd: milanx.Run, tmp_path: Path) -> None:
    for form in ("milan", "fiftyone"):
        (tmp_path / form).mkdir()
        first = there_and_back(odd, form, tmp_path / form)
        second = milanx.export_run(first, form, tmp_path / form / "again")
        third = milanx.import_run(form, second.root, tmp_path / form / "third")
        assert third.rows == first.rows and third.store.fingerprint == first.store.fingerprint
        for layer in first.store.layers:
            assert (first.store.maps(layer) == third.store.maps(layer)).all()


def test_milan_is_as_milan_reads_it(odd: milanx.Run, tmp_path: Path) -> None:
    root = milanx.export_run(odd, "milan", tmp_path / "milan").root
    images = np.load(root / "conv2" / "images.npy")
    masks = np.load(root / "conv2" / "masks.npy")
    assert images.shape == (12, 5, 3, 32, 32) and images.dtype == np.uint8
    assert masks.shape == (12, 5, 1, 32, 32) and masks.dtype == np.uint8
    assert set(np.unique(masks)) == {0, 1}
    ids = np.loadtxt(root / "conv2" / "ids.csv", delimiter=",")
    values = np.loadtxt(root / "conv2" / "activations.csv", delimiter=",")
    for unit in range(12):
        row = odd["conv2", unit].row
        assert ids[unit].tolist() == row["images"]
        assert values[unit].astype(np.float32).tolist() == row["activations"]
    assert not (root / "conv2" / "units.npy").exists()
    assert (root / "annotations.csv").read_text().startswith("layer,unit,summary\n")


def test_some_units_of_a_layer_keep_their_numbers(odd: milanx.Run, tmp_path: Path) -> None:
    photos = odd.root.parent / "p.parquet"
    few = milanx.extract("tests.helpers:tiny", layers=["conv2:3,9"], images=photos,
                         out=tmp_path / "few")  # fmt: skip
    from milanx.describing.candidates import Description
    from milanx.runs import write_units

    write_units(few.root, [Description("conv2", u, "+", "described", f"t{u}", None, None, None, ())
                           for u in (3, 9)], few)  # fmt: skip
    told = milanx.open_run(few.root)
    milan = milanx.export_run(told, "milan", tmp_path / "milan")
    assert np.load(milan.root / "conv2" / "units.npy").tolist() == [3, 9]
    maia = milanx.export_run(told, "maia", tmp_path / "maia")
    inside = next(maia.root.glob("*/imagenet/conv2"))
    assert np.load(inside / "images.npy").shape[0] == 10
    levels = np.loadtxt(inside / "thresholds.csv")
    assert np.float32(levels[9]) == few.stats("conv2")["quantile"][1] and np.isnan(levels[0])
    assert any("8 units that were not described" in note for note in maia.notes)
    for form, done in (("milan", milan), ("maia", maia)):
        back = milanx.import_run(form, done.root, tmp_path / f"{form}-back")
        assert back["conv2", 9].description == "t9"
        assert back["conv2", 3].row["images"] == told["conv2", 3].row["images"]


def test_maia_is_as_maia_reads_it(odd: milanx.Run, tmp_path: Path) -> None:
    root = milanx.export_run(odd, "maia", tmp_path / "maia").root
    inside = next(root.glob("*/imagenet/head"))
    names = {p.name for p in inside.iterdir()}
    assert {"activations.csv", "thresholds.csv", "images.npy", "masks.npy"} <= names
    assert np.loadtxt(inside / "thresholds.csv", delimiter=",").shape == (5,)


def test_semanticlens_is_as_semanticlens_reads_it(odd: milanx.Run, tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.numpy import load_file

    root = milanx.export_run(odd, "semanticlens", tmp_path / "cache").root
    folder = next(root.glob("ActivationComponentVisualizer/*/*"))
    with safe_open(folder / "aggregate_conv_max-5-conv2.safetensors", "numpy") as file:
        meta, ids = file.metadata(), file.get_tensor("sample_ids")
        assert file.get_tensor("activations").dtype == np.float32 and ids.dtype == np.int64
    wanted = {"aggregation_fn_name": "aggregate_conv_max", "n_collect": "5", "n_latents": "12",
              "layer_name": "conv2"}  # fmt: skip
    assert wanted.items() <= meta.items()
    (file,) = (folder / "concept_database" / "milanx").iterdir()
    assert file.name == "concept_db-aggregate_conv_max-5-['conv2', 'head'].safetensors"
    database = load_file(file)
    assert database["conv2"].shape[:2] == (12, 5) and database["head"].shape[:2] == (5, 5)
    lengths = np.linalg.norm(database["conv2"][ids >= 0], axis=-1)
    assert np.allclose(lengths, 1, atol=1e-4)
    same = odd["conv2", 0].row["images"][0]
    first = database["conv2"][0, 0]
    for layer in database:
        for row in odd.rows:
            if row["layer"] == layer and row["sign"] == "+" and same in row["images"]:
                there = database[layer][row["unit"], row["images"].index(same)]
                assert np.array_equal(there, first)


def test_fiftyone_is_as_fiftyone_reads_it(odd: milanx.Run, tmp_path: Path) -> None:
    root = milanx.export_run(odd, "fiftyone", tmp_path / "set").root
    meta = json.loads((root / "metadata.json").read_text())
    samples = json.loads((root / "samples.json").read_text())["samples"]
    assert meta["media_type"] == "image" and meta["num_samples"] == len(samples)
    assert "version" not in meta
    seen = 0
    for sample in samples:
        assert (root / sample["filepath"]).is_file()
        for detection in sample["exemplars"]["detections"]:
            x, y, w, h = detection["bounding_box"]
            assert 0 <= x < x + w <= 1 and 0 <= y < y + h <= 1
            seen += 1
    assert seen == sum(len(row["images"]) for row in odd.rows)


def test_the_commands_say_what_is_left_out(odd: milanx.Run, tmp_path: Path) -> None:
    code, out, err = run("export", odd.root, "clip-dissect", "-o", tmp_path / "d.csv")
    assert code == 0 and out.strip() == str(tmp_path / "d.csv")
    assert "left out: exemplars" in err and "units of the sign -" in err
    code, out, err = run("import", "clip-dissect", tmp_path / "d.csv", "-o", tmp_path / "r")
    assert code == 0 and out.strip() == str(tmp_path / "r") and "17 units" in err
    code, out, _ = run("export", odd.root, "jsonl", "-o", tmp_path / "j", "--json")
    assert json.loads(out)["units"] == 34 and code == 0
    code, out, _ = run("import", "jsonl", tmp_path / "j", "-o", tmp_path / "k", "--json")
    assert code == 0 and "grey" in " ".join(json.loads(out)["notes"])


def test_an_imported_run_goes_to_the_hub_and_back(
    hub: Hub, odd: milanx.Run, tmp_path: Path
) -> None:
    back = there_and_back(odd, "milan", tmp_path)
    milanx.push(back.root, "user/imported")
    card = hub.files("user/imported", "dataset")["README.md"].decode()
    assert "imported from the format `milan`" in card and "milanx describe tests" not in card
    pulled = milanx.open_run("user/imported")
    assert pulled.rows == back.rows and pulled.settings["imported"]["format"] == "milan"
    done = milanx.export_run("user/imported", "milan", tmp_path / "again")
    assert np.array_equal(np.load(done.root / "conv2" / "images.npy"),
                          np.load(tmp_path / "out" / "conv2" / "images.npy"))  # fmt: skip


@pytest.mark.parametrize("form", ["milan", "maia"])
def test_the_size_is_said_before_anything_is_written(
    odd: milanx.Run, form: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    said: list[tuple[str, bool]] = []

    class Told(Silent):
        def say(self, text: str) -> None:
            said.append((text, out.exists()))

    milanx.export_run(odd, form, out, progress=Told())
    ((text, begun),) = said
    size = sum(f.stat().st_size for f in out.rglob("*.npy") if f.name != "units.npy")
    assert not begun
    assert text.startswith(f"writes about {math.ceil(size / 1e6):,} MB:")
