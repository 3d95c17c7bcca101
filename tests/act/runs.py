"""Small runs whose descriptions are written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from milanx.exemplars.planted import LAYER, VIEW_SIZE, plant
from milanx.files import write_table
from milanx.rows import UNITS, UNITS_VERSION
from milanx.runs import Run, open_run, write_settings

IMAGES = 80
CLASSES = ("dog", "man", "street sign", "red cup")  # by turns


def planted_run(
    root: Path,
    texts: list[str],
    *,
    layer: str = LAYER,
    activations: np.ndarray | None = None,
    sources: list[dict[str, Any]] | None = None,
    split: list[str] | None = None,
    names: bool = True,
    paths: list[str] | None = None,
) -> Run:
    """Write a run of planted units, one for each text; an empty text is a dead unit.

    Args:
        root: where.
        texts: the descriptions.
        layer: that the table names.
        activations: float32 [IMAGES, units]; random when None.
        sources: of ``run.json``.
        split: of each image; the first half may be exemplars when None.
        names: whether images have labels, `CLASSES` by turns.
        paths: of the images; numbers when None.
    """
    rng = np.random.default_rng(0)
    units = len(texts)
    if activations is None:
        activations = rng.random((IMAGES, units), np.float32)
    sides = split or ["exemplars"] * (IMAGES // 2) + ["aside"] * (IMAGES // 2)
    may = np.array([s == "exemplars" for s in sides])
    chosen = [np.argsort(-np.where(may, activations[:, u], -1))[:3] for u in range(units)]
    views = [(i, np.full((*VIEW_SIZE, 3), 3 * i, np.uint8)) for i in range(IMAGES)]
    records = [{"index": i, "source": "made", "path": paths[i] if paths else f"{i}.png",
                "fingerprint": f"{i:016x}", "group": f"g{i}", "split": sides[i],
                "label": i % 4 if names else None,
                "name": CLASSES[i % 4] if names else None, "wnid": None}
               for i in range(IMAGES)]  # fmt: skip
    maps = [rng.random((3, 4, 4)).astype(np.float32) for _ in range(units)]
    plant(root, chosen, maps, views, records, activations=activations)
    write_settings(root, {
        "target": {"name": f"model of {root.name}", "fingerprint": root.name, "weights": "none",
                   "random": False},
        "layers": [], "images": {"count": IMAGES, "fingerprint": "made", "sources": sources or []},
        "describer": {"name": "by hand", "fingerprint": "hand"}, "settings": {}, "versions": {},
    })  # fmt: skip
    write_texts(root, texts, layer)
    return open_run(root)


def write_texts(root: Path, texts: list[str], layer: str = LAYER) -> None:
    """Write the table of a run with these descriptions."""
    import pyarrow as pa

    from milanx.exemplars.store import ExemplarStore
    from milanx.rows import units_schema

    store = ExemplarStore.open(root)
    rows = [{
        "layer": layer, "unit": u, "sign": "+", "status": "described" if t else "dead",
        "description": t, "candidates": [], "images": store.images(store.layers[0])[u].tolist(),
        "activations": store.activations(store.layers[0])[u].tolist(),
    } for u, t in enumerate(texts)]  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=units_schema())
    write_table(root / "units.parquet", table, UNITS, UNITS_VERSION)


def set_texts(run: Run, texts: dict[int, str], **columns: Any) -> Run:
    """Give units of a real run other descriptions, and rows other values; returns it opened."""
    path = run.root / "units.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    for row in rows:
        row["description"] = texts.get(row["unit"], "plain surfaces")
        row["status"] = "described"
        row.update(columns)
    write_table(path, type(table).from_pylist(rows, schema=table.schema), UNITS, UNITS_VERSION)
    return open_run(run.root)
