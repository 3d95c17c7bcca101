"""Data sets in the formats of the Hugging Face Hub: on disk, saved, streamed, and refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import HfFileSystem, constants
from PIL import Image

import milanx
from milanx.errors import InputError, MilanxError
from milanx.images.hf import read_spec
from milanx.images.probe import open_images
from tests.cli.commands import refused
from tests.helpers import noise, png, tiny, write_parquet
from tests.hub.fixtures import hub as hub
from tests.hub.server import Fault, Hub, status

datasets = pytest.importorskip("datasets", reason="an optional extra: pip install 'milanx[hf]'")


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    datasets.disable_progress_bars()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A folder as a repository of the Hub: parquet files, a split each."""
    root = tmp_path / "flowers" / "data"
    root.mkdir(parents=True)
    names = ["rose", "lily"] * 4
    write_parquet(root / "train-00000-of-00001.parquet", noise(8), label=[0, 1] * 4, name=names)
    write_parquet(root / "test-00000-of-00001.parquet", noise(4, seed=3), label=[1] * 4)
    return root.parent


def saved(path: Path, count: int = 6, **more: Any) -> Path:
    """Save a data set with class labels to disk."""
    features = datasets.Features({
        "image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"]),
        **{k: datasets.Value("string") for k in more},
    })  # fmt: skip
    rows = {"image": noise(count), "label": [i % 2 for i in range(count)], **more}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(path))
    return path


def test_a_split_of_a_folder(repository: Path) -> None:
    opened = open_images([f"hf:{repository}:train"])
    assert len(opened) == 8 and opened.sources[0].name == "flowers-train"
    assert [(r.label, r.name) for r in opened.records][:2] == [(0, "rose"), (1, "lily")]
    for i, picture in enumerate(noise(8)):
        assert (np.asarray(opened.read(i)) == np.asarray(picture)).all()
    assert len(open_images([f"hf:{repository}:test"])) == 4
    assert len(open_images([f"hf:{repository}:train[:3]"])) == 3


def test_which_split_is_asked_back(repository: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_images([f"hf:{repository}"])
    assert "train, test" in str(caught.value) and "which split" in str(caught.value)
    with pytest.raises(InputError, match=r"cannot open|no split"):
        open_images([f"hf:{repository}:validation"])


def test_a_saved_data_set_has_class_names(tmp_path: Path) -> None:
    root = saved(tmp_path / "pets", group=["a", "a", "b", "b", "c", "c"])
    opened = open_images([f"hf:{root}"])
    assert [r.name for r in opened.records] == ["cat", "dog"] * 3
    assert [r.group for r in opened.records] == ["a", "a", "b", "b", "c", "c"]
    data = datasets.load_from_disk(str(root))
    both = datasets.DatasetDict({"one": data.select([0, 1]), "two": data.select([2])})
    both.save_to_disk(str(tmp_path / "both"))
    assert len(open_images([f"hf:{tmp_path / 'both'}:two"])) == 1
    with pytest.raises(InputError, match="which split"):
        open_images([f"hf:{tmp_path / 'both'}"])


def test_folders_of_images_are_read(tmp_path: Path) -> None:
    for i, picture in enumerate(noise(4)):
        place = tmp_path / "photos" / "train" / ("cat" if i % 2 else "dog") / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        picture.save(place)
    opened = open_images([f"hf:{tmp_path / 'photos'}:train"])
    assert sorted({r.name for r in opened.records if r.name}) == ["cat", "dog"]


def test_a_stream_of_a_folder_goes_by_its_files(repository: Path, own_cache: Path) -> None:
    spec = f"hf:{repository}:train?streaming=true&take=5"
    opened = open_images([spec])
    assert len(opened) == 5 and opened.records[1].name == "lily"
    (kept,) = (own_cache / "streams").glob("*.parquet")
    written = kept.stat().st_ino
    assert open_images([spec]).fingerprint == opened.fingerprint
    assert kept.stat().st_ino == written  # read from there, not written again
    assert (np.asarray(opened.read(4)) == np.asarray(noise(8)[4])).all()
    other = noise(8, seed=7)
    write_parquet(repository / "data" / "train-00000-of-00001.parquet", other, label=[1] * 8)
    again = open_images([spec])
    assert again.fingerprint != opened.fingerprint
    assert (np.asarray(again.read(4)) == np.asarray(other[4])).all()


def test_other_columns_may_hold_the_images(tmp_path: Path) -> None:
    features = datasets.Features({"a": datasets.Image(), "b": datasets.Image()})
    rows = {"a": noise(2), "b": noise(2, seed=1)}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "two"))
    with pytest.raises(InputError, match="a, b"):
        open_images([f"hf:{tmp_path / 'two'}"])
    opened = open_images([f"hf:{tmp_path / 'two'}?column=b"])
    assert (np.asarray(opened.read(0)) == np.asarray(noise(1, seed=1)[0])).all()


def test_what_cannot_be_read_is_skipped(tmp_path: Path) -> None:
    content: list[Any] = [{"bytes": png(p), "path": None} for p in noise(3)]
    content += [
        {"bytes": b"no picture", "path": "x.png"},
        {"bytes": b"", "path": None},
        None,
    ]
    data = datasets.Dataset.from_dict({"image": content}).cast_column("image", datasets.Image())
    data.save_to_disk(str(tmp_path / "odd"))
    opened = open_images([f"hf:{tmp_path / 'odd'}"])
    assert len(opened) == 3 and len(opened.skipped) == 3
    assert "it is no image that can be read" in [s.why for s in opened.skipped]


def test_it_is_a_source_as_any(tmp_path: Path) -> None:
    root = saved(tmp_path / "pets", 12)
    store = milanx.extract(tiny(), layers=["conv2"], images=f"hf:{root}", out=tmp_path / "run")
    settings = json.loads((tmp_path / "run" / "run.json").read_text())
    assert settings["images"]["sources"][0]["spec"] == f"hf:{root}"
    again = milanx.extract(tiny(), layers=["conv2"], images=f"hf:{root}", out=tmp_path / "run")
    assert again.fingerprint == store.fingerprint
    given = milanx.extract(tiny(), layers=["conv2"], images=datasets.load_from_disk(str(root)),
                           out=tmp_path / "given")  # fmt: skip
    assert len(given.image_table()) == 12


@pytest.fixture
def served(
    hub: Hub, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Hub]:
    """The folder as a repository of a Hub on this machine, as a process that asks it sees it."""
    files = {p.relative_to(repository).as_posix(): p.read_bytes()
             for p in repository.rglob("*.parquet")}  # fmt: skip
    hub.put("user/flowers", files, "dataset")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    for name, value in (("HF_ENDPOINT", hub.url), ("HF_HUB_OFFLINE", False)):
        monkeypatch.setattr(datasets.config, name, value)
    yield hub
    HfFileSystem.clear_instance_cache()


def test_a_repository_is_fetched_once_after_a_line(
    served: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_images(["hf:user/flowers:train"])
    assert len(opened) == 8 and opened.records[1].name == "lily"
    assert "fetching the data set user/flowers, split train" in capsys.readouterr().err
    assert (np.asarray(opened.read(3)) == np.asarray(noise(4)[3])).all()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    asked = len(served.log)
    again = open_images(["hf:user/flowers:train"])
    assert again.fingerprint == opened.fingerprint and len(served.log) == asked
    assert "fetching" not in capsys.readouterr().err


STREAM = "hf:user/flowers:train?streaming=true&take=3"


def test_a_stream_of_a_repository(served: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    opened = open_images([STREAM])
    assert [r.name for r in opened.records] == ["rose", "lily", "rose"]
    assert "fetching rows of user/flowers, split train" in capsys.readouterr().err
    asked = len(served.log)
    assert open_images([STREAM]).fingerprint == opened.fingerprint
    assert len(served.log) == asked + 1 and "fetching" not in capsys.readouterr().err
    commit = served.repos["dataset", "user/flowers"].refs["main"]
    fixed = open_images([f"{STREAM}&revision={commit}"])
    asked = len(served.log)
    assert open_images([f"{STREAM}&revision={commit}"]).fingerprint == fixed.fingerprint
    assert len(served.log) == asked  # a commit stays what it is


def test_a_stream_of_a_data_set_that_changed_is_fetched_anew(
    served: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_images([STREAM])
    other = tmp_path / "other.parquet"
    write_parquet(other, noise(8, seed=7), label=[1] * 8)
    changed = {"data/train-00000-of-00001.parquet": other.read_bytes()}
    served.put("user/flowers", changed, "dataset")
    after = open_images([STREAM])
    assert after.fingerprint != before.fingerprint
    assert (np.asarray(after.read(1)) == np.asarray(noise(2, seed=7)[1])).all()
    served.faults = [Fault("/api/datasets", status(500, "out of order"))]
    capsys.readouterr()
    assert open_images([STREAM]).fingerprint == after.fingerprint
    assert "as they were last fetched" in capsys.readouterr().err
    with pytest.raises(MilanxError, match="at fault"):
        open_images([STREAM.replace("take=3", "take=4")])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(served.log)
    assert open_images([STREAM]).fingerprint == after.fingerprint
    with pytest.raises(MilanxError, match="HF_HUB_OFFLINE"):
        open_images([STREAM.replace("take=3", "take=4")])
    assert len(served.log) == asked


@pytest.mark.parametrize("name", ["user/none", "else/flowers"])
def test_a_repository_that_is_not_there(served: Hub, name: str) -> None:
    with pytest.raises(MilanxError) as caught:
        open_images([f"hf:{name}:train"])
    assert f"cannot open hf:{name}:train" in str(caught.value)
    with pytest.raises(MilanxError, match="validation"):
        open_images(["hf:user/flowers:validation"])


@pytest.mark.parametrize(("spec", "path", "split"), [
    ("hf:beans", "beans", None), ("hf:a/b", "a/b", None), ("hf:a/b:train", "a/b", "train"),
    ("hf:a/b:train[:10]", "a/b", "train[:10]"), ("hf:a/b:test?revision=v1", "a/b", "test"),
])  # fmt: skip
def test_names_are_read(spec: str, path: str, split: str | None) -> None:
    wanted = read_spec(spec)
    assert (wanted.path, wanted.split, wanted.local) == (path, split, False)


@pytest.mark.parametrize(("spec", "said"), [
    ("hf:", "names no data set"), ("hf:./nowhere", "no such folder"),
    ("hf:a/b?tkae=3", "did you mean take"), ("hf:a/b?take", "cannot be read"),
    ("hf:a/b:train?streaming=true&take=0", "above 0"),
    ("hf:nobody/nothing:train", "HF_HUB_OFFLINE"),
])  # fmt: skip
def test_what_cannot_be_opened_is_told(spec: str, said: str) -> None:
    with pytest.raises(MilanxError) as caught:
        open_images([spec])
    assert said in str(caught.value), str(caught.value)


def test_a_data_set_without_images_is_refused(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(str(tmp_path / "texts"))
    with pytest.raises(InputError, match="no column 'image'"):
        open_images([f"hf:{tmp_path / 'texts'}"])
    empty = datasets.Dataset.from_dict(
        {"image": []}, features=datasets.Features({"image": datasets.Image()})
    )
    empty.save_to_disk(str(tmp_path / "empty"))
    with pytest.raises(InputError, match="empty"):  # `datasets` opens none that it saved so
        open_images([f"hf:{tmp_path / 'empty'}"])
    Image.new("RGB", (4, 4)).save(tmp_path / "one.png")
    with pytest.raises(InputError, match="no such folder"):
        open_images([f"hf:{tmp_path / 'one.png'}"])


def test_the_command_says_it_in_three_lines(tmp_path: Path) -> None:
    said = refused("exemplars", "tests.helpers:tiny", "-l", "conv2", "--images", "hf:no/such:x",
                   "-o", str(tmp_path / "run"))  # fmt: skip
    assert "hf:no/such:x" in said
