"""The page of a run: one self-contained HTML file that opens from disk."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from milanx.files import write_text
from milanx.files.jsons import json_text
from milanx.files.kinds import PAGE
from milanx.files.replacing import check_file
from milanx.images.photos import LICENCES, Photo
from milanx.language.meanings import parts
from milanx.report.cells import confidence_note, headline, percent, rounded, score_note
from milanx.report.meaning import page_vectors
from milanx.report.neighbours import neighbours
from milanx.report.sure import SCORE, SORTS, SURE, calibrated, ordered, sureness
from milanx.report.why import LEGEND, in_words, reasons, rival, whose_units, without_text
from milanx.workers import processors, workers

if TYPE_CHECKING:
    from milanx.language.compare import Embed
    from milanx.runs import Run

THUMBNAIL = 112  # side of a view on a page unless there is a reason for another, in pixels
QUALITY = 72
# Sides of the views of a run by how many distinct ones its page holds: some 9 MB for the built-in
# images, at most 40 MB or so.
SIDES = ((2000, 176), (5000, 128), (math.inf, 96))
MOST_VIEWS = 9000  # beyond which units show fewer exemplars
SHOWN, FEWEST = 15, 5  # exemplars of a unit
GRID = 14  # side of the masks that are embedded, in cells; the page smooths them
UNITS_AT_ONCE = 64
FIGURES = ("rank", "pmi", "log_p_given_exemplars", "log_p_prior")  # of a candidate


def write_page(run: Run, sort: str = SURE, embed: Embed | None = None) -> Path:
    """Write ``page/index.html`` of a run, into `milanx.runs.Run.results`.

    Each distinct view is embedded once, masks as bits of a grid; nothing is loaded from anywhere.

    Args:
        run: one with descriptions.
        sort: of the units when the page is opened, one of `milanx.report.sure.SORTS`.
        embed: texts to unit rows of all-MiniLM-L6-v2, where they are known; computed when None.

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
    count, shown = shown_views([row["images"] for row in run.rows])
    side = next(side for most, side in SIDES if len(shown) <= most)
    credits = builtin_photos(run, shown)[1]
    layers = list(dict.fromkeys(row["layer"] for row in run.rows))
    scored = any(row["score"] is not None for row in run.rows)
    data = {
        "units": _units(run, count), "views": thumbnails(run, shown, side),
        "paths": run.files(shown),
        "layers": layers, "sorts": [s for s in SORTS if s != SCORE or scored],
        "orders": {by: ordered(run.rows, by) for by in (SURE, SCORE)},
        "sort": SURE if sort == SCORE and not scored else sort,
        "scored": scored, "grid": GRID, "k": run.k or 0, "figures": not run.demonstration,
        "legend": LEGEND,
        "meaning": page_vectors([row["description"] for row in run.rows], embed, _others(run)),
    }  # fmt: skip
    html = environment.get_template("page.html").render(
        target=run.target,
        headline=headline(run),
        count=len(run),
        whose=whose_units(run),
        describer=(run.settings.get("describer") or {}).get("name", "none"),
        demonstration=run.demonstration,
        scored=scored,
        calibrated=calibrated(run.rows),
        confidence_note=_sentence(confidence_note(run)),
        score_note=_sentence(score_note(run)),
        score=run.settings.get("score") or {},
        concepts=run.concepts,
        credits=credits,
        licences=LICENCES,
        data=script_json(data),
    )
    write_text(path, html)
    return path


def _sentence(note: str) -> str:
    return note[:1].upper() + note[1:]


def shown_views(images: Sequence[Sequence[int]]) -> tuple[int, list[int]]:
    """Choose how many exemplars units show, so that a page of many units stays small.

    Args:
        images: of each unit, best first.

    Returns:
        The number, and the distinct images.
    """
    for count in range(SHOWN, FEWEST, -1):
        shown = {i for unit in images for i in unit[:count]}
        if len(shown) <= MOST_VIEWS:
            return count, sorted(shown)
    return FEWEST, sorted({i for unit in images for i in unit[:FEWEST]})


def script_json(value: Any) -> Any:
    """Write json that no text in it can end the script element of."""
    from markupsafe import Markup

    text = json_text(value, compact=True)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _units(run: Run, most: int) -> list[dict[str, Any]]:
    """One entry a unit, with its masks as base64 of bits."""
    masks = {layer: _masks(run, layer) for layer in run.store.layers}
    places = {
        (layer, *pair): row
        for layer in run.store.layers
        for row, pair in enumerate(run.store.units(layer))
    }
    entries = []
    shares = [None] * len(run) if calibrated(run.rows) else sureness(run.rows)
    for row, sure, near in zip(run.rows, shares, neighbours(run), strict=True):
        place = places[(row["layer"], row["unit"], row["sign"])]
        count = min(most, len(row["images"]))
        bits = np.packbits(masks[row["layer"]][place][:count].reshape(count, GRID * GRID), axis=1)
        entries.append({
            "l": row["layer"], "u": row["unit"], "s": row["sign"], "t": row["description"],
            "parts": parts(row["description"]), "st": row["status"], "why": in_words(row),
            "none": without_text(run, row), "p": _rounded(row["pmi"]),
            "sure": None if sure is None else percent(sure),
            "sc": _rounded(row["score"]),
            "si": [_rounded(end) for end in row["score_interval"] or ()],
            "sr": row["score_reason"] or "", "cf": _rounded(row["confidence"]),
            "c": [[c["text"], *(_rounded(c[figure]) for figure in FIGURES)]
                  for c in row["candidates"]],
            "rival": (rival(row) or {"text": ""})["text"],
            "w": [list(astuple(reason)) for reason in reasons(row)],
            "near": [[n.place, _rounded(n.correlation), n.shared] for n in near],
            "n": len(row["images"]), "i": row["images"][:count],
            "a": [_rounded(a) for a in row["activations"][:count]],
            "m": base64.b64encode(bits.tobytes()).decode(),
            **({"se": _senses(row["senses"], count)} if row["senses"] else {}),
        })  # fmt: skip
    return entries


def _others(run: Run) -> list[str]:
    """Candidates and senses, which are searched by their words."""
    return sorted({t["text"] for row in run.rows for name in ("candidates", "senses")
                   for t in row[name] or ()})  # fmt: skip


def _senses(senses: Sequence[dict[str, Any]], count: int) -> list[list[Any]]:
    """A unit's senses: text, share, score, and which of the exemplars that are shown."""
    return [[s["text"], _rounded(s["share"]), _rounded(s["score"]),
             [place for place in s["exemplars"] if place < count]] for s in senses]  # fmt: skip


def _rounded(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else rounded(value)


def _masks(run: Run, layer: str) -> np.ndarray:
    """Masks of a layer on the page's grid, bool [rows, k, GRID * GRID]."""
    import torch

    count = len(run.store.units(layer))

    def part(start: int) -> np.ndarray:
        rows = list(range(start, min(count, start + UNITS_AT_ONCE)))
        weights = run.store.mask_weights(layer, rows, (GRID, GRID))
        return weights.reshape(len(rows), weights.shape[1], -1) >= 0.5

    with workers(torch.device("cpu")) as threads:
        return np.concatenate([*threads.map(part, range(0, count, UNITS_AT_ONCE))])


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


def thumbnails(run: Run, shown: Sequence[int], side: int = THUMBNAIL) -> dict[int, str]:
    """Each view that is shown, as a base64 WebP thumbnail."""

    def thumbnail(index: int) -> str:
        picture = Image.fromarray(run.store.view(index).transpose(1, 2, 0))
        picture = picture.resize((side, side), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        picture.save(buffer, "WEBP", quality=QUALITY)
        return base64.b64encode(buffer.getvalue()).decode()

    Image.init()  # what can be opened, before several threads ask for it
    places = [int(index) for index in shown]
    with ThreadPoolExecutor(processors()) as pool:  # Pillow lets the others go on meanwhile
        return dict(zip(places, pool.map(thumbnail, places), strict=True))
