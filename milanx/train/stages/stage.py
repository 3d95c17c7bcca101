"""Stages: each is made once, and kept under the key of all that its result depends on.

So a training that was ended goes on at the stage where it stood, and a change of a late setting
repeats the late stages alone.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list

from milanx.files import atomic_path, cache_dir, fingerprint, read_json, write_json
from milanx.files.digests import FILES, is_whole, told
from milanx.files.replacing import remove_leftovers
from milanx.train.code_key import code_key
from milanx.train.recipe import Recipe
from milanx.train.stages.desk import Course, Desk, Made

FORMAT, VERSION = "milanx training stage", 1


@dataclass(frozen=True)
class Stage:
    """One part of a training.

    Attributes:
        name: of its folder, in the facts and to the tracker.
        make: writes to its desk's folder and returns what is worth noting.
        after: the stages whose results it uses; those that a recipe lacks are passed over.
        reads: the settings that it uses, by their place in the recipe.
        known_by: what else it depends on, of a recipe.
        only: whether a recipe has this stage at all.
    """

    name: str
    make: Callable[[Desk], dict[str, Any]]
    after: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    known_by: Callable[[Recipe], object] | None = None
    only: Callable[[Recipe], bool] | None = None


def make_all(stages: Sequence[Stage], course: Course) -> None:
    """Make the stages of a course's recipe in order, or find them made; notes them in ``made``.

    Raises:
        InputError: another process makes one of them, a training has diverged, or data that does
            not fit.
    """
    for stage in stages:
        if stage.only is None or stage.only(course.recipe):
            course.made[stage.name] = _made(stage, course)


def stage_key(stage: Stage, course: Course) -> str:
    """Return 16 hex digits that stand for all that a stage's result depends on.

    Besides settings, units, encoder and the stages before, that is the code that makes it
    (`milanx.train.code_key`).
    """
    recipe = course.recipe
    settings = [(name, _plain(attrgetter(name)(recipe))) for name in stage.reads]
    before = [course.made[name].folder.name for name in stage.after if name in course.made]
    return fingerprint(
        recipe.seed, recipe.precision, course.encoder.fingerprint(), course.units.identity,
        before, settings, stage.known_by and stage.known_by(recipe),
        code_key(stage.make.__module__),
    )  # fmt: skip


def _plain(value: object) -> object:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _made(stage: Stage, course: Course) -> Made:
    """Make a stage unless its folder is there."""
    folder = cache_dir("train", f"{stage.name}-{stage_key(stage, course)}")
    with course.alone(folder, f"the stage {stage.name}"):
        # One process looks: another training might finish the stage between two looks.
        main = course.accelerator.is_main_process
        (missing,) = broadcast_object_list([main and not is_whole(folder, folder / "stage.json")])
        if missing and main and folder.exists():  # damaged, or of an earlier milanx
            shutil.rmtree(folder)
        if missing:
            _make(stage, course, folder)
        course.accelerator.wait_for_everyone()
    return Made(folder, read_json(folder / "stage.json", FORMAT, VERSION)["facts"])


def _make(stage: Stage, course: Course, folder: Path) -> None:
    """Make a stage; its folder is there when it is whole."""
    started, device = time.monotonic(), course.accelerator.device
    main = course.accelerator.is_main_process
    if main:  # what was left by a process that was killed; this one holds the lock
        remove_leftovers(folder)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with (
        atomic_path(folder) if main else _scratch() as temporary,
        course.watch.progress.stage(stage.name) as bar,
    ):
        temporary.mkdir(parents=True, exist_ok=True)
        facts = stage.make(Desk(course, stage.name, temporary, folder, bar))
        facts["seconds"] = round(time.monotonic() - started, 1)
        if device.type == "cuda":
            facts["gpu_memory_mib"] = round(torch.cuda.max_memory_allocated(device) / 2**20)
        write_json(temporary / "stage.json", FORMAT, VERSION,
                   {"facts": facts, FILES: told(temporary)})  # fmt: skip
    if main:
        for checkpoint in folder.parent.glob(f"{folder.name}.*.checkpoint"):
            checkpoint.unlink()


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """Yield a folder that is thrown away: what processes beside the main one write."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
