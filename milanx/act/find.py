"""How units of a run are found: by address, by words, by meaning, by a rule of the audit."""

from __future__ import annotations

import difflib
import fnmatch
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from milanx.act.audit.match import Hit, Matcher
from milanx.act.audit.rules import Rule
from milanx.errors import InputError, did_you_mean
from milanx.language.compare import Embed, contains, nouns
from milanx.language.words import normalise_text
from milanx.targets.units import Address, parse_address

if TYPE_CHECKING:
    from milanx.runs import Run

CANDIDATES = "candidates"
WITHIN = ("description", CANDIDATES)
# Cosine of sentence vectors of all-MiniLM-L6-v2 from which a text is taken for like a meaning. Of
# 400 texts of the bundled describer, those above it name the thing or its near kin ("letters" for
# "text", "dogs" for "animals"); below it mostly the setting.
LIKE = 0.5
NEAR = 3  # texts that are suggested where nothing is found
SURE = 0.999  # likeness counts so much at most: words and addresses go before it
BELOW = 0.005  # the nearest text, by which a suggested threshold takes it though it is rounded

Test = Callable[[Sequence[str]], Sequence[bool]]
Reason = tuple[float, str]  # strength above 0 to 1, and why


@dataclass
class Finder:
    """Finds units of a run; each of its methods adds to ``hits``, or says what is near.

    Attributes:
        run: one with descriptions.
        within: ``description``, or ``candidates``: the description and all that it won against.
        embed: texts to unit rows [n, d].
        hits: place of a row in the run's table -> the strongest reason for which it was found.
    """

    run: Run
    within: str
    embed: Embed
    hits: dict[int, Reason] = field(default_factory=dict)

    def named(self, text: str) -> None:
        """Find the units of an address.

        Raises:
            InputError: the run has no such layer or unit.
        """
        rows = self.run.rows
        layers = list(dict.fromkeys(row["layer"] for row in rows))
        address = parse_address(text, layers)
        named = [n for n in layers if n == address.layer or fnmatch.fnmatchcase(n, address.layer)]
        if not named:
            raise InputError(
                f"this run has no layer {address.layer!r}",
                f"it has {', '.join(layers)}",
                did_you_mean(address.layer, layers),
            )
        for layer in named:
            for unit in address.units or ():
                self.run[layer, unit, address.sign]  # says what there is where it is not
        for place, row in enumerate(rows):
            if row["layer"] in named and _is_named(row, address):
                self._hit(place, (1.0, "named"))

    def said(self, word: str, regex: bool = False) -> None:
        """Find the units whose texts hold a word or phrase, or match a regular expression.

        Raises:
            InputError: none does.
        """
        test = _expression(word) if regex else phrase(word)
        texts = self._all_texts()
        reasons = {t: (1.0, repr(word)) for t, yes in zip(texts, test(texts), strict=True) if yes}
        if not self._first(reasons):
            raise self._nothing(f"no {self._what} holds {word!r}", (word,), test)

    def alike(self, meaning: str, threshold: float) -> None:
        """Find the units whose texts are like a meaning, each by its likest.

        Args:
            meaning: in words.
            threshold: cosine from which a text is like it.

        Raises:
            InputError: none is.
        """
        texts, some = self._all_texts(), False
        similar = dict(zip(texts, self._cosines(texts, (meaning,))[:, 0].tolist(), strict=True))
        for place, row in enumerate(self.run.rows):
            best = max(self._texts(row), key=similar.__getitem__, default=None)
            if best is not None and similar[best] >= threshold:
                where = "" if best == row["description"] else f", candidate {best!r}"
                why = f"like {meaning!r} ({similar[best]:.2f}{where})"
                self._hit(place, (min(similar[best], SURE), why))
                some = True
        if not some:
            raise self._nothing(
                f"no {self._what} is like {meaning!r} ({threshold:.2f} or more)",
                (meaning,),
                lambda texts: (self._cosines(texts, (meaning,))[:, 0] >= threshold).tolist(),
            )

    def ruled(self, rules: Sequence[Rule]) -> None:
        """Find the units whose texts fall under rules of the audit.

        Raises:
            InputError: none falls under one of them.
        """
        if not rules:
            return
        matcher, texts = Matcher(rules, self.embed), self._all_texts()
        found = dict(zip(texts, matcher(texts), strict=True))
        for rule in rules:
            reasons = {text: (_strength(hits[rule.id]), f"rule {rule.id}: {hits[rule.id].text}")
                       for text, hits in found.items() if rule.id in hits}  # fmt: skip
            if not self._first(reasons):
                raise self._nothing(
                    f"no {self._what} falls under the rule {rule.id!r}",
                    rule.meaning or rule.words,
                    _under(matcher, rule.id),
                )

    def _first(self, reasons: Mapping[str, Reason]) -> bool:
        """Take every unit by the first of its texts that there is a reason for; tell if any is."""
        some = False
        for place, row in enumerate(self.run.rows):
            for rank, text in enumerate(self._texts(row)):
                if text in reasons:
                    strength, why = reasons[text]
                    where = "" if text == row["description"] else f" in candidate {text!r}"
                    self._hit(place, (strength / (1 + rank), f"{why}{where}"))
                    some = True
                    break
        return some

    def _hit(self, place: int, reason: Reason) -> None:
        if reason[0] > self.hits.get(place, (-math.inf, ""))[0]:
            self.hits[place] = reason

    def _texts(self, row: Mapping[str, Any]) -> list[str]:
        """Return the texts of a row that are looked at, its description first."""
        texts = [row["description"]] if row["description"] else []
        if self.within == CANDIDATES:
            texts += [c["text"] for c in row["candidates"] or [] if c["text"] not in texts]
        return texts

    def _all_texts(self) -> list[str]:
        return sorted({text for row in self.run.rows for text in self._texts(row)})

    def _cosines(self, texts: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
        """Return how alike texts and phrases are, [texts, phrases]."""
        close: np.ndarray = self.embed(texts) @ self.embed(wanted).T
        return close

    @property
    def _what(self) -> str:
        return "candidate" if self.within == CANDIDATES else "description"

    def _nothing(self, what: str, wanted: Sequence[str], test: Test) -> InputError:
        """Say what is near by meaning and by letters, and what would find something.

        Args:
            what: is not there.
            wanted: phrases that say what was looked for.
            test: tells which texts would have been found.
        """
        texts = sorted({row["description"] for row in self.run.rows if row["description"]})
        close = self._cosines(texts, wanted)
        order = np.argsort(-close.max(1), kind="stable")[:NEAR]
        near = ", ".join(f"{texts[i]!r} ({close[i].max():.2f})" for i in order)
        why = f"nearest by meaning: {near}"
        words = sorted({w for t in texts for w in normalise_text(t).split()})
        if len(wanted) == 1:
            letters = difflib.get_close_matches(wanted[0].lower(), words, n=NEAR, cutoff=0.6)
            why += f"; by letters: {', '.join(letters)}" if letters else ""
        best = close[order[0]]
        nearest, threshold = wanted[int(best.argmax())], max(float(best.max()) - BELOW, -1)
        ways = [f'--like "{nearest}" --threshold {threshold:.2f}']
        others = self._others(test) if self.within != CANDIDATES else 0
        if others:
            ways.insert(0, f"--in candidates: {others} units have it among theirs")
        return InputError(what, why, ways)

    def _others(self, test: Test) -> int:
        """Count the units of which a candidate would have been found."""
        texts = [{c["text"] for c in row["candidates"] or []} for row in self.run.rows]
        every = sorted(set().union(*texts))
        found = {text for text, yes in zip(every, test(every), strict=True) if yes}
        return sum(not found.isdisjoint(own) for own in texts)


def check_threshold(threshold: float) -> None:
    """Refuse what is no cosine.

    Raises:
        InputError: it lies outside -1 to 1, or is no number.
    """
    if not -1 <= threshold <= 1:
        raise InputError(f"no similarity is {threshold}", "a cosine lies from -1 to 1",
                         "--threshold 0.5")  # fmt: skip


def _is_named(row: Mapping[str, Any], address: Address) -> bool:
    if address.units is None:
        return row["sign"] == address.sign
    return row["unit"] in address.units and row["sign"] == address.sign


def phrase(wanted: str) -> Test:
    """Return what tells which texts hold a phrase as whole words, one and many alike."""
    return lambda texts: [contains(text, (wanted,), nouns) for text in texts]


def _expression(pattern: str) -> Test:
    """Return what tells which texts a regular expression finds something in."""
    expression = re.compile(pattern, re.IGNORECASE)
    return lambda texts: [expression.search(text) is not None for text in texts]


def _under(matcher: Matcher, rule: str) -> Test:
    """Return what tells which texts fall under a rule."""
    return lambda texts: [rule in hits for hits in matcher(texts)]


def _strength(hit: Hit) -> float:
    return 1.0 if hit.similarity is None else min(hit.similarity, SURE)
