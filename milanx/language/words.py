"""Forms of words: which are the same word, one and many.

Two questions, two answers. What is *said twice* in a text is told by `stem`, which is loose and
needs no dictionary: the ranking asks it of every candidate. What is *the proper form* is told by
`singular` and `plural`: the rules of the library inflect, and one table of exceptions for both
ways. They are for texts that are written or compared, where "pin" and "pine" must stay apart;
`either_number` puts both together for words that people look for.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inflect import engine

# Words with one form: what is not counted, what comes in pairs, what is the same in both.
_ONE_FORM = frozenset({
    "aircraft", "amen", "antelope", "asparagus", "bacon", "basil", "binoculars", "bison", "brass",
    "bread", "broccoli", "butter", "cardboard", "cattle", "cauliflower", "cheese", "chess",
    "christmas", "clothing", "coffee", "corn", "cosmos", "cutlery", "dirt", "electricity", "elk",
    "equipment", "espresso", "fish", "food", "footwear", "fruit", "furniture", "garbage", "garlic",
    "ginger", "grass", "gravel", "guacamole", "homework", "icing", "jeans", "jewelry", "ketchup",
    "lettuce", "meat", "milk", "moss", "mustard", "news", "pants", "paper", "pasta", "pavement",
    "pork", "ramen", "research", "rice", "salmon", "sand", "scissors", "sea", "seafood", "series",
    "sheep", "shorts", "sky", "snow", "software", "soy", "species", "sugar", "sunglasses", "sushi",
    "swine", "tennis", "thatch", "theirs", "themselves", "toast", "tofu", "trousers", "water",
    "wheat", "yoghurt", "yogurt",
})  # fmt: skip
# What inflect does not know or says otherwise, and words in "s" that mean one: one -> many, the
# usual form first.
_MANY: dict[str, tuple[str, ...]] = {
    "abdomen": ("abdomens",), "basenji": ("basenjis",), "bikini": ("bikinis",),
    "borzoi": ("borzois",), "boss": ("bosses",), "bowtie": ("bowties",), "buffalo": ("buffaloes",),
    "bus": ("buses",), "cactus": ("cacti", "cactuses"), "canvas": ("canvases",),
    "carve": ("carves",), "class": ("classes",), "compass": ("compasses",), "corgi": ("corgis",),
    "cross": ("crosses",), "die": ("dies",), "do": ("does",), "dress": ("dresses",),
    "eave": ("eaves",), "echo": ("echoes",), "emu": ("emus",),
    "fungus": ("fungi",), "gentleman": ("gentlemen",), "glass": ("glasses",), "go": ("goes",),
    "grandchild": ("grandchildren",), "heave": ("heaves",), "hero": ("heroes",),
    "hoodie": ("hoodies",), "hoof": ("hooves", "hoofs"), "hourglass": ("hourglasses",),
    "indri": ("indris",),
    "involve": ("involves",), "iris": ("irises",), "joe": ("joes",), "kelpie": ("kelpies",),
    "khaki": ("khakis",), "kuvasz": ("kuvaszes",), "lens": ("lenses",), "lotus": ("lotuses",),
    "mango": ("mangoes",), "mantis": ("mantises",), "meatloaf": ("meatloaves",), "menu": ("menus",),
    "mosquito": ("mosquitoes",), "mouse": ("mice", "mouses"), "nautilus": ("nautiluses",),
    "octopus": ("octopuses", "octopi"), "pass": ("passes",), "potato": ("potatoes",),
    "rhinoceros": ("rhinoceroses",), "saluki": ("salukis",), "scottie": ("scotties",),
    "shoji": ("shojis",), "ski": ("skis",), "specimen": ("specimens",), "spitz": ("spitzes",),
    "stamen": ("stamens",), "superhero": ("superheroes",), "taxi": ("taxis",), "titi": ("titis",),
    "tomato": ("tomatoes",), "torpedo": ("torpedoes",), "trolleybus": ("trolleybuses",),
    "tutu": ("tutus",), "volcano": ("volcanoes",), "walrus": ("walruses",),
    "zucchini": ("zucchinis",),
}  # fmt: skip
_ONE = {many: one for one, forms in _MANY.items() for many in forms}
# Persons, and nouns whose plural does not end in "s"; other words that do not end so mean one.
_PLURAL_WITHOUT_S = ("men", "people", "children", "feet", "teeth", "mice", "geese", "oxen")
_SINGULAR_ENDINGS = ("ss", "us", "is")  # "grass", "circus", "iris"
SHORTEST = 4  # letters of a plural in "s": "gas", "bus", "its" are none


@lru_cache(maxsize=65536)
def normalise_text(text: str) -> str:
    """Fold a text for comparison: NFKC, lower case, punctuation off, spaces folded."""
    folded = unicodedata.normalize("NFKC", text).lower()
    return re.sub(r"[\W_]+", " ", folded).strip()


def stem(word: str) -> str:
    """Return what a regular noun and its plural share: "horse" and "horses", "sky" and "skies".

    Loose: "pin" and "pine" share one too. It says what is the same word, never how to write it.
    """
    short = word.rstrip("s").rstrip("e").rstrip("s") or word
    return f"{short[:-1]}y" if short.endswith("i") else short


@lru_cache(maxsize=65536)
def singular(word: str) -> str:
    """Return the singular of a noun; what is none, or no plural, stays as it is.

    Args:
        word: one word in lower case.
    """
    if word in _ONE_FORM or word in _MANY:
        return word
    if word in _ONE:
        return _ONE[word]
    in_s = word.endswith("s") and len(word) >= SHORTEST and not word.endswith(_SINGULAR_ENDINGS)
    if not in_s and not word.endswith(_PLURAL_WITHOUT_S):
        return word
    known = _inflect().singular_noun(word)  # False, or the word itself, where it knows none
    return str(known) if known and known != word else word.removesuffix("s")


@lru_cache(maxsize=65536)
def plural(text: str) -> str:
    """Return the plural of a noun phrase by its last word; what has one form stays as it is.

    Args:
        text: in lower case; a last word in "s" is taken for a plural unless the table knows it.
    """
    head, space, last = text.rpartition(" ")
    if last in _ONE_FORM:
        return text
    if last in _MANY:
        return f"{head}{space}{_MANY[last][0]}"
    if not last or last.endswith("s"):
        return text
    # inflect adds "es" to every "o": what takes it is in the table. Its "s" of numbers is large.
    plain = last.endswith("o") or not last[-1].isalpha()
    return f"{head}{space}{f'{last}s' if plain else _inflect().plural_noun(last)}"


@lru_cache(maxsize=65536)
def either_number(word: str) -> str:
    """Return one form for a noun and its plural, whichever of both is given.

    The plural of the singular, since the rules find some plurals of which they do not find the way
    back ("kiwis", "selfies", "tvs"). "short" and "shorts", "new" and "news" stay apart.

    Args:
        word: one word in lower case.
    """
    one = singular(word)
    many = plural(one)
    # inflect takes pronouns for nouns ("she", "they"): a plural leads back, or begins like its one.
    is_plural = singular(many) == one or many.startswith(one)
    return many if is_plural and many not in _ONE_FORM else one


def number_forms(word: str) -> frozenset[str]:
    """Return a noun and whatever may be its plural by the regular endings, without a dictionary.

    For looking a name up in either number: some of the forms are no words.

    Args:
        word: a singular in lower case.
    """
    if word in _ONE_FORM:
        return frozenset({word})
    if word in _MANY:
        return frozenset({word, *_MANY[word]})
    forms = {word, f"{word}s"}
    if word.endswith(("s", "x", "z", "ch", "sh", "o")):
        forms.add(f"{word}es")
    if word.endswith("y"):
        forms.add(f"{word[:-1]}ies")
    if word.endswith(("f", "fe")):
        forms.add(f"{word.rstrip('e')[:-1]}ves")
    if word.endswith("man"):
        forms.add(f"{word[:-3]}men")
    return frozenset(forms)


@lru_cache(maxsize=1)
def _inflect() -> engine:
    """Return inflect's rules; loading them takes about a second, and describing needs none."""
    import inflect

    return inflect.engine()
