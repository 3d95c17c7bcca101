"""Models of torchvision: ``torchvision:``."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import torch

from milanx.environment import announce
from milanx.errors import InputError, did_you_mean
from milanx.hub.reach import silence
from milanx.images.preprocess import Preprocess
from milanx.targets.built import Built, missing

PREFIX = "torchvision:"


def load(known: str, name: str, *, bare: bool) -> Built:
    """Build a model of torchvision, with its best published weights unless it is to be bare.

    Args:
        known: what torchvision calls it.
        name: what the user called it.
        bare: without weights, which are random then.

    Raises:
        InputError: no such model.
        MissingWeights: its weights are not here and cannot be downloaded.
    """
    import torchvision

    try:
        builder = torchvision.models.get_model_builder(known)
    except ValueError as error:
        hint = did_you_mean(known, torchvision.models.list_models())
        raise InputError(f"no model {name!r}", "torchvision does not know it", hint) from error
    published = getattr(torchvision.models.get_model_weights(known), "DEFAULT", None)
    if not bare:
        _look_for(published, name)
    # A model of segmentation or detection would download its trunk's weights beside.
    trunk = {"weights_backbone": None} if "weights_backbone" in _options(builder) else {}
    try:
        model = torchvision.models.get_model(known, weights=None if bare else published, **trunk)
    except Exception as error:  # torchvision and its downloads raise many kinds
        raise missing(name, error) from error
    labels = () if bare or published is None else published.meta.get("categories", ())
    origin = f"torchvision, {known}" if bare else f"torchvision, {published}"
    return Built(model, preprocess_of(published), origin, tuple(labels))


def preprocess_of(published: Any) -> Preprocess:
    """Return how the transforms of published weights make a model's input.

    They need no download. Detectors scale and normalise by themselves, and are given the picture.
    """
    usual = Preprocess()
    if published is None:
        return usual
    made = published.transforms()
    resize = getattr(made, "resize_size", None)
    if not resize:
        return dataclasses.replace(usual, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    sides = list(getattr(made, "crop_size", None) or resize)
    return Preprocess(
        (sides[0], sides[-1]),
        resize[0] if len(resize) == 1 else (resize[0], resize[1]),
        made.interpolation.value,
        tuple(made.mean),
        tuple(made.std),
    )


def _look_for(published: Any, name: str) -> None:
    """Say what will be downloaded, unless it is here.

    Raises:
        MissingWeights: it is not here, and nothing may be downloaded.
    """
    from huggingface_hub import constants

    if published is None:
        raise missing(name, FileNotFoundError("torchvision publishes no weights of it"))
    file = published.url.rpartition("/")[2]
    if (Path(torch.hub.get_dir()) / "checkpoints" / file).is_file():
        return
    if constants.HF_HUB_OFFLINE:
        raise missing(name, ConnectionError("HF_HUB_OFFLINE is set, and they are not here"))
    if why := silence(published.url):
        raise missing(name, ConnectionError(why))
    size = published.meta.get("_file_size")
    announce(f"{name} ({published})", published.url, int(size * 1e6) if size else None)


def _options(builder: Any) -> set[str]:
    return set(inspect.signature(builder).parameters)
