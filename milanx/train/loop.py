"""`milanx train`: from a recipe to a describer's folder, stage by stage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from milanx.files import cache_dir, fingerprint
from milanx.files.kinds import DESCRIBER, MILAN, SIMULATOR
from milanx.files.replacing import check_place
from milanx.progress import Reporter, Silent
from milanx.train.describer_folder import write_describer
from milanx.train.engine.track import check_tracker
from milanx.train.milan_folder import write_milan_folder
from milanx.train.recipe import Recipe, load_recipe, recipe_path
from milanx.train.stages.base import make_base
from milanx.train.stages.begin import begin
from milanx.train.stages.critic import make_critic
from milanx.train.stages.decoder import make_decoder
from milanx.train.stages.desk import Watch
from milanx.train.stages.encoders import (
    base_weights,
    build_encoder,
    encoder_weights,
    resolved,
)
from milanx.train.stages.milan import make_milan, make_milan_prior
from milanx.train.stages.prior import make_prior
from milanx.train.stages.probe import make_probe
from milanx.train.stages.projection import make_projection
from milanx.train.stages.simulator import train_simulator
from milanx.train.stages.source_leak import make_source_leak
from milanx.train.stages.stage import Stage, make_all
from milanx.train.stages.table import make_table


def trains_encoder(recipe: Recipe) -> bool:
    """Whether the encoder has a projection to train."""
    return recipe.encoder.kind == "timm" and not recipe.encoder.describer


def has_photos(recipe: Recipe) -> bool:
    """Whether units are planted in photos, of one source or several."""
    return not recipe.data.milannotations


# What a set of exemplars is made of: critic, prefix and whoever draws units read these.
SETS = ("decoder.exemplars", "decoder.contrast", "decoder.min_purity", "data.shares")
UNITS = (
    Stage("projection", make_projection, reads=("encoder",), only=trains_encoder),
    Stage("table", make_table, after=("projection",), reads=("encoder", "data.shares"),
          known_by=encoder_weights),
)  # fmt: skip
STAGES = (
    *UNITS,
    Stage("critic", make_critic, after=("table",),
          reads=("critic", "base.width", "decoder.layers", "decoder.prefix", *SETS)),
    Stage("base", make_base, after=("critic",), reads=("base",), known_by=base_weights),
    Stage("decoder", make_decoder, after=("critic", "base"), reads=("decoder",)),
    Stage("prior", make_prior, after=("base",), reads=("prior", "decoder.targets")),
    Stage("probe", make_probe, after=("table",), reads=SETS),
    Stage("sources", make_source_leak, after=("critic", "decoder"), only=has_photos),
)  # fmt: skip
MILAN_STAGES = (
    *UNITS,
    Stage("milan", make_milan, after=("table",), reads=("milan", *SETS)),
    Stage("milan_prior", make_milan_prior, after=("table", "milan"), reads=("milan", *SETS)),
)
KINDS = {"describer": DESCRIBER, "simulator": SIMULATOR, "milan": MILAN}


def train(
    recipe: str,
    overrides: Sequence[str] = (),
    *,
    out: Path,
    tracker: str | None = None,
    overwrite: bool = False,
    progress: Reporter | None = None,
) -> Path:
    """Train a describer, a simulator or MILAN's networks, and write their folder.

    An ended training goes on where it stood when it is called again. Under ``accelerate launch``
    each step's batch is divided over the processes.

    Args:
        recipe: path of a recipe, or the name of a bundled one.
        overrides: ``KEY=VALUE`` settings over the recipe's.
        out: the describer's folder.
        tracker: ``jsonl``, ``tensorboard``, ``trackio`` or ``wandb``; its files go beside ``out``.
        overwrite: replace one of the same kind that is there.
        progress: told about stages and steps.

    Returns:
        ``out``.

    Raises:
        InputError: a recipe with errors, data that is not there, a training that diverged,
            another process that makes the same, or ``out`` holds what must not be replaced.
    """
    settings = load_recipe(recipe_path(recipe), overrides)
    check_place(out, KINDS[settings.kind], overwrite=overwrite)
    logs = out.with_name(f"{out.name}-logs")
    if tracker:
        check_tracker(tracker, logs)
    watch = Watch(progress or Silent(), tracker, logs)
    if settings.kind == "simulator":
        return train_simulator(settings, out, watch, overwrite=overwrite)
    settings = resolved(settings)
    course = begin(settings, build_encoder(settings.encoder), watch)
    with course.alone(cache_dir("train", f"out-{fingerprint(str(out.resolve()))}"), str(out)):
        milan = settings.kind == "milan"
        make_all(MILAN_STAGES if milan else STAGES, course)
        if course.accelerator.is_main_process:
            write = write_milan_folder if milan else write_describer
            write(course, out, overwrite=overwrite)
    return out
