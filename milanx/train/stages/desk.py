"""Where a stage works: what all stages share, and a desk for one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from torch import nn

from milanx.features.encoder import Encoder
from milanx.files.lock import held
from milanx.progress import Reporter, Stage
from milanx.train.engine.fit import HeldOut, LossOf, Record, fit_model
from milanx.train.engine.schedule import FitSettings
from milanx.train.engine.track import Pace, open_tracker
from milanx.train.recipe import Recipe
from milanx.train.units.corpus import Corpus, kind_shares
from milanx.train.units.source import UnitSource
from milanx.train.units.table import Table


@dataclass(frozen=True)
class Made:
    """A finished stage: its folder, and what it noted."""

    folder: Path
    facts: dict[str, Any]


@dataclass(frozen=True)
class Watch:
    """Who is told of a training: a reporter, and a tracker by name, whose files go to ``logs``."""

    progress: Reporter
    tracker: str | None
    logs: Path


@dataclass(frozen=True)
class Course:
    """One training from its recipe to its last stage: what the stages share.

    Attributes:
        recipe: every setting.
        accelerator: device, precision and processes.
        encoder: frozen but for its projection, which has a stage.
        units: what is trained on.
        watch: who is told.
        made: the stages that are finished, by name.
    """

    recipe: Recipe
    accelerator: Accelerator
    encoder: Encoder
    units: UnitSource
    watch: Watch
    made: dict[str, Made] = field(default_factory=dict)

    def alone(self, path: Path, what: str = "") -> AbstractContextManager[None]:
        """Hold ``path`` against other trainings (`milanx.files.lock.held`), for all processes."""
        if not self.accelerator.is_main_process:
            return nullcontext()
        return held(path, self.watch.progress.say, what)

    def corpus(self, *, check: bool = False) -> Corpus:
        """Return what draws units of the table, or the units that a training is checked on."""
        return self._corpora[check]

    @cached_property
    def vocabulary(self) -> list[str]:
        """The phrases that can be retrieved."""
        return self.corpus().vocabulary()

    @cached_property
    def _corpora(self) -> tuple[Corpus, Corpus]:
        settings, table = self.recipe.decoder, Table(self.made["table"].folder)
        drawing = table, settings.exemplars, settings.contrast, settings.min_purity
        shares = kind_shares(self.recipe.data.shares)
        return (self.units.corpus(*drawing, shares=shares),
                self.units.corpus(*drawing, check=True, shares=shares))  # fmt: skip


@dataclass(frozen=True)
class Desk:
    """Where one stage works.

    Attributes:
        course: what it shares with the others.
        name: of the stage.
        folder: where it writes what it makes.
        beside: where the folder will stand; checkpoints lie there until the stage is finished.
        bar: shows how far it is.
    """

    course: Course
    name: str
    folder: Path
    beside: Path
    bar: Stage

    @property
    def recipe(self) -> Recipe:
        """Every setting."""
        return self.course.recipe

    @property
    def accelerator(self) -> Accelerator:
        """Device, precision and processes."""
        return self.course.accelerator

    def made(self, name: str) -> Made:
        """Return an earlier stage."""
        return self.course.made[name]

    def fit(
        self,
        model: nn.Module,
        loss_of: LossOf,
        settings: FitSettings,
        held_out: HeldOut | None = None,
        part: str = "",
    ) -> dict[str, Any]:
        """Train ``model`` (`milanx.train.engine.fit.fit_model`).

        Args:
            model: is trained in place.
            loss_of: of its batches.
            settings: how.
            held_out: what decides which weights are kept.
            part: tells a training from others of the same stage.

        Returns:
            What happened: the last losses' mean, steps, checks, the best step.
        """
        watch, main = self.course.watch, self.accelerator.is_main_process
        tracker = None
        if watch.tracker and main:
            name = "-".join(filter(None, (self.name, part)))
            tracker = open_tracker(watch.tracker, watch.logs, name, asdict(self.recipe))
        checkpoint = self.beside.with_name(f"{self.beside.name}.{part or 'all'}.checkpoint")
        pace: Callable[[int, float], None] = Pace(settings.steps, self.bar, watch.progress)
        try:
            fitted = fit_model(
                self.accelerator, model, loss_of, settings, seed=self.recipe.seed,
                held_out=held_out, record=Record(checkpoint, tracker, pace),
            )  # fmt: skip
        finally:
            if tracker:
                tracker.finish()
        return {
            "loss": round(float(np.mean(fitted.losses[-50:])), 4),
            "steps": len(fitted.losses),
            "held_out": [[step, round(value, 4)] for step, value in fitted.held_out],
            "best_step": fitted.best_step,
            "stopped_early": fitted.stopped_early,
        }


def step_rng(seed: int, stage: int, step: int) -> np.random.Generator:
    """Return the randomness of one step's batch: the same however the step was reached.

    Args:
        seed: of the training.
        stage: a number that no other stage has: 0 a sample of units, 1 base, 2 decoder, 3 its
            check, 4 prior, 5 probe, 6 critic, 7 its check, 12 projection, 13 MILAN's p(d|E), 14 its
            p(d), 15 the check of both.
        step: of the training.
    """
    return np.random.default_rng([seed, stage, step])
