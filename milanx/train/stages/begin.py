"""How a training begins: processes, the encoder, and the units that are trained on."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState

from milanx.environment import join_processes
from milanx.features.encoder import Encoder
from milanx.train.recipe import Recipe
from milanx.train.stages.desk import Course, Watch
from milanx.train.units.annotated import AnnotatedUnits
from milanx.train.units.planted import PlantedUnits, encode_photos
from milanx.train.units.source import UnitSource


def begin(recipe: Recipe, encoder: Encoder, watch: Watch) -> Course:
    """Begin a training; the encoder is moved to where it computes.

    Raises:
        InputError: photos or units that are not there or cannot be used, or another process
            encodes the same photos.
    """
    accelerator = _accelerator(recipe.precision)
    encoder.to(accelerator.device)
    units: UnitSource
    if recipe.data.milannotations:
        units = AnnotatedUnits(recipe.data, recipe.seed, watch.progress.say)
    else:
        with watch.progress.stage("encode photos") as bar:
            views = encode_photos(
                encoder, recipe.data, recipe.seed, bar.advance, watch.progress.say, PartialState()
            )
        units = PlantedUnits(recipe.data, views, recipe.seed)
    return Course(recipe, accelerator, encoder, units, watch)


def _accelerator(precision: str) -> Accelerator:
    """Make the accelerator; a lone process forgets what an earlier training or pass settled."""
    if not PartialState._shared_state or PartialState().num_processes == 1:
        AcceleratorState._reset_state(reset_partial_state=True)
    join_processes(cpu=not torch.cuda.is_available())
    return Accelerator(mixed_precision=precision, cpu=not torch.cuda.is_available())
