"""What a describer is made of beside its networks: its words, and what is said of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from milanx.describing.settings import SearchSettings

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

    from milanx.describing.set_encoder import SetEncoder
    from milanx.features.encoder import Encoder
    from milanx.language.prior import Prior


@dataclass(frozen=True)
class Lexicon:
    """The words of a describer.

    Attributes:
        words: those that a text may hold, folded; any when empty.
        vocabulary: the phrases that are retrieved for a set, in the order in which the set
            encoder holds their vectors.
    """

    words: frozenset[str] = frozenset()
    vocabulary: tuple[str, ...] = ()


@dataclass(frozen=True)
class About:
    """What is said of a describer.

    Attributes:
        name: what it is called.
        settings: how it searches and ranks unless told otherwise.
        contrast: how many contrast views it looks at.
        training: what is known of its training.
        root: the folder that it was read from; None for one that was made of parts.
        fingerprint: 16 hex digits that stand for its weights and settings; made of the weights
            themselves where it is empty.
    """

    name: str = "unnamed"
    settings: SearchSettings = field(default_factory=SearchSettings)
    contrast: int = 4
    training: Mapping[str, Any] = field(default_factory=dict)
    root: Path | None = None
    fingerprint: str = ""


@dataclass(frozen=True)
class Parts:
    """The parts of a describer, as a folder holds them."""

    encoder: Encoder
    set_encoder: SetEncoder
    decoder: GPT2LMHeadModel
    prior: Prior
    lexicon: Lexicon
    about: About


def fingerprint_weights(modules: Sequence[nn.Module]) -> str:
    """Return 16 hex digits that stand for the weights of networks, whatever their device."""
    digest = hashlib.sha256()
    for module in modules:
        for name, value in sorted(module.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
