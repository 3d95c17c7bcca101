"""Data sets of the Hugging Face Hub, or in its formats on disk: ``hf:owner/name:split``.

The library `datasets` opens them (``pip install 'milanx[hf]'``). What follows a question mark says
more: ``config``, ``revision``, ``column`` (of the images) and, to fetch no more than is needed,
``streaming=true`` with ``take`` (1,000): the first rows go into milanx's cache as a parquet file
and are read from there as long as the data set stands at the same commit. A folder is read where it
lies; a name of the Hub is fetched once, after a line that says so, and never where
``HF_HUB_OFFLINE`` is set.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

from PIL import Image

from milanx.errors import InputError, MilanxError, did_you_mean
from milanx.files import fingerprint
from milanx.hub.reach import within_reach
from milanx.hub.refusals import in_words, offline
from milanx.images import streams
from milanx.images.decoding import decode, why
from milanx.images.item import Item, Skipped, Source, SourceInfo, one_line, plain_name
from milanx.images.table import IMAGE, Table, class_number, content_of, text_or_none
from milanx.images.vision import options_of

PREFIX = "hf:"
EXAMPLE = "hf:owner/name:train"
OPTIONS = ("config", "revision", "column", "streaming", "take")
TAKE = 1000  # rows of a stream, when nobody says
SAVED = ("dataset_dict.json", "dataset_info.json")  # of `save_to_disk`
ROWS_AT_ONCE = 64
KNOWN = ("label", "name", "wnid", "group")


@dataclass(frozen=True)
class Wanted:
    """What a user names.

    Attributes:
        path: a folder, or a name of the Hub.
        split: None where none is named.
        options: of `OPTIONS`.
        local: it is a folder.
    """

    path: str
    split: str | None
    options: dict[str, Any]
    local: bool


def read_spec(spec: str) -> Wanted:
    """Read ``hf:owner/name:split?option=value``.

    Raises:
        InputError: it is written otherwise.
    """
    rest, _, query = spec.removeprefix(PREFIX).partition("?")
    options = options_of(query, f"{EXAMPLE}?streaming=true&take=1000")
    for name in options:
        if name not in OPTIONS:
            raise InputError(f"{one_line(spec)} has the option {name!r}",
                             f"there are {', '.join(OPTIONS)}",
                             did_you_mean(name, OPTIONS) or EXAMPLE)  # fmt: skip
    path, _, split = rest.partition(":")
    if Path(rest).expanduser().exists():
        path, split = rest, ""
    if not path:
        raise InputError(f"{one_line(spec)} names no data set", "a name or folder follows hf:",
                         EXAMPLE)  # fmt: skip
    there = Path(path).expanduser()
    local = there.exists() or path.startswith((".", "/", "~"))
    if local and not there.is_dir():
        raise InputError(f"no data set at {one_line(path)}", "there is no such folder", EXAMPLE)
    return Wanted(str(there) if local else path, split or None, options, local)


def placed(spec: str) -> str:
    """Return what names a data set from any folder: the path of one that lies here is absolute."""
    wanted = read_spec(spec)
    if not wanted.local:
        return spec
    query = spec.partition("?")[1:]
    split = f":{wanted.split}" if wanted.split else ""
    return f"{PREFIX}{Path(wanted.path).absolute()}{split}{''.join(query)}"


def open_hf(spec: str, name: str) -> Source:
    """Open a data set.

    Raises:
        InputError: `datasets` is not installed, there is no such data set or split, or it holds no
            images.
        MilanxError: the Hub does not answer.
    """
    wanted = read_spec(spec)
    library = _library()
    if wanted.options.get("streaming"):
        return Table(_streamed(library, wanted, spec), name)
    return Rows(_opened(library, wanted, spec), name, spec, wanted.options.get("column"))


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise InputError("hf: needs the library datasets", f"it is not installed ({error})",
                         "pip install 'milanx[hf]'") from error  # fmt: skip
    return datasets


def _opened(library: Any, wanted: Wanted, spec: str, **how: Any) -> Any:
    """Open the data set, one split of it."""
    from huggingface_hub import constants

    if wanted.local and any((Path(wanted.path) / name).is_file() for name in SAVED):
        with _Explained(spec):
            return _split(library.load_from_disk(wanted.path), wanted, spec)
    with _Explained(spec), within_reach(wanted.path if wanted.local else ""):
        if not wanted.local and not constants.HF_HUB_OFFLINE:
            what = "rows of" if how else "the data set"
            sys.stderr.write(f"fetching {what} {one_line(wanted.path)}"
                             f"{f', split {wanted.split}' if wanted.split else ''}, from the "
                             "Hugging Face Hub, unless it is in the cache\n")  # fmt: skip
        options = wanted.options
        found = library.load_dataset(
            wanted.path, options.get("config"), split=wanted.split,
            **{"revision": options.get("revision"), **how},
        )  # fmt: skip
    return _split(found, wanted, spec)


class _Explained:
    """Turns what `datasets` and the Hub raise into errors in words."""

    def __init__(self, spec: str) -> None:
        self.what = f"cannot open {one_line(spec)}"

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> None:
        if error is None or isinstance(error, MilanxError) or not isinstance(error, Exception):
            return
        if "OfflineModeIsEnabled" in str(error):  # `datasets` says it in words alone
            raise offline(self.what) from error
        try:
            with in_words(self.what):
                raise error
        except MilanxError:
            raise
        except Exception:
            raise InputError(self.what, f"{type(error).__name__}: {why(error)}",
                             f"name data set and split as {EXAMPLE}") from error  # fmt: skip


def _split(found: Any, wanted: Wanted, spec: str) -> Any:
    """Return the split that is wanted: the only one, where none is named.

    Raises:
        InputError: there are several, or it is none of them.
    """
    if not isinstance(found, dict):
        return found
    names = list(found)
    if wanted.split in found:
        return found[wanted.split]
    if wanted.split is None and len(names) == 1:
        return found[names[0]]
    said = f"no split {wanted.split!r} in" if wanted.split else "which split of"
    raise InputError(f"{said} {one_line(spec)}", f"it has {', '.join(names) or 'none'}",
                     f"hf:{wanted.path}:{names[0] if names else 'train'}")  # fmt: skip


def _image_column(library: Any, data: Any, spec: str, asked: str | None) -> str:
    """Return the column of images: the one that is named, ``image``, or the only one.

    Raises:
        InputError: there is none, or several.
    """
    features = data.features or {}
    able = [name for name, kind in features.items() if _holds_images(library, kind)]
    column = asked or (IMAGE if IMAGE in able or len(able) != 1 else able[0])
    if column not in able:
        raise InputError(
            f"{one_line(spec)} has no column {column!r} of images",
            f"its columns are {', '.join(features) or 'not known'}; of images: "
            f"{', '.join(able) or 'none'}",
            f"{EXAMPLE}?column={able[0] if able else 'image'}",
        )
    return str(column)


def _holds_images(library: Any, kind: Any) -> bool:
    """Whether a column holds images: as its data set says, or as encoded bytes."""
    if isinstance(kind, dict):
        return _holds_images(library, kind.get("bytes"))
    binary = getattr(kind, "dtype", None) in ("binary", "large_binary")
    return isinstance(kind, library.Image) or binary


def encoded(library: Any, data: Any, column: str) -> Any:
    """Return a data set that gives images as bytes or paths, and decodes none."""
    if isinstance(data.features[column], library.Image):
        return data.cast_column(column, library.Image(decode=False))
    return data


class Rows:
    """The rows of a data set that lies on this machine.

    Raises:
        InputError: it has no rows, or no column of images.
    """

    def __init__(self, data: Any, name: str, spec: str, column: str | None) -> None:
        library = _library()
        self.name = name
        self.faults: list[Skipped] = []
        self.ignored: dict[str, int] = {}
        if not len(data):
            raise InputError(f"no images in {one_line(spec)}", "it has no rows",
                             "name another split")  # fmt: skip
        self.column = _image_column(library, data, spec, column)
        self.classes = class_names(data.features)
        with _Explained(spec):
            self.data = encoded(library, data, self.column)
            kept = [self.column, *(c for c in KNOWN if c in data.features and c != self.column)]
            self.data = self.data.select_columns(kept)

    @cached_property
    def info(self) -> SourceInfo:
        """What is known of it; every image is read for its fingerprint."""
        digest = fingerprint([[i.path, i.fingerprint] for i in self._items])
        return SourceInfo(self.name, "datasets", len(self.data), digest)

    @cached_property
    def _items(self) -> list[Item]:
        return [self._item(row, self.data[row]) for row in range(len(self.data))]

    def _item(self, number: int, row: dict[str, Any]) -> Item:
        digest = reason = ""
        content, path = content_of(row[self.column])
        try:
            digest = hashlib.sha256(_bytes(content, path)).hexdigest()[:16]
        except OSError as error:
            reason = str(error) if error.errno is None else why(error)
        label, name = told(row, self.classes)
        shown = f"{number}/{PurePath(path).name}" if path else str(number)
        return Item(plain_name(shown), digest, text_or_none(row.get("group")), label, name,
                    text_or_none(row.get("wnid")), reason)  # fmt: skip

    def items(self) -> list[Item]:
        """Return its images, by row; none is decoded."""
        return self._items

    def read(self, row: int) -> Image.Image:
        """Decode one image, RGB."""
        content, path = content_of(self.data[row][self.column])
        return decode(_bytes(content, path), PurePath(path or "").suffix)


def _bytes(content: bytes | None, path: str | None) -> bytes:
    """Return the bytes of a row's image, which may lie beside the data set.

    Raises:
        OSError: it has none; without a number, so that what it says is all there is to say.
    """
    if content:
        return content
    if not path:
        raise OSError("the row holds no image")
    if "://" in path:
        raise OSError("it is an address, and nothing is downloaded")
    return Path(path).read_bytes()


def class_names(features: Any) -> list[str]:
    """Return the names of a column ``label`` of classes."""
    names = getattr((features or {}).get("label"), "names", None)
    return list(names) if names else []


def told(row: dict[str, Any], classes: list[str]) -> tuple[int | None, str | None]:
    """Return the class number and name of a row."""
    label, name = class_number(row.get("label")), text_or_none(row.get("name"))
    if name is None and isinstance(row.get("label"), str):
        name = row["label"]
    if name is None and label is not None and 0 <= label < len(classes):
        name = classes[label]
    return label, name


def _streamed(library: Any, wanted: Wanted, spec: str) -> Path:
    """Return the parquet file of a stream's first rows, made where it is not in the cache."""
    take = wanted.options.get("take", TAKE)
    if isinstance(take, bool) or not isinstance(take, int) or take < 1:
        raise InputError(f"{one_line(spec)} takes {take!r} rows", "it is a whole number above 0",
                         f"{EXAMPLE}?streaming=true&take={TAKE}")  # fmt: skip
    asked = fingerprint(wanted.path, wanted.split, sorted(wanted.options.items()), take)
    revision = wanted.options.get("revision")
    if wanted.local:
        kept, how = streams.find_local(Path(wanted.path), asked), {}
    else:
        kept = streams.find(wanted.path, revision, asked, f"cannot open {one_line(spec)}")
        how = {"revision": kept.state}
    if not kept.path.is_file():
        data = _opened(library, wanted, spec, streaming=True, **how)
        column = _image_column(library, data, spec, wanted.options.get("column"))
        classes = class_names(data.features)
        data = encoded(library, data, column).take(take)
        with _Explained(spec):
            rows = (_kept_row(row, column, classes) for row in data)
            streams.write_rows(kept.path, streams.batches(rows, ROWS_AT_ONCE))
    kept.remember()
    return kept.path


def _kept_row(row: dict[str, Any], column: str, classes: list[str]) -> dict[str, Any]:
    """Return what is kept of a row of a stream."""
    content, place = content_of(row[column])
    label, name = told(row, classes)
    return {
        IMAGE: {"bytes": content or None, "path": place},
        "label": label,
        "name": name,
        "wnid": text_or_none(row.get("wnid")),
        "group": text_or_none(row.get("group")),
    }
