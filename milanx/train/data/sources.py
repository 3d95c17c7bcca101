"""Photos of labelled, captioned or segmented data sets, whatever their layout, as one kind of row.

`photo_rows` reads

* a parquet file in the Hugging Face layout, or a folder of such files;
* a folder with ``metadata.jsonl`` or ``metadata.csv`` (Hugging Face ``imagefolder``), or such a
  file of any name: ``file_name`` and ``text``, ``caption`` or ``captions``;
* COCO: a json of instances, captions or panoptic segments, or a folder with such files, at its top
  or in ``annotations/`` (https://cocodataset.org/#format-data);
* a folder of class folders (torchvision's ``ImageFolder``); classes called by WordNet ids get their
  words from ``words.txt`` or ``LOC_synset_mapping.txt`` in the folder or above it.

Rows come one by one, in an order that never changes; a photo's file is read when its row is.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from milanx.errors import FormatError, InputError
from milanx.files import cache_dir, fingerprint, fingerprint_file, read_json, write_json
from milanx.train.data.coco import Coco, is_coco

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})
CAPTIONS = ("captions", "caption", "text", "sentences")  # columns that hold sentences
COLUMNS = ("image", "name", "label", "wnid", "regions", "group", "source", *CAPTIONS)
WNID = re.compile(r"n\d{8}")
DIGESTS = ("milanx digests", 1)  # format and version of what the cache keeps of them
WORD_FILES = ("words.txt", "LOC_synset_mapping.txt")
LAYOUTS = (
    "a .parquet file, a metadata.jsonl or .csv, a COCO .json, or a folder of one of these or of "
    "class folders with photos"
)


def photo_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Read the photos of a data set.

    Args:
        path: file or folder in one of the layouts that this file's head lists.

    Yields:
        ``image`` (bytes of the file), ``path`` (its name in the data set), ``name`` (class or
        None), ``wnid`` (WordNet id or None), ``captions`` (list of str), ``regions`` (list of
        ``name``, ``mask`` (bytes of a PNG as large as the photo, 0 and 255), ``crowd``, and
        ``part_of`` where the region is a part of a thing so called), ``group`` (photos that are
        one photograph to the data set, or None), ``origin`` (where the data set has the photo
        from, or empty).

    Raises:
        InputError: no such path, a layout that is not known, or a file that is damaged.
    """
    path = Path(path)
    if path.is_dir():
        yield from _folder(path)
    elif not path.is_file():
        raise InputError(f"no photos at {path}", "there is no such file or folder",
                         f"give {LAYOUTS}")  # fmt: skip
    elif path.suffix == ".parquet":
        yield from _parquet(path)
    elif path.suffix in (".jsonl", ".csv"):
        yield from _listed(path)
    elif path.suffix == ".json":
        yield from _coco(path.parent, [path])
    else:
        raise InputError(f"{path} is no source of photos", f"its name ends in {path.suffix!r}",
                         f"give {LAYOUTS}")  # fmt: skip


def fingerprint_source(path: Path) -> str:
    """Return 16 hex digits that stand for what `photo_rows` reads of ``path``: names and bytes.

    The bytes of a large data set are read once: the cache keeps the digest of every file as long
    as nothing about it changes that the system knows, its times, size and place on the disk.
    """
    if path.suffix == ".parquet" and path.is_file():
        return fingerprint_file(path)
    root = path if path.is_dir() else path.parent
    root = root.parent if root.name == "annotations" and not path.is_dir() else root
    files = [p for p in sorted(root.rglob("*")) if p.is_file()]
    files += [p for name in WORD_FILES if (p := root.parent / name).is_file()]
    memo = cache_dir("digests", f"{fingerprint(str(root.resolve()))}.json")
    known, found = _known_digests(memo), {}
    for file in files:
        name, stat = os.path.relpath(file, root), file.stat()
        state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        before = known.get(name)
        if isinstance(before, list) and before[:-1] == state:
            found[name] = before
        else:
            found[name] = [*state, fingerprint_file(file)]
    if found != known:
        write_json(memo, *DIGESTS, {"files": found})
    return fingerprint(os.path.relpath(path, root), [[n, e[-1]] for n, e in found.items()])


def _known_digests(memo: Path) -> dict[str, Any]:
    """Return what a cache file says of files; nothing where it is not there, or damaged."""
    try:
        files = read_json(memo, *DIGESTS)["files"]
    except (FormatError, KeyError):
        return {}
    return files if isinstance(files, dict) else {}


def _folder(root: Path) -> Iterator[dict[str, Any]]:
    """Read a folder in the layout that its files show."""
    for name in ("metadata.jsonl", "metadata.csv"):
        if (root / name).is_file():
            return _listed(root / name)
    coco = [p for p in sorted([*root.glob("*.json"), *root.glob("annotations/*.json")])
            if is_coco(p)]  # fmt: skip
    if coco:
        return _coco(root, coco)
    tables = sorted([*root.glob("*.parquet"), *root.glob("data/*.parquet")])
    if tables:
        return (row for table in tables for row in _parquet(table))
    return _classes(root)


def _row(
    image: bytes,
    path: str,
    name: str | None = None,
    wnid: str | None = None,
    captions: Sequence[str] = (),
    regions: Iterable[dict[str, Any]] = (),
) -> dict[str, Any]:
    return {"image": image, "path": path, "name": name, "wnid": wnid,
            "captions": list(captions), "regions": list(regions), "group": None,
            "origin": ""}  # fmt: skip


def _captions(row: dict[str, Any]) -> list[str]:
    """Return the sentences of a row, under whichever name it has them."""
    for column in CAPTIONS:
        value = row.get(column)
        if value:
            return [str(v) for v in ([value] if isinstance(value, str) else value) if v]
    return []


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    """Read a parquet file: image as struct(bytes, path) or bytes, and any of `COLUMNS`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"cannot read {path}", str(error).splitlines()[0],
                         "it is damaged or no parquet file") from error  # fmt: skip
    columns = file.schema_arrow.names
    if "image" not in columns:
        raise InputError(f"{path} holds no images", f"its columns are {', '.join(columns)}",
                         "it needs a column image: struct(bytes, path), or bytes")  # fmt: skip
    wanted = [c for c in COLUMNS if c in columns]
    classes = _label_names(file.schema_arrow)
    number = 0
    for batch in file.iter_batches(batch_size=64, columns=wanted):
        for row in batch.to_pylist():
            image = row["image"]
            content, inside = (image, None) if isinstance(image, bytes) else (
                (image or {}).get("bytes"), (image or {}).get("path"))  # fmt: skip
            if not content:
                raise InputError(f"row {number} of {path} has no image",
                                 "its bytes are not in the file", "embed the images")  # fmt: skip
            label = row.get("label")
            named = isinstance(label, int) and 0 <= label < len(classes)
            name = row.get("name") or (classes[label] if named else None)
            regions = [_region(region) for region in row.get("regions") or ()]
            found = _row(content, inside or f"{path.stem}-{number}", name, row.get("wnid"),
                         _captions(row), regions)  # fmt: skip
            yield found | {"group": row.get("group") or None, "origin": row.get("source") or ""}
            number += 1


def _region(told: dict[str, Any]) -> dict[str, Any]:
    region = {"name": str(told["name"]), "mask": told["mask"], "crowd": bool(told.get("crowd"))}
    return region | {"part_of": str(told["part_of"])} if told.get("part_of") else region


def _label_names(schema: Any) -> list[str]:
    """Read the names of a ClassLabel column from the metadata that `datasets` writes."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return [str(name) for name in features["label"]["names"]]
    except (KeyError, TypeError, ValueError):
        return []


def _classes(root: Path) -> Iterator[dict[str, Any]]:
    """Read class folders; photos at the top have no class."""
    photos = sorted(
        p for p in root.rglob("*")
        if p.suffix.lower() in SUFFIXES and p.is_file() and not p.name.startswith(".")
    )  # fmt: skip
    if not photos:
        there = sum(p.is_file() for p in root.rglob("*"))
        raise InputError(
            f"no photos in {root}",
            f"none of its {there} files is one" if there else "the folder is empty",
            f"give {LAYOUTS}",
        )
    words = _words(root)
    for path in photos:
        inside = path.relative_to(root)
        name = inside.parts[0] if len(inside.parts) > 1 else None
        wnid = name if name and WNID.fullmatch(name) else None
        yield _row(path.read_bytes(), inside.as_posix(), words.get(name or "", name), wnid)


def _words(root: Path) -> dict[str, str]:
    """Read the first word of each WordNet id, where a file beside the photos says them."""
    words: dict[str, str] = {}
    for path in (folder / name for folder in (root.parent, root) for name in WORD_FILES):
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                wnid, _, names = line.replace("\t", " ", 1).partition(" ")
                if WNID.fullmatch(wnid) and names:
                    words[wnid] = names.split(",")[0].strip()
    return words


def _listed(path: Path) -> Iterator[dict[str, Any]]:
    """Read a list of photos beside the list: file_name with text, caption or captions."""
    read = _json_lines if path.suffix == ".jsonl" else _csv_lines
    captions: dict[str, list[str]] = {}  # a photo may stand in several lines, one a caption
    classes: dict[str, str | None] = {}
    for number, row in read(path):
        file = next((row[k] for k in ("file_name", "filename", "image") if row.get(k)), None)
        if not isinstance(file, str):
            raise InputError(f"line {number} of {path} names no photo",
                             f"its fields are {', '.join(row)}",
                             "it needs file_name, beside text or captions")  # fmt: skip
        if not (path.parent / file).is_file():
            raise InputError(f"line {number} of {path} names {file}",
                             f"there is no such file in {path.parent}",
                             "put the photos beside the list")  # fmt: skip
        captions.setdefault(file, []).extend(_captions(row))
        label = row.get("name") or row.get("label")
        classes.setdefault(file, label if isinstance(label, str) else None)
    for file, sentences in captions.items():
        yield _row((path.parent / file).read_bytes(), file, classes[file], None, sentences)


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise InputError(f"line {number} of {path} is not json", str(error)) from error
                if not isinstance(row, dict):
                    raise InputError(f"line {number} of {path} is no record", "it is one a photo")
                yield number, row


def _csv_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file), 2):
            yield number, {k: v for k, v in row.items() if k is not None}


def _coco(root: Path, files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Read COCO: all files together, photos found anywhere under the folder."""
    coco = Coco(files)
    folder = root.parent if root.name == "annotations" else root
    panoptic = {path.parent for path, _ in coco.panoptic.values()}
    places = {p.name: p for p in sorted(folder.rglob("*"), reverse=True)
              if p.suffix.lower() in SUFFIXES and p.parent not in panoptic}  # fmt: skip
    found = 0
    for photo, listed in sorted(coco.photos.items()):
        path = folder / photo if (folder / photo).is_file() else places.get(Path(photo).name)
        if path is None:
            continue  # often only a part of the photos is at hand
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            size = image.height, image.width
        if all(listed) and tuple(listed) != size:
            raise InputError(
                f"{path} is {size[1]} x {size[0]} pixels",
                f"its annotations are for {listed[1]} x {listed[0]}",
                "use the photos that the annotations were made for",
            )
        found += 1
        yield _row(content, photo, None, None, coco.captions[photo], coco.regions(photo, size))
    if not found:
        raise InputError(
            f"none of the {len(coco.photos)} photos of {files[0].name} is in {folder}",
            "they are looked for by name in the folder and below it",
            "put the photos there",
        )
