"""A run made of what was imported: the folder that every other command reads.

Masks become maps of the views' own size, 1 inside and 0 outside, from which the store makes the
same masks again. Where a format has no masks they are the whole view; where it has no views, grey
ones stand in their places, so that numbers and activations are still there, and the run says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from milanx.environment import versions
from milanx.errors import InputError
from milanx.exemplars.masks import LayerRecord
from milanx.exemplars.reading import layer_path
from milanx.exemplars.store import FORMAT, VERSION, write_index, write_layer, write_views
from milanx.files import atomic_path, fingerprint, write_table
from milanx.files.digests import FILES
from milanx.files.kinds import RUN
from milanx.files.replacing import check_place
from milanx.progress import Reporter, Silent
from milanx.rows import FIGURES, TABLE, UNITS, UNITS_VERSION, units_schema
from milanx.runs import open_run, tell_table, write_settings
from milanx.share.exchange.bundle import Bundle, Text, UnitKey, Units

if TYPE_CHECKING:
    import pyarrow as pa

    from milanx.runs import Run

KIND = "imported"  # of the source of its images
GREY, BLANK = 128, (32, 32)  # of views that stand for those that are not there
MOST_NUMBERS = 200_000  # of images that keep their numbers; above, they are numbered anew
INSIDE = {"quantile": 0.5, "low_quantile": -0.5, "median": 0.0, "mean": 0.0, "deviation": 1.0}
NO_VIEWS = "views: the format has none; grey ones stand in their places"
NO_MASKS = "masks: none are known; they are the whole view"


@dataclass(frozen=True)
class _Numbers:
    """How images are numbered in the run: those of the format, or anew in their order."""

    known: np.ndarray
    kept: bool

    @property
    def count(self) -> int:
        return int(self.known[-1]) + 1 if self.kept and len(self.known) else len(self.known)

    def of(self, images: np.ndarray) -> np.ndarray:
        """Return the run's numbers of images, int64; -1 stays."""
        if self.kept:
            return np.where(images < 0, -1, images).astype(np.int64)
        found = np.searchsorted(self.known, images)
        return np.where(images < 0, -1, found).astype(np.int64)


def build(
    bundle: Bundle,
    format: str,
    out: Path,
    *,
    overwrite: bool = False,
    progress: Reporter | None = None,
) -> Run:
    """Write a run folder.

    Args:
        bundle: what it is made of.
        format: in which that was found.
        out: the folder.
        overwrite: replace the run that is there.
        progress: told about the layers.

    Raises:
        InputError: there is nothing to be imported, or ``out`` holds what must not be replaced.
    """
    check_place(out, RUN, overwrite=overwrite)
    if not any(layer.units for layer in bundle.layers):
        raise InputError("there is nothing to import", "no unit was found", "name another place")
    progress = progress or Silent()
    used = [np.unique(layer.images[layer.images >= 0]) for layer in bundle.layers]
    known = np.unique(np.concatenate([*used, np.array(sorted(bundle.records), np.int64)]))
    numbers = _Numbers(known, not len(known) or int(known[-1]) < MOST_NUMBERS)
    notes = _notes(bundle, numbers)
    with (
        atomic_path(out, RUN if overwrite else None) as root,
        progress.stage("import", len(bundle.layers)) as bar,
    ):
        records = []
        for layer in bundle.layers:
            records.append(_write_layer(root, layer, numbers, _size(bundle)))
            bar.advance(1)
        shown = np.unique(np.concatenate(used))
        write_views(root, _views(bundle, shown, numbers), lossless=True)
        _write_images(root, bundle, numbers)
        key = fingerprint(format, bundle.target, [
            [layer.layer, list(layer.units), layer.images.tolist(), layer.activations.tolist()]
            for layer in bundle.layers
        ])  # fmt: skip
        write_index(root, records, _size(bundle), key)
        write_table(root / TABLE, _table(bundle, numbers), UNITS, UNITS_VERSION)
        write_settings(root, _settings(bundle, format, numbers, key, notes)
                       | {FILES: tell_table(root)})  # fmt: skip
    return open_run(out)


def _size(bundle: Bundle) -> tuple[int, int]:
    return bundle.size if min(bundle.size) > 0 else BLANK


def _notes(bundle: Bundle, numbers: _Numbers) -> tuple[str, ...]:
    notes = list(bundle.notes)
    if len(numbers.known) and bundle.view is None:
        notes.append(NO_VIEWS)
    if len(numbers.known) and not any(layer.masks for layer in bundle.layers):
        notes.append(NO_MASKS)
    if not numbers.kept:
        notes.append("numbers of images: they are numbered anew, those of the format stand as "
                     "their paths")  # fmt: skip
    return tuple(notes)


def _write_layer(root: Path, layer: Units, numbers: _Numbers, size: tuple[int, int]) -> LayerRecord:
    """Write the exemplars of a layer."""
    rows, k = layer.images.shape
    there = layer.images >= 0
    alive = there.any(1)
    if layer.masks is None:
        maps = there[..., None, None].astype(np.float16)
    else:
        maps = np.zeros((rows, k, *size), np.float16)
        for row in range(rows):
            sign = -1 if layer.units[row][1] == "-" else 1
            maps[row] = layer.masks(row) * there[row][:, None, None] * np.float16(sign)
    stats = {name: np.full(rows, value, np.float32) for name, value in INSIDE.items()}
    for name, sign in (("maximum", 1), ("minimum", -1)):
        stats[name] = np.where(alive, np.float32(sign), np.float32(0))
    write_layer(
        layer_path(root, layer.layer), layer.units, numbers.of(layer.images),
        layer.activations.astype(np.float32), maps, np.zeros((rows, k), np.int16), stats,
    )  # fmt: skip
    height, width = maps.shape[2:]
    return LayerRecord(layer.layer, KIND, (int(height), int(width)), False, None)


def _views(
    bundle: Bundle, shown: np.ndarray, numbers: _Numbers
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the views of the exemplars, in the order of their numbers."""
    blank = np.full((*_size(bundle), 3), GREY, np.uint8)
    for image, number in zip(shown.tolist(), numbers.of(shown).tolist(), strict=True):
        yield number, blank if bundle.view is None else bundle.view(image)


def _write_images(root: Path, bundle: Bundle, numbers: _Numbers) -> None:
    """Write ``images.parquet``: a row an image, also for those that nothing is known of."""
    import pyarrow as pa

    count = numbers.count
    there: dict[int, int] = dict(
        zip(numbers.of(numbers.known).tolist(), numbers.known.tolist(), strict=True)
    )
    facts = [bundle.records.get(there[i], {}) if i in there else {} for i in range(count)]
    text, whole = pa.string(), pa.int64()
    paths = [fact.get("path") or str(there.get(i, i)) for i, fact in enumerate(facts)]
    sources = [fact.get("source") or KIND for fact in facts]
    columns: dict[str, Any] = {
        "index": pa.array(range(count), whole), "source": pa.array(sources, text),
        "path": pa.array(paths, text), "fingerprint": pa.array([""] * count, text),
        "group": pa.array([f.get("group") or f"{s}/{p}" for f, s, p in
                           zip(facts, sources, paths, strict=True)], text),
        "split": pa.array(["exemplars"] * count, text),
        "label": pa.array([f.get("label") for f in facts], whole),
        "name": pa.array([f.get("name") for f in facts], text),
        "wnid": pa.array([f.get("wnid") for f in facts], text),
    }  # fmt: skip
    write_table(root / "images.parquet", pa.table(columns), FORMAT, VERSION)


def _table(bundle: Bundle, numbers: _Numbers) -> pa.Table:
    """Make the table: a row a unit, with its text if it has one."""
    import pyarrow as pa

    rows = []
    for layer in bundle.layers:
        images = numbers.of(layer.images)
        for row, (unit, sign) in enumerate(layer.units):
            there = images[row] >= 0
            key: UnitKey = (layer.layer, unit, sign)
            made = _row(key, bundle.texts.get(key, Text("")))
            made["images"] = images[row][there].tolist()
            made["activations"] = layer.activations[row][there].astype(np.float32).tolist()
            rows.append(made)
    return pa.Table.from_pylist(rows, schema=units_schema(senses=False))


def _row(key: UnitKey, text: Text) -> dict[str, Any]:
    """Return a row of the table without its exemplars; what is not known is null."""
    candidates = text.candidates or (((text.description, None),) if text.description else ())
    row: dict[str, Any] = {
        "layer": key[0], "unit": key[1], "sign": key[2],
        "status": "described" if text.description else "unclear",
        "description": text.description,
        "rank": next((rank for said, rank in candidates if said == text.description), None),
        "candidates": [{"text": said, **dict.fromkeys(FIGURES), "rank": rank, "terms": []}
                       for said, rank in candidates],
    }  # fmt: skip
    return row | text.row


def _settings(
    bundle: Bundle, format: str, numbers: _Numbers, key: str, notes: tuple[str, ...]
) -> dict[str, Any]:
    """Return what ``run.json`` says."""
    source = {"name": KIND, "kind": KIND, "count": numbers.count, "fingerprint": key}
    return {
        "target": {"name": bundle.target or "unknown", "fingerprint": None, "weights": None,
                   "random": False},
        "layers": [{"name": layer.layer, "units": len(layer.units)} for layer in bundle.layers],
        "images": {"count": numbers.count, "sources": [source], "notes": list(notes)},
        "describer": {"name": f"imported ({format})"},
        "score": None,
        "exemplars": key,
        "imported": {"format": format, "views": bundle.view is not None, "left_out": list(notes)},
        "settings": {"k": max(layer.images.shape[1] for layer in bundle.layers)},
        "versions": versions(),
        "seconds": {},
    }  # fmt: skip
