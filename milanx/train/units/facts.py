"""Facts about whole photos: what things are made of, the scene, the light, what is to eat.

A photo's name says one; so do short captions that several photos have in common.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from milanx.features.pixels import CHANNELS
from milanx.language.words import plural, singular
from milanx.train.data.photos import Photo, PhotoFeatures
from milanx.train.units.meanings import MIN_POSITIVES, Meaning
from milanx.train.units.phrases import clean_name
from milanx.train.units.vocabulary import VAGUE_ADJECTIVES

# Names of photos, and of regions, that say a material -> how it is said.
MATERIALS: dict[str, tuple[str, ...]] = {
    "wood": ("wood", "wooden surfaces", "things made of wood"),
    "metal": ("metal", "metal things", "shiny metal"),
    "glass": ("glass", "things made of glass", "transparent glass"),
    "plastic": ("plastic", "plastic things", "things made of plastic"),
    "paper": ("paper", "sheets of paper", "printed paper"),
    "cardboard": ("cardboard", "cardboard boxes", "things made of cardboard"),
    "brick": ("brick", "bricks", "brick surfaces"),
    "stone": ("stone", "stones", "rough stone"),
    "polished stone": ("polished stone", "marble", "smooth stone"),
    "tile": ("tiles", "tiled surfaces", "ceramic tiles"),
    "ceramic": ("ceramic", "pottery", "things made of ceramic"),
    "fabric": ("fabric", "cloth", "things made of fabric"),
    "leather": ("leather", "things made of leather", "leather surfaces"),
    "carpet": ("carpet", "rugs and carpets", "woven carpet"),
    "wallpaper": ("wallpaper", "patterned wallpaper"),
    "skin": ("skin", "bare skin", "human skin"),
    "hair": ("hair", "human hair"),
    "foliage": ("foliage", "leaves", "green foliage"),
    "water": ("water", "water surfaces"),
    "painted wall": ("painted walls", "painted surfaces"),
}  # fmt: skip
MADE_OF = {
    "wooden floor": "wood", "wooden wall": "wood", "brick wall": "brick", "stone wall": "stone",
    "rock": "stone", "tiled wall": "tile", "cardboard": "cardboard", "paper": "paper",
    "rug": "carpet", "curtain": "fabric", "towel": "fabric", "water": "water", "sea": "water",
    "river": "water", "skin": "skin", "hair": "hair",
}  # fmt: skip
SCENES: dict[str, tuple[str, ...]] = {
    "buildings": ("buildings", "city buildings", "scenes with buildings"),
    "forest": ("forests", "forest scenes", "woods"),
    "glacier": ("glaciers", "ice and snow", "icy landscapes"),
    "mountain": ("mountains", "mountain scenes", "mountain landscapes"),
    "sea": ("the sea", "sea scenes", "seascapes"),
    "street": ("streets", "street scenes", "city streets"),
}
LIGHTS: dict[str, tuple[str, ...]] = {
    "night": ("night", "night scenes", "scenes at night"),
    "day": ("daylight", "daytime scenes", "scenes in daylight"),
    "dark": ("dim light", "dark scenes", "dark images"),
    "bright": ("bright light", "brightly lit scenes", "bright images"),
}
CALLED = {"daylight": "day", "nighttime": "night", "daytime": "day", "wooden": "wood"}
OPPOSITE = {"night": "day", "day": "night", "dark": "bright", "bright": "dark"}
DIM, LIT = 0.25, 0.72  # mean brightness of a view, in 0..1, below and above which it is so
MAX_VIEWS = 300  # of one fact
FACT_WORDS = 4  # of a piece of a caption that is a fact; a longer piece makes it a sentence
CLOTHES = frozenset({"clothes", "clothing", "necktie", "scarf", "collar"})
# What is said of photographs of food, not of food.
UNSAID = frozenset({
    "close", "up", "blur", "delicious", "fresh", "cooking", "cook", "stock", "photo", "healthy",
    "color", "colour", "colorful", "colourful", "bright", "brown", "diet", "packages", "cuisine",
    "baked", "bake", "fried", "sweet", "bowl", "plate", "pig", "multicoloured", "cyan", "graphic",
    "cutlery", "cup", "food", "baking", "hands", "hand", "person", "table", "wooden", "man", "men",
    "woman", "women", "boy", "girl", "dog", "dogs", "child", "children", "people", "smile", "black",
    "white", "cream", "creams", "crust", "bakery", "bbq", "dish", "dishes", "wing", "wings",
    "soyghurt", "chicken", "icing", "frosting", "chopsticks",
})  # fmt: skip
DISK = 0.38  # of the side: radius of what is at the centre


def material_meanings(photos: PhotoFeatures, keep: np.ndarray) -> list[Meaning]:
    """Make meanings of materials: at the centre of photos so called, and of regions made of one."""
    centre, maps = disk(photos.dense.shape[1]), _Maps()
    for i in np.flatnonzero(keep).tolist():
        photo = photos.photos[i]
        if (named := _called(photo)) in MATERIALS:
            maps.add(named, i, centre)
        for region in photo.regions:
            if made := MADE_OF.get(clean_name(region.name)):
                maps.add(made, i, np.array(region.cells, np.uint8))
    return list(maps.meanings("material", {n: MATERIALS[n] for n in MATERIALS}))


def disk(cells: int) -> np.ndarray:
    """Return what is at the centre of a view, uint8 [cells]."""
    side = round(cells**0.5)
    along = (np.arange(side) + 0.5) / side - 0.5
    away = np.hypot(along[:, None], along[None])
    return (255 * (away < DISK)).ravel().astype(np.uint8)


def scene_meanings(photos: PhotoFeatures, keep: np.ndarray) -> list[Meaning]:
    """Make meanings of scenes: they fill their views."""
    whole, maps = np.full(photos.dense.shape[1], 255, np.uint8), _Maps()
    for i in np.flatnonzero(keep).tolist():
        if (named := _called(photos.photos[i])) in SCENES:
            maps.add(named, i, whole)
    return list(maps.meanings("scene", SCENES))


def light_meanings(photos: PhotoFeatures, keep: np.ndarray, seed: int) -> list[Meaning]:
    """Make meanings of day and night, as photos are called, and of dark and bright views.

    Evidence of what one is not are views of its opposite.
    """
    rng, maps = np.random.default_rng([seed, 13]), _Maps()
    whole = np.full(photos.dense.shape[1], 255, np.uint8)
    for i in rng.permutation(np.flatnonzero(keep)).tolist():
        if (named := _called(photos.photos[i])) in LIGHTS:
            maps.add(named, i, whole)
        pixels = np.asarray(photos.dense[i][:, -CHANNELS : -CHANNELS + 3], np.float32)
        if pixels.mean() < DIM or pixels.mean() > LIT:
            maps.add("dark" if pixels.mean() < DIM else "bright", i, whole)
    return list(maps.meanings("light", LIGHTS, OPPOSITE))


def caption_meanings(photos: PhotoFeatures, keep: np.ndarray) -> list[Meaning]:
    """Make meanings of what short captions say of several photos: dishes, and what clothes are.

    They have no masks: `milanx.train.units.grounded.locate` finds where they are.
    """
    views: dict[str, list[int]] = defaultdict(list)
    for i in np.flatnonzero(keep).tolist():
        for item in sorted(set(_facts(photos.photos[i]))):
            views[item].append(i)
    found = []
    for item, shown in sorted(views.items()):
        clothes = bool(set(item.split()) & CLOTHES)
        if len(shown) >= MIN_POSITIVES and (clothes or _is_noun(item)):
            kind, some = "attribute" if clothes else "dish", np.array(shown[:MAX_VIEWS], np.int64)
            found.append(Meaning((item,), kind, some, countable=False))
    return found


def _facts(photo: Photo) -> Iterator[str]:
    """Yield the facts of a photo's captions, those that are no sentences; nouns in the plural."""
    for caption in photo.captions:
        pieces = [" ".join(p.lower().split()) for p in re.split(r",|\band\b(?! [a-z]+ clothes)|\.",
                                                               caption)]  # fmt: skip
        if all(len(p.split()) <= FACT_WORDS for p in pieces):
            for piece in pieces:
                words = set(piece.split())
                if piece and re.fullmatch(r"[a-z ]+", piece) and not words & UNSAID:
                    yield plural(singular(piece)) if " " not in piece else piece


def _is_noun(item: str) -> bool:
    """Whether a fact is a thing: its last word is a noun that says something."""
    from textblob.en import tag

    word, kind = tag(item)[-1][:2]
    return kind in ("NN", "NNS") and not set(item.split()) & VAGUE_ADJECTIVES and len(word) > 2


def _called(photo: Photo) -> str:
    name = (photo.name or "").replace("_", " ").lower()
    return CALLED.get(name, name)


def claimed(shares: Mapping[str, float]) -> frozenset[str]:
    """Return names of photos that mean a fact, of the kinds that are drawn, and no class."""
    names = {"material": MATERIALS, "scene": SCENES, "light": LIGHTS}
    found = {name for kind, known in names.items() if shares[kind] for name in known}
    return frozenset({*found, *(name for name, fact in CALLED.items() if fact in found)})


class _Maps:
    """Where views show each of several facts: fact -> view -> uint8 [g * g]."""

    def __init__(self) -> None:
        self.maps: dict[str, dict[int, np.ndarray]] = defaultdict(dict)

    def add(self, fact: str, view: int, cells: np.ndarray) -> None:
        """Add what a view shows of a fact."""
        shown = self.maps[fact]
        if view in shown or len(shown) < MAX_VIEWS:
            shown[view] = np.maximum(shown.get(view, 0), cells)

    def meanings(
        self, kind: str, texts: dict[str, tuple[str, ...]], against: dict[str, str] | None = None
    ) -> Iterable[Meaning]:
        """Yield a meaning of each fact that enough views show; the opposite is its contrast."""
        for fact, maps in sorted(self.maps.items()):
            opposite = self.maps.get((against or {}).get(fact, ""), {}).keys() - maps.keys()
            contrast = np.array(sorted(opposite), np.int64)
            contrast = np.random.default_rng(len(maps)).permutation(contrast)
            if len(maps) >= MIN_POSITIVES:
                views = np.array(sorted(maps), np.int64)
                grids = np.stack([maps[i] for i in views.tolist()])
                yield Meaning(texts[fact], kind, views, grids, countable=False,
                              contrast=contrast if len(contrast) else None)  # fmt: skip
