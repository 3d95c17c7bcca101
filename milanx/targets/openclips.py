"""The towers for images of open_clip's models: ``clip:NAME/TAG``."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

from torch import nn

from milanx.environment import note
from milanx.errors import InputError, MissingWeights, did_you_mean
from milanx.hub.reach import clip_within_reach
from milanx.images.preprocess import Preprocess
from milanx.targets.built import Built, missing

PREFIX = "clip:"


def load(place: str, name: str, *, bare: bool) -> Built:
    """Build the tower for images of a model of open_clip.

    Args:
        place: ``NAME`` or ``NAME/TAG``, as open_clip lists them.
        name: what the user called it.
        bare: without weights, which are random then.

    Raises:
        InputError: no such model, or no such tag of it.
        MissingWeights: no tag is named, or its weights cannot be had.
    """
    import open_clip

    known, _, tag = place.partition("/")
    if known not in open_clip.list_models():
        raise InputError(f"no model {name!r}", "open_clip does not know it",
                         did_you_mean(known, open_clip.list_models()))  # fmt: skip
    tags = open_clip.list_pretrained_tags_by_model(known)
    if tag and tag not in tags:
        raise InputError(f"no weights {tag!r} of {known}",
                         f"open_clip has {', '.join(tags) or 'none'}",
                         did_you_mean(tag, tags))  # fmt: skip
    if not bare and not tag:
        raise MissingWeights(
            f"which weights of {known}?", "none were named",
            [f"clip:{known}/TAG, of {', '.join(tags)}" if tags else "open_clip knows none",
             "--weights FILE gives a checkpoint", "--random-weights uses random ones"],
        )  # fmt: skip
    config = open_clip.get_pretrained_cfg(known, tag) if tag else {}
    try:
        with nullcontext() if bare else clip_within_reach(known, tag), _quiet():
            model = open_clip.create_model(
                known, pretrained=None if bare else tag, pretrained_text=False,
                # Which nonlinearity the weights were trained with is told by their tag.
                force_quick_gelu=bool(config.get("quick_gelu", False)),
            )  # fmt: skip
    except Exception as error:  # open_clip and the hub raise many kinds for "cannot be had"
        raise missing(name, error) from error
    tower = model.visual
    origin = f"open_clip, {known}" + (f" ({tag})" if tag and not bare else "")
    return Built(tower, preprocess_of(tower), origin, tokens=_tokens(tower))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Let open_clip, which writes to the root logger, say nothing of what milanx says itself."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def preprocess_of(tower: nn.Module) -> Preprocess:
    """Return how open_clip makes a tower's input."""
    from open_clip.transform import PreprocessCfg

    held: Any = getattr(tower, "preprocess_cfg", {})
    config = PreprocessCfg(**held)
    height, width = config.input_size[-2:]
    if config.resize_mode == "longest":
        note("note: open_clip shows whole pictures with a margin here: the middle is shown instead")
    squashed = config.resize_mode == "squash" or height != width
    return Preprocess(
        (height, width),
        (height, width) if squashed else height,
        config.interpolation,
        tuple(config.mean),
        tuple(config.std),
    )


def _tokens(tower: nn.Module) -> tuple[int, int] | None:
    """Return how many tokens stand before and behind the patches, where the tower says so."""
    if hasattr(tower, "class_embedding"):
        return 1, 0
    count = getattr(getattr(tower, "trunk", None), "num_prefix_tokens", None)
    return None if count is None else (int(count), 0)
