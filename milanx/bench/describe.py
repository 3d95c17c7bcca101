"""How long describing takes beside the arithmetic of its language models at the machine's rate."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from milanx.describing.describer import Describer
from milanx.errors import InputError
from milanx.features.encoder import encode_views
from milanx.progress import Reporter, Silent
from milanx.runs import open_run

SIDE = 1024  # of the matrices that the rate is measured with
ROUNDS = 8  # the best counts


def bench_describe(
    run: Path | str,
    *,
    units: int = 192,
    describer: Describer | None = None,
    progress: Reporter | None = None,
) -> dict[str, Any]:
    """Measure describing alone: views are encoded beforehand and reported apart.

    Args:
        run: a run folder with exemplars.
        units: of its first layer, spread evenly.
        describer: the bundled one when None.
        progress: told about encoding and describing.

    Returns:
        Seconds of encoding and of describing, floating point operations of all matrix products of
        describing as torch counts them, operations a second of a product of square matrices in the
        same run, and how many times longer than the operations at that rate describing took.

    Raises:
        InputError: no living unit in the run's first layer.
    """
    from torch.utils.flop_counter import FlopCounterMode

    progress = progress or Silent()
    describer = describer or Describer.load()
    store = open_run(run).store
    layer = store.layers[0]
    alive = [pair for pair, status in zip(store.units(layer), store.status(layer), strict=True)
             if status != "dead"]  # fmt: skip
    if not alive:
        raise InputError(f"{layer} has no living unit", "all of them are dead", "give another run")
    chosen = [alive[i] for i in np.unique(np.linspace(0, len(alive) - 1, units).astype(int))]
    asked: dict[str, Sequence[tuple[int, str]]] = {layer: chosen}
    started = time.perf_counter()
    features = encode_views(describer.encoder, store)
    encoding = time.perf_counter() - started
    rate = matrix_rate()
    started = time.perf_counter()
    describer.describe(store, [layer], units=asked, features=features, progress=progress)
    describing = time.perf_counter() - started
    rate = max(rate, matrix_rate())
    with FlopCounterMode(display=False) as counter:
        describer.describe(store, [layer], units=asked, features=features)
    operations = counter.get_total_flops()
    return {
        "units": len(chosen),
        "encode_s": round(encoding, 1),
        "describe_s": round(describing, 1),
        "operations": operations,
        "operations_per_s": rate,
        "ratio": round(describing / (operations / rate), 2),
    }


def matrix_rate() -> float:
    """Operations a second of a product of square matrices in single precision, the best of some."""
    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - started)
    return 2 * SIDE**3 / best
