"""Only the tail of a network runs again: what comes before an edited layer is kept on disk.

Every point of a curve, every control and every single ablation runs the same images through the
same first part. Its results are computed once, written to a file, and given to the modules that
follow by memory map. The logits are those of the whole model, bit by bit; where a trial batch says
otherwise, the whole model runs each time and the notes say so.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from milanx.act.ablate import Edit, ablate
from milanx.act.calls import INPUT, Key, cut, replaced
from milanx.act.data import EvalSet
from milanx.files import cache_dir, explained
from milanx.progress import Reporter, Silent
from milanx.targets.units import LayerInfo, first_tensor
from milanx.targets.zoo import Target

LIMIT = 4 << 30  # bytes that a tail may take on disk
FREE = 0.8  # of the free disk that it may take at most
TRIAL = 2  # images of the forward passes in which the calls are looked at


@dataclass(frozen=True)
class _Kept:
    """Where a result lies in the file, and its shape there and in memory."""

    offset: int
    shape: tuple[int, ...]
    order: tuple[int, ...]  # of its dimensions in memory
    stride: tuple[int, ...]
    dtype: torch.dtype
    size: int  # in bytes


class _Results:
    """Results of calls in one file, written once, read by memory map."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = path.open("wb")
        self._map: np.ndarray | None = None
        self._kept = dict[tuple[int, Key], _Kept]()
        self.bytes = 0

    def write(self, batch: int, key: Key, value: torch.Tensor) -> None:
        """Append a result; its memory layout is kept."""
        assert self._file is not None
        strides = value.stride()
        order = sorted(range(value.ndim), key=lambda d: (-strides[d], d))
        dense = value.detach().permute(order)
        if not dense.is_contiguous():
            value = value.contiguous()
            order, dense = list(range(value.ndim)), value.detach()
        raw = dense.contiguous().cpu().reshape(-1).view(torch.uint8).numpy()
        self._kept[batch, key] = _Kept(
            self.bytes, tuple(dense.shape), tuple(order), value.stride(), value.dtype, raw.nbytes
        )
        self._file.write(raw.data)
        self.bytes += raw.nbytes

    def close(self) -> None:
        """End the writing; reading begins."""
        assert self._file is not None
        self._file.close()
        if self.bytes:
            self._map = np.memmap(self.path, np.uint8, "r")

    def read(self, batch: int, key: Key, device: torch.device) -> torch.Tensor:
        """Return a result in memory of its own, laid out as it was."""
        assert self._map is not None
        kept = self._kept[batch, key]
        raw = np.array(self._map[kept.offset : kept.offset + kept.size])
        dense = torch.from_numpy(raw).view(kept.dtype).view(kept.shape).to(device)
        back = [kept.order.index(d) for d in range(len(kept.order))]
        value = dense.permute(back)
        return value.as_strided(value.shape, kept.stride)

    def placeholder(self, batch: int, key: Key) -> bool:
        """Whether a result was not kept."""
        return (batch, key) not in self._kept


class Tail:
    """Runs a model under edits of some layers, over the same images any number of times.

    A context manager: what it writes on disk is gone afterwards.

    Args:
        target: the model.
        infos: the layers that are edited.
        images: what runs through it.
        batch_size: images a step; the same at each pass, so that results are the same.
        limit: bytes on disk; where more would be needed, the whole model runs each time.
        progress: told about the first pass, and what is kept.

    Attributes:
        before: logits of the model as it is, float32 [n, classes].
        whole: whether the whole model runs each time.
        bytes: what is kept on disk.
        notes: what a reader should know.
    """

    def __init__(
        self,
        target: Target,
        infos: Sequence[LayerInfo],
        images: EvalSet,
        *,
        batch_size: int = 32,
        limit: int = LIMIT,
        progress: Reporter | None = None,
    ) -> None:
        self.target, self.infos, self.images = target, {i.name: i for i in infos}, images
        self.batch_size, self.limit = batch_size, limit
        self.progress = progress or Silent()
        self.whole, self.notes, self.bytes = False, list[str](), 0
        self.before = torch.zeros(0, 0)
        self._folder: Path | None = None
        self._results: _Results | None = None
        self._keys: list[Key] = []
        self._shapes: dict[tuple[int, Key], torch.Tensor] = {}

    def __enter__(self) -> Tail:
        try:
            with torch.inference_mode():
                self._record()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._results = None
        self._shapes.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def logits(self, edits: Sequence[Edit]) -> torch.Tensor:
        """Return the logits of every image under some edits, float32 [n, classes] on the CPU."""
        with torch.inference_mode(), ablate(self.target, edits, self.infos), self.run() as run:
            return torch.cat([run(i) for i in range(self.batches)])

    def _inputs(self) -> Iterator[torch.Tensor]:
        for views in self.images.batches(self.batch_size):
            yield self.target.inputs(views)

    @property
    def batches(self) -> int:
        """How many batches the images make."""
        return -(-len(self.images) // self.batch_size)

    @contextmanager
    def run(self) -> Iterator[Callable[[int], torch.Tensor]]:
        """Yield what gives the logits of batch 0, 1, ... in this order, by the tail if it can."""
        if self.whole:
            batches = self._inputs()
            yield lambda _: self._forward(next(batches))
            return
        at = 0

        def give(key: Key, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
            return self._result(at, key)

        with replaced(self.target.model, self._keys, give) as begin:

            def run(batch: int) -> torch.Tensor:
                nonlocal at
                at = batch
                begin()
                return self._forward(self._result(batch, INPUT))

            yield run

    def _forward(self, inputs: torch.Tensor) -> torch.Tensor:
        output = first_tensor(self.target.model(inputs))
        assert output is not None
        return output.float().cpu()

    def _result(self, batch: int, key: Key) -> torch.Tensor:
        """Return what is kept of a call, or an empty thing of its shape where nothing reads it."""
        shape = self._shapes[batch, key]
        if self._results is None or self._results.placeholder(batch, key):
            return shape
        return self._results.read(batch, key, shape.device)

    def _record(self) -> None:
        """Run the whole model once over the images; keep what the tail needs."""
        few = range(min(TRIAL, len(self.images)))
        trial = self.target.inputs(next(self.images.subset(few).batches(TRIAL)))
        self._keys, needed = cut(self.target.model, list(self.infos.values()), trial)
        if not self._keys:
            self.whole = True
            self.notes.append("the whole model runs for every point: the edits are at its start")
        folder = self._open()
        self._store(needed, folder)
        if not self.whole:
            self._try(folder)

    def _open(self) -> Path:
        """Make the folder of this tail, and remove those of processes that are no more."""
        root = cache_dir("tails")
        with explained(root):
            root.mkdir(parents=True, exist_ok=True)
            for old in root.iterdir():
                if not _alive(old.name):
                    shutil.rmtree(old, ignore_errors=True)
            self._folder = root / f"{os.getpid()}-{secrets.token_hex(4)}"
            self._folder.mkdir()
        return self._folder

    def _store(self, needed: set[Key], folder: Path) -> None:
        path = folder / "results.bin"
        logits = []
        at = 0
        with explained(path):
            self._results = results = _Results(path)

            def keep(key: Key, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
                output = compute()
                self._keep(at, key, output, key in needed)
                return output

            with (
                self.progress.stage("first part", self.batches) as bar,
                replaced(self.target.model, self._keys, keep) as begin,
            ):
                for at, inputs in enumerate(self._inputs()):
                    begin()
                    self._keep(at, INPUT, inputs, INPUT in needed)
                    logits.append(self._forward(inputs))
                    if at == 0:
                        self._fits(results.bytes / max(1, len(inputs)))
                    bar.advance()
            results.close()
        self.before = torch.cat(logits)
        self.bytes = 0 if self.whole else results.bytes

    def _keep(self, batch: int, key: Key, value: torch.Tensor, needed: bool) -> None:
        if self.whole or self._results is None:
            return
        if needed:
            self._results.write(batch, key, value)
        empty = torch.zeros((), dtype=value.dtype, device=value.device)
        self._shapes[batch, key] = empty.expand(value.shape)

    def _fits(self, each: float) -> None:
        """Say how much disk is needed; give up keeping where it is too much."""
        assert self._folder is not None
        total = int(each * len(self.images))
        free = int(shutil.disk_usage(self._folder).free * FREE)
        if not self.whole and total > min(self.limit, free):
            self.whole = True
            self.notes.append(
                f"the whole model runs for every point: what comes before the edits would take "
                f"{total / 2**20:.0f} MiB on disk, of {min(self.limit, free) / 2**20:.0f}"
            )
        elif not self.whole:
            self.progress.say(
                f"kept on disk while it runs: {total / 2**20:.0f} MiB ({self._folder})"
            )

    def _try(self, folder: Path) -> None:
        """Compare the tail with the whole model on the first batch, with an edit and without."""
        edits = [
            Edit(i.name, tuple(range(i.units)), "scale", factor=0.5) for i in self.infos.values()
        ]
        inputs = next(self._inputs())
        for probe in ([], edits):
            why = self._differs(probe, inputs)
            if why:
                self.whole, self.bytes, self._results = True, 0, None
                self.notes.append(f"the whole model runs for every point: its tail alone: {why}")
                with suppress(OSError):
                    (folder / "results.bin").unlink()
                return

    def _differs(self, edits: Sequence[Edit], inputs: torch.Tensor) -> str:
        """Say how the tail differs from the whole model on the first batch; "" where it doesn't."""
        with ablate(self.target, edits, self.infos):
            expected = self._forward(inputs)
        try:
            with ablate(self.target, edits, self.infos), self.run() as run:
                found = run(0)
        except Exception as error:  # whatever a model does with a result it did not make
            return f"{type(error).__name__}: {str(error).splitlines()[0]}"
        if torch.equal(found, expected):
            return ""
        return f"its logits differ from the whole model's by {(found - expected).abs().max():.2g}"


def _alive(name: str) -> bool:
    """Whether the process that a folder is named after still runs."""
    number = name.partition("-")[0]
    if not number.isdigit():
        return True
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
