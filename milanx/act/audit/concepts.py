"""Which images hold what a rule names, and how well a unit tells them from the others.

Labels, captions and the names of regions say it, where the probe images bring them. What they do
not name may be there all the same, so a low figure says less than a high one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from milanx.act.audit.rules import Rule
from milanx.language.compare import contains
from milanx.measures.intervals import grouped_auroc

if TYPE_CHECKING:
    from milanx.runs import Run

MIN_SIDE = 10  # kept-aside images that hold the concept, and that do not, for a figure
ROWS_AT_ONCE = 512  # rows of a parquet file that are read at a time


@dataclass(frozen=True)
class Aside:
    """The images kept aside, and what is said of them.

    Attributes:
        indices: int64 [n].
        texts: of each its label, captions and regions; empty for one of which nothing is said.
        groups: images of one group are one photograph.
        by: what spoke: ``labels``, ``captions``, ``regions``.
    """

    indices: np.ndarray
    texts: tuple[tuple[str, ...], ...]
    groups: tuple[str, ...]
    by: tuple[str, ...]


def read_aside(run: Run, images: Sequence[str] = ()) -> Aside:
    """Read what is said of the images that a run kept aside.

    Args:
        run: the run.
        images: where the sources lie now; where the run says when empty.
    """
    table = [row for row in run.store.image_table() if row["split"] == "aside"]
    by = ["labels"] if any(row.get("name") for row in table) else []
    said: list[list[str]] = [[str(r["name"]).replace("_", " ")] if r.get("name") else []
                             for r in table]  # fmt: skip
    places: dict[str, list[int]] = {}
    for place, row in enumerate(table):
        places.setdefault(row["fingerprint"], []).append(place)
    files = [Path(i) for i in images] or [Path(s["path"]) for s in run.sources if "path" in s]
    for file in files:
        if file.suffix == ".parquet" and file.is_file():
            for name, key, texts in _parquet_texts(file):
                by += [name] * (name not in by)
                for place in places.get(key, ()):
                    said[place] += texts
    return Aside(
        np.array([row["index"] for row in table], np.int64), tuple(map(tuple, said)),
        tuple(str(row["group"]) for row in table), tuple(by),
    )  # fmt: skip


def _parquet_texts(path: Path) -> list[tuple[str, str, list[str]]]:
    """Return captions and regions of a file's images: what they are, fingerprint, texts."""
    import hashlib

    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    columns = [c.path for c in file.schema]
    wanted = [c for c in columns if c.startswith("captions") or
              (c.startswith("regions") and c.endswith(".name"))]  # fmt: skip
    if not wanted:
        return []
    pictures = [c for c in columns if c in ("image", "image.bytes")]
    found: list[tuple[str, str, list[str]]] = []
    for batch in file.iter_batches(ROWS_AT_ONCE, columns=[*pictures, *wanted]):
        for row in batch.to_pylist():
            content = row["image"]["bytes"] if isinstance(row["image"], dict) else row["image"]
            key = hashlib.sha256(content or b"").hexdigest()[:16]
            if row.get("captions"):
                found.append(("captions", key, [str(c) for c in row["captions"]]))
            if row.get("regions"):
                names = [str(r["name"]).replace("-", " ") for r in row["regions"] if r.get("name")]
                found.append(("regions", key, names))
    return found


def holding(aside: Aside, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    """Say which images hold what a rule names.

    Returns:
        Bool [n], true where a text names it, and bool [n], false for images of which nothing is
        said.
    """
    holds = np.array([any(contains(t, rule.named_by) for t in texts) for texts in aside.texts])
    known = np.array([bool(texts) for texts in aside.texts])
    return holds.reshape(-1).astype(bool), known.reshape(-1).astype(bool)


def tell_apart(
    run: Run, aside: Aside, marks: tuple[np.ndarray, np.ndarray], unit: tuple[str, int, str]
) -> dict[str, Any]:
    """Measure how well a unit tells images that hold a concept from the others.

    Args:
        run: the run.
        aside: its images.
        marks: of `holding`.
        unit: layer, number, sign.

    Returns:
        ``auroc`` with ``interval`` and ``p``, ``holds`` and ``others`` (images on both sides) and
        ``by``; or ``why`` there is no figure.
    """
    layer, number, sign = unit
    holds, known = marks
    if not aside.by:
        return {"why": "the probe images bring no labels, captions or regions"}
    yes, no = int((holds & known).sum()), int((~holds & known).sum())
    if min(yes, no) < MIN_SIDE:
        return {"why": f"of the images kept aside {yes} are said to hold it and {no} others not; "
                       f"{MIN_SIDE} of each are needed"}  # fmt: skip
    if not run.store.has_maxima(layer):
        return {"why": "the run does not hold the unit's values on all images"}
    column = run.store.column(layer, number)
    # The least value of an image is not stored; the low side is read from its mean.
    table = run.store.maxima(layer) if sign == "+" else run.store.means(layer)
    values = np.asarray(table[aside.indices[known], column], np.float64)
    if sign == "-":
        values = -values
    groups = [g for g, k in zip(aside.groups, known, strict=True) if k]
    found = grouped_auroc(values, holds[known], groups)
    return {"auroc": found["estimate"], "interval": found["interval"], "p": found["p"],
            "holds": yes, "others": no, "by": list(aside.by)}  # fmt: skip


def control(found: Sequence[dict[str, Any]]) -> None:
    """Add ``p_fdr`` to what `tell_apart` gave for many units and rules.

    Benjamini and Hochberg's (1995): of those below .05 one in twenty is false, in the mean.
    """
    from scipy.stats import false_discovery_control

    measured = [apart for apart in found if "p" in apart]
    if measured:
        adjusted = false_discovery_control([apart["p"] for apart in measured])
        for apart, value in zip(measured, adjusted, strict=True):
            apart["p_fdr"] = float(value)
