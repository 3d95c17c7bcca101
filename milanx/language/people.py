"""Texts about people: nobody is called by a colour.

What skin looks like in a photo is no property of whoever is shown, and captions that call people by
it say more of their writers. Such texts are neither learned nor said of a unit.
"""

from __future__ import annotations

import re

_COLOURED_PEOPLE = re.compile(
    r"\b((black|white|brown|tan|dark|yellow|red)[- ](skinned[- ])?"
    r"((young|old|elderly|little|smiling) )?"
    r"(m[ae]n|wom[ae]n|persons?|people|boys?|girls?|child|children|kids?|guys?|lady|ladies|males?"
    r"|females?|bab(y|ies)|toddlers?|teenagers?|adults?|humans?|skin)|\w+[- ]skinned)\b"
)


def says_colour_of_people(text: str) -> bool:
    """Whether a text calls people by a colour."""
    return _COLOURED_PEOPLE.search(text.lower()) is not None
