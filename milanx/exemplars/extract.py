"""The pass over the images: statistics of every unit, then its exemplars on disk.

The pass can be ended at any moment: it goes on at the last checkpoint, on a batch boundary, with
the same batches, and ends with the same bytes. Under ``accelerate launch`` each process takes a
contiguous part of the batches and the first one merges what they counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from milanx.errors import InputError, Interrupted, MilanxError
from milanx.exemplars.job import ExtractSettings, Pass
from milanx.exemplars.statistics import BINS
from milanx.exemplars.store import FORMAT, VERSION, ExemplarStore, read_fingerprint, write_views
from milanx.files import atomic_path, explained, fingerprint, read_json, write_json, write_table
from milanx.files.replacing import OTHER, OVERWRITE, RUN, WORK, check_content, check_place, discard
from milanx.images.preprocess import Preprocess
from milanx.images.probe import ProbeImages
from milanx.targets.capture import Capture
from milanx.targets.units import LayerInfo
from milanx.targets.zoo import Target

TRIAL_IMAGES = 8  # images of the forward pass that the estimate is made from


@dataclass(frozen=True)
class Estimate:
    """What a pass will need."""

    seconds: float
    disk: int
    memory: int

    @property
    def text(self) -> str:
        """One line for people."""
        return (
            f"extraction: about {self.seconds:.0f} s, {self.disk / 2**20:.0f} MiB on disk, "
            f"{self.memory / 2**20:.0f} MiB of memory for statistics"
        )


def estimate(
    target: Target, infos: Sequence[LayerInfo], images: ProbeImages, settings: ExtractSettings
) -> Estimate:
    """Estimate time, disk and memory of a pass, from one forward pass of a few images."""
    count = min(TRIAL_IMAGES, len(images))
    views = torch.zeros(count, 3, *target.preprocess.size, dtype=torch.uint8)
    inputs = _inputs(target, views)
    with Capture(target, infos) as capture:
        capture.run(inputs)
        started = time.monotonic()
        capture.run(inputs)
    forward = (time.monotonic() - started) / max(count, 1)
    units = sum(i.units for i in infos)
    maps = sum(i.units * i.map_size[0] * i.map_size[1] for i in infos)
    signs = len(settings.signs)
    disk = 8 * units * len(images) + 2 * maps * settings.k * signs + 40_000 * len(images)
    memory = 4 * units * BINS + 2 * maps * settings.k * signs + 8 * maps * settings.batch
    return Estimate(1.3 * forward * len(images), disk, memory)


def _inputs(target: Target, views: torch.Tensor) -> torch.Tensor:
    return target.inputs(views).contiguous(memory_format=torch.channels_last)


def extract(
    target: Target,
    infos: Sequence[LayerInfo],
    images: ProbeImages,
    out: Path,
    settings: ExtractSettings | None = None,
    *,
    units: dict[str, list[int]] | None = None,
    progress: Callable[[int, int], None] | None = None,
    device: str = "cpu",
) -> ExemplarStore:
    """Find the exemplars of any number of layers in one pass.

    Args:
        target: the model.
        infos: the layers.
        images: the probe images.
        out: the run folder; what an earlier pass with the same inputs wrote there is used again.
        settings: how.
        units: which units of a layer; all where a layer is absent.
        progress: called with (images done, images in all).
        device: where the target runs.

    Returns:
        The store.

    Raises:
        InputError: a folder that holds another run or is none, or that cannot be written.
        Interrupted: ended by Ctrl-C; a checkpoint was written.
    """
    from accelerate import PartialState

    settings = settings or ExtractSettings()
    units = units or {}
    process = PartialState(cpu=device == "cpu")
    check_place(out, RUN, resumes=True)
    key = fingerprint(FORMAT, VERSION, target.fingerprint, images.fingerprint,
                      [i.to_dict() for i in infos], _lasting(settings), units)  # fmt: skip
    if _finished(out, key):
        return ExemplarStore.open(out)
    exemplars = images.split(settings.aside, settings.seed)
    counts_on = device if torch.device(device).type == "cuda" else "cpu"
    job = Pass(
        infos, out, settings, key, len(images), exemplars, units, process.process_index, counts_on
    )
    with explained(out), _interruptible(job):
        if process.is_main_process:
            _prepare(job, process.num_processes)
            job.open_arrays()
        process.wait_for_everyone()
        if not process.is_main_process:
            job.open_arrays()
        job.resume()
        _run(job, target, images, process.process_index, process.num_processes, progress)
        if process.num_processes > 1:
            job.checkpoint()
            process.wait_for_everyone()
        if process.is_main_process:
            job.merge_from(process.num_processes)
            distinct = job.write(target.preprocess.size)
            write_views(job.work, _views(images, distinct, target.preprocess))
            write_images(job.work, images, exemplars)
            _publish(job)
        process.wait_for_everyone()
    return ExemplarStore.open(out)


def _lasting(settings: ExtractSettings) -> dict[str, object]:
    """The settings that the result depends on."""
    return {k: v for k, v in asdict(settings).items()
            if k not in ("workers", "checkpoint_seconds", "batch_size")}  # fmt: skip


def _finished(out: Path, key: str) -> bool:
    """Whether ``out`` holds the finished result.

    Raises:
        InputError: it holds that of other inputs.
    """
    found = read_fingerprint(out)
    if found is not None and found != key:
        raise InputError(
            f"{out} holds another run",
            "its model, images, layers or settings are not those asked for",
            ["choose another --out", "--overwrite replaces it"],
        )
    return found == key


def _prepare(job: Pass, processes: int) -> None:
    """Make the work folder, or keep it if it belongs to the same unfinished pass.

    Raises:
        InputError: the work folder or the place of the exemplars holds what must not be replaced.
    """
    if (job.out / "exemplars").exists():
        raise InputError(
            f"{job.out / 'exemplars'} is there already",
            "it holds no index.json that this milanx reads",
            [OTHER, OVERWRITE],
        )
    shape = {"key": job.key, "batch": job.settings.batch, "processes": processes}
    path = job.work / "pass.json"
    try:
        same = all(read_json(path, "milanx-pass", 1).get(k) == v for k, v in shape.items())
    except MilanxError:
        same = False
    if same:
        check_content(job.work, WORK)
    else:
        with atomic_path(job.work, WORK) as temporary:
            temporary.mkdir()
            write_json(temporary / "pass.json", "milanx-pass", 1, shape)


def _run(
    job: Pass,
    target: Target,
    images: ProbeImages,
    rank: int,
    ranks: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Run this process's part of the batches, from where the job stands."""
    size = job.settings.batch
    starts = list(range(0, len(images), size))
    part = starts[rank * len(starts) // ranks : (rank + 1) * len(starts) // ranks]
    if not part:
        return
    target.model.to(memory_format=torch.channels_last)
    first = part[0] + job.done * size
    last = min(part[-1] + size, len(images))
    done = min(job.done * size, last - part[0])
    if progress:
        progress(done, last - part[0])
    todo = list(range(first, last))
    stream = images.iterate(todo, target.preprocess, size, job.settings.workers)
    with Capture(target, job.infos) as capture:
        for views, indices in stream:
            maps = capture.run(_inputs(target, views))
            job.take(indices, maps)
            done += len(indices)
            if progress:
                progress(done, last - part[0])


@contextmanager
def _interruptible(job: Pass) -> Iterator[None]:
    """On Ctrl-C write a checkpoint and say how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        if job.arrays and job.whole:
            job.checkpoint()
        raise Interrupted(
            "stopped", f"{job.done} batches are kept in {job.work}",
            "run the same command again to go on",
        ) from None  # fmt: skip


def _views(
    images: ProbeImages, distinct: Sequence[int], preprocess: Preprocess
) -> Iterator[tuple[int, np.ndarray]]:
    for index in distinct:
        yield index, preprocess.view(images.read(index))


def write_images(root: Path, images: ProbeImages, exemplars: np.ndarray) -> None:
    """Write ``images.parquet``: what is known of every probe image."""
    import pyarrow as pa

    rows = [asdict(r) | {"split": "exemplars" if e else "aside"}
            for r, e in zip(images.records, exemplars, strict=True)]  # fmt: skip
    schema = pa.schema([
        ("index", pa.int64()), ("source", pa.string()), ("path", pa.string()),
        ("fingerprint", pa.string()), ("group", pa.string()), ("split", pa.string()),
        ("label", pa.int64()), ("name", pa.string()), ("wnid", pa.string()),
    ])  # fmt: skip
    write_table(root / "images.parquet", pa.Table.from_pylist(rows, schema), FORMAT, VERSION)


def _publish(job: Pass) -> None:
    """Bring the finished parts to their places; the index, which makes a store of them, last."""
    job.arrays.clear()
    for name in ("views.parquet", "images.parquet"):
        (job.work / name).replace(job.out / name)
    (job.out / "units.parquet").unlink(missing_ok=True)
    (job.work / "exemplars").rename(job.out / "exemplars")
    discard(job.work, WORK)
