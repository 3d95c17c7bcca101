"""On what it was chosen when a unit has several senses, and on what that is reported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from milanx.errors import InputError
from milanx.evaluate.confidence.lists import CALIBRATION, REPORT, Side


@dataclass(frozen=True)
class Photos:
    """Meanings, photos and seeds.

    Of files that stand in both lists (those with groups of their own) photographs are halved
    (`milanx.evaluate.p2.facts.is_for`).

    Attributes:
        side: whose meanings are planted.
        files: by name.
        seeds: of all that is drawn.
    """

    side: Side
    files: tuple[str, ...]
    seeds: tuple[int, ...]

    def check(self, paths: tuple[Path, ...]) -> None:
        """Refuse files that are not on the list.

        Raises:
            InputError: the first of them.
        """
        for path in paths:
            if path.stem not in self.files:
                raise InputError(f"{path} is not for what is {self.side.name}",
                                 f"that is {', '.join(self.files)}",
                                 "milanx/evaluate/senses/lists.py says so")  # fmt: skip


CHOSEN = Photos(CALIBRATION, ("parts", "attributes", "tiny_imagenet_val"), (101,))
REPORTED = Photos(REPORT, ("parts", "attributes", "regions", "textures", "imagenet_sample"), (0,))
