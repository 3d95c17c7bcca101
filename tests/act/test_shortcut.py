"""The experiment of spurious text: what is written where, the training, what is refused."""

from __future__ import annotations

import dataclasses
import io
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from milanx.cli import app
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from typer.testing import CliRunner

from milanx.act.shortcut.fit import FitSettings, fit
from milanx.act.shortcut.folder import LYING, PLAIN, Experiment, Images, open_experiment
from milanx.act.shortcut.lettering import COLOURS, Style, hand, write
from milanx.act.shortcut.make import MakeSettings, make
from milanx.act.shortcut.network import SmallResNet
from milanx.act.shortcut.run import RunSettings, run
from milanx.errors import FormatError, InputError
from tests.act.shortcut_photos import EACH, NAMES, SETTINGS, photos
from tests.helpers import noise, png, write_parquet


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    folder = tmp_path_factory.mktemp("shortcut")
    return make(photos(folder / "photos.parquet"), folder / "made", settings=SETTINGS)


def rows(made: Experiment, split: str, version: str) -> list[dict[str, Any]]:
    return pq.read_table(made.path(split, version)).to_pylist()


def pixels(row: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])))


def test_equal_seeds_give_equal_bytes(made: Experiment, tmp_path: Path) -> None:
    source = made.root.parent / "photos.parquet"
    again = make(source, tmp_path / "again", settings=SETTINGS)
    other = make(source, tmp_path / "other", settings=dataclasses.replace(SETTINGS, seed=4))
    names = [p.name for p in sorted(made.root.iterdir())]
    assert len(names) == 14
    for name in names:
        assert (made.root / name).read_bytes() == (again.root / name).read_bytes()
        assert (made.root / name).read_bytes() != (other.root / name).read_bytes()
    assert made.fingerprint == again.fingerprint != other.fingerprint


def test_shares_are_exact_and_nested(made: Experiment) -> None:
    for split in ("train", "describe", "validation", "test"):
        written: dict[int, set[str]] = {}
        for share in (10, 50):
            found = rows(made, split, f"text{share}")
            of_class = Counter(r["name"] for r in found)
            carrying = Counter(r["name"] for r in found if r["text"])
            for name in NAMES:
                assert carrying[name] == round(share / 100 * of_class[name])
            assert all(r["text"] in (None, r["name"]) for r in found)
            written[share] = {r["image"]["path"] for r in found if r["text"]}
        assert written[10] <= written[50] and written[50]
    assert not any(r["text"] for r in rows(made, "test", PLAIN) + rows(made, "train", PLAIN))


def test_pixels_differ_in_the_box_and_nowhere_else(made: Experiment) -> None:
    changed = 0
    for version in ("text50", LYING):
        for plain, written in zip(rows(made, "test", PLAIN), rows(made, "test", version),
                                  strict=True):  # fmt: skip
            assert plain["image"]["path"] == written["image"]["path"]
            differs = (pixels(plain) != pixels(written)).any(2)
            if written["box"] is None:
                assert written["text"] is None and not differs.any()
                continue
            left, top, right, bottom = written["box"]
            assert 0 <= left < right <= 32 and 0 <= top < bottom <= 32
            inside = differs[top:bottom, left:right]
            assert inside.sum() == differs.sum()
            assert inside.mean() > 0.3  # letters and their edges
            changed += 1
    assert changed == 12 + 6  # every lie, and half of the twelve


def test_lies_are_wrong_and_use_the_same_hand(made: Experiment) -> None:
    said: Counter[tuple[str, str]] = Counter()
    for row in rows(made, "test", LYING) + rows(made, "validation", LYING):
        assert row["text"] in NAMES and row["text"] != row["name"]
        said[row["name"], row["text"]] += 1
    assert len(said) == 6  # each class lies as each other


def test_no_group_is_on_two_sides(made: Experiment) -> None:
    splits: dict[str, set[str]] = {}
    members: Counter[str] = Counter()
    for split in ("train", "describe", "validation", "test"):
        for row in rows(made, split, "text10"):
            assert row["split"] == split
            splits.setdefault(row["group"], set()).add(split)
            members[row["group"]] += 1
    assert set(members.values()) == {2} and sum(members.values()) == len(NAMES) * EACH
    assert all(len(found) == 1 for found in splits.values())


def test_the_layout_is_that_of_hugging_face(made: Experiment) -> None:
    schema = pq.read_schema(made.path("train", "text50"))
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features["label"] == {"names": list(NAMES), "_type": "ClassLabel"}
    assert features["image"] == {"_type": "Image"} and set(features) == set(schema.names)
    from milanx.images.probe import open_images

    record = open_images([made.path("train", "text50")]).records[0]
    assert record.name == NAMES[record.label or 0] and record.group


def test_another_source_to_test_on(tmp_path: Path) -> None:
    train, test = photos(tmp_path / "a.parquet"), tmp_path / "b.parquet"
    shared = noise(3 * EACH, 40, 0)[0]
    pictures = [shared, *noise(7, 40, 9)]
    names = ["bee", "bee", "golden_retriever", "teapot, pot", "teapot", "cat", "cat", "cat"]
    write_parquet(test, pictures, name=names, group=["0-0", *map(str, range(7))])
    made = make(train, tmp_path / "made", test=test, settings=SETTINGS)
    assert made.settings["counts"]["test"] == 5
    assert made.settings["left_out"] == {"near the test": 2, "of other classes": 3}
    tested = rows(made, "test", PLAIN)
    assert Counter(r["name"] for r in tested) == {"bee": 2, "golden retriever": 1, "teapot": 2}
    trained = {r["group"] for s in ("train", "describe", "validation")
               for r in rows(made, s, "text10")}  # fmt: skip
    assert "0-0" not in trained


def test_letters_stay_on_the_image_whatever_the_word() -> None:
    for word in ("i", "wirehaired pointing griffon of the far north", "incomprehensibilities"):
        for seed in range(8):
            blank = Image.new("RGB", (64, 48), (120, 120, 120))
            written, (left, top, right, bottom) = write(
                blank, word, hand(seed, "ab12", Style(roam=1.0, colours=len(COLOURS)))
            )
            assert 0 <= left < right <= 64 and 0 <= top < bottom <= 48
            assert np.asarray(blank).std() == 0 and (np.asarray(written) != 120).any()


def test_roam_keeps_words_in_the_corner() -> None:
    at = [hand(0, f"{i:x}", Style(roam=0.0)) for i in range(30)]
    assert {(h.across, h.down) for h in at} == {(0.0, 0.0)}
    far = [hand(0, f"{i:x}", Style(roam=1.0)) for i in range(30)]
    assert max(h.across for h in far) > 0.7 and len({h.down for h in far}) == 30


def few(count: int = 8) -> Images:
    generator = torch.Generator().manual_seed(0)
    views = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return Images(views, torch.arange(count) % 3, torch.full((count,), -1))


def test_training_is_deterministic_and_resumes(tmp_path: Path) -> None:
    """Two epochs at once, and one epoch with the second by another call, give the same weights."""
    how = FitSettings(epochs=2, batch=4, seed=1)
    state = torch.random.get_rng_state()
    one = fit(few(), 3, how, tmp_path / "one.safetensors")
    two = fit(few(), 3, how, tmp_path / "two.safetensors")
    other = fit(few(), 3, dataclasses.replace(how, seed=2), tmp_path / "other.safetensors")
    assert torch.equal(torch.random.get_rng_state(), state)
    weights = {n: t.clone() for n, t in one.state_dict().items()}
    for name, tensor in two.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    assert not torch.equal(other.head.weight, one.head.weight)
    read = fit(few(), 3, how, tmp_path / "one.safetensors")  # nothing is left to train
    assert torch.equal(read.head.weight, one.head.weight)
    with pytest.raises(FormatError, match="another training"):
        fit(few(), 3, dataclasses.replace(how, rate=0.2), tmp_path / "one.safetensors")


KILLED = """
import sys, torch
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.act.test_shortcut import few
from milanx.act.shortcut.fit import FitSettings, fit
fit(few(32), 3, FitSettings(epochs=12, batch=4, seed=1), Path({path!r}))
"""


def test_a_killed_training_goes_on_as_if_undisturbed(tmp_path: Path) -> None:
    path = tmp_path / "killed.safetensors"
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen([sys.executable, "-c", KILLED.format(root=root, path=str(path))])
    limit = time.monotonic() + 120
    while not path.exists() and time.monotonic() < limit:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    how = FitSettings(epochs=12, batch=4, seed=1)
    with safe_open(path, "pt") as file:
        assert 1 <= int(file.metadata()["epochs"]) < 12
    resumed = fit(few(32), 3, how, path)
    undisturbed = fit(few(32), 3, how, tmp_path / "undisturbed.safetensors")
    for name, tensor in undisturbed.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"shares": ()}, "no share"),
        ({"shares": (0,)}, "no share"),
        ({"shares": (101,)}, "no share"),
        ({"side": 8}, "no side"),
        ({"seed": -1}, "no seed"),
        ({"test": 0.0}, "cannot hold out"),
        ({"validation": 0.9}, "cannot hold out"),
    ],
)
def test_settings_that_cannot_be(change: dict[str, Any], what: str) -> None:
    with pytest.raises(InputError, match=what):
        MakeSettings(**change)


def test_bad_input_is_said_and_nothing_is_left(made: Experiment, tmp_path: Path) -> None:
    unnamed = write_parquet(tmp_path / "unnamed.parquet", noise(4))
    with pytest.raises(InputError, match="has no class name"):
        make(unnamed, tmp_path / "out")
    single = write_parquet(tmp_path / "single.parquet", noise(4), name=["bee"] * 4)
    with pytest.raises(InputError, match="one class"):
        make(single, tmp_path / "out")
    small = write_parquet(tmp_path / "small.parquet", noise(4), name=["bee", "bee", "cat", "cat"])
    with pytest.raises(InputError, match=r"there is no (train|describe|validation) image"):
        make(small, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="is there already"):
        make(made.root.parent / "photos.parquet", made.root, settings=SETTINGS)
    with pytest.raises(InputError, match="no experiment of spurious text"):
        open_experiment(tmp_path)
    with pytest.raises(InputError, match="has no train images 'text25'"):
        made.load("train", "text25")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"holds 'thesis\.txt'"):
        run(made.root, tmp_path / "mine")
    for settings in (
        {"seeds": 0},
        {"draws": 0},
        {"first": -1},
        {"within": "x"},
        {"match": ()},
        {"match": (" ",)},
    ):
        with pytest.raises(InputError):
            RunSettings(**settings)  # type: ignore[arg-type]


def test_damaged_files_are_said(made: Experiment, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(made.root, tmp_path / "copy"))
    content = json.loads((copy / "shortcut.json").read_text())
    (copy / "shortcut.json").write_text(json.dumps({**content, "version": 99}))
    with pytest.raises(FormatError, match="version 99"):
        open_experiment(copy)
    (copy / "shortcut.json").write_text(json.dumps(content))
    (copy / "train-plain.parquet").write_bytes(b"half")
    with pytest.raises(FormatError, match="cannot be read"):
        open_experiment(copy).load("train", PLAIN)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"half")
    with pytest.raises(FormatError, match="cannot be read"):
        fit(few(), 3, FitSettings(epochs=1), path)


def test_command_makes_the_images_of_a_folder(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / "photos" / name).mkdir(parents=True)
    for i, picture in enumerate(noise(36, 40)):
        path = tmp_path / "photos" / NAMES[i % 3] / f"{i}.png"
        path.write_bytes(png(picture))
    arguments = ["shortcut", "make", str(tmp_path / "photos"), "-o", str(tmp_path / "made"),
                 "--share", "100", "--side", "32", "--json"]  # fmt: skip
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    assert content["shares"] == [100] and content["classes"] == sorted(NAMES)
    made = open_experiment(tmp_path / "made")
    assert all(r["text"] == r["name"] for r in rows(made, "train", "text100"))
    done = CliRunner().invoke(app, ["shortcut", "run", str(tmp_path / "photos")])
    assert done.exit_code == 2 and "no experiment of spurious text" in done.output


def test_trained_weights_are_plain_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    network = fit(few(), 3, FitSettings(epochs=1, batch=4), path)
    bare = SmallResNet(3, 32)
    stored = load_file(path)
    bare.load_state_dict({name: stored[f"model.{name}"] for name in bare.state_dict()})
    assert torch.equal(bare.head.weight, network.head.weight)
