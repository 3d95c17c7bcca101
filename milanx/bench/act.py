"""How much faster a curve of ablations is through the tail of a network than through all of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from milanx.act.ablate import Edit, ablate, read_places
from milanx.act.data import EvalSet, usual_step
from milanx.act.tail import Tail
from milanx.errors import InputError
from milanx.progress import Reporter, Silent
from milanx.targets.zoo import Target, load_target

# Of each target, layers in its last third.
CASES: dict[str, tuple[str, ...]] = {
    "resnet18": ("layer4.1.bn1", "layer4.0.bn1"),
    "tf_efficientnet_lite0": ("blocks.5.3.bn1",),
}
ROUNDS = 3  # points that are timed both ways, in turn; their medians are reported


def bench_act(
    models: Sequence[str] | None = None,
    *,
    layers: Sequence[str] = (),
    units: int = 100,
    images: int = 128,
    progress: Reporter | None = None,
) -> list[dict[str, Any]]:
    """Measure a curve of ``units`` points, with random weights and images: nothing is decoded.

    Args:
        models: targets; those of `CASES` when None.
        layers: of each of them; those of `CASES` when empty.
        units: points of the curve, one unit more at each.
        images: that every point runs.
        progress: told about each case.

    Returns:
        A row a layer: seconds of the first pass, which keeps what the tail needs, of a point
        through the tail and of one through the whole network, ``ratio``: of the whole curve, first
        pass included, and ``MiB`` on disk.

    Raises:
        InputError: no such layer, or none is named.
    """
    progress = progress or Silent()
    rows = []
    for name in models or CASES:
        target = load_target(name, random_weights=True)
        side = target.preprocess.size
        views = np.random.default_rng(0).integers(0, 256, (images, *side, 3), np.uint8)
        pictures = EvalSet("noise", views.__getitem__, tuple(map(str, range(images))))
        if not layers and name not in CASES:
            raise InputError(
                f"no layer of {name} is named", f"layers are known of {', '.join(CASES)}",
                f"--layer; milanx layers {name} lists them",
            )  # fmt: skip
        for layer in layers or CASES[name]:
            with progress.stage(f"{name} {layer}", None):
                found = _compare(target, layer, pictures, units)
            rows.append({"model": name, "layer": layer, "points": units, "images": images, **found})
    return rows


def _compare(target: Target, layer: str, images: EvalSet, units: int) -> dict[str, Any]:
    """Time points both ways in turn."""
    infos = read_places(target, [layer])
    count = infos[layer].units
    tails, wholes = list[float](), list[float]()
    tail = Tail(target, list(infos.values()), images)
    first = _seconds(tail.__enter__)
    try:
        for number in range(1, ROUNDS + 1):
            gone = tuple(range(max(1, number * count // (2 * ROUNDS))))
            edits = [Edit(layer, gone)]
            tails.append(_seconds(partial(tail.logits, edits)))
            wholes.append(_seconds(partial(_whole, target, edits, tail)))
        kept, note = tail.bytes, "; ".join(tail.notes)
    finally:
        tail.__exit__()
    point, whole = statistics.median(tails), statistics.median(wholes)
    return {
        "first pass s": first, "tail s": point, "whole s": whole,
        "ratio": units * whole / (first + units * point), "MiB": kept / 2**20, "note": note,
    }  # fmt: skip


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


@torch.inference_mode()
def _whole(target: Target, edits: Sequence[Edit], tail: Tail) -> None:
    """Run the whole network on the same images, in steps of the size that is its fastest."""
    with ablate(target, edits, tail.infos):
        for views in tail.images.batches(usual_step(target)):
            target.model(target.inputs(views))
