"""The simulator of P3: a projection between frozen towers that no describer uses.

The same training as the describer's small CLIP, on another image tower's features. It is written
as a folder that `milanx.evaluate.p3.simulator.Simulator.load` reads.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from milanx.features.smallclip import SmallClipEncoder, SmallClipSpec
from milanx.files import atomic_path, write_json
from milanx.files.replacing import SIMULATOR, check_place
from milanx.progress import Reporter, Silent
from milanx.train.data.photos import PhotoSource, photo_features
from milanx.train.recipe import Recipe
from milanx.train.stages.projection import make_pairs, recall, train_projection
from milanx.train.units.meanings import training_photos

FORMAT, VERSION = "milanx simulator", 1
SHARED = (
    "text tower (all-MiniLM-L6-v2)", "training captions", "family of the image tower (EfficientNet)"
)  # fmt: skip


def simulator_spec(tower: str) -> SmallClipSpec:
    """Return the encoder of a simulator: the tower at its own size, nothing but what it gives."""
    import timm

    config = timm.get_pretrained_cfg(tower)
    size = SmallClipSpec.image_size if config is None else int(config.input_size[-1])
    return SmallClipSpec(tower=tower, image_size=size, edges=False)


def train_simulator(
    settings: Recipe, out: Path, progress: Reporter | None = None, *, overwrite: bool = False
) -> Path:
    """Train the projection of a simulator and write its folder.

    Args:
        settings: ``data`` (photos, what is held out), ``encoder`` (tower and training), ``seed``
            and ``name``; the rest of a recipe is not used.
        out: the folder.
        progress: told about stages and steps.
        overwrite: replace a simulator that is there.

    Returns:
        ``out``.

    Raises:
        InputError: photos that are not there, or ``out`` holds what must not be replaced.
    """
    check_place(out, SIMULATOR, overwrite=overwrite)
    started = time.monotonic()
    progress = progress or Silent()
    torch.manual_seed(settings.seed)
    encoder = SmallClipEncoder(simulator_spec(settings.encoder.tower))
    data = settings.data
    sources = [PhotoSource(Path(data.root) / p.file, p.per_class, p.views, p.text)
               for p in data.photos]  # fmt: skip
    with progress.stage("encode photos", None) as bar:
        photos = photo_features(encoder, sources, seed=settings.seed, advance=bar.advance)
    keep = training_photos(photos, data.held_out_captions, data.held_out_photos)
    pairs = make_pairs(encoder, photos, keep)
    with progress.stage("projection", settings.encoder.steps) as bar:
        train_projection(encoder, pairs, settings.encoder, settings.seed,
                         lambda step, loss: bar.advance(1))  # fmt: skip
    training: dict[str, Any] = {
        "files": [p.file for p in data.photos],
        "encoder": asdict(settings.encoder),
        "seed": settings.seed,
        "photos": len(photos),
        "photos_trained_on": int(keep.sum()),
        "pairs": len(pairs.texts),
        "held_out_captions": recall(encoder, photos, ~keep),
        "seconds": round(time.monotonic() - started, 1),
    }
    with atomic_path(out, SIMULATOR if overwrite else None) as temporary:
        temporary.mkdir(parents=True)
        weights = {k: v.half().contiguous() for k, v in encoder.projection.state_dict().items()}
        save_file(weights, temporary / "encoder.safetensors")
        content = {"name": settings.name, "encoder": asdict(encoder.spec),
                   "shared": list(SHARED), "training": training}  # fmt: skip
        write_json(temporary / "simulator.json", FORMAT, VERSION, content)
    return out
