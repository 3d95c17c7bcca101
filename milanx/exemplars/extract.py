"""The pass over the images: statistics of every unit, then its exemplars on disk.

The pass can be ended at any moment: it goes on at the last checkpoint, on a batch boundary, with
the same batches, and ends with the same bytes. Under ``accelerate launch`` each process takes a
contiguous part of the batches and the first one merges what they counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from milanx.environment import join_processes
from milanx.errors import InputError, Interrupted, MilanxError
from milanx.exemplars.differences import another_run
from milanx.exemplars.feeding import stream
from milanx.exemplars.inputs import Inputs
from milanx.exemplars.job import PASS, Pass, Plan
from milanx.exemplars.job import WORK as PLACE
from milanx.exemplars.store import FORMAT, VERSION, ExemplarStore, read_fingerprint, write_views
from milanx.files import atomic_path, explained, read_json, write_json, write_table
from milanx.files.kinds import RUN, WORK
from milanx.files.replacing import OTHER, OVERWRITE, check_content, check_place, discard
from milanx.images.probe import ProbeImages
from milanx.targets.capture import Capture

if TYPE_CHECKING:
    from accelerate import PartialState

T = TypeVar("T")
CALIBRATION_IMAGES = 8  # images from which the scale of each unit is seen


def extract(
    inputs: Inputs, out: Path, progress: Callable[[int, int], None] | None = None
) -> ExemplarStore:
    """Find the exemplars of any number of layers in one pass.

    Args:
        inputs: what was asked for, opened.
        out: the run folder; what an earlier pass with the same inputs wrote there is used again.
        progress: called with (images done, images in all).

    Returns:
        The store.

    Raises:
        InputError: a folder that holds another run or is none, or that cannot be written.
        Interrupted: ended by Ctrl-C; a checkpoint was written.
    """
    process = join_processes(cpu=inputs.device == "cpu")
    check_place(out, RUN, resumes=True)
    key = inputs.key
    if is_finished(inputs, out):
        if process.is_main_process and (out / PLACE).is_dir():  # a kill came after the last rename
            discard(out / PLACE, WORK)
        return ExemplarStore.open(out)
    job = Pass(
        _plan(inputs, key), out, process.process_index,
        inputs.device if torch.device(inputs.device).type == "cuda" else "cpu",
    )  # fmt: skip
    with explained(out), _interruptible(job):
        if process.is_main_process:
            _prepare(job, process.num_processes)
            job.open_arrays()
        process.wait_for_everyone()
        if not process.is_main_process:
            job.open_arrays()
        job.resume()
        _run(job, inputs, process, progress)
        if process.num_processes > 1:
            job.checkpoint()
            process.wait_for_everyone()
        if process.is_main_process:
            job.merge_from(process.num_processes)
            _write(job, inputs)
            _publish(job)
        process.wait_for_everyone()
    return ExemplarStore.open(out)


def _plan(inputs: Inputs, key: str) -> Plan:
    """What the pass counts: the layers asked for, over the images that are not kept aside."""
    settings = inputs.request.settings
    exemplars = inputs.images.split(settings.aside, settings.seed)
    return Plan(inputs.layers, exemplars, key, settings, inputs.request.signs, inputs.units)


def is_finished(inputs: Inputs, out: Path) -> bool:
    """Whether ``out`` holds the finished result.

    Raises:
        InputError: it holds that of other inputs.
    """
    found, key = read_fingerprint(out), inputs.key
    if found is not None and found != key:
        raise another_run(out, inputs.request)
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
    path = job.work / PASS
    try:
        same = all(read_json(path, "milanx-pass", 1).get(k) == v for k, v in shape.items())
    except MilanxError:
        same = False
    if same:
        check_content(job.work, WORK)
    else:
        with atomic_path(job.work, WORK) as temporary:
            temporary.mkdir()
            write_json(temporary / PASS, "milanx-pass", 1, shape)


def _run(
    job: Pass, inputs: Inputs, process: PartialState, progress: Callable[[int, int], None] | None
) -> None:
    """Run this process's part of the batches, from where the job stands."""
    target, images, size = inputs.target, inputs.images, job.settings.batch
    target.model.to(memory_format=torch.channels_last)
    if not job.done:
        _calibrate(job, inputs)
    rank, ranks = process.process_index, process.num_processes
    starts = list(range(0, len(images), size))
    part = starts[rank * len(starts) // ranks : (rank + 1) * len(starts) // ranks]
    if not part:
        return
    first = part[0] + job.done * size
    last = min(part[-1] + size, len(images))
    done = min(job.done * size, last - part[0])
    if progress:
        progress(done, last - part[0])
    todo = list(range(first, last))
    fed = stream(target, images, todo, size, job.settings.workers)
    with Capture(target, inputs.layers) as capture:
        for given, indices in _readable(fed):
            maps = capture.run(given)
            job.take(indices, maps, capture.shown)
            done += len(indices)
            if progress:
                progress(done, last - part[0])


def _calibrate(job: Pass, inputs: Inputs) -> None:
    """Choose the scales of units from the first images, the same in every process."""
    few = list(range(min(CALIBRATION_IMAGES, len(inputs.images))))
    with Capture(inputs.target, inputs.layers) as capture:
        for given, _ in _readable(stream(inputs.target, inputs.images, few, len(few), 1)):
            job.calibrate(capture.run(given))


def _readable(stream: Iterator[T]) -> Iterator[T]:
    """Go through images that were readable when they were opened.

    Raises:
        InputError: one is not any more.
    """
    try:
        yield from stream
    except OSError as error:
        raise unreadable(error) from error


def unreadable(error: OSError) -> InputError:
    """Say that a probe image cannot be read any more."""
    named = f" ({error.filename})" if error.filename else ""
    return InputError(
        f"a probe image cannot be read any more{named}",
        error.strerror or str(error) or type(error).__name__,
        "put it back and run the same command again, or choose other images",
    )


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


def _write(job: Pass, inputs: Inputs) -> None:
    """Write exemplars, views and the table of images into the work folder."""
    images, preprocess = inputs.images, inputs.target.preprocess
    distinct = job.write()
    write_views(job.work, _readable((i, preprocess.view(images.read(i))) for i in distinct))
    _write_images(job.work, images, job.plan.exemplars)
    job.write_index(preprocess.size)


def _write_images(root: Path, images: ProbeImages, exemplars: np.ndarray) -> None:
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
    """Bring the finished parts to their places.

    The folder of the exemplars comes last, in one rename: with it comes the index, which makes a
    store of all parts and tells every one of them.
    """
    job.close_arrays()
    for name in ("views.parquet", "images.parquet"):
        (job.work / name).replace(job.out / name)
    (job.out / "units.parquet").unlink(missing_ok=True)
    (job.work / "exemplars").rename(job.out / "exemplars")
    discard(job.work, WORK)
