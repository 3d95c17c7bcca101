"""What confidence is calibrated on and what it is reported on: no target, meaning or seed is both.

Meanings are halved by a rule that looks at no result. A class and the kinds above it are on one
side, so are the photos of a class; files that both sides plant units in are halved by photograph.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from milanx.errors import InputError
from milanx.evaluate.common.names import accepted_names
from milanx.evaluate.p2.atoms import KIND_OF
from milanx.evaluate.p2.photos import kinds_above
from milanx.evaluate.weights.lists import HALVED, Used

LOGITS = "tiny_imagenet_val"  # shown to targets whose logits are described, divided by class
SAMPLE = "imagenet_sample"  # a photo a class: planted in and shown to controls, divided by class
DIVIDED = (LOGITS, SAMPLE, *HALVED)  # what both sides read a part of
CALIBRATED = Used(
    {
        "tf_efficientnet_lite0": ("classifier", "blocks.5.2.bn1"),
        "tf_efficientnet_lite2": ("classifier", "blocks.5.2.bn1"),
    },
    (103,),
    ("tiny_imagenet_ten",),
)
REPORTED = Used(
    {"vit_tiny_patch16_224": ("head", "blocks.10.mlp.fc1")},
    (0,),
    ("regions", "textures"),
)


@dataclass(frozen=True)
class Side:
    """One of the two sides.

    Attributes:
        name: ``calibrated`` or ``reported``.
        used: its targets, seeds and photos.
        meant: whether a meaning's atom, or a class by its name, belongs to it.
        reports: whether it reads the photographs that are for reports, of files with groups of
            their own (`milanx.evaluate.p2.facts.is_for`); else those for choosing.
    """

    name: str
    used: Used
    meant: Callable[[str], bool]
    reports: bool

    def sort(self, paths: tuple[Path, ...]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
        """Divide files into those that units are planted in and those that logits are shown.

        Raises:
            InputError: one of them is neither.
        """
        for path in paths:
            if path.stem not in (*self.used.photos, *DIVIDED):
                raise InputError(
                    f"{path} is not for what is {self.name}",
                    f"that is {', '.join((*self.used.photos, *DIVIDED))}",
                    "milanx/evaluate/confidence/lists.py says so",
                )
        return (tuple(p for p in paths if p.stem != LOGITS),
                tuple(p for p in paths if p.stem == LOGITS))  # fmt: skip


def calibrates(atom: str) -> bool:
    """Whether a meaning's atom is calibrated on; else it is reported on.

    What pixels show by turns, kind by kind, so that both sides have colours, places and lines; all
    else by a digest of its name, classes and kinds above them by that of their family.
    """
    if atom in KIND_OF:
        kin = [other for other in KIND_OF if KIND_OF[other] == KIND_OF[atom]]
        return kin.index(atom) % 2 == 0
    return _first_half(_families().get(atom, atom))


def _first_half(name: str) -> bool:
    return hashlib.blake2b(name.encode(), digest_size=1).digest()[0] % 2 == 0


@lru_cache(maxsize=1)
def _families() -> dict[str, str]:
    """Return kinds above classes and names of classes below them -> the first linked kind."""
    names, found = accepted_names(), dict[str, str]()
    for kind, wnids in kinds_above().items():
        linked = next((found[w] for w in wnids if w in found), kind)
        found |= dict.fromkeys(wnids, linked)
    families = {names[wnid][0].lower(): kind for wnid, kind in found.items() if wnid in names}
    return families | {kind: found[wnids[0]] for kind, wnids in kinds_above().items()}


CALIBRATION = Side("calibrated", CALIBRATED, calibrates, reports=False)
REPORT = Side("reported", REPORTED, lambda atom: not calibrates(atom), reports=True)
