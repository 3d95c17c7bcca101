"""The images of ``builtin:probe``: photos as they are, crops of them, and a few composed views.

They are the same at every call and in every process. Of each photo there is the whole and two
crops, in which its parts are large; all of them are one group. What photos lack is composed:
their paths begin with ``composed/``. A thousand views of some 270 photos hold few concepts: they
are a demonstration.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image

from milanx.files import fingerprint as _fingerprint
from milanx.images import composed
from milanx.images.photos import Photo, photos

VERSION = 2
WHOLE, COMPOSED = "whole", "composed"
# Kind of crop -> least and largest side, as a share of the photo's short side.
CROPS = {"crop": (0.55, 0.75), "detail": (0.4, 0.55)}
CONCEPTS = (
    "people climbing ice, diving, pole vaulting, racing, fishing and at ball games",
    "dishes, bread, sweets and fruit",
    "kitchens, bathrooms, bedrooms and desks",
    "streets, buses, cars and motorcycles",
    "signs",
    "beaches, water, mountains and snow",
    "cats, bears, horses, sheep, birds and an elephant",
    "brick, grass, gravel, coins, stars and cells",
    "composed views of words, patterns and plain colours",
)


@dataclass(frozen=True)
class BuiltinView:
    """One of the images.

    Attributes:
        path: its kind and what it is made of, such as ``detail/000000001268.jpg`` or
            ``composed/stripes-3``.
        group: photos of one series with their crops, or composed views of one thing.
        photo: what it shows or is a crop of; None for a composed one.
    """

    path: str
    group: str
    photo: Photo | None

    @property
    def kind(self) -> str:
        """``whole``, a key of `CROPS`, or ``composed``."""
        return self.path.partition("/")[0]

    def read(self) -> Image.Image:
        """Make it, RGB: photos and crops at their own size."""
        if self.photo is None:
            return composed.draw(self.path.removeprefix(f"{COMPOSED}/"))
        image = self.photo.open()
        return image if self.kind == WHOLE else image.crop(_box(image.size, self.kind, self.path))


def _box(size: tuple[int, int], kind: str, seed: str) -> tuple[int, int, int, int]:
    """A square of random size and place: left, top, right, bottom.

    Places are likelier near the middle, where photographers put what they show.
    """
    rng = random.Random(f"{VERSION}/{seed}")
    side = round(min(size) * rng.uniform(*CROPS[kind]))
    left, top = (round((rng.random() + rng.random()) / 2 * (length - side)) for length in size)
    return left, top, left + side, top + side


@lru_cache(maxsize=1)
def views() -> tuple[BuiltinView, ...]:
    """Return all images, well mixed, so that every n-th of them is a fair sample."""
    made = [
        BuiltinView(f"{kind}/{photo.name}", photo.group, photo)
        for photo in photos()
        for kind in (WHOLE, *CROPS)
    ]
    made += [
        BuiltinView(f"{COMPOSED}/{name}", f"{COMPOSED}/{composed.group(name)}", None)
        for name in composed.names()
    ]
    return tuple(sorted(made, key=lambda v: hashlib.sha256(v.path.encode()).digest()))


def fingerprints() -> list[str]:
    """Return 16 hex digits for each image: its recipe, and its photo or the libraries."""
    from importlib.metadata import version

    libraries = [composed.VERSION, version("pillow"), version("numpy")]
    digests = {photo.name: photo.digest for photo in photos()}
    return [
        _fingerprint(VERSION, v.path, digests[v.photo.name] if v.photo else libraries)
        for v in views()
    ]
