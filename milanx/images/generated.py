"""Images that a target makes itself, one of each of its latents."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
from PIL import Image

from milanx.files import fingerprint
from milanx.images.item import Item, Skipped, SourceInfo

GENERATED = "generated"  # kind and name of the source


class Generated:
    """A source of images that are made when they are read; image i is that of latent i.

    Args:
        count: how many.
        picture: makes one, uint8 [H, W, 3].
        key: fingerprint of what makes them.
    """

    name = GENERATED

    def __init__(self, count: int, picture: Callable[[int], np.ndarray], key: str) -> None:
        self.count, self.picture, self.key = count, picture, key
        self.faults: list[Skipped] = []
        self.ignored: dict[str, int] = {}

    @property
    def info(self) -> SourceInfo:
        """What is known of it."""
        return SourceInfo(self.name, GENERATED, self.count, self.key)

    @cached_property
    def _items(self) -> list[Item]:
        return [Item(f"latent {i}", fingerprint(self.key, i), None) for i in range(self.count)]

    def items(self) -> list[Item]:
        """Return its images, each a group of its own; none is made."""
        return self._items

    def read(self, row: int) -> Image.Image:
        """Make one image, RGB."""
        return Image.fromarray(self.picture(row))
