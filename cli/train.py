"""`milanx train`: make a describer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from milanx.cli import common as c


@c.explained
def train(
    recipe: c.Recipe,
    overrides: c.Overrides = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The describer's folder.")] = Path(
        "describer"
    ),
    tracker: Annotated[
        str | None,
        typer.Option(help="Write figures: jsonl, tensorboard, trackio or wandb; beside --out."),
    ] = None,
    overwrite: c.Overwrite = False,
    quiet: c.Quiet = False,
    debug: c.Debug = False,
) -> None:
    """Train a describer by a recipe; an ended training goes on where it stood."""
    c.starting(quiet, False, f"milanx train {recipe}")
    from milanx.train.loop import train as run_training

    made = run_training(
        recipe, overrides or [], out=out, tracker=tracker, overwrite=overwrite,
        progress=c.reporter(quiet),
    )  # fmt: skip
    c.say(str(made))
