"""How a meaning is put into words in training: names cleaned, varied human phrasing."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from milanx.language.words import plural
from milanx.train.data.kinds import Kind
from milanx.train.data.splits import HELD_OUT_CALTECH, HELD_OUT_TINY

# Suffixes of COCO panoptic's names that say how classes were merged, not what they are.
_SUFFIX = re.compile(r"-(other-merged|merged|other|stuff)$")
RENAMED = {
    "wall-tile": "tiled wall", "wall-wood": "wooden wall", "wall-brick": "brick wall",
    "wall-stone": "stone wall", "floor-wood": "wooden floor", "window-blind": "window blind",
    "playingfield": "playing field", "tv": "television", "Faces": "human face",
    "Faces_easy": "human face", "Leopards": "leopard", "Motorbikes": "motorbike",
    "airplanes": "airplane", "car_side": "car", "crocodile_head": "crocodile",
    "flamingo_head": "flamingo", "garfield": "cartoon cat", "snoopy": "cartoon dog",
    "bass": "fish", "water_lilly": "water lily", "hawksbill": "sea turtle", "ewer": "pitcher",
    "joshua_tree": "joshua tree", "yin_yang": "yin yang symbol", "lesser panda": "red panda",
    "teddy": "teddy bear", "sea slug": "nudibranch", "chest": "wooden chest",
    "CD player": "cd player", "confectionery": "candy store", "beach wagon": "station wagon",
    "pop bottle": "soda bottle", "plate": "plate of food", "nail": "metal nail",
    "drumstick": "drumstick", "organ": "pipe organ", "teddy bear": "teddy bear",
    "jinrikisha": "rickshaw", "thatch": "thatched roof", "altar": "church altar",
    "chequered": "checkered pattern", "banded": "bands of stripes", "blotchy": "blotches",
    "braided": "braids", "bubbly": "bubbles", "cobwebbed": "cobwebs", "bumpy": "bumpy surface",
    "crystalline": "crystals", "cracked": "cracks", "crosshatched": "crosshatched lines",
}  # fmt: skip

# Everyday names of classes beside their own.
ALSO_CALLED: dict[str, tuple[str, ...]] = {"alp": ("mountain",), "lakeside": ("lake",)}

KINDS: dict[str, tuple[str, ...]] = {
    "dogs": ("Chihuahua", "golden retriever", "Labrador retriever", "German shepherd",
             "standard poodle", "dalmatian", "dog"),
    "cats": ("tabby", "Persian cat", "Egyptian cat", "cat", "wild_cat"),
    "birds": ("black stork", "king penguin", "albatross", "emu", "flamingo", "flamingo_head",
              "ibis", "pigeon", "rooster", "bird"),
    "insects": ("ladybug", "bee", "grasshopper", "walking stick", "cockroach", "dragonfly",
                "sulphur butterfly", "ant", "butterfly", "mayfly"),
    "spiders": ("black widow", "tarantula", "tick", "scorpion"),
    "shellfish": ("American lobster", "spiny lobster", "crab", "crayfish", "lobster"),
    "sea animals": ("jellyfish", "sea slug", "sea cucumber", "starfish", "octopus", "sea_horse",
                    "nautilus", "dolphin", "coral reef", "brain coral"),
    "reptiles": ("American alligator", "crocodile", "crocodile_head", "hawksbill"),
    "frogs": ("bullfrog", "tailed frog", "European fire salamander"),
    "big cats": ("lion", "Leopards", "wild_cat"),
    "hoofed animals": ("hog", "ox", "bison", "gazelle", "Arabian camel", "gerenuk", "sheep",
                       "cow", "horse", "giraffe", "zebra"),
    "apes and monkeys": ("orangutan", "chimpanzee", "baboon"),
    "musical instruments": ("oboe", "brass", "drumstick", "accordion", "electric_guitar",
                            "grand_piano", "mandolin", "saxophone", "organ"),
    "vehicles": ("school bus", "sports car", "limousine", "moving van", "police van", "tractor",
                 "trolleybus", "convertible", "beach wagon", "car_side", "car", "bus", "truck",
                 "go-kart", "freight car", "bullet train"),
    "boats": ("ketch", "schooner", "lifeboat", "gondola", "boat"),
    "aircraft": ("airplanes", "helicopter", "airplane"),
    "fruit": ("orange", "lemon", "banana", "pomegranate", "strawberry", "apple"),
    "food": ("guacamole", "ice cream", "mashed potato", "meat loaf", "pizza", "potpie", "pretzel",
             "cake", "sandwich", "donut", "hot dog", "plate"),
    "vegetables": ("cauliflower", "bell pepper", "broccoli", "carrot"),
    "bottles": ("beer bottle", "pop bottle", "pill bottle", "water jug", "bottle"),
    "clothes": ("apron", "cardigan", "miniskirt", "poncho", "bikini", "swimming trunks", "sock",
                "military uniform", "vestment", "bow tie", "tie"),
    "bridges": ("steel arch bridge", "suspension bridge", "viaduct", "bridge"),
    "towers": ("obelisk", "beacon", "minaret", "water tower", "pagoda", "flagpole"),
    "furniture": ("desk", "dining table", "rocking chair", "chair", "windsor_chair", "couch",
                  "bed", "bench"),
    "lamps": ("lampshade", "lamp", "candle", "torch", "chandelier"),
    "balls": ("basketball", "rugby ball", "volleyball", "soccer_ball", "sports ball"),
    "electronics": ("cellphone", "cell phone", "laptop", "remote control", "iPod", "CD player",
                    "camera", "remote", "keyboard", "mouse", "tv"),
    "flowers": ("sunflower", "lotus", "water_lilly", "flower"),
    "kitchen things": ("frying pan", "teapot", "wooden spoon", "ewer", "cup", "bowl", "spoon",
                       "fork", "knife"),
    "mountains and cliffs": ("alp", "cliff", "cliff dwelling"),
    "water": ("seashore", "lakeside", "sea", "water-other", "river", "fountain", "dam"),
    "circular objects": ("magnetic compass", "stopwatch", "watch", "clock", "plate", "donut",
                         "yin_yang", "soccer_ball"),
}  # fmt: skip


def clean_name(name: str) -> str:
    """Turn a class or region name of a data set into the words a person would write."""
    if name in RENAMED:
        return RENAMED[name].lower()
    bare = _SUFFIX.sub("", name)
    return RENAMED.get(bare, bare).replace("_", " ").replace("-", " ").lower()


def vary(text: str, rng: np.random.Generator) -> str:
    """Say a noun the way people describe exemplars: mostly in the plural."""
    return plural(text) if rng.random() < 0.7 else text


def held_out_names(kinds: Sequence[Kind] = ()) -> list[str]:
    """Return the words of the held-out classes, as `clean_name` writes them.

    Args:
        kinds: what a dictionary says of classes; synonyms of the held-out ones, kinds of them and
            parts that they alone have are then held out too, where the dictionary is sure.
    """
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    names = [clean_name(name) for name in HELD_OUT_CALTECH]
    for wnid in HELD_OUT_TINY:
        described = info.label_name_to_description(wnid, detailed=False)
        names += [part.strip().lower() for part in described.split(",")]
    own = {*names, "cougar", "puma"}
    return sorted({*own, *_of_one_concept(own, kinds)})


def _of_one_concept(own: set[str], kinds: Sequence[Kind]) -> set[str]:
    """Return synonyms, kinds and parts of the meanings ``own``."""
    held = [k for k in kinds if k.sure and (k.wnid in HELD_OUT_TINY or own & {k.name, *k.lemmas})]
    below = [k for k in kinds if k.sure and own & set(k.hypernyms)]
    known = {id(k) for k in (*held, *below)}
    others = {part for k in kinds if id(k) not in known for part in k.parts}
    found = {word for k in (*held, *below) for word in (k.name, *k.lemmas)}
    return found | {part for k in held for part in k.parts if part not in others}


def mentions(text: str, words: re.Pattern[str]) -> bool:
    """Whether a text holds one of the words of a pattern made by `whole_words`."""
    return words.search(text.lower()) is not None


def whole_words(names: Sequence[str]) -> re.Pattern[str]:
    """Make a pattern that finds any of ``names`` as whole words, singular or plural."""
    forms = sorted({form for n in names for form in (n, plural(n))}, key=len, reverse=True)
    return re.compile(r"\b(" + "|".join(map(re.escape, forms)) + r")\b")
