"""The pass over the images: statistics of every unit, then its exemplars on disk.

The pass can be ended at any moment: it goes on at the last checkpoint, on a batch boundary, with
the same batches, and ends with the same bytes. Under ``accelerate launch`` each process takes a
contiguous part of the batches and the first one merges what they counted.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from milanx.capture import Capture
from milanx.errors import InputError, Interrupted, MilanxError
from milanx.exemplars import (
    FORMAT,
    VERSION,
    ExemplarStore,
    LayerRecord,
    read_fingerprint,
    write_index,
    write_layer,
    write_views,
)
from milanx.files import atomic_path, explained, fingerprint, read_json, write_json, write_table
from milanx.images import ProbeImages
from milanx.stats import BINS, LayerStatistics
from milanx.units import LayerInfo
from milanx.zoo import Preprocess, Target

DEFAULT_BATCH = 32
SECONDS_BETWEEN_CHECKPOINTS = 20.0
WORK = ".extract"  # folder of an unfinished pass, inside the run folder
TRIAL_IMAGES = 8  # images of the forward pass that the estimate is made from
Maps = dict[str, torch.Tensor]
Batches = Iterable[tuple[torch.Tensor, Maps]]


@dataclass(frozen=True)
class ExtractSettings:
    """How exemplars are chosen.

    Attributes:
        k: exemplars a unit.
        quantile: of all positions, above which the mask lies.
        aside: share of the images, by group, that never become exemplars.
        seed: of the split.
        batch_size: images of a forward pass; `DEFAULT_BATCH` when None.
        workers: threads that decode images.
        signs: ``+``, ``-`` or both.
        checkpoint_seconds: least time between two checkpoints; 0: after every batch.
    """

    k: int = 15
    quantile: float = 0.99
    aside: float = 0.2
    seed: int = 0
    batch_size: int | None = None
    workers: int = 2
    signs: tuple[str, ...] = ("+",)
    checkpoint_seconds: float = SECONDS_BETWEEN_CHECKPOINTS

    @property
    def batch(self) -> int:
        """Images of a forward pass."""
        return self.batch_size or DEFAULT_BATCH


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
    device = next(target.model.parameters(), torch.zeros(1)).device
    count = min(TRIAL_IMAGES, len(images))
    views = torch.zeros(count, 3, *target.preprocess.size, dtype=torch.uint8)
    inputs = _inputs(target, views, device)
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


def _inputs(target: Target, views: torch.Tensor, device: torch.device) -> torch.Tensor:
    parameter = next(target.model.parameters(), torch.zeros(1))
    inputs = target.preprocess.normalise(views.to(device)).to(parameter.dtype)
    return inputs.contiguous(memory_format=torch.channels_last)


class Pass:
    """One pass over images that are given as batches of maps.

    Args:
        infos: the layers.
        out: the run folder.
        settings: how.
        key: fingerprint of all that the result depends on.
        count: images in all.
        exemplars: bool [count], which may become exemplars.
        units: the units of each layer that are kept; all where a layer is absent.
    """

    def __init__(
        self,
        infos: Sequence[LayerInfo],
        out: Path,
        settings: ExtractSettings,
        key: str,
        count: int,
        exemplars: np.ndarray,
        units: dict[str, list[int]],
        rank: int = 0,
    ) -> None:
        self.infos, self.out, self.settings, self.key = list(infos), out, settings, key
        self.count, self.rank = count, rank
        self.exemplars = torch.from_numpy(exemplars)
        self.chosen = {i.name: units.get(i.name, list(range(i.units))) for i in infos}
        self.statistics = {
            i.name: LayerStatistics(
                len(self.chosen[i.name]), i.map_size, settings.k, settings.signs
            )
            for i in infos
        }
        self.work = out / WORK
        self.whole = True
        self.done = 0  # batches of this process's part that are in the statistics
        self._written = time.monotonic()
        self.arrays: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def open_arrays(self) -> None:
        """Open max.npy and mean.npy of every layer [images, units], making them if need be."""
        for info in self.infos:
            folder = self.work / "exemplars" / info.name
            folder.mkdir(parents=True, exist_ok=True)
            shape = (self.count, len(self.chosen[info.name]))
            pair = []
            for name in ("max.npy", "mean.npy"):
                path = folder / name
                mode = "r+" if path.exists() else "w+"
                if self.rank == 0 and mode == "w+":
                    with atomic_path(path) as temporary, temporary.open("wb") as file:
                        np.lib.format.write_array_header_1_0(file, {
                            "descr": "<f4", "fortran_order": False, "shape": shape})  # fmt: skip
                        zeros = np.zeros(shape[1], np.float32).tobytes()
                        for _ in range(shape[0]):  # written, not sparse: a full disk shows here
                            file.write(zeros)
                pair.append(np.lib.format.open_memmap(path, "r+"))
            self.arrays[info.name] = (pair[0], pair[1])

    def take(self, indices: torch.Tensor, maps: Maps) -> None:
        """Take one batch in: image indices int64 [b] and maps [b, u, h, w] of every layer."""
        eligible = self.exemplars[indices]
        self.whole = False  # until the end a part of the batch is counted and a part is not
        for info in self.infos:
            here = maps[info.name]
            if len(self.chosen[info.name]) < info.units:
                here = here[:, self.chosen[info.name]]
            maximum, mean = self.statistics[info.name].update(here, indices, eligible)
            largest, average = self.arrays[info.name]
            largest[indices.numpy()] = maximum.numpy()
            average[indices.numpy()] = mean.numpy()
        self.done += 1
        self.whole = True
        if time.monotonic() - self._written >= self.settings.checkpoint_seconds:
            self.checkpoint()

    @property
    def _checkpoint(self) -> Path:
        return self.work / f"state-{self.rank}.safetensors"

    def checkpoint(self) -> None:
        """Write everything that was counted, atomically."""
        for pair in self.arrays.values():
            for array in pair:
                array.flush()  # type: ignore[attr-defined]
        state = {
            f"{name}/{key}": value.contiguous()
            for name, statistics in self.statistics.items()
            for key, value in statistics.state_dict().items()
        }
        state["done"] = torch.tensor(self.done)
        with atomic_path(self._checkpoint) as temporary:
            save_file(state, temporary)
        self._written = time.monotonic()

    def resume(self) -> None:
        """Go on from this process's checkpoint, if there is one."""
        if self._checkpoint.exists():
            self.done = self._load(self._checkpoint, self.statistics)

    def _load(self, path: Path, statistics: dict[str, LayerStatistics]) -> int:
        state = load_file(path)
        done = int(state.pop("done"))
        for name, layer in statistics.items():
            prefix = f"{name}/"
            layer.load_state_dict(
                {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            )
        return done

    def merge_from(self, ranks: int) -> None:
        """Merge the checkpoints of the other processes into this one's statistics."""
        for rank in range(1, ranks):
            others = {
                i.name: LayerStatistics(
                    len(self.chosen[i.name]), i.map_size, self.settings.k, self.settings.signs
                )
                for i in self.infos
            }
            self._load(self.work / f"state-{rank}.safetensors", others)
            for name, statistics in self.statistics.items():
                statistics.merge(others[name])

    def write(self, view_size: tuple[int, int]) -> list[int]:
        """Write every layer's exemplars; returns the distinct images that are exemplars."""
        records, distinct = [], set()
        for info in self.infos:
            record = LayerRecord(info.name, info.kind, info.map_size, info.rectified, info.upper)
            images = self._write_layer(record)
            records.append(record)
            distinct |= set(images[images >= 0].tolist())
        write_index(self.work, records, view_size, self.key)
        return sorted(distinct)

    def _write_layer(self, record: LayerRecord) -> np.ndarray:
        statistics, settings = self.statistics[record.name], self.settings
        histogram = statistics.histogram
        mean, deviation = histogram.mean_and_deviation()
        median = histogram.quantile(0.5)
        stats = {
            "quantile": histogram.quantile(settings.quantile),
            "low_quantile": histogram.quantile(1 - settings.quantile),
            "median": median, "mean": mean, "deviation": deviation,
            "maximum": histogram.largest,
            "minimum": _lowest(histogram.counts),
        }  # fmt: skip
        units, images, activations, maps = [], [], [], []
        for sign, top in statistics.top.items():
            units += [(unit, sign) for unit in self.chosen[record.name]]
            there = torch.isfinite(top.values)
            value = top.values if sign == "+" else median[:, None] + top.values
            images.append(torch.where(there, top.images, -1))
            activations.append(torch.where(there, value, torch.nan))
            maps.append(top.maps)
        together = torch.cat(images).numpy()
        repeated = {k: v.repeat(len(statistics.top)).numpy() for k, v in stats.items()}
        write_layer(
            self.work / "exemplars" / record.name, record, units, together,
            torch.cat(activations).numpy(), torch.cat(maps).numpy(), repeated,
        )  # fmt: skip
        return together


def _lowest(counts: torch.Tensor) -> torch.Tensor:
    """Return the lower edge of each unit's lowest bin that holds anything, float32 [u]."""
    from milanx.stats import _bounds

    place = (counts > 0).int().argmax(1)
    return _bounds(place)[0].float()


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
        InputError: a folder that holds another run, or cannot be written.
        Interrupted: ended by Ctrl-C; a checkpoint was written.
    """
    from accelerate import PartialState

    settings = settings or ExtractSettings()
    units = units or {}
    process = PartialState(cpu=device == "cpu")
    key = fingerprint(FORMAT, VERSION, target.fingerprint, images.fingerprint,
                      [asdict(i) for i in infos], _lasting(settings), units)  # fmt: skip
    if _finished(out, key):
        return ExemplarStore.open(out)
    exemplars = images.split(settings.aside, settings.seed)
    job = Pass(infos, out, settings, key, len(images), exemplars, units, process.process_index)
    with explained(out), _interruptible(job):
        if process.is_main_process:
            _prepare(job, process.num_processes)
            job.open_arrays()
        process.wait_for_everyone()
        if not process.is_main_process:
            job.open_arrays()
        job.resume()
        _run(job, target, images, process.process_index, process.num_processes, progress, device)
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
    """Make the work folder, or keep it if it belongs to the same unfinished pass."""
    shape = {"key": job.key, "batch": job.settings.batch, "processes": processes}
    path = job.work / "pass.json"
    try:
        same = all(read_json(path, "milanx-pass", 1).get(k) == v for k, v in shape.items())
    except MilanxError:
        same = False
    if not same:
        if job.out.exists() and not job.out.is_dir():
            raise InputError(f"{job.out} is a file", "a run is a folder", "choose another --out")
        shutil.rmtree(job.work, ignore_errors=True)
        job.work.mkdir(parents=True)
        write_json(path, "milanx-pass", 1, shape)


def _run(
    job: Pass,
    target: Target,
    images: ProbeImages,
    rank: int,
    ranks: int,
    progress: Callable[[int, int], None] | None,
    device: str,
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
            maps = capture.run(_inputs(target, views, torch.device(device)))
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
    shutil.rmtree(job.out / "exemplars", ignore_errors=True)
    (job.out / "units.parquet").unlink(missing_ok=True)
    (job.work / "exemplars").rename(job.out / "exemplars")
    shutil.rmtree(job.work, ignore_errors=True)
