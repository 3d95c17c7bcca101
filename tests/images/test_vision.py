"""Data sets of torchvision: labels, options, and nothing downloaded unasked."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

import milanx
from milanx.errors import InputError
from milanx.images.probe import open_images
from tests.helpers import noise, tiny


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """The first digits of a data set as torchvision finds it on disk."""
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    pictures = np.stack([np.asarray(p.convert("L").resize((28, 28))) for p in noise(10)])
    for part in ("train", "t10k"):
        head = struct.pack(">IIII", 2051, 10, 28, 28)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(head + pictures.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(
            struct.pack(">II", 2049, 10) + bytes(range(10))
        )
        for name in ("images-idx3-ubyte", "labels-idx1-ubyte"):
            file = raw / f"{part}-{name}"
            Path(f"{file}.gz").write_bytes(gzip.compress(file.read_bytes()))
    return tmp_path / "data"


def test_labels_have_their_names(mnist: Path) -> None:
    opened = open_images([f"torchvision:MNIST?root={mnist}&train=false"])
    assert [r.label for r in opened.records] == list(range(10))
    assert opened.records[3].name == "3 - three" and opened.sources[0].name == "MNIST"
    assert opened.sources[0].kind == "torchvision" and opened.read(0).mode == "RGB"


def test_a_folder_of_classes_keeps_its_paths(tmp_path: Path) -> None:
    for i, picture in enumerate(noise(6)):
        place = tmp_path / "root" / ("cat" if i % 2 else "dog") / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        picture.save(place)
    opened = open_images([f"torchvision:ImageFolder?root={tmp_path / 'root'}"])
    assert [(r.path, r.name, r.label) for r in opened.records][:2] == [
        ("cat/1.png", "cat", 0), ("cat/3.png", "cat", 0)]  # fmt: skip


def test_it_is_a_source_as_any(mnist: Path, tmp_path: Path) -> None:
    spec = f"torchvision:MNIST?root={mnist}"
    store = milanx.extract(tiny(), layers=["conv2"], images=spec, out=tmp_path / "run")
    assert len(store.image_table()) == 10
    assert milanx.extract(tiny(), layers=["conv2"], images=spec,
                          out=tmp_path / "run").fingerprint == store.fingerprint  # fmt: skip


@pytest.mark.parametrize(("spec", "said"), [
    ("torchvision:MNITS?root=.", "did you mean MNIST"), ("torchvision:cifar10", "CIFAR10"),
    ("torchvision:", "no data set ''"), ("torchvision:MNIST", "no root was named"),
    ("torchvision:MNIST?rot=.", "did you mean root"),
    ("torchvision:MNIST?root=.&transform=x", "takes no 'transform'"),
    ("torchvision:MNIST?root", "cannot be read"),
    ("torchvision:MNIST?root=nowhere", "download=true fetches it"),
    ("torchvision:ImageFolder?root=nowhere", "cannot open"),
    ("torchvision:VisionDataset?root=.", "no data set"),
    ("torchvision:UCF101?root=.", "cannot open"),
])  # fmt: skip
def test_what_cannot_be_opened_is_told(
    spec: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        open_images([spec])
    assert said in str(caught.value), str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_download_is_told_first(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                  monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    from torchvision import datasets

    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(InputError):
        open_images([f"torchvision:MNIST?root={tmp_path}&download=true"])
    assert f"may download MNIST into {tmp_path}" in capsys.readouterr().err
