"""The page of a run: one self-contained HTML file that opens from disk."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from milanx.files import write_text
from milanx.files.jsons import json_text
from milanx.files.replacing import PAGE, check_file
from milanx.images.photos import LICENCES, Photo
from milanx.report.why import reasons

if TYPE_CHECKING:
    from milanx.runs import Run

THUMBNAIL = 112  # side of a view on the page, in pixels
QUALITY = 72
SHOWN = 15  # exemplars of a unit
GRID = 14  # side of the masks that are embedded, in cells; the page smooths them
UNITS_AT_ONCE = 64
FIGURES = ("rank", "pmi", "log_p_given_exemplars", "log_p_prior")  # of a candidate


def write_page(run: Run) -> Path:
    """Write ``page/index.html`` of a run, into `milanx.runs.Run.results`.

    Each distinct view is embedded once, masks as bits of a grid; nothing is loaded from anywhere.

    Returns:
        The file.

    Raises:
        InputError: there is a file of that name that is no such page.
    """
    from jinja2 import Environment, PackageLoader, select_autoescape

    environment = Environment(
        loader=PackageLoader("milanx.report"), autoescape=select_autoescape(default=True)
    )
    path = run.results / "page" / "index.html"
    check_file(run.results, "page/index.html", PAGE)
    shown = sorted({i for row in run.rows for i in row["images"][:SHOWN]})
    paths, credits = builtin_photos(run, shown)
    html = environment.get_template("page.html").render(
        target=run.target,
        count=len(run),
        k=run.k or 0,
        describer=(run.settings.get("describer") or {}).get("name", "none"),
        images=run.settings.get("images", {}).get("count", 0),
        demonstration=run.demonstration,
        scored=any(row["score"] is not None for row in run.rows),
        score=run.settings.get("score") or {},
        concepts=run.concepts,
        layers=list(dict.fromkeys(row["layer"] for row in run.rows)),
        credits=credits,
        licences=LICENCES,
        data=script_json({"units": _units(run), "views": thumbnails(run, shown), "paths": paths}),
        grid=GRID,
        side=THUMBNAIL,
    )
    write_text(path, html)
    return path


def script_json(value: Any) -> Any:
    """Write json that no text in it can end the script element of."""
    from markupsafe import Markup

    text = json_text(value, compact=True)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _units(run: Run) -> list[dict[str, Any]]:
    """One entry a unit, with its masks as base64 of bits."""
    masks = {layer: _masks(run, layer) for layer in run.store.layers}
    places = {
        (layer, *pair): row
        for layer in run.store.layers
        for row, pair in enumerate(run.store.units(layer))
    }
    entries = []
    for row in run.rows:
        place = places[(row["layer"], row["unit"], row["sign"])]
        count = min(SHOWN, len(row["images"]))
        bits = np.packbits(masks[row["layer"]][place][:count].reshape(count, GRID * GRID), axis=1)
        entries.append({
            "l": row["layer"], "u": row["unit"], "s": row["sign"], "t": row["description"],
            "st": row["status"], "p": _rounded(row["pmi"]), "sc": _rounded(row["score"]),
            "si": [_rounded(end) for end in row["score_interval"] or ()],
            "sr": row["score_reason"] or "", "cf": _rounded(row["confidence"]),
            "c": [[c["text"], *(_rounded(c[figure]) for figure in FIGURES)]
                  for c in row["candidates"]],
            "w": [list(astuple(reason)) for reason in reasons(row)],
            "n": len(row["images"]), "i": row["images"][:count],
            "a": [_rounded(a) for a in row["activations"][:count]],
            "m": base64.b64encode(bits.tobytes()).decode(),
        })  # fmt: skip
    return entries


def _rounded(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else round(float(value), 3)


def _masks(run: Run, layer: str) -> np.ndarray:
    """Masks of a layer on the page's grid, bool [rows, k, GRID * GRID]."""
    count = len(run.store.units(layer))
    parts = []
    for start in range(0, count, UNITS_AT_ONCE):
        rows = list(range(start, min(count, start + UNITS_AT_ONCE)))
        weights = run.store.mask_weights(layer, rows, (GRID, GRID))
        parts.append(weights.reshape(len(rows), weights.shape[1], -1) >= 0.5)
    return np.concatenate(parts)


def builtin_photos(run: Run, shown: Sequence[int]) -> tuple[dict[int, str], list[Photo]]:
    """The built-in images among those shown, by their paths, and the photos that they are of."""
    from milanx.images.builtin import views

    names = {source["name"] for source in run.sources if source.get("kind") == "builtin"}
    if not names:
        return {}, []
    table, wanted = run.store.image_table(), set(shown)
    paths = {row["index"]: row["path"] for row in table
             if row["index"] in wanted and row["source"] in names}  # fmt: skip
    seen = set(paths.values())
    photos = {view.photo.name: view.photo for view in views() if view.photo and view.path in seen}
    return paths, [photos[name] for name in sorted(photos)]


def thumbnails(run: Run, shown: Sequence[int]) -> dict[int, str]:
    """Each view that is shown, as a base64 WebP thumbnail."""
    made = {}
    for index in shown:
        picture = Image.fromarray(run.store.view(index).transpose(1, 2, 0))
        picture = picture.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        picture.save(buffer, "WEBP", quality=QUALITY)
        made[int(index)] = base64.b64encode(buffer.getvalue()).decode()
    return made
