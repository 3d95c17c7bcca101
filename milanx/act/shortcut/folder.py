"""The folder of an experiment: what it holds, and how its images are read.

``shortcut.json`` says how it was made; ``SPLIT-VERSION.parquet`` hold the images as Hugging Face
lays them out. Splits: ``train``, ``describe`` (training images held out for describing),
``validation``, ``test``. Versions: ``plain`` (no text), ``text10`` (the true name on 10 % of each
class), ``lying`` (a wrong name on every image).
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from milanx.errors import FormatError, InputError
from milanx.files import check_format, read_json
from milanx.files.kinds import Kind

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

FORMAT, VERSION = "milanx-shortcut", 1
PLAIN, LYING = "plain", "lying"
SPLITS = ("train", "describe", "validation", "test")
KIND = Kind(
    "an experiment of spurious text",
    ("shortcut.json",),
    {"shortcut.json": FORMAT, **{f"{split}-*.parquet": FORMAT for split in SPLITS}},
)
ROWS = 256  # images of a row group


def text_version(share: int) -> str:
    """Return the version in which ``share`` percent of each class carry their name."""
    return f"text{share}"


def versions_of(split: str, shares: Iterable[int]) -> list[str]:
    """Return the versions in which a split is written."""
    texts = [text_version(share) for share in shares]
    return {
        "train": [PLAIN, *texts],
        "describe": texts,
        "validation": [PLAIN, *texts, LYING],
        "test": [PLAIN, *texts, LYING],
    }[split]


def schema(classes: list[str]) -> pa.Schema:
    """Return the columns, with what `datasets` needs to give images and class names."""
    import pyarrow as pa

    features: dict[str, Any] = {
        "image": {"_type": "Image"},
        "label": {"names": classes, "_type": "ClassLabel"},
        **{name: {"dtype": "string", "_type": "Value"} for name in ("name", "text", "split",
                                                                    "group")},
        "box": {"feature": {"dtype": "int32", "_type": "Value"}, "_type": "List"},
    }  # fmt: skip
    fields = [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("label", pa.int64()),
        *((name, pa.string()) for name in ("name", "text", "split", "group")),
        ("box", pa.list_(pa.int32())),
    ]
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "huggingface": json.dumps({"info": {"features": features}}),
    }
    return pa.schema(fields, metadata=metadata)


@dataclass(frozen=True)
class Images:
    """One split in one version.

    Attributes:
        views: uint8 [n, 3, side, side].
        labels: int64 [n].
        written: int64 [n], the class whose name stands on the image; -1 for none.
    """

    views: torch.Tensor
    labels: torch.Tensor
    written: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Experiment:
    """A folder that `make` wrote, opened.

    Attributes:
        root: the folder.
        classes: their names, by label.
        shares: percent of the training images that carry their name.
        side: of the images, in pixels.
        fingerprint: of all that it holds.
        settings: all of ``shortcut.json``.
    """

    root: Path
    classes: tuple[str, ...]
    shares: tuple[int, ...]
    side: int
    fingerprint: str
    settings: dict[str, Any]

    def path(self, split: str, version: str) -> Path:
        """Return the file of a split and version.

        Raises:
            InputError: the experiment was made without it.
        """
        known = versions_of(split, self.shares)
        if version not in known:
            raise InputError(
                f"{self.root} has no {split} images {version!r}", f"it has {', '.join(known)}",
                "make the experiment with that share: milanx shortcut make --share",
            )  # fmt: skip
        return self.root / f"{split}-{version}.parquet"

    def load(self, split: str, version: str) -> Images:
        """Decode a split.

        Raises:
            FormatError: a file that is not there, damaged, or of another version.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq
        import torch
        from PIL import Image

        path = self.path(split, version)
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowException) as error:
            raise FormatError(f"{path} cannot be read", str(error), "make the experiment again"
                              ) from error  # fmt: skip
        meta = table.schema.metadata or {}
        number = meta.get(b"version", b"").decode()
        check_format(path, meta.get(b"format", b"none").decode(),
                     int(number) if number.isdigit() else None, FORMAT, VERSION)  # fmt: skip
        views = np.empty((table.num_rows, self.side, self.side, 3), np.uint8)
        for row, image in enumerate(table.column("image").to_pylist()):
            views[row] = np.asarray(Image.open(io.BytesIO(image["bytes"])))
        number_of = {name: label for label, name in enumerate(self.classes)}
        written = [-1 if t is None else number_of[t] for t in table.column("text").to_pylist()]
        return Images(
            torch.from_numpy(views).permute(0, 3, 1, 2),
            torch.tensor(table.column("label").to_pylist()),
            torch.tensor(written),
        )


def open_experiment(root: Path | str) -> Experiment:
    """Open a folder that `make` wrote.

    Raises:
        InputError: the path is no such folder.
        FormatError: a damaged one, or of a version that this milanx does not know.
    """
    root = Path(root)
    if not (root / "shortcut.json").is_file():
        raise InputError(
            f"{root} is no experiment of spurious text",
            "there is no shortcut.json in it" if root.is_dir() else "there is no such folder",
            f"milanx shortcut make DATA -o {root}",
        )
    found = read_json(root / "shortcut.json", FORMAT, VERSION)
    try:
        return Experiment(root, tuple(found["classes"]), tuple(found["shares"]), found["side"],
                          found["fingerprint"], found)  # fmt: skip
    except (KeyError, TypeError) as error:
        raise FormatError(f"{root / 'shortcut.json'} is damaged", f"it says no {error}",
                          "make the experiment again") from error  # fmt: skip
