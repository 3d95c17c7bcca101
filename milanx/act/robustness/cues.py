"""Images whose shape is of one category and whose texture of another (Geirhos et al. 2019).

Decisions are among 16 categories: the mean of the probabilities of a category's ImageNet classes,
the first in alphabetical order winning ties (rgeirhos/texture-vs-shape,
``probabilities_to_decision.py``). Shape bias is the share of shape decisions among those that are
for the shape or the texture; images whose shape and texture are of one category are left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from milanx.act.data import Classes, EvalSet
from milanx.act.robustness.measure import Answers, Reading
from milanx.act.robustness.released import View
from milanx.act.robustness.resampling import draw_means, figure
from milanx.errors import InputError
from milanx.images.sources import open_source
from milanx.measures.intervals import CROSSED_DRAWS

NAME = re.compile(r"([a-z]+)(\d+)-([a-z]+)(\d+)")  # airplane1-bicycle2.png: shape, then texture
FIGURES = ("shape", "texture", "neither", "shape_bias")
SHOWN = 3  # file names that an error shows


@lru_cache(maxsize=1)
def categories() -> dict[str, tuple[str, ...]]:
    """Return the WordNet ids of each of the 16 categories, in alphabetical order."""
    text = files("milanx.act.robustness").joinpath("categories.json").read_text("utf-8")
    return {name: tuple(ids) for name, ids in sorted(json.loads(text)["categories"].items())}


@dataclass(frozen=True)
class Cues:
    """Cue-conflict images.

    Attributes:
        images: groups are the pictures that gave the shape.
        shapes: int64 [n], the category of the shape, as `categories` orders them.
        textures: int64 [n], that of the texture.
        left_out: how many images had both of one category.
    """

    images: EvalSet
    shapes: np.ndarray
    textures: np.ndarray
    left_out: int = 0

    def subset(self, indices: Sequence[int]) -> Cues:
        """Return some of the images."""
        chosen = list(indices)
        return Cues(
            self.images.subset(chosen), self.shapes[chosen], self.textures[chosen], self.left_out
        )


def open_cues(spec: str | Path, view: View) -> Cues:
    """Open cue-conflict images: the published folders, or a parquet file of such file names.

    Args:
        spec: ``ROOT/SHAPE/airplane1-bicycle2.png``, or a parquet file with columns image, shape
            and texture, or image alone with the file's name in its path.
        view: makes the model's view of a picture.

    Raises:
        InputError: no such images, or names that do not say shape and texture.
    """
    source = open_source(str(spec), Path(spec).stem)
    rows = _columns(Path(spec)) or [_parsed(item.path) for item in source.items()]
    known = list(categories())
    odd = [item.path for item, row in zip(source.items(), rows, strict=True)
           if row is None or row[0] not in known or row[1] not in known]  # fmt: skip
    if odd:
        raise InputError(
            f"{len(odd)} of {len(rows)} images of {spec} do not say their shape and texture",
            f"such as {', '.join(odd[:SHOWN])}; categories are {', '.join(known)}",
            "name them as published, airplane1-bicycle2.png, or give columns shape and texture",
        )
    told = [row for row in rows if row is not None]
    shapes = np.array([known.index(shape) for shape, _, _ in told])
    textures = np.array([known.index(texture) for _, texture, _ in told])
    groups = tuple(group for _, _, group in told)
    images = EvalSet("cue-conflict", lambda i: view(source.read(i)), groups)
    apart = np.flatnonzero(shapes != textures).tolist()
    if not apart:
        raise InputError(
            f"no cues in conflict in {spec}",
            "shape and texture are of one category in every image",
            "give the images of Geirhos et al. 2019",
        )
    found = Cues(images, shapes, textures).subset(apart)
    return Cues(found.images, found.shapes, found.textures, len(told) - len(apart))


def _parsed(path: str) -> tuple[str, str, str] | None:
    """Return shape, texture and the picture that gave the shape, by a published file name."""
    match = NAME.fullmatch(Path(path).stem)
    return (match[1], match[3], match[1] + match[2]) if match else None


def _columns(path: Path) -> list[tuple[str, str, str] | None] | None:
    """Read shape, texture and group of a parquet file; None where there are no such columns."""
    import pyarrow.parquet as pq

    if path.suffix != ".parquet":
        return None
    there = pq.read_schema(path).names
    if not {"shape", "texture"} <= set(there):
        return None
    grouped = ["group"] if "group" in there else []
    rows = pq.read_table(path, columns=["shape", "texture", *grouped]).to_pylist()
    return [(r["shape"], r["texture"], str(r.get("group") or i)) for i, r in enumerate(rows)]


def category_reading(classes: Classes) -> Reading:
    """Return a reading: ``decided``, the category of each image.

    Raises:
        InputError: the model's classes are not those of ImageNet-1k.
    """
    places = {wnid: i for i, wnid in enumerate(classes.wnids)}
    absent = [w for ids in categories().values() for w in ids if w not in places]
    if absent:
        raise InputError(
            "the model's classes do not hold the 16 categories of cue-conflict",
            f"{len(absent)} of their ImageNet classes are missing, such as {absent[0]}; the model "
            f"has {classes.count} outputs"
            + (f", the first is {classes.wnids[0]}" if classes.wnids else " of unknown classes"),
            "give the WordNet ids of its logits with --classes FILE",
        )
    members = [[places[w] for w in ids] for ids in categories().values()]

    def read(logits: torch.Tensor, numbers: Sequence[int]) -> Answers:
        chances = torch.softmax(logits.double(), 1).numpy()
        means = np.stack([chances[:, ids].mean(1) for ids in members], 1)
        return {"decided": means.argmax(1).astype(np.int32)}

    return read


def cue_figures(
    answers: Mapping[str, Answers], cues: Cues, seed: int = 0, draws: int = CROSSED_DRAWS
) -> dict[str, Any]:
    """Make shares of decisions and shape bias, in %, with 95 % intervals over shape pictures.

    Args:
        answers: of each model, with ``decided``.
        cues: the images.
        seed: of the bootstrap.
        draws: of the bootstrap.
    """
    points, drawn = {}, {}
    for model, answer in answers.items():
        shape = answer["decided"] == cues.shapes
        texture = answer["decided"] == cues.textures
        columns = 100.0 * np.column_stack([shape, texture])
        points[model] = _with_bias(columns.mean(0)[None])
        drawn[model] = _with_bias(draw_means(columns, cues.images.groups, seed, draws))
    reference = next(iter(answers))

    def between(model: str, other: str | None) -> dict[str, Any]:
        point, of = points[model], drawn[model]
        if other is not None:
            point, of = point - points[other], of - drawn[other]
        return {what: figure(float(point[0, i]), of[:, i]) for i, what in enumerate(FIGURES)}

    return {
        "models": {
            m: {**between(m, None), "by_category": _by_category(a["decided"], cues)}
            for m, a in answers.items()
        },
        "differences": {m: between(m, reference) for m in answers if m != reference},
        "notes": [f"left out, since shape and texture are of one category: {cues.left_out}"]
        * bool(cues.left_out),
    }  # fmt: skip


def _with_bias(shares: np.ndarray) -> np.ndarray:
    """Return [d, 4]: shape, texture, neither and shape bias, of shape and texture [d, 2], in %."""
    shape, texture = shares[:, 0], shares[:, 1]
    bias = np.full(len(shares), np.nan)
    np.divide(100 * shape, shape + texture, out=bias, where=shape + texture > 0)
    return np.column_stack([shape, texture, 100 - shape - texture, bias])


def _by_category(decided: np.ndarray, cues: Cues) -> dict[str, dict[str, int]]:
    """Count decisions by the category of the shape."""
    made = {}
    for i, name in enumerate(categories()):
        here = cues.shapes == i
        made[name] = {
            "images": int(here.sum()),
            "shape": int((decided[here] == i).sum()),
            "texture": int((decided[here] == cues.textures[here]).sum()),
        }
    return made
