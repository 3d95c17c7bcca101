"""Stages of a training, each kept under the fingerprint of all that its result depends on."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from milanx.features.encoder import Encoder
from milanx.files import atomic_path, cache_dir, fingerprint, read_json, write_json
from milanx.progress import Reporter
from milanx.train.data.milannotations import Milannotations
from milanx.train.data.photos import PhotoFeatures
from milanx.train.engine.track import Pace, open_tracker
from milanx.train.recipe import Recipe, told
from milanx.train.stages.language import Desk
from milanx.train.units.annotated import checked_unit
from milanx.train.units.text import human_descriptions, pretraining_texts

VERSION = 1


@dataclass
class Stages:
    """What the stages share: recipe, encoder, photos, and where finished stages are kept.

    ``annotated`` are the units that people described, where the recipe names them; there are no
    photos then.
    ``tracker`` is the name of one (`milanx.train.engine.track`) or None; its files go to ``logs``.
    """

    recipe: Recipe
    encoder: Encoder
    annotated: Milannotations | None
    photos: PhotoFeatures
    keep: np.ndarray
    checked: np.ndarray
    accelerator: Accelerator
    progress: Reporter
    seconds: dict[str, float]
    tracker: str | None
    logs: Path

    def texts(self) -> list[str]:
        """Return the text for pretraining, without what is held out."""
        data = self.recipe.data
        if self.annotated:
            return [
                text for unit in self.annotated.units
                if not checked_unit(unit, data.checked) for text in unit.descriptions
            ]  # fmt: skip
        return pretraining_texts(
            Path(data.root), data.sentences, data.descriptions, self.photos, self.keep
        )

    def people(self, *, held: bool = False) -> list[str]:
        """Return people's descriptions of units beside the photos, or those held out."""
        data = self.recipe.data
        if self.annotated or not data.descriptions:
            return []
        return human_descriptions(Path(data.root) / data.descriptions, held=held)

    def folder(self, name: str, *depends: object) -> Path:
        """Return the folder of a finished stage, by all that its result depends on."""
        key = fingerprint(
            VERSION,
            self.encoder.fingerprint(),
            told(self.recipe.data),
            self.recipe.seed,
            self.recipe.precision,
            *map(_known_by, depends),
        )
        return cache_dir("train", f"{name}-{key}")

    def run(self, name: str, folder: Path, total: int, work: Callable[[Path, Desk], dict]) -> dict:
        """Run a stage unless its folder is there; return the facts that it noted.

        ``work`` is given the folder to write to and the desk to train at, whose checkpoint lies
        beside the folder until the stage is finished.
        """
        main = self.accelerator.is_main_process
        if not (folder / "stage.json").exists():
            started = time.monotonic()
            checkpoint = folder.with_name(f"{folder.name}.checkpoint")
            tracker = None
            if self.tracker and total and main:
                tracker = open_tracker(self.tracker, self.logs, name, asdict(self.recipe))
            device = self.accelerator.device
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            with contextlib.ExitStack() as stack:
                where = atomic_path(folder) if main else _scratch()
                temporary = stack.enter_context(where)
                temporary.mkdir(parents=True, exist_ok=True)
                with self.progress.stage(name, total) as bar:
                    pace = Pace(total, bar, self.progress) if total else _silent
                    desk = Desk(self.recipe, self.accelerator, checkpoint, tracker, pace)
                    facts = work(temporary, desk)
                facts["seconds"] = round(time.monotonic() - started, 1)
                if device.type == "cuda":
                    peak = torch.cuda.max_memory_allocated(device)
                    facts["gpu_memory_mib"] = round(peak / 2**20)
                write_json(temporary / "stage.json", "milanx training stage", 1, {"facts": facts})
            if tracker:
                tracker.finish()
            if main:
                checkpoint.unlink(missing_ok=True)
        self.accelerator.wait_for_everyone()
        facts = read_json(folder / "stage.json", "milanx training stage", 1)["facts"]
        self.seconds[name] = facts["seconds"]
        return dict(facts)


def _known_by(part: object) -> object:
    """Settings as their repr, less those that `told` leaves out; other things as they are."""
    if isinstance(part, tuple):
        return tuple(map(_known_by, part))
    if not is_dataclass(part):
        return part
    values = ", ".join(f"{name}={value!r}" for name, value in told(part).items())
    return f"{type(part).__name__}({values})"


def _silent(step: int, loss: float) -> None:
    """Tell nobody."""


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """Yield a folder that is thrown away: what processes beside the main one write."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
