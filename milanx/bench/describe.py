"""How long describing takes beside the arithmetic of its language models at the machine's rate."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
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
SPIN = "while True: pass"  # what a busy process does


def bench_describe(
    run: Path | str,
    *,
    units: int = 192,
    describer: Describer | None = None,
    busy: int = 0,
    progress: Reporter | None = None,
) -> dict[str, Any]:
    """Measure describing alone: views are encoded beforehand and reported apart.

    Every measurement begins without what the one before it computed of texts.

    Args:
        run: a run folder with exemplars.
        units: of its first layer, spread evenly.
        describer: the bundled one when None.
        busy: processes beside which describing is measured a second time, each of which would take
            a processor of its own.
        progress: told about encoding and describing.

    Returns:
        Seconds of encoding and of describing, seconds of all processors that describing took,
        floating point operations of all matrix products of describing as torch counts them,
        operations a second of a product of square matrices in the same run, and how many times
        longer than the operations at that rate describing took; with ``busy`` also the seconds
        beside such processes, and how many times longer that is.

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
    started = time.perf_counter()
    features = encode_views(describer.encoder, store)
    encoding = time.perf_counter() - started

    def describe(told: Reporter) -> None:
        describer.forget()
        describer.describe(store, [layer], units={layer: chosen}, features=features, progress=told)

    rate = matrix_rate()
    describing, taken = _seconds(lambda: describe(progress))
    rate = max(rate, matrix_rate())
    beside = {}
    if busy:
        with _busy(busy):
            longer, _ = _seconds(lambda: describe(progress))
        beside = {"busy": busy, "busy_describe_s": round(longer, 1),
                  "busy_over_idle": round(longer / describing, 2)}  # fmt: skip
    with FlopCounterMode(display=False) as counter, _one_thread():
        describe(Silent())
    operations = counter.get_total_flops()
    return {
        "units": len(chosen),
        "encode_s": round(encoding, 1),
        "describe_s": round(describing, 1),
        "processor_s": round(taken, 1),
        "operations": operations,
        "operations_per_s": rate,
        "ratio": round(describing / (operations / rate), 2),
        **beside,
    }


def _seconds(work: Callable[[], None]) -> tuple[float, float]:
    """Return the seconds that work took, and those of all processors together."""
    started, before = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started, time.process_time() - before


@contextlib.contextmanager
def _busy(count: int) -> Iterator[None]:
    """Keep processes beside this one that never wait."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            process = subprocess.Popen([sys.executable, "-c", SPIN])
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Compute in the thread that asks: operations are counted in it alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def matrix_rate() -> float:
    """Operations a second of a product of square matrices in single precision, the best of some."""
    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - started)
    return 2 * SIDE**3 / best
