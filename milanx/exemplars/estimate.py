"""What a pass will need, from the first batch of its images."""

from __future__ import annotations

import io
import math
import os
import time
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from milanx.environment import peak_memory
from milanx.exemplars.extract import unreadable
from milanx.exemplars.feeding import pixels
from milanx.exemplars.histogram import bins, waiting
from milanx.exemplars.inputs import Inputs
from milanx.exemplars.job import kept_size
from milanx.exemplars.statistics import BLOCK_BYTES, LayerStatistics
from milanx.exemplars.store import WEBP_QUALITY, WEBP_THREADS
from milanx.targets.capture import Capture
from milanx.targets.units import LayerInfo

TRIED = 2**19  # values of an image whose counting is timed, of a layer; more cost in proportion
TRIED_VIEWS = 4  # that are encoded as WebP
# Seconds a value of layers without positions: brought into order for quantiles, and three times
# written or read. Measured on two cores of a server (docs/own-images.md).
ORDERING, WRITING = 3.5e-8, 2e-9
BLOCKS = 6  # copies of a block of values that exact statistics hold
ENTRY = 26  # bytes of an exemplar beside its map: value, mean, image, place, scale; 12 on disk
RECORD = 12


@dataclass(frozen=True)
class Estimate:
    """What a pass will need.

    Attributes:
        seconds: of this process, with nothing else on the machine.
        disk: bytes of the run folder.
        memory: bytes of the process at its largest.
    """

    seconds: float
    disk: int
    memory: int

    @property
    def text(self) -> str:
        """One line for people."""
        return (
            f"extraction alone: about {_duration(self.seconds)}, {_size(self.disk)} on disk, "
            f"{_size(self.memory)} of memory"
        )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} minutes"


def _size(size: int) -> str:
    return f"{size / 2**20:.0f} MiB" if size < 10 * 2**30 else f"{size / 2**30:.0f} GiB"


@dataclass(frozen=True)
class _Trial:
    """Seconds of one image, of one thread, and bytes.

    Attributes:
        decode: reading it and making its view.
        encode: writing its view.
        webp: bytes of that.
        forward: through the target, in a whole batch.
        count: counting its maps of all layers.
        rise: beside that, while it is an exemplar of every unit.
    """

    decode: float
    encode: float
    webp: int
    forward: float
    count: float
    rise: float


def estimate(inputs: Inputs, processes: int = 1) -> Estimate:
    """Estimate time, disk and memory of a pass, by doing what it does with a few images.

    Args:
        inputs: what was asked for, opened.
        processes: that do it together.

    Raises:
        InputError: one of these images cannot be read any more.
    """
    settings, signs = inputs.request.settings, len(inputs.request.signs)
    images = len(inputs.images)
    eligible = math.ceil(images * (1 - settings.aside))
    trial = _try(inputs)
    k, units = settings.k, {i.name: _units(inputs, i) for i in inputs.layers}
    maps = sum(units[i.name] * math.prod(kept_size(i)) for i in inputs.layers)
    flat = sum(units[i.name] for i in inputs.layers if i.map_size == (1, 1))
    entries = k * signs * sum(units.values())
    distinct = round(eligible * -math.expm1(-entries / max(1, eligible)))
    numbers = 8 * images * sum(units.values())

    batches = math.ceil(images / settings.batch / processes)
    rising = k * (1 + math.log(batches / k)) if batches > k else batches
    compute = batches * settings.batch * (trial.forward + trial.count)
    compute += rising * settings.batch * trial.rise
    decode = batches * settings.batch * trial.decode
    cores, threads = _cores(), torch.get_num_threads()
    on_cpu = inputs.device == "cpu"
    reading = max(compute, decode / settings.workers,
                  (compute * (min(threads, cores) if on_cpu else 1) + decode) / cores)  # fmt: skip
    writing = distinct * (trial.decode + trial.encode / min(WEBP_THREADS, cores))
    writing += ORDERING * flat * eligible + WRITING * numbers
    kept = (2 * maps + RECORD * sum(units.values())) * k * signs
    memory = kept + ENTRY * entries + sum(_counting(i, units[i.name]) for i in inputs.layers)
    memory += 2 * trial.webp * distinct + BLOCKS * BLOCK_BYTES * bool(flat)
    if not on_cpu:  # the rest is where the target is
        memory = 2 * trial.webp * distinct + kept
    return Estimate(
        reading + writing, numbers + kept + trial.webp * distinct, peak_memory() + memory
    )


def _units(inputs: Inputs, info: LayerInfo) -> int:
    """How many units of a layer are kept."""
    return len(inputs.units.get(info.name, range(info.units)))


def _counting(info: LayerInfo, units: int) -> int:
    """Bytes that counting the values of a layer takes."""
    if info.map_size == (1, 1):
        return 0
    held = units * bins(info.rectified)
    return 4 * held + 2 * waiting(held)


def _cores() -> int:
    """How many cores this process may use."""
    able = getattr(os, "sched_getaffinity", None)
    return len(able(0)) if able else os.cpu_count() or 1


def _try(inputs: Inputs) -> _Trial:
    """Do with a few images what the pass does with all."""
    target, settings = inputs.target, inputs.request.settings
    few = min(TRIED_VIEWS, len(inputs.images))
    started = time.monotonic()
    try:
        views = [target.preprocess.view(inputs.images.read(i)) for i in range(few)]
    except OSError as error:
        raise unreadable(error) from error
    decode = (time.monotonic() - started) / few
    started, written = time.monotonic(), io.BytesIO()
    for view in views:
        Image.fromarray(view).save(written, "WEBP", quality=WEBP_QUALITY)
    encode = (time.monotonic() - started) / few
    count = min(settings.batch, len(inputs.images))
    shown = torch.from_numpy(np.stack([views[i % few] for i in range(count)]))
    which = torch.arange(count) % few
    with Capture(target, inputs.layers) as capture:
        capture.run(pixels(target, shown.permute(0, 3, 1, 2), which))
        seconds = []
        for _ in range(2):
            started = time.monotonic()
            maps = capture.run(pixels(target, shown.permute(0, 3, 1, 2), which))
            seconds.append(time.monotonic() - started)
    forward = min(seconds) / count
    counted = rise = 0.0
    for info in inputs.layers:
        first, second = _count(inputs, info, maps[info.name])
        counted, rise = counted + second / count, rise + max(0.0, first - second) / count
    return _Trial(decode, encode, written.tell() // few, forward, counted, rise)


def _count(inputs: Inputs, info: LayerInfo, maps: torch.Tensor) -> tuple[float, float]:
    """Seconds of counting a batch of a layer, when all rise and when none does."""
    few = min(info.units, max(1, TRIED // (info.map_size[0] * info.map_size[1])))
    layer = LayerStatistics(few, info.map_size, inputs.request.settings.k, inputs.request.signs,
                            maps.device, info.rectified, info.off)  # fmt: skip
    rows = torch.arange(len(maps))
    seconds = []
    for turn in range(3):
        started = time.monotonic()
        layer.update(maps[:, :few], rows + turn * len(rows), torch.ones_like(rows).bool())
        if layer.histogram is not None:
            layer.histogram.settle()
        seconds.append((time.monotonic() - started) * _units(inputs, info) / few)
    return seconds[0], min(seconds[1:])
