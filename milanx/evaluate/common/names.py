"""Accepted names of the ImageNet classes (a class's own and its synset's lemmas), and their kin."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import resources

from milanx.language.compare import contains, find_phrase, lemmas

MAX_NAMED = 2  # a text that names more classes than this counts as wrong


@lru_cache(maxsize=1)
def accepted_names() -> dict[str, tuple[str, ...]]:
    """Return WordNet id -> accepted names, in ImageNet-1k's order."""
    text = (resources.files("milanx.evaluate.common") / "imagenet_names.json").read_text("utf-8")
    return {wnid: tuple(names) for wnid, names in json.loads(text).items()}


@lru_cache(maxsize=1)
def accepted_kin() -> dict[str, tuple[str, ...]]:
    """Return held-out class -> names of near categories and of what it directly is a kind of.

    Classes are WordNet ids, or Caltech's folder names. The list was written before any result;
    a class's own names count too.
    """
    text = resources.files("milanx.evaluate.common").joinpath("kin.json").read_text("utf-8")
    own = accepted_names()
    return {
        name: (*own.get(name, (name.replace("_", " "),)), *kin)
        for name, kin in json.loads(text).items()
    }


@lru_cache(maxsize=1)
def _by_name() -> dict[tuple[str, ...], set[str]]:
    found: dict[tuple[str, ...], set[str]] = {}
    for wnid, names in accepted_names().items():
        for name in names:
            found.setdefault(tuple(lemmas(name)), set()).add(wnid)
    return found


def wnid_of(name: str) -> str:
    """Return the one class that a data set's name ("grand_piano") means, or "" for none or many."""
    found = _by_name().get(tuple(lemmas(name.replace("_", " "))), set())
    return next(iter(found)) if len(found) == 1 else ""


class ClassNamer:
    """Finds which of some classes a text names.

    Args:
        wnids: the classes that may be named.
    """

    def __init__(self, wnids: list[str]) -> None:
        table = accepted_names()
        self._phrases = [(wnid, lemmas(name)) for wnid in wnids for name in table[wnid]]
        self._known: dict[str, list[set[str]]] = {}

    def named(self, text: str) -> list[set[str]]:
        """Return the classes that a text names, by place; one phrase can name two classes.

        A phrase inside a longer one that is named too does not count ("bow" in "bow tie").
        """
        if text not in self._known:
            self._known[text] = self._find(text)
        return self._known[text]

    def _find(self, text: str) -> list[set[str]]:
        words = lemmas(text)
        hits = [(at, len(phrase), wnid) for wnid, phrase in self._phrases
                if (at := find_phrase(words, phrase)) >= 0]  # fmt: skip
        outer = [h for h in hits if not any(
            o[0] <= h[0] and h[0] + h[1] <= o[0] + o[1] and o[1] > h[1] for o in hits)]  # fmt: skip
        places: dict[tuple[int, int], set[str]] = {}
        for at, size, wnid in sorted(outer):
            places.setdefault((at, size), set()).add(wnid)
        return list(places.values())

    def kin(self, text: str, name: str) -> bool:
        """Whether a text names close kin of a held-out class, or itself, and few classes."""
        distinct = {frozenset(group) for group in self.named(text)}
        return len(distinct) <= MAX_NAMED and contains(text, accepted_kin()[name])

    def right(self, text: str, wnid: str) -> bool:
        """Whether the first class that a text names is ``wnid``, and it names few."""
        found = self.named(text)
        distinct = {frozenset(group) for group in found}
        return bool(found) and wnid in found[0] and len(distinct) <= MAX_NAMED
