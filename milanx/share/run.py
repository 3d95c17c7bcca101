"""A run or a table as what is sent to the Hub: a data set that `datasets` loads.

The run's own files lie there as they are, so that `milanx pull` gives the same run. Beside them
stands ``data/``: a row a unit with its sheet of exemplars, for people who browse and for
``load_dataset``. What tells of this machine, the folders of images and weights, is left out.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milanx.errors import InputError
from milanx.evaluate.protocols import VERSION as REPORT_VERSION
from milanx.files import explained, read_json, write_json
from milanx.files.kinds import EVALUATION, PAGE, RUN, TABLE
from milanx.files.replacing import format_of
from milanx.hub.address import Address
from milanx.hub.fetch import Wanted
from milanx.hub.send import Item, Parcel
from milanx.progress import Reporter, Silent
from milanx.share.cards import run_card, table_card, ten_units
from milanx.share.sheets import Sheets

if TYPE_CHECKING:
    import pyarrow as pa

    from milanx.runs import Run

UNITS = "units.parquet"
DATA = "data/train-00000-of-00001.parquet"
GROUP = 100  # rows of a row group: what the Hub's viewer reads at once
# Of a run these are sent; logs and reports of other commands are made again where they are needed.
LEFT_OUT = ("log.txt", "audit/", "analysis/", ".")
FEATURES = {
    "sheet": {"_type": "Image"},
    **{name: {"dtype": kind, "_type": "Value"} for name, kind in (
        ("layer", "string"), ("unit", "int32"), ("sign", "string"), ("status", "string"),
        ("description", "string"), ("score", "float32"), ("score_low", "float32"),
        ("score_high", "float32"), ("confidence", "float32"), ("rank", "float32"),
        ("pmi", "float32"), ("candidates", "string"),
    )},
}  # fmt: skip
# An absolute path inside a text; a URL's are preceded by '/'.
PATH = re.compile(r"(?<![\w/.~-])(?:~|[A-Za-z]:)?(?:[/\\][^\s/\\'\"<>|:,;()]+){2,}")


def run_parcel(
    run: Run,
    address: Address,
    work: Path,
    *,
    licence: str | None = None,
    progress: Reporter | None = None,
) -> Parcel:
    """Return a run as a parcel, after a look at every file of it.

    Args:
        run: that was described.
        address: where it goes, which the card names.
        work: an empty folder for what is made for it.
        licence: of images and texts; what is known of the images when None.
        progress: told about the sheets.

    Raises:
        InputError: nothing was described yet.
        FormatError: a file of it is damaged.
    """
    from milanx.report.check import check
    from milanx.report.page import builtin_photos, write_page
    from milanx.runs import write_settings

    rows = run.rows
    check(run.root).require()
    if format_of(run.root / "page" / "index.html") != PAGE:
        write_page(run)
    write_settings(work, without_paths(run.settings))
    _write_data(run, work / "data.parquet", progress or Silent())
    items = {"run.json": work / "run.json", DATA: work / "data.parquet"} | _files(run.root, work)
    shown, pictures = ten_units(rows, run)
    photos = builtin_photos(run, [int(i) for i in run.store.view_indices()])[1]
    text: dict[str, bytes] = {}
    if photos:
        text["CREDITS.md"] = _credits(photos).encode()
    kinds = {source.get("kind") for source in run.sources}
    found = licence or ("other" if kinds == {"builtin"} else "unknown")
    text["README.md"] = str(run_card(run, address, found, shown)).encode()
    views = len(run.store.view_indices())
    return Parcel(
        RUN, "dataset",
        (*(Item(name, path) for name, path in sorted(items.items())),
         *(Item(name, content) for name, content in text.items()), *pictures),
        f"Push the run of {run.target} ({run.settings.get('exemplars')})",
        own=("data/", "sheets/", "CREDITS.md"),
        notes=() if kinds == {"builtin"} else (f"it holds {views} of your images",),
    )  # fmt: skip


def table_parcel(path: Path, address: Address, licence: str | None = None) -> Parcel:
    """Return a table, ``units.parquet``, as a parcel.

    Raises:
        FormatError: it is none, or of an unknown version.
    """
    rows = read_units(path).to_pylist()
    card = table_card(rows, address, licence or "unknown", ten_units(rows, None)[0])
    return Parcel(TABLE, "dataset", (Item(UNITS, path), Item("README.md", str(card).encode())),
                  f"Push a table of {len(rows)} units")  # fmt: skip


def read_units(path: Path) -> pa.Table:
    """Read a table that stands alone.

    Raises:
        FormatError: it is none, or of an unknown version.
    """
    from milanx.files import read_table
    from milanx.rows import OLDER_UNITS, UNITS_VERSION
    from milanx.rows import UNITS as FORMAT

    return read_table(path, FORMAT, UNITS_VERSION, OLDER_UNITS)


TABLE_WANTED = Wanted(TABLE, "dataset", lambda root: read_units(root / UNITS))


def _files(root: Path, work: Path) -> dict[str, Path]:
    """Return the files of a run that are sent beside ``run.json``, by their path in it.

    Raises:
        InputError: a link is among them.
        FormatError: a report is damaged.
    """
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if RUN.part(name) is None or name == "run.json" or name.startswith(LEFT_OUT):
            continue
        if path.is_symlink():
            raise InputError(f"{path} is a link", "what a run holds are files of its own",
                             "copy what it stands for into its place")  # fmt: skip
        if not path.is_file() or "/.tmp" in name:
            continue
        found[name] = path
        if name.startswith("evaluation-") and format_of(path) == EVALUATION:
            found[name] = work / name
            content = without_paths(read_json(path, EVALUATION, REPORT_VERSION))
            write_json(found[name], EVALUATION, content["version"], content)
    return found


def without_paths(value: Any) -> Any:
    """Return plain values with every absolute path in them cut to its last name."""
    if isinstance(value, dict):
        return {name: without_paths(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(item) for item in value]
    if isinstance(value, str):
        return PATH.sub(lambda found: re.split(r"[/\\]", found[0])[-1], value)
    return value


def _write_data(run: Run, path: Path, progress: Reporter) -> None:
    """Write a row a unit, with its sheet, in groups of rows that a viewer reads at once."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"string": pa.string(), "int32": pa.int32(), "float32": pa.float32()}
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [(name, image if f["_type"] == "Image" else kinds[f["dtype"]])
         for name, f in FEATURES.items()],
        metadata={"huggingface": json.dumps({"info": {"features": FEATURES}})},
    )  # fmt: skip
    sheets = Sheets(run.store)
    with (
        explained(path),
        pq.ParquetWriter(path, schema, compression="zstd") as writer,
        progress.stage("sheets", len(run)) as bar,
    ):
        for start in range(0, len(run), GROUP):
            some = run.rows[start : start + GROUP]
            rows = [_data_row(*pair) for pair in zip(some, sheets.draw(some), strict=True)]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema), row_group_size=GROUP)
            bar.advance(len(rows))


def _data_row(row: dict[str, Any], sheet: bytes | None) -> dict[str, Any]:
    interval = row["score_interval"] or (None, None)
    name = f"{row['layer']}-{row['unit']}{'-low' * (row['sign'] == '-')}.jpg"
    made = {"sheet": None if sheet is None else {"bytes": sheet, "path": name},
            "score_low": interval[0], "score_high": interval[1],
            "candidates": "; ".join(c["text"] for c in row["candidates"])}  # fmt: skip
    return {**{name: row[name] for name in FEATURES if name in row}, **made}


def _credits(photos: list[Any]) -> str:
    """Return whom to thank for the built-in photos that the run shows, in markdown."""
    from milanx.images.photos import LICENCES

    lines = [
        f"- {photo.title or photo.name}, {photo.author or 'see its page'}: "
        f"[{photo.licence}]({LICENCES[photo.licence]}), <{photo.page}>"
        for photo in photos
    ]
    return "# Credits of the photos\n\n" + "\n".join(lines) + "\n"
