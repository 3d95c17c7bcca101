"""The stages of a tiny training in a process of their own: to be killed, and to be two at once."""

from __future__ import annotations

import os
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from milanx.features.smallclip import Projection
from milanx.progress import Silent, SilentStage
from milanx.train.data.photos import Photo, PhotoFeatures
from milanx.train.recipe import BaseSettings, CriticSettings, Data, EncoderSettings, Recipe
from milanx.train.stages.critic import make_critic
from milanx.train.stages.desk import Course, Desk, Watch
from milanx.train.stages.projection import make_projection
from milanx.train.stages.stage import Stage, make_all
from milanx.train.units.meanings import Meaning, Views
from milanx.train.units.planted import PlantedUnits
from milanx.train.units.table import build_table

RECIPE = Recipe(
    data=Data(descriptions=""),
    encoder=EncoderSettings(steps=450, batch_size=64),
    critic=CriticSettings(width=32, steps=320, batch_size=16, learning_rate=1e-2),
    base=BaseSettings(width=16, heads=2),
)
WORDS = ("one", "fourteen", "apples and pears", "sea")
EACH = 60  # photos of a word


def _text(text: str) -> torch.Tensor:
    return torch.randn(4, generator=torch.Generator().manual_seed(zlib.crc32(text.encode())))


def encoder() -> Any:
    """An encoder of random features, whose texts are drawn by their bytes."""
    made = SimpleNamespace(
        spec=SimpleNamespace(grid=8, joint=4, pixel_channels=10), width=16, last_channels=6,
        device=torch.device("cpu"), projection=Projection(6, 4, 32).eval(),
        fingerprint=lambda: "tiny",
        texts=lambda texts: torch.nn.functional.normalize(
            torch.stack([_text(t) for t in texts]), dim=-1
        ),
    )  # fmt: skip
    made.joint = lambda x: torch.nn.functional.normalize(made.projection(x[..., :6]), dim=-1)
    return made


def views() -> Views:
    """Photos in which each word shows in a channel of its own."""
    photos = PhotoFeatures.__new__(PhotoFeatures)
    photos.key = "tiny"
    photos.photos = [
        Photo("s", str(i), WORDS[i // EACH], None, (f"a {WORDS[i // EACH]} {i % 7}",), ())
        for i in range(EACH * len(WORDS))
    ]
    n = len(photos.photos)
    photos.dense = np.random.default_rng(0).random((n, 64, 16)).astype(np.float16)
    for i in range(len(WORDS)):
        photos.dense[EACH * i : EACH * (i + 1), :, 2 + i] += 0.5
    return Views(photos, np.ones(n, bool), np.arange(n) % 5 == 0)


def make_table(desk: Desk) -> dict[str, Any]:
    """Write a table of what the words mean, without those that photos bring."""
    units = desk.course.units
    assert isinstance(units, PlantedUnits)
    grids = np.full((EACH, 64), 255, np.uint8)
    meanings = [Meaning((word,), "region", np.arange(EACH * i, EACH * (i + 1)), grids)
                for i, word in enumerate(WORDS)]  # fmt: skip
    build_table(desk.course.encoder, units.views, meanings, desk.folder, 0)
    return {}


STAGES = (
    Stage("projection", make_projection, reads=("encoder",)),
    Stage("table", make_table, after=("projection",)),
    Stage("critic", make_critic, after=("table",), reads=("critic",)),
)


class Told(Silent):
    """Writes each step of a stage into a file, a line a step, and takes its time."""

    def __init__(self, file: Path, slow: float) -> None:
        self.file, self.slow = file, slow

    def say(self, text: str) -> None:
        with self.file.with_name("said.txt").open("a") as said:
            said.write(f"{text}\n")

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[SilentStage]:
        told = self

        class Bar(SilentStage):
            def at(self, done: int, total: int | None = None) -> None:
                with told.file.open("a") as file:
                    file.write(f"{name} {done}\n")
                time.sleep(told.slow)

        yield Bar()


def course(folder: Path, slow: float = 0.0, recipe: Recipe = RECIPE) -> Course:
    """Begin the tiny training; its steps are written to ``folder/steps.txt``."""
    os.environ["MILANX_CACHE"] = str(folder / "cache")
    torch.set_num_threads(1)
    watch = Watch(Told(folder / "steps.txt", slow), "jsonl", folder / "logs")
    units = PlantedUnits(recipe.data, views(), recipe.seed)
    return Course(recipe, Accelerator(cpu=True), encoder(), units, watch)


def life(folder: Path, slow: float = 0.0) -> None:
    """Go through the stages from wherever they stand."""
    make_all(STAGES, course(folder, slow))


def together(folder: Path) -> None:
    """Go through the stages with as many processes as there are, without dropout.

    Each process has dropout of its own, so that only without it several are one.
    """
    torch.nn.functional.dropout = lambda x, *_: x  # type: ignore[assignment]
    torch.rand_like = torch.ones_like
    short = replace(RECIPE, encoder=replace(RECIPE.encoder, steps=60),
                    critic=replace(RECIPE.critic, steps=110))  # fmt: skip
    begun = course(folder, recipe=short)
    make_all(STAGES, begun)
    if begun.accelerator.is_main_process:
        (folder / "processes.txt").write_text(str(begun.accelerator.num_processes))
    begun.accelerator.end_training()


if __name__ == "__main__":
    together(Path(sys.argv[1]))
