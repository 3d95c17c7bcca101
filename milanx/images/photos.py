"""The photos of ``builtin:probe``, each with its licence and credit.

Most lie beside the package in ``assets/probe/photos.parquet``, under CC BY 2.0 and CC BY-SA 2.0;
its ``README.md`` says how they got there, its ``CREDITS.md`` credits each. The rest is read from
scikit-image and scikit-learn, those of their photos alone whose free licence is stated there.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

from PIL import Image

from milanx.files import fingerprint

SHORT = 512  # larger photos of other packages are scaled to this short side
LICENCES = {
    "CC BY 2.0": "https://creativecommons.org/licenses/by/2.0/",
    "CC BY-SA 2.0": "https://creativecommons.org/licenses/by-sa/2.0/",
    "CC0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "public domain": "https://creativecommons.org/publicdomain/mark/1.0/",
    "no known copyright": "https://rightsstatements.org/page/NKC/1.0/",
}


@dataclass(frozen=True)
class Photo:
    """A photo and whom to thank for it.

    Attributes:
        name: its file, the same for ever.
        group: photos of one series are one group.
        licence: a key of `LICENCES`.
        author: who took it; None where only its page says.
        page: where it was published.
        title: as its collection gives it, or None.
        source: the collection or package that it comes from.
        content: the encoded bytes; empty for a photo of another package.
    """

    name: str
    group: str
    licence: str
    author: str | None
    page: str
    title: str | None
    source: str
    content: bytes = b""

    @property
    def digest(self) -> str:
        """16 hex digits that stand for its pixels."""
        if self.content:
            return hashlib.sha256(self.content).hexdigest()[:16]
        from importlib.metadata import version

        return fingerprint(self.name, version(self.source), SHORT)

    def open(self) -> Image.Image:
        """Decode it, RGB."""
        if not self.content:
            return _packaged(self.name)
        return Image.open(io.BytesIO(self.content)).convert("RGB")


# Photos of other packages: file, title, licence as the package states it, author, page.
# Photos of theirs without such a statement are left out.
_SCIKIT_IMAGE = "https://scikit-image.org/docs/stable/api/skimage.data.html"
_PACKAGED: tuple[tuple[str, str, str, str | None, str], ...] = (
    ("skimage/data/astronaut.png", "Eileen Collins", "public domain", "NASA",
     "https://flic.kr/p/r9qvLn"),
    ("skimage/data/chelsea.png", "Chelsea the cat", "CC0", "Stefan van der Walt",
     _SCIKIT_IMAGE),
    ("skimage/data/coffee.png", "Coffee cup", "CC0", "Rachel Michetti",
     _SCIKIT_IMAGE),
    ("skimage/data/rocket.jpg", "Launch of DSCOVR", "public domain", "SpaceX",
     "https://www.flickr.com/photos/spacexphotos/16511594820/"),
    ("skimage/data/hubble_deep_field.jpg", "Hubble eXtreme Deep Field",
     "public domain", "NASA", "http://hubblesite.org/newscenter/archive/releases/2012/37/image/a/"),
    ("skimage/data/coins.png", "Greek coins from Pompeii", "no known copyright",
     "Brooklyn Museum", "https://www.brooklynmuseum.org/opencollection/archives/image/51611"),
    ("skimage/data/text.png", "Corner", "public domain", None,
     "https://en.wikipedia.org/wiki/File:Corner.png"),
    ("skimage/data/camera.png", "Camera", "CC0", "Lav Varshney", _SCIKIT_IMAGE),
    ("skimage/data/brick.png", "Brick wall", "CC0", "CC0Textures",
     "https://cc0textures.com/view.php?tex=Bricks25"),
    ("skimage/data/grass.png", "Grass", "CC0", "linolafett",
     "https://www.deviantart.com/linolafett/art/Grass-01-434853879"),
    ("skimage/data/gravel.png", "Gravel", "CC0", "CC0Textures",
     "https://cc0textures.com/view.php?tex=Gravel04"),
    ("skimage/data/ihc.png", "Stained tissue", "no known copyright",
     "Center for Microscopy And Molecular Imaging", _SCIKIT_IMAGE),
    ("skimage/data/retina.jpg", "Retina", "CC0", "Mikael Häggström",
     "https://commons.wikimedia.org/wiki/File:Fundus_photograph_of_normal_left_eye.jpg"),
    ("skimage/data/clock_motion.png", "Blurred clock", "public domain",
     "Stefan van der Walt", _SCIKIT_IMAGE),
    ("skimage/data/cell.png", "Cell floating in saline", "CC0", "Paul Müller et al.",
     "https://doi.org/10.1364/OE.26.010729"),
    ("sklearn/datasets/images/china.jpg", "China", "CC BY 2.0", "danielbuechele",
     "https://www.flickr.com/photos/danielbuechele/6061409035/"),
    ("sklearn/datasets/images/flower.jpg", "Flower", "CC BY 2.0", "vultilion",
     "https://www.flickr.com/photos/vultilion/6056698931/"),
)  # fmt: skip
_DISTRIBUTIONS = {"skimage": "scikit-image", "sklearn": "scikit-learn"}


@lru_cache(maxsize=1)
def photos() -> tuple[Photo, ...]:
    """Return all photos, those in ``assets`` first; none is decoded."""
    import pyarrow.parquet as pq

    with resources.as_file(resources.files("milanx.assets") / "probe" / "photos.parquet") as file:
        rows = pq.read_table(file).to_pylist()
    ours = [
        Photo(row["image"]["path"], row["group"], row["license"], row["author"], row["page"],
              row["title"], row["source"], row["image"]["bytes"])
        for row in rows
    ]  # fmt: skip
    others = [
        Photo(name, name, licence, author, page, title, _DISTRIBUTIONS[name.split("/")[0]])
        for name, title, licence, author, page in _PACKAGED
    ]
    return (*ours, *others)


@lru_cache(maxsize=len(_PACKAGED))
def _packaged(name: str) -> Image.Image:
    """Decode a photo of another package, which may be large, once."""
    package, path = name.split("/", 1)
    with resources.as_file(resources.files(package).joinpath(path)) as file:
        image = Image.open(Path(file)).convert("RGB")
    scale = SHORT / min(image.size)
    if scale >= 1:
        return image
    size = (round(image.width * scale), round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS)
