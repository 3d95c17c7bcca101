"""Sheets that a reader looks at: images of a unit, dimmed outside its mask, and montages of them.

A kept-aside image has its spatial maximum in the run folder but neither view nor map, so the
target is run again on the images that the sheets need; exemplars come from the store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from milanx.errors import InputError

if TYPE_CHECKING:
    from milanx.exemplars.store import ExemplarStore
    from milanx.images.probe import ProbeImages
    from milanx.runs import Run
    from milanx.targets.zoo import Target

DIM = 0.25  # brightness that is left outside the mask
WIDTH, HEIGHT = 1100, 1300  # the most that a picture of five sheets may measure, in pixels
LARGEST = 220  # the largest side of a view on a sheet, in pixels
LABEL = 34  # width of the column with the sheet's letter, in pixels
GAP = 3  # between views, in pixels
QUALITY = 90  # of the JPEG files
LETTERS = "ABCDE"
ARTICLES = frozenset({"a", "an", "the"})
SAME = 0.85  # sentence similarity from which two texts are paraphrases; chosen, not measured


@dataclass(frozen=True)
class Sheet:
    """What a reader sees of one unit.

    Attributes:
        images: int64 [n], the probe images, source by source, best first.
        views: uint8 [n, 3, H, W], dimmed outside the mask.
    """

    images: np.ndarray
    views: np.ndarray


def dim(views: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Darken views uint8 [n, 3, H, W] outside masks bool [n, H, W]."""
    share = np.where(masks[:, None], 1.0, DIM)
    return (views * share).round().astype(np.uint8)


def plus_rows(store: ExemplarStore, layer: str) -> dict[int, int]:
    """Return unit -> its row in the store, for the sign ``+``."""
    return {unit: row for row, (unit, sign) in enumerate(store.units(layer)) if sign == "+"}


def top_aside(run: Run, layer: str, units: Sequence[int], each: int) -> dict[int, np.ndarray]:
    """Find the kept-aside images that excite units most.

    Args:
        run: the run.
        layer: a layer of it.
        units: which units.
        each: images of each source.

    Returns:
        unit -> int64 [n], source by source in the order of their names, best first; fewer, or
        none, where the unit is off on the others.

    Raises:
        InputError: no image was kept aside.
    """
    table = run.store.image_table()
    aside: dict[str, list[int]] = {}
    for row in table:
        if row["split"] == "aside":
            aside.setdefault(row["source"], []).append(row["index"])
    if not aside:
        raise InputError(
            f"{run.root} kept no images aside",
            "all of its images are of one group, or could become exemplars",
            "describe with more images, of more groups",
        )
    maxima, off = run.store.maxima(layer), run.store.record(layer).off
    found = {}
    for unit in units:
        values = np.asarray(maxima[:, run.store.column(layer, unit)])
        excited = np.ones(len(values), bool) if off is None else values > off
        best = [sorted((i for i in there if excited[i]), key=lambda i: (-values[i], i))[:each]
                for _, there in sorted(aside.items())]  # fmt: skip
        found[unit] = np.array([i for part in best for i in part], np.int64)
    return found


def reload_target(run: Run, weights: Path | None, device: str = "cpu") -> Target:
    """Load the target that a run was made of.

    Raises:
        InputError: what its name gives here is not the model of the run.
    """
    from milanx.targets.zoo import load_target

    record = run.settings["target"]
    target = load_target(
        record["name"], weights=weights, random_weights=bool(record["random"]) and weights is None,
        device=device,
    )  # fmt: skip
    if target.fingerprint != record["fingerprint"]:
        raise InputError(
            f"{record['name']} is not the model that {run.root} was made of",
            f"its weights or preprocessing differ; the run has: {record['weights']}",
            "give the same checkpoint: --weights FILE",
        )
    return target


def aside_sheets(
    run: Run,
    layer: str,
    wanted: dict[int, np.ndarray],
    target: Target,
    images: ProbeImages,
    *,
    batch_size: int = 32,
    advance: Callable[[int], None] = lambda n: None,
) -> dict[int, Sheet]:
    """Make the sheets of kept-aside images.

    Args:
        run: the run.
        layer: a layer of it.
        wanted: unit -> int64 [n], its images.
        target: the run's model; it is run again on these images.
        images: the run's probe images.
        batch_size: images of a forward pass.
        advance: told about images done.

    Returns:
        unit -> its sheet; masks by the unit's quantile over the exemplars' share of the images.
    """
    from milanx.exemplars.masks import make_masks

    maps, views = _maps(run, layer, wanted, target, images, batch_size, advance)
    store, place = run.store, plus_rows(run.store, layer)
    record, stats = store.record(layer), store.stats(layer)
    sheets = {}
    for unit, shown in wanted.items():
        row = place[unit]
        stacked = torch.from_numpy(np.stack([maps[unit, int(i)] for i in shown]))[None]
        masks = make_masks(
            stacked, {k: v[[row]] for k, v in stats.items()}, ["+"], record, store.view_size
        )
        pictures = np.stack([views[int(i)] for i in shown])
        sheets[unit] = Sheet(shown, dim(pictures, masks[0].numpy()))
    return sheets


def _maps(
    run: Run, layer: str, wanted: dict[int, np.ndarray], target: Target, images: ProbeImages,
    batch_size: int, advance: Callable[[int], None],
) -> tuple[dict[tuple[int, int], np.ndarray], dict[int, np.ndarray]]:  # fmt: skip
    """Run the target on the images that units need: (unit, image) -> map, image -> view."""
    from milanx.exemplars.feeding import pixels
    from milanx.targets.capture import Capture, find_again

    known = next(i for i in run.settings["layers"] if i["name"] == layer)
    info = find_again(target, known, run.settings.get("lens"))
    asking: dict[int, list[int]] = {}
    for unit, shown in wanted.items():
        for image in shown.tolist():
            asking.setdefault(image, []).append(unit)
    maps: dict[tuple[int, int], np.ndarray] = {}
    views: dict[int, np.ndarray] = {}
    with Capture(target, [info]) as capture:
        stream = images.iterate(sorted(asking), target.preprocess, batch_size)
        for batch, indices in stream:
            given = capture.run(pixels(target, batch, indices))[layer]
            given = capture.shown[layer] if run.store.record(layer).pooled else given
            out = given.float().cpu().numpy()
            for number, image in enumerate(indices.tolist()):
                views[image] = batch[number].numpy()
                for unit in asking[image]:
                    maps[unit, image] = out[number, unit].copy()
            advance(len(indices))
    return maps, views


def exemplar_sheet(store: ExemplarStore, layer: str, unit: int) -> Sheet:
    """Make the sheet of a unit's exemplars."""
    found = store.get(layer, unit)
    return Sheet(found.images, dim(found.views, found.masks))


def layout(count: int, width: int, height: int) -> tuple[int, int]:
    """Return how many columns ``count`` square views take in a box, and their side in pixels."""
    best = (count, 1)
    for rows in range(1, count + 1):
        across = -(-count // rows)
        side = min((width - GAP * across) // across, (height - GAP * rows) // rows, LARGEST)
        if side > best[1]:
            best = (across, side)
    return best


def draw_sheet(sheet: Sheet, across: int, side: int) -> Image.Image:
    """Lay the views of a sheet out, ``across`` in a row, each ``side`` pixels wide."""
    count = len(sheet.views)
    rows = -(-count // across)
    step = side + GAP
    canvas = Image.new("RGB", (across * step, rows * step), "white")
    for number, view in enumerate(sheet.views):
        picture = Image.fromarray(view.transpose(1, 2, 0)).resize((side, side))
        canvas.paste(picture, ((number % across) * step, (number // across) * step))
    return canvas


def draw_question(sheets: Sequence[Sheet]) -> Image.Image:
    """Draw five sheets below one another, with the letters A to E."""
    most = max(len(s.views) for s in sheets)
    band = HEIGHT // len(sheets) - 2 * GAP
    across, side = layout(most, WIDTH - LABEL, band)
    drawn = [draw_sheet(s, across, side) for s in sheets]
    tall = max(d.height for d in drawn) + 2 * GAP
    canvas = Image.new("RGB", (LABEL + max(d.width for d in drawn), tall * len(drawn)), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(24)
    for number, (letter, picture) in enumerate(zip(LETTERS, drawn, strict=False)):
        top = number * tall
        canvas.paste(picture, (LABEL, top + GAP))
        pen.text((8, top + tall // 2 - 14), letter, fill="black", font=font)
        pen.line([(0, top), (canvas.width, top)], fill="black")
    return canvas


def draw_exemplars(sheet: Sheet) -> Image.Image:
    """Draw an exemplar sheet alone."""
    across, side = layout(len(sheet.views), WIDTH, HEIGHT // 2)
    return draw_sheet(sheet, across, side)


def save_jpeg(picture: Image.Image, path: Path) -> None:
    """Write a picture without any metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, "JPEG", quality=QUALITY)


def variety(texts: Sequence[str]) -> dict[str, Any]:
    """Say how various a layer's descriptions are.

    Texts are folded, lemmatised and bare of articles, then clustered by average linkage of their
    sentence similarity, cut at `SAME`.

    Returns:
        distinct: share of clusters; most: share of the most frequent text; words: mean length.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    from milanx.language.compare import Sentences, lemmas

    folded = [" ".join(w for w in lemmas(t) if w not in ARTICLES) for t in texts]
    names, counts = np.unique(np.array(folded, dtype=object), return_counts=True)
    clusters = len(names)
    if len(names) > 1:
        rows = Sentences()([str(n) or "nothing" for n in names])
        distance = np.clip(1 - rows @ rows.T, 0, 2)
        np.fill_diagonal(distance, 0)
        tree = linkage(squareform(distance, checks=False), "average")
        clusters = len(np.unique(fcluster(tree, 1 - SAME, "distance")))
    return {
        "distinct": clusters / len(texts),
        "most": float(counts.max() / len(texts)),
        "most frequent": str(names[int(counts.argmax())]),
        "words": float(np.mean([len(t.split()) for t in folded])),
        "n": len(texts),
    }
