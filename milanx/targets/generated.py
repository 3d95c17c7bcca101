"""The images that a generator makes, opened as probe images; now, or again for a run of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from milanx.errors import InputError
from milanx.images.generated import GENERATED, Generated
from milanx.images.probe import ProbeImages, open_images
from milanx.targets.generator import Generator
from milanx.targets.zoo import Target, load_target


def generated_images(target: Target, limit: int | None = None) -> ProbeImages:
    """Open the images that a target makes itself.

    Args:
        target: a generator.
        limit: the first so many of its latents.
    """
    generator = target.model
    assert isinstance(generator, Generator)
    count = min(limit or generator.latents.count, generator.latents.count)
    key = generator.key(target.fingerprint)
    images = open_images([Generated(count, generator.picture, key)])
    images.notes = (
        f"the images are made by {target.name} itself, of {count} latents",
        *images.notes,
    )
    return images


def made_by(target: Target) -> dict[str, Any]:
    """Return what ``run.json`` says of how a generator made its images; nothing for others."""
    model = target.model
    return {"made": model.facts()} if isinstance(model, Generator) else {}


def is_generated(settings: Mapping[str, Any]) -> bool:
    """Whether a run's target made its images itself."""
    return any(source["kind"] == GENERATED for source in settings["images"]["sources"])


def images_again(settings: Mapping[str, Any]) -> ProbeImages:
    """Open the images of a run whose target made them itself.

    Args:
        settings: of the run.

    Raises:
        InputError: a generator that its name does not give, or another one now.
    """
    known = settings["target"]
    if ":" not in known["name"]:
        raise InputError(
            f"the images of {known['name']} cannot be made again",
            "it was given as a module, which no name gives",
            "name a function that returns it: package.module:function",
        )
    target = load_target(known["name"])
    if target.fingerprint != known["fingerprint"] or not isinstance(target.model, Generator):
        raise InputError(
            f"{known['name']} is not the generator that the run was made of",
            "its weights or its layers differ", "describe it anew",
        )  # fmt: skip
    return generated_images(target, settings["images"]["count"])
