"""How much extraction costs over the fastest bare forward pass of the same model."""

from __future__ import annotations

import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from milanx.exemplars.job import Pass, Plan
from milanx.exemplars.request import ExtractSettings
from milanx.progress import Reporter, Silent
from milanx.targets.capture import find_layers
from milanx.targets.units import LayerInfo
from milanx.targets.zoo import Target, load_target

# Of each target: the layer of the main job, and the output nonlinearity of every stage.
CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "tf_efficientnet_lite0": (
        "blocks.5.3.bn1",
        ("blocks.1.1.bn1", "blocks.2.1.bn1", "blocks.3.2.bn1", "blocks.4.2.bn1", "blocks.5.3.bn1"),
    ),
    "vit_tiny_patch16_224": (
        "blocks.6.mlp.fc1",
        ("blocks.1.mlp.fc1", "blocks.6.mlp.fc1", "blocks.10.mlp.fc1"),
    ),
    "resnet18": ("layer4", ("conv1", "layer1", "layer2", "layer3", "layer4")),
}
BATCHES = (8, 16, 32)
ROUNDS = 3  # the two are timed in turn this often; the median of the ratios is reported


def bench_extract(
    models: Sequence[str] | None = None, *, images: int = 256, progress: Reporter | None = None
) -> list[dict[str, Any]]:
    """Measure targets, with random weights and images: nothing is loaded or decoded.

    Args:
        models: of `CASES`; all when None.
        images: of each measurement.
        progress: told about each case.

    Returns:
        A row a case: images a second of the bare pass and of extraction, their ratio (median of
        interleaved rounds), and the peak memory of the process in MiB.
    """
    progress = progress or Silent()
    rows = []
    for name in models or CASES:
        one, stages = CASES.get(name, (None, ()))
        target = load_target(name, random_weights=True)
        if one is None:
            one = find_layers(target, ["*"])[-2].name
            stages = (one,)
        batch, layout = _fastest(target, images)
        for label, layers in (("one layer", (one,)), ("all stages", stages)):
            with progress.stage(f"{name}, {label}", None):
                infos = find_layers(target, list(layers))
                rows.append({"model": name, "layers": label, "batch": batch, "layout": layout,
                             **_compare(target, infos, images, batch, layout)})  # fmt: skip
    return rows


def _inputs(target: Target, batch: int, layout: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(batch, 3, *target.preprocess.size, generator=generator)
    return inputs.contiguous(memory_format=getattr(torch, layout))


@torch.inference_mode()
def _bare(target: Target, inputs: torch.Tensor, steps: int) -> float:
    started = time.perf_counter()
    for _ in range(steps):
        target.model(inputs)
    return time.perf_counter() - started


def _fastest(target: Target, images: int) -> tuple[int, str]:
    """Find the batch size and memory layout of the fastest bare forward pass."""
    best, found = float("inf"), (BATCHES[-1], "channels_last")
    for layout in ("channels_last", "contiguous_format"):
        target.model.to(memory_format=getattr(torch, layout))
        for batch in BATCHES:
            inputs = _inputs(target, batch, layout)
            _bare(target, inputs, 1)
            steps = max(1, min(images, 64) // batch)
            seconds = _bare(target, inputs, steps) / (steps * batch)
            if seconds < best:
                best, found = seconds, (batch, layout)
    target.model.to(memory_format=getattr(torch, found[1]))
    return found


def _compare(
    target: Target, infos: list[LayerInfo], images: int, batch: int, layout: str
) -> dict[str, float]:
    inputs = _inputs(target, batch, layout)
    steps = max(1, images // batch)
    bare, extraction = [], []
    for _ in range(ROUNDS):
        bare.append(_bare(target, inputs, steps))
        extraction.append(_extraction(target, infos, inputs, steps, batch))
    count = steps * batch
    ratios = [e / b for e, b in zip(extraction, bare, strict=True)]
    return {
        "bare images/s": count / statistics.median(bare),
        "extraction images/s": count / statistics.median(extraction),
        "ratio": statistics.median(ratios),
        "peak MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _extraction(
    target: Target, infos: list[LayerInfo], inputs: torch.Tensor, steps: int, batch: int
) -> float:
    """Seconds of a pass over the same batches: capture and every statistic, on disk too."""
    from milanx.targets.capture import Capture

    with tempfile.TemporaryDirectory() as folder:
        everything = np.ones(steps * batch, bool)
        settings = ExtractSettings(batch_size=batch, checkpoint_seconds=float("inf"))
        job = Pass(Plan(infos, everything, "bench", settings), Path(folder))
        job.open_arrays()
        with Capture(target, infos) as capture:
            run: Callable[[torch.Tensor], dict[str, torch.Tensor]] = capture.run
            started = time.perf_counter()
            for step in range(steps):
                # Each batch differs a little, so that the top k change as they really do.
                maps = run(inputs.roll(step, 0))
                job.take(torch.arange(step * batch, (step + 1) * batch), maps)
            for layer in job.statistics.values():
                if layer.histogram is not None:
                    layer.histogram.settle()
            return time.perf_counter() - started
