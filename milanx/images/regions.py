"""What is where in an image: regions by name, as a source's annotations give them."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from milanx.errors import InputError

if TYPE_CHECKING:
    from milanx.images.preprocess import Preprocess
    from milanx.images.probe import ProbeImages

SUFFIX = re.compile(r"-(other-merged|merged|other|stuff)$")  # of COCO's names
COVERED = 0.5  # share of a cell from which a region holds it


@dataclass(frozen=True)
class Regions:
    """The regions of images, on a grid over their views.

    Attributes:
        names: of what regions show, sorted.
        found: one an image: which names it shows, int64 [c], and where, bool [c, g * g].
        grid: g.
    """

    names: tuple[str, ...]
    found: tuple[tuple[np.ndarray, np.ndarray], ...]
    grid: int

    def packed(self, name: int) -> np.ndarray:
        """Return where one name is in all images, packed bits uint8 [n, g * g / 8]."""
        bits = np.zeros((len(self.found), self.grid**2), bool)
        for image, (names, masks) in enumerate(self.found):
            at = np.flatnonzero(names == name)
            if len(at):
                bits[image] = masks[at[0]]
        return np.packbits(bits, axis=1)


def region_name(name: str) -> str:
    """Return a region's or a class's name as people would write it."""
    return SUFFIX.sub("", name.strip()).replace("-", " ").replace("_", " ").lower()


def read_regions(
    images: ProbeImages,
    indices: Sequence[int],
    preprocess: Preprocess,
    grid: int,
    advance: Callable[[int], None] = lambda n: None,
) -> Regions:
    """Read the regions of images, as a target sees them.

    An image whose class has a name shows it everywhere, as scenes and textures do in Network
    Dissection's data.

    Args:
        images: the probe images.
        indices: of those that are wanted.
        preprocess: the target's, which crops.
        grid: cells of a side.
        advance: told how many more are read.

    Raises:
        InputError: no image has regions or a name, or a mask cannot be read.
    """
    seen: list[dict[str, np.ndarray]] = []
    for index in indices:
        here: dict[str, np.ndarray] = {}
        for region in images.regions(index):
            cells = _cells(region, preprocess, grid)
            if cells is not None and cells.any():
                name = region_name(str(region["name"]))
                here[name] = here.get(name, False) | cells
        whole = images.records[index].name
        if whole:
            here.setdefault(region_name(whole), np.ones(grid**2, bool))
        seen.append(here)
        advance(1)
    names = sorted(set().union(*seen)) if seen else []
    if not names:
        raise InputError(
            "nothing says what is where in these images",
            "none of them has regions, or a class with a name",
            "give a .parquet file with a column regions (name, mask), or a folder a class",
        )
    place = {name: i for i, name in enumerate(names)}
    empty = np.zeros((0, grid**2), bool)
    found = tuple(
        (
            np.array([place[n] for n in here], np.int64),
            np.stack([*here.values()]) if here else empty,
        )
        for here in seen
    )
    return Regions(tuple(names), found, grid)


def _cells(region: dict[str, Any], preprocess: Preprocess, grid: int) -> np.ndarray | None:
    """Return the cells that a region holds, bool [g * g]; None for a region without a mask."""
    content = region.get("mask")
    if isinstance(content, dict):
        content = content.get("bytes")
    if not content or not region.get("name"):
        return None
    try:
        mask = Image.open(io.BytesIO(content)).convert("L").point(lambda v: 255 * (v > 0))
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(
            f"the mask of a region {region['name']!r} cannot be read",
            str(error),
            "masks are encoded images, 0 outside of the region",
        ) from error
    view = Image.fromarray(preprocess.view(mask)[..., 0])
    shares = np.asarray(view.resize((grid, grid), Image.Resampling.BOX), np.float32) / 255
    return (shares >= COVERED).ravel()
