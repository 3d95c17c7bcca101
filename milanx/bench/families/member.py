"""What a family is looked at by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from milanx.images.preprocess import Preprocess


@dataclass(frozen=True)
class Member:
    """A member of a family that is small enough to be looked at on a laptop.

    Attributes:
        name: its library's.
        side: of the pictures that it is shown, where that is smaller than its own, in pixels.
        options: what it is built with, where no member of the family is small.
        image: whether it takes an image, and nothing that it cannot do without beside it.
    """

    name: str
    side: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    image: bool = True


def shown_at(side: int | None) -> Preprocess | None:
    """Return how pictures of a side are shown; None for the model's own way."""
    return Preprocess((side, side), side) if side else None
