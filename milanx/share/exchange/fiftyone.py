"""FiftyOne: a data set of the exemplars' views, each with what units saw in it.

``metadata.json`` (``media_type``, ``info``), ``samples.json`` (``samples``: a document an image
with its ``filepath`` below the folder) and ``data/``. A view has the detections ``exemplars``, one
for each unit of which it is an exemplar: ``label`` is the description, ``bounding_box`` (x, y, w, h
in shares of the picture) encloses the mask, ``mask`` is the mask inside it (a bool array in numpy's
format, deflated, in base64); ``layer``, ``unit``, ``sign``, ``rank`` and ``activation`` are
attributes. The units with their whole rows stand in ``info``.

Layout: `FiftyOneDataset` of docs.voxel51.com/user_guide/import_datasets.html, and in
github.com/voxel51/fiftyone ``FiftyOneDatasetImporter`` and ``LegacyFiftyOneDatasetImporter`` of
``fiftyone/utils/data/importers.py`` (a ``metadata.json`` without ``version`` is read by the latter,
which finds the fields by itself), ``serialize_numpy_array`` of ``fiftyone/core/utils.py``.
FiftyOne reads it with ``fo.Dataset.from_dir(PLACE, dataset_type=fo.types.FiftyOneDataset)``.
"""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from milanx.errors import InputError
from milanx.files import explained, reading, write_text
from milanx.files.digests import MOST_TEXT, regular
from milanx.images.decoding import decode
from milanx.progress import Stage
from milanx.share.exchange.bundle import Bundle, Text, UnitKey, Units, missing
from milanx.share.exchange.rows import of_row, plain_row

if TYPE_CHECKING:
    from milanx.runs import Run

FIELD, INFO = "exemplars", "milanx"
KNOWN = ("source", "path", "group", "label", "name", "wnid")  # of an image
UNIT = ("layer", "unit", "sign")
LEFT_OUT = ("maps of the exemplars and statistics of the units: masks are made of them",)


def write_fiftyone(run: Run, root: Path, bar: Stage) -> tuple[int, tuple[str, ...], dict[str, str]]:
    """Write the data set; returns the units, what is left out, and no folders."""
    (root / "data").mkdir(parents=True)
    found: dict[int, list[dict[str, Any]]] = {int(i): [] for i in run.store.view_indices()}
    for row in run.rows:
        _see(run, row, found)
        bar.advance(1)
    records = {record["index"]: record for record in run.store.image_table()}
    samples = []
    for image, seen in found.items():
        name = f"data/{image:08d}.png"
        with explained(root):
            Image.fromarray(run.store.view(image).transpose(1, 2, 0)).save(root / name)
        record = records.get(image, {})
        about = {k: record[k] for k in KNOWN if record.get(k) is not None}
        samples.append({
            "filepath": name, "tags": [], "image": image, "about": about,
            FIELD: {"_cls": "Detections", "detections": seen},
        })  # fmt: skip
    info = {"target": run.target, "rows": [plain_row(row) for row in run.rows]}
    _write(root / "samples.json", {"samples": samples})
    _write(root / "metadata.json", {"media_type": "image", "num_samples": len(samples),
                                    "info": {INFO: info}})  # fmt: skip
    return len(run), LEFT_OUT, {}


def _write(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n")


def _see(run: Run, row: dict[str, Any], found: dict[int, list[dict[str, Any]]]) -> None:
    """Add a unit's exemplars to the views that they are."""
    exemplars = run.store.get(row["layer"], row["unit"], row["sign"])
    for rank, (image, value, mask) in enumerate(
        zip(exemplars.images, exemplars.activations, exemplars.masks, strict=True)
    ):
        box, inside = _boxed(mask)
        found[int(image)].append({
            "_cls": "Detection", "attributes": {}, "tags": [],
            "label": row["description"] or row["status"], "bounding_box": box, "mask": inside,
            **{name: row[name] for name in UNIT}, "rank": rank,
            "activation": float(value) if np.isfinite(value) else None,
        })  # fmt: skip


def _boxed(mask: np.ndarray) -> tuple[list[float], dict[str, Any]]:
    """Return the box around a mask bool [H, W], and the mask inside it as FiftyOne writes it."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    left, right = int(columns[0]), int(columns[-1]) + 1
    height, width = mask.shape
    box = [left / width, top / height, (right - left) / width, (bottom - top) / height]
    file = io.BytesIO()
    np.save(file, mask[top:bottom, left:right], allow_pickle=False)
    text = base64.b64encode(zlib.compress(file.getvalue())).decode("ascii")
    return box, {"$binary": {"base64": text, "subType": "00"}}


def read_fiftyone(path: Path) -> Bundle:
    """Read a data set that milanx wrote, also after FiftyOne exported it again.

    Raises:
        InputError: no such data set, or its samples hold no exemplars.
        FormatError: a file is damaged.
    """
    if not (path / "samples.json").is_file():
        raise missing(path, "there is no samples.json in it", "name the folder that FiftyOne, or "
                      "milanx export, wrote")  # fmt: skip
    samples = _json(path / "samples.json").get("samples")
    meta = _json(path / "metadata.json") if (path / "metadata.json").exists() else {}
    own = (meta.get("info") or {}).get(INFO) or {}
    with reading(path / "samples.json"):
        seen = [(_number(s, place), s) for place, s in enumerate(_list(samples, "samples"))]
        exemplars = [(image, d) for image, s in seen
                     for d in _list((s.get(FIELD) or {}).get("detections", []), FIELD)]  # fmt: skip
    with reading(path / "metadata.json"):
        texts = {
            key: text
            for key, text, *_ in (
                of_row(path / "metadata.json", i, row)
                for i, row in enumerate(own.get("rows") or [])
            )
        }
    if not exemplars and not texts:
        raise missing(path, f"none of its samples has detections {FIELD!r} of units",
                      "export a run as fiftyone: this data set is of other things")  # fmt: skip
    pictures = _Pictures(path, {image: str(s["filepath"]) for image, s in seen})
    with reading(path / "samples.json"):
        found = _found(exemplars, texts)
        for _, detection in exemplars:
            key = _key(detection)
            texts.setdefault(key, Text(str(detection["label"])))
        layers = tuple(_units(name, keys, found, pictures) for name, keys in _layers(texts).items())
        records = {image: {k: v for k, v in (s.get("about") or {}).items() if k in KNOWN}
                   for image, s in seen}  # fmt: skip
    return Bundle(str(own.get("target") or ""), layers, texts, pictures.view, pictures.size,
                  records)  # fmt: skip


def _json(path: Path) -> dict[str, Any]:
    regular(path, MOST_TEXT)
    with reading(path):
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it is no object")
    return content


def _list(value: Any, what: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError(f"its {what} are no list of documents")
    return value


def _number(sample: dict[str, Any], place: int) -> int:
    """Return the number of a sample's image, or its place where it says none."""
    image = sample.get("image", place)
    if type(image) is not int or image < 0 or not isinstance(sample.get("filepath"), str):
        raise ValueError(f"sample {place} has the image {image!r}")
    return image


def _key(detection: dict[str, Any]) -> UnitKey:
    return str(detection["layer"]), int(detection["unit"]), str(detection.get("sign", "+"))


def _layers(texts: dict[UnitKey, Text]) -> dict[str, list[UnitKey]]:
    layers: dict[str, list[UnitKey]] = {}
    for key in texts:
        layers.setdefault(key[0], []).append(key)
    return layers


def _found(
    exemplars: Sequence[tuple[int, dict[str, Any]]], texts: dict[UnitKey, Text]
) -> dict[UnitKey, list[tuple[int, dict[str, Any]]]]:
    """Return the exemplars of each unit, best first."""
    found: dict[UnitKey, list[tuple[int, dict[str, Any]]]] = {key: [] for key in texts}
    for image, detection in exemplars:
        found.setdefault(_key(detection), []).append((image, detection))
    for seen in found.values():
        seen.sort(key=lambda pair: int(pair[1].get("rank", 0)))
    return found


def _units(
    layer: str,
    keys: Sequence[UnitKey],
    found: dict[UnitKey, list[tuple[int, dict[str, Any]]]],
    pictures: _Pictures,
) -> Units:
    """Return a layer's exemplars, padded to one length."""
    k = max(1, *(len(found[key]) for key in keys))
    images = np.full((len(keys), k), -1, np.int64)
    values = np.full((len(keys), k), np.nan, np.float32)
    for row, key in enumerate(keys):
        for rank, (image, detection) in enumerate(found[key]):
            images[row, rank] = image
            value = detection.get("activation")
            values[row, rank] = np.nan if value is None else float(value)

    def masks(row: int) -> np.ndarray:
        made = np.zeros((k, *pictures.size), bool)
        with reading(pictures.root / "samples.json", f"a mask of {layer}:{keys[row][1]}"):
            for rank, (_, detection) in enumerate(found[keys[row]]):
                made[rank] = _mask(detection, pictures.size)
        return made

    return Units(layer, tuple((unit, sign) for _, unit, sign in keys), images, values, masks)


def _mask(detection: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """Put a detection's mask into its box: bool [H, W]; the box itself where it has none."""
    height, width = size
    x, y, w, h = (float(part) for part in detection["bounding_box"])
    top, left = round(y * height), round(x * width)
    bottom, right = round((y + h) * height), round((x + w) * width)
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise ValueError(f"the box {detection['bounding_box']} lies outside its picture")
    made = np.zeros(size, bool)
    inside: Any = True
    if detection.get("mask") is not None:
        packed = base64.b64decode(detection["mask"]["$binary"]["base64"], validate=True)
        most = 4096 + 8 * height * width  # a head, and the widest numbers
        try:
            content = zlib.decompressobj().decompress(packed, most)
        except zlib.error as error:
            raise ValueError(str(error)) from error
        inside = np.load(io.BytesIO(content), allow_pickle=False) > 0
        if inside.shape != (bottom - top, right - left):
            raise ValueError(f"a mask of {inside.shape} in a box of {bottom - top, right - left}")
    made[top:bottom, left:right] = inside
    return made


class _Pictures:
    """The pictures of the samples, below the folder.

    Args:
        root: the folder.
        files: by the numbers of their images.

    Attributes:
        size: (H, W), that all of them have.

    Raises:
        InputError: a path leads elsewhere, or two pictures differ in size.
        FormatError: one is damaged.
    """

    def __init__(self, root: Path, files: dict[int, str]) -> None:
        self.root, self.files = root, files
        first = next(iter(files), None)
        self.size = (1, 1) if first is None else self._read(first).shape[:2]

    def _read(self, image: int) -> np.ndarray:
        name = Path(self.files[image])
        if name.is_absolute() or ".." in name.parts:
            raise InputError(f"{self.root} cannot be imported", f"its sample {name} lies outside",
                             "export it from FiftyOne with its media")  # fmt: skip
        path = self.root / name
        regular(path)
        with reading(path):
            return np.asarray(decode(path.read_bytes(), path.suffix))

    def view(self, image: int) -> np.ndarray:
        """Return a picture, uint8 [H, W, 3]."""
        found = self._read(image)
        if found.shape[:2] != self.size:
            raise InputError(f"{self.root / self.files[image]} is {found.shape[:2]}",
                             f"the others are {self.size}: exemplars have one size",
                             "import samples of one size")  # fmt: skip
        return found
