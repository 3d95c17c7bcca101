"""What confidence is calibrated on and what it is reported on: no target, meaning or seed is both.

Meanings are halved by a rule that looks at no result. A class and the kinds above it are on one
side, so are the photos of a class; files of planted units differ.
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
from milanx.evaluate.weights.lists import Used

# Files of classes (a column ``wnid``) are divided by class; of the others each has its side.
DIVIDED = ("tiny_imagenet_val",)
SHOWN = (
    "imagenet_sample",
)  # one photo a class: units are not planted in it, controls are shown it
CALIBRATED = Used(
    {"tf_efficientnet_lite0": ("classifier", "blocks.5.2.bn1")},
    (103,),
    ("parts", "attributes", "tiny_imagenet_ten"),
)
REPORTED = Used(
    {"vit_tiny_patch16_224": ("head", "blocks.10.mlp.fc1")},
    (0,),
    ("regions", "textures", "imagenet_sample"),
)


@dataclass(frozen=True)
class Side:
    """One of the two sides.

    Attributes:
        name: ``calibrated`` or ``reported``.
        used: its targets, seeds and photos.
        meant: whether a meaning's atom, or a class by its name, belongs to it.
        controls: files, by name, that targets of controls are shown.
    """

    name: str
    used: Used
    meant: Callable[[str], bool]
    controls: tuple[str, ...]

    def sort(self, paths: tuple[Path, ...]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
        """Divide files into those that units are planted in and those of classes.

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
        mixed = [p for p in paths if p.stem not in (*DIVIDED, *SHOWN)]
        return tuple(mixed), tuple(p for p in paths if p.stem in DIVIDED)


def calibrates(atom: str) -> bool:
    """Whether a meaning's atom is calibrated on; else it is reported on.

    What pixels show by turns, kind by kind, so that both sides have colours, places and lines; all
    else by a digest of its name, classes and kinds above them by that of their family.
    """
    if atom in KIND_OF:
        kin = [other for other in KIND_OF if KIND_OF[other] == KIND_OF[atom]]
        return kin.index(atom) % 2 == 0
    family = _families().get(atom, atom)
    return hashlib.blake2b(family.encode(), digest_size=1).digest()[0] % 2 == 0


@lru_cache(maxsize=1)
def _families() -> dict[str, str]:
    """Return kinds above classes and names of classes below them -> the first linked kind."""
    names, found = accepted_names(), dict[str, str]()
    for kind, wnids in kinds_above().items():
        linked = next((found[w] for w in wnids if w in found), kind)
        found |= dict.fromkeys(wnids, linked)
    families = {names[wnid][0].lower(): kind for wnid, kind in found.items() if wnid in names}
    return families | {kind: found[wnids[0]] for kind, wnids in kinds_above().items()}


CALIBRATION = Side("calibrated", CALIBRATED, calibrates, ("attributes",))
REPORT = Side("reported", REPORTED, lambda atom: not calibrates(atom), ("imagenet_sample",))
