"""Names of classes that an encoder's own classifier knows, as texts of units.

Where a text is such a name, the classifier says better than the space of images and texts how much
of it a view shows; and what it finds most evidence of under a unit's masks is a candidate.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from milanx.features.classes import class_head
from milanx.features.encoder import Encoder
from milanx.features.evidence import Evidence
from milanx.language.words import number_forms, plural


@lru_cache(maxsize=1)
def classes_named() -> Mapping[str, tuple[int, ...]]:
    """Return the classes of ImageNet that each of their names means, one or many of them.

    Some names mean two ("crane", "maillot"). Texts in lower case.
    """
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    found: dict[str, dict[int, None]] = {}
    for i in range(info.num_classes()):
        for name in info.index_to_description(i).split(","):
            head, space, last = name.strip().lower().rpartition(" ")
            for form in number_forms(last):
                found.setdefault(f"{head}{space}{form}", {})[i] = None
    return {text: tuple(classes) for text, classes in found.items()}


def class_names(encoder: Encoder, evidence: Evidence, count: int) -> list[list[str]]:
    """Return what an encoder's own classifier names of units, in the plural.

    Nothing where it has none, or ``count`` is 0.
    """
    head = class_head(encoder) if count else None
    named = head.most(evidence, count) if head else []
    return [[plural(name) for name in row] for row in named]
