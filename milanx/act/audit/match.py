"""Which descriptions a rule concerns: by its words, or by its meaning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from milanx.act.audit.rules import PEOPLE, Rule
from milanx.act.categories import Lexicon, affirmed
from milanx.language.compare import Embed, Sentences, find_all, lemmas

BELONGS = frozenset({"animal", "object", "scene"})  # kinds that have faces, heads and skins too


@dataclass(frozen=True)
class Hit:
    """Why a description is found.

    Attributes:
        way: ``words`` or ``meaning``.
        phrase: the word of the rule, or the phrase that the description lies near.
        similarity: the cosine, for ``meaning``.
    """

    way: str
    phrase: str
    similarity: float | None = None

    @property
    def text(self) -> str:
        """The reason in words."""
        if self.way == "words":
            return f'it says "{self.phrase}"'
        return f'it lies near "{self.phrase}" (cosine {self.similarity:.2f})'


class Matcher:
    """Finds the descriptions that rules concern.

    Args:
        rules: any number.
        embed: texts to unit rows [n, d]; all-MiniLM-L6-v2 when None, loaded when it is needed.
        lexicon: says what the parts in a description belong to; the package's when None.
    """

    def __init__(
        self, rules: Sequence[Rule], embed: Embed | None = None, lexicon: Lexicon | None = None
    ) -> None:
        self.rules = tuple(rules)
        self.embed = embed or Sentences()
        self.lexicon = lexicon or Lexicon.load()

    def __call__(self, texts: Sequence[str]) -> list[dict[str, Hit]]:
        """Return, for each description, the rules that it falls under and why."""
        said = [affirmed(text) for text in texts]
        found: list[dict[str, Hit]] = [{} for _ in said]
        for rule in self.rules:
            for place, text in enumerate(said):
                word = self.word(rule, text)
                if word:
                    found[place][rule.id] = Hit("words", word)
        for rule in self.rules:
            if rule.meaning:
                self._by_meaning(rule, said, found)
        return found

    def _by_meaning(self, rule: Rule, said: Sequence[str], found: list[dict[str, Hit]]) -> None:
        """Add the descriptions that lie near a rule's meaning and hold none of its words."""
        distinct = sorted({text for text in said if text})
        if not distinct:
            return
        near = self.embed(distinct) @ self.embed(list(rule.meaning)).T
        best = dict(zip(distinct, zip(near.argmax(1), near.max(1), strict=True), strict=True))
        for place, text in enumerate(said):
            if not text or rule.id in found[place]:
                continue
            phrase, cosine = best[text]
            if cosine >= rule.alike and not (rule.whose == PEOPLE and self._of_others(text)):
                found[place][rule.id] = Hit("meaning", rule.meaning[int(phrase)], float(cosine))

    def word(self, rule: Rule, text: str) -> str | None:
        """Return the first of a rule's words that stands in a folded text and counts there."""
        words = lemmas(text)
        barred = {place for phrase in rule.unless for place in _places(words, lemmas(phrase))}
        for phrase in rule.words:
            form = lemmas(phrase)
            for start in find_all(words, form):
                span = range(start, start + len(form))
                if barred.isdisjoint(span) and not (
                    rule.whose == PEOPLE and self._belongs(text, start, start + len(form))
                ):
                    return phrase
        return None

    def _kinds(self, text: str) -> list[str | None]:
        """Return the kind that each word of a folded text is part of naming."""
        kinds: list[str | None] = []
        for phrase, kind in self.lexicon.find(text.split()):
            kinds += [kind] * len(phrase.split())
        return kinds

    def _of_others(self, text: str) -> bool:
        """Whether a text names animals and no people."""
        kinds = self._kinds(text)
        return "animal" in kinds and "people" not in kinds

    def _belongs(self, text: str, start: int, end: int) -> bool:
        """Whether the words from ``start`` to ``end`` are an animal's or a thing's.

        "dog heads", "heads of lettuce", "the noses and mouths of animals", "baby elephants", but
        not "faces and handbags", "dogs and faces", and nothing where the word itself names people
        ("men on horses").
        """
        words, kinds = text.split(), self._kinds(text)
        own_people = "people" in kinds[start:end]
        after = kinds[end] if end < len(words) else None
        if after == "animal":  # a baby elephant, a male lion
            return True
        if own_people:
            return False
        before = kinds[start - 1] if start else None
        if before in BELONGS or after == "object":  # rock faces, dog heads; a face mask
            return True
        if end < len(words) and words[end] == "of":
            whose = next((k for k in kinds[end + 1 : end + 4] if k in BELONGS | {"people"}), None)
            if whose in BELONGS:
                return True
        return "people" not in kinds and _shared(words, kinds, start, end)


def _shared(words: Sequence[str], kinds: Sequence[str | None], start: int, end: int) -> bool:
    """Whether an animal beside a part owns it, in the same limb of a joined text or across it.

    "animal eyes", "noses and mouths of animals", "dog eyes and noses", but not "dogs and faces".
    """
    breaks = [-1, *(i for i, word in enumerate(words) if word in ("and", "or")), len(words)]
    first = max(b for b in breaks if b < start)
    last = min(b for b in breaks if b >= end)
    if "animal" in kinds[first + 1 : last]:
        return True
    later = words[last:]
    owned = "of" in later and "animal" in kinds[last + later.index("of") :]
    return owned or ("animal", "part") in pairwise(kinds[: max(first, 0)])


def _places(words: Sequence[str], phrase: Sequence[str]) -> set[int]:
    """Return the places of all words of a phrase, wherever it stands."""
    return {i for start in find_all(words, phrase) for i in range(start, start + len(phrase))}


def recall_and_precision(
    found: Sequence[dict[str, Hit]], labels: Sequence[tuple[set[str], set[str]]], rule: str
) -> tuple[int, int, int]:
    """Count how a rule did: right, missed, wrong.

    Args:
        found: of `Matcher`.
        labels: of each text the rules that it must fall under and those that it may.
        rule: which.
    """
    pairs = [(rule in hits, rule in must) for hits, (must, may) in zip(found, labels, strict=True)
             if rule not in may]  # fmt: skip
    np_pairs = np.array(pairs, bool).reshape(-1, 2)
    hit, must = np_pairs[:, 0], np_pairs[:, 1]
    return int((hit & must).sum()), int((~hit & must).sum()), int((hit & ~must).sum())
