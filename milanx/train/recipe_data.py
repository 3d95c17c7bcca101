"""What a recipe says of its data: photos, what of them is held out, what is learned of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field, Strict


def _number(value: object) -> object:
    """Read text as a number where it is one: yaml takes 1e-3 for text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


Whole = Annotated[int, Strict(), Field(ge=0)]
Count = Annotated[int, Strict(), Field(gt=0)]
Flag = Annotated[bool, Strict()]
Number = Annotated[float, Strict(), BeforeValidator(_number), Field(allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0)]
Share = Annotated[Number, Field(ge=0, lt=1)]
# Kinds of meaning that are planted in photos (`milanx.train.units.corpus.SHARES`).
KINDS = (
    "class", "kind", "region", "texture", "phrase", "pixel", "channel", "both", "without", "part",
    "attribute", "material", "ground", "light", "scene", "dish", "hypernym", "recognised",
)  # fmt: skip


class Settings:
    """What `load_recipe` reads and checks by the types of its fields; others are refused."""

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class PhotoData(Settings):
    """One file or folder of photos: its name under ``data.root``, rows a class, views a photo.

    Its layout is any that `milanx.train.data.sources` reads.
    ``text`` of its photos are seen once more with words written over them. ``held_out`` is the
    share of its groups that no training reads, whatever is said of them; None: as `Data` says.
    With ``by_origin`` photos of its different origins are of different sources.
    """

    file: str
    per_class: Count | None = None
    views: Whole = 1
    text: Whole = 0
    held_out: Share | None = None
    by_origin: Flag = False


@dataclass(frozen=True)
class KindShare(Settings):
    """How often a kind of meaning is drawn, beside `milanx.train.units.corpus.SHARES`."""

    kind: str
    share: Annotated[Number, Field(ge=0)]


@dataclass(frozen=True)
class Data(Settings):
    """Where the training data lies and what of it is held out.

    Units are planted in ``photos``, or are those of ``milannotations``: a folder with people's
    descriptions of real units (`milanx.train.data.milannotations`). Of these the part for training
    of ``split`` is trained on, whose texts are then the only ones; ``imagenet`` names the folder
    of ImageNet's validation photos where it is not ``milannotations/imagenet/val``.

    ``without`` are files or folders of photos under ``root`` that something else is shown: they and
    their near-duplicates among ``photos`` are held out.

    ``sentences`` and ``descriptions`` are further text for the small GPT-2, files under ``root``;
    none where the name is empty.

    ``checked`` is the share of the other photos' groups that the trainings are checked on and that
    nothing is fitted to.

    With ``near_duplicates`` photos that look alike are of one group. ``kinds`` is a table of
    classes with synonyms, kinds above them and parts, ``words`` one of words for what can be seen
    (`milanx.train.data.kinds`). ``shares`` says how often kinds of meaning are drawn.
    """

    root: str = "data"
    photos: tuple[PhotoData, ...] = ()
    without: tuple[str, ...] = ()
    sentences: str = "captions.txt.gz"
    descriptions: str = "descriptions.csv.gz"
    held_out_captions: Share = 0.1
    held_out_photos: Share = 0.2
    checked: Share = 0.08
    milannotations: str = ""
    split: str = "base"
    imagenet: str = ""
    near_duplicates: Flag = False
    kinds: str = ""
    words: str = ""
    shares: tuple[KindShare, ...] = ()


def told(file: str) -> str:
    """Return how a folder tells a file of its data: below the root, else its name alone."""
    return Path(file).name if Path(file).is_absolute() else file
