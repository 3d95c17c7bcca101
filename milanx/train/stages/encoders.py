"""The encoder and the language model that a recipe asks for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from milanx.describing.folder import describer_root, load_encoder, read_content
from milanx.errors import InputError
from milanx.features.encoder import Encoder
from milanx.features.smallclip import SmallClipEncoder, SmallClipSpec
from milanx.files import fingerprint, fingerprint_file
from milanx.language.gpt2 import gpt2_config
from milanx.train.recipe import MIN_GRID, EncoderSettings, Recipe

HEADS = 4  # attention heads of the set encoder, which is as wide as the language model


def resolved(recipe: Recipe) -> Recipe:
    """Return a recipe with folders of models as absolute paths, and the base's own width.

    Raises:
        InputError: a base of another family than GPT-2, or of a width that cannot be used.
        MissingWeights: the base cannot be had here.
    """
    encoder = replace(recipe.encoder, model=_absolute(recipe.encoder.model),
                      describer=_absolute(recipe.encoder.describer))  # fmt: skip
    if encoder.model.startswith("hf-hub:") or Path(encoder.model).is_absolute():
        encoder = replace(encoder, pretrained="")  # tags are of open_clip's own names
    base = replace(recipe.base, model=_absolute(recipe.base.model))
    if base.model:
        config = gpt2_config(base.model)
        if config.n_embd % HEADS:
            raise InputError(
                f"the language model {base.model} is {config.n_embd} wide",
                f"the set encoder is as wide, and has {HEADS} attention heads",
                "choose another base.model",
            )
        base = replace(
            base, layers=config.n_layer, width=config.n_embd, heads=config.n_head,
            positions=config.n_positions, vocabulary=config.vocab_size,
        )  # fmt: skip
    return replace(recipe, encoder=encoder, base=base)


def _absolute(model: str) -> str:
    return str(Path(model).resolve()) if model and Path(model).is_dir() else model


def base_weights(recipe: Recipe) -> str:
    """Return what stands for the weights of a base in a folder; its name says the others'."""
    folder = Path(recipe.base.model)
    if not recipe.base.model or not folder.is_dir():
        return ""
    files = [p for p in sorted(folder.iterdir()) if p.suffix in (".json", ".safetensors", ".bin")]
    return fingerprint([[p.name, fingerprint_file(p)] for p in files])


def encoder_weights(recipe: Recipe) -> str:
    """Return what stands for the weights of a describer's encoder; its fingerprint does not."""
    path = encoder_file(recipe)
    return "" if path is None else fingerprint_file(path)


def encoder_file(recipe: Recipe) -> Path | None:
    """Return the weights that a recipe's encoder has of a describer; None where there are none."""
    if not recipe.encoder.describer:
        return None
    path = describer_root(recipe.encoder.describer) / "encoder.safetensors"
    return path if path.is_file() else None


def build_encoder(settings: EncoderSettings) -> Encoder:
    """Build the encoder: the small CLIP, untrained, one of open_clip, or a describer's.

    Raises:
        InputError: an open_clip model, or a describer, that cannot be used.
        FormatError: the describer is damaged.
        MissingWeights: weights that cannot be had on this machine.
    """
    if settings.describer:
        root = describer_root(settings.describer)
        return load_encoder(root, read_content(root)[0])
    if settings.kind != "open_clip":
        return SmallClipEncoder(SmallClipSpec(
            tower=settings.tower, edges=settings.edges, classes=settings.classes))  # fmt: skip
    from milanx.features.openclip import OpenClipEncoder, OpenClipSpec

    made = OpenClipEncoder(
        OpenClipSpec(settings.model, settings.pretrained, settings.dense, stages=settings.stages,
                     grid=settings.grid, edges=settings.edges)
    )  # fmt: skip
    if made.spec.grid < MIN_GRID:
        raise InputError(
            f"{settings.model} has a grid of {made.spec.grid} cells a side",
            f"phrases are looked for in windows of {MIN_GRID}",
            "choose a model with smaller patches or larger views",
        )
    return made
