"""Names of classes that an encoder's own classifier knows, and of kinds above them, as texts.

Where a text is such a name, the classifier says better than the space of images and texts how much
of it a view shows, of a kind by all of its classes together; and what it finds most evidence of
under a unit's masks is a candidate.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import torch

from milanx.features.classes import class_head
from milanx.features.encoder import Encoder
from milanx.features.evidence import Evidence
from milanx.files import read_json
from milanx.language.words import number_forms, plural

KIND = 0.9  # of a class's correlation, that a kind's counts: a sum of classes varies less by chance


@lru_cache(maxsize=1)
def classes_below() -> Mapping[str, tuple[int, ...]]:
    """Return the classes of ImageNet below each kind that a dictionary tells (assets/words)."""
    import milanx.assets

    path = Path(milanx.assets.__path__[0]) / "words" / "kinds.json"
    told = read_json(path, "milanx kinds", 1)["kinds"]
    return {kind: tuple(map(int, classes.split())) for kind, classes in told.items()}


@lru_cache(maxsize=1)
def classes_named() -> Mapping[str, tuple[int, ...]]:
    """Return the columns of `with_kinds` that each name means, one or many of it.

    Some names mean two ("crane", "maillot"). Texts in lower case.
    """
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    names = [info.index_to_description(i).split(",") for i in range(info.num_classes())]
    found: dict[str, dict[int, None]] = {}
    for i, row in enumerate([*names, *([kind] for kind in classes_below())]):
        for name in row:
            head, space, last = name.strip().lower().rpartition(" ")
            for form in number_forms(last):
                found.setdefault(f"{head}{space}{form}", {})[i] = None
    return {text: tuple(columns) for text, columns in found.items()}


def with_kinds(shares: torch.Tensor) -> torch.Tensor:
    """Put the probability of each kind beside those of the classes: [n, classes + kinds].

    Args:
        shares: probabilities of ImageNet's classes, [n, classes].
    """
    below = shares.new_zeros(shares.shape[1], len(classes_below()))
    for column, classes in enumerate(classes_below().values()):
        below[list(classes), column] = 1
    return torch.cat([shares, shares @ below], 1)


def counting(columns: int, share: float) -> torch.Tensor:
    """Return what correlations with `with_kinds` count: ``share`` those of classes, [columns]."""
    counts = torch.full((columns,), share)
    counts[max(0, columns - len(classes_below())) :] *= KIND
    return counts


def class_names(encoder: Encoder, evidence: Evidence, count: int) -> list[list[str]]:
    """Return what an encoder's own classifier names of units, in the plural.

    Nothing where it has none, or ``count`` is 0.
    """
    head = class_head(encoder) if count else None
    named = head.most(evidence, count) if head else []
    return [[plural(name) for name in row] for row in named]
