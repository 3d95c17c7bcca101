"""The simulator of P3: a projection between frozen towers that no describer uses.

The same training as the describer's small CLIP, on another image tower's features. It is written
as a folder that `milanx.scoring.simulator.Simulator.load` reads.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from milanx.features.smallclip import SmallClipEncoder, SmallClipSpec
from milanx.files import atomic_path
from milanx.files.kinds import SIMULATOR
from milanx.files.replacing import check_place
from milanx.progress import Silent
from milanx.scoring.simulator import write_simulator
from milanx.train.recipe import Recipe
from milanx.train.recipe_data import told
from milanx.train.stages.begin import begin
from milanx.train.stages.desk import Desk, Watch
from milanx.train.stages.projection import (
    WEIGHTS,
    fit_projection,
    make_pairs,
    planted_views,
    recall,
)
from milanx.train.stages.stage import Stage, make_all

SHARED = (
    "text tower (all-MiniLM-L6-v2)", "training captions", "family of the image tower (EfficientNet)"
)  # fmt: skip


def simulator_spec(tower: str) -> SmallClipSpec:
    """Return the encoder of a simulator: the tower at its own size, nothing but what it gives."""
    import timm

    config = timm.get_pretrained_cfg(tower)
    size = SmallClipSpec.image_size if config is None else int(config.input_size[-1])
    return SmallClipSpec(tower=tower, image_size=size, edges=False)


def make_simulator(desk: Desk) -> dict[str, Any]:
    """Train the projection on all views that are not held out: nothing is checked on them."""
    encoder, views = desk.course.encoder, planted_views(desk)
    pairs = make_pairs(encoder, views.photos, views.keep)
    facts = fit_projection(desk, pairs, desk.recipe.encoder.steps)
    save_file(encoder.projection.state_dict(), desk.folder / WEIGHTS)
    return {
        **facts,
        "photos": len(views.photos),
        "photos_trained_on": int(views.keep.sum()),
        "pairs": len(pairs.texts),
        "held_out_captions": recall(encoder, views.photos, ~views.keep),
    }


def train_simulator(
    recipe: Recipe, out: Path, watch: Watch | None = None, *, overwrite: bool = False
) -> Path:
    """Train the projection of a simulator and write its folder.

    Args:
        recipe: ``data`` (photos, what is held out), ``encoder`` (tower and training), ``seed``
            and ``name``; the rest is not used.
        out: the folder.
        watch: who is told.
        overwrite: replace a simulator that is there.

    Returns:
        ``out``.

    Raises:
        InputError: photos that are not there, or ``out`` holds what must not be replaced.
    """
    check_place(out, SIMULATOR, overwrite=overwrite)
    encoder = SmallClipEncoder(simulator_spec(recipe.encoder.tower))
    course = begin(recipe, encoder, watch or Watch(Silent(), None, out))
    make_all([Stage("simulator", make_simulator, reads=("encoder",))], course)
    made = course.made["simulator"]
    if not course.accelerator.is_main_process:
        return out
    training = {
        "files": [told(p.file) for p in recipe.data.photos],
        "without": [told(file) for file in recipe.data.without],
        "near_duplicates": recipe.data.near_duplicates,
        "encoder": asdict(recipe.encoder),
        "seed": recipe.seed,
        **made.facts,
    }
    with atomic_path(out, SIMULATOR if overwrite else None) as temporary:
        temporary.mkdir(parents=True)
        weights = {k: v.half() for k, v in load_file(made.folder / WEIGHTS).items()}
        save_file(weights, temporary / WEIGHTS)
        content = {"name": recipe.name, "encoder": asdict(encoder.spec),
                   "shared": list(SHARED), "training": training}  # fmt: skip
        write_simulator(temporary, content)
    return out
