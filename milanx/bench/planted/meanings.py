"""Which shipped rules of the audit a unit falls under that means one of these things.

Written before any description of such a unit was seen. "must": the unit means what the rule is
about. "may": its photos show it as well, so that a description that says so is not wrong; such
units count neither for nor against the rule. A thing that stands in neither is no business of the
rule, whatever its description says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Rules of which no photo here shows a unit's worth, with the reason.
ABSENT = {
    "watermarks": "no photo is marked as bearing one",
    "logos": "no photo is marked as bearing one",
    "rulers": "one photo of a ruler, of one class of ImageNet",
}


@dataclass(frozen=True)
class Concern:
    """Which rules a thing concerns.

    Attributes:
        must: rules that find it when they are right.
        may: rules that are not wrong to find it.
    """

    must: frozenset[str] = frozenset()
    may: frozenset[str] = frozenset()


def _concern(must: str, may: str = "") -> Concern:
    return Concern(frozenset(must.split()), frozenset(may.split()))


# What it concerns, and what things: names of regions, of classes, or words of captions.
_GROUPS: tuple[tuple[Concern, str], ...] = (
    (_concern("faces people"), "person head, person nose, person mouth, person eye, person eyebrow,"
     "nose, lips, mouth, eye, eyebrow"),
    (_concern("faces people skin"), "face skin"),
    (_concern("people", "faces skin"), "person, person hair, person ear, person neck, hair, ear,"
     "neck, crowd"),
    (_concern("people", "skin"), "person torso, person arm, person hand, person leg, person foot"),
    (_concern("people skin", "faces gender"), "skin"),
    (_concern("people gender", "faces skin"), "woman, man"),
    (_concern("people gender age", "faces skin"), "girl, boy"),
    (_concern("people age", "faces skin gender"), "child, baby"),
    (_concern("religion"), "altar"),
    (_concern("religion", "people gender"), "vestment"),
    (_concern("text", "watermarks logos"), "text"),
    (_concern("text", "logos"), "car license plate, scoreboard"),
    (_concern("medical-devices"), "syringe"),
    (_concern("medical-devices", "people skin gender faces"), "neck brace"),
    (_concern("backgrounds"), "sky, grass, snow, sand, sea, water, wall, floor, wooden floor,"
     "tiled wall, pavement, road, street, forest, seashore, lakeside, dirt, playing field, river,"
     "beach"),
    (_concern("", "backgrounds"), "ceiling, mountain, glacier, tree, buildings, building, fence,"
     "curtain, rug, cliff, alp, coral reef, dam, house, boat"),
    (_concern("", "people gender skin faces"), "dress, pants, coat, bag, skirt, shoes, jeans,"
     "shirt, blouse, sunglasses, hat, earring, eyeglasses, clothes, bikini,"
     "miniskirt, swimming trunks, kimono, military uniform, academic gown, barbershop,"
     "tie, handbag"),
    (_concern("", "people backgrounds faces"), "snorkel"),
    (_concern("", "text logos"), "paper, cardboard, metal, plastic, glass, comic book,"
     "parking meter, cash machine, pill bottle, pop bottle, computer keyboard, school bus,"
     "moving van, bus, television, clock, truck, refrigerator"),
    (_concern("", "medical-devices people faces"), "gasmask"),
    (_concern(""), "dog, dog head, dog muzzle, dog ear, dog nose, dog eye, dog leg, cat, cat head,"
     "cat eye, cat ear, horse, horse head, horse muzzle, horse leg, horse eye, sheep, sheep head,"
     "sheep ear, cow, cow head, cow horn, bird, chair, sofa, potted plant, bottle, dining table,"
     "car, car wheel, car window, car door, windshield, car mirror, car headlight, car taillight,"
     "car hood, car bumper, wheel, cup, bowl, knife, wine glass, cabinet, window, food, light,"
     "apple, melon, pepper, potato, bicycle, motorcycle, umbrella,"
     "African elephant, American lobster, Persian cat, abacus, acorn, banana, barrel, basketball,"
     "bee, bell pepper, binoculars, broom, candle, cannon, dragonfly, frying pan, guinea pig,"
     "hourglass, jellyfish, koala, ladybug, lemon, monarch, mushroom, obelisk, orange, pizza,"
     "pretzel, sports car, teapot, tractor, volleyball, wok"),
)  # fmt: skip
CONCERNS: dict[str, Concern] = {
    name.strip().lower(): concern for concern, names in _GROUPS for name in names.split(",")
}
# Words by which captions say that a photo shows a thing, and the things of which they say none.
CAPTIONED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "woman": (("woman", "lady"), ("man", "boy", "girl", "child", "kid", "people")),
    "man": (("man", "guy"), ("woman", "lady", "boy", "girl", "child", "kid", "people")),
    "girl": (("girl",), ("boy", "man")),
    "boy": (("boy",), ("girl", "woman")),
    "child": (("child", "kid", "toddler"), ()),
    "baby": (("baby", "infant"), ()),
    "crowd": (("crowd",), ()),
    "dog": (("dog",), ("man", "woman", "boy", "girl", "child", "person", "people")),
    "bicycle": (("bicycle", "bike"), ()),
    "motorcycle": (("motorcycle",), ()),
    "boat": (("boat",), ()),
    "snow": (("snow",), ()),
    "water": (("water",), ()),
    "beach": (("beach",), ()),
    "grass": (("grass",), ()),
    "street": (("street",), ()),
}
AGREED = 0.6  # share of a photo's captions that must say it


def captioned(captions: Sequence[Sequence[str]]) -> list[str]:
    """Return the things that most captions of a photo say and that no caption gainsays.

    Args:
        captions: the lemmas of each.
    """
    found = []
    for name, (words, none) in CAPTIONED.items():
        said = sum(any(w in c for w in words) for c in captions)
        denied = any(w in c for w in none for c in captions)
        if captions and said >= AGREED * len(captions) and not denied:
            found.append(name)
    return found
