"""Which units of a run: by words, by meaning, by address.

Units that match a word, are like a meaning, or are named, are taken together; then what is excluded
goes, then what scores too low, then what is too many.
"""

from __future__ import annotations

import difflib
import fnmatch
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from milanx.errors import InputError, did_you_mean
from milanx.language.gpt2 import normalise_text
from milanx.language.words import plural, singular
from milanx.targets.units import Address, parse_address

if TYPE_CHECKING:
    from milanx.runs import Run

WITHIN = ("description", "candidates")
# Cosine of sentence vectors of all-MiniLM-L6-v2 from which a text is taken for like a meaning. Of
# 400 texts of the bundled describer, those above it name the thing or its near kin ("letters" for
# "text", "dogs" for "animals"); below it mostly the setting.
LIKE = 0.5
NEAR = 3  # texts that are suggested where nothing matches

Embed = Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Selection:
    """What to look for in a run; it checks itself.

    Attributes:
        match: words or phrases, whole words and their inflections; with ``regex``, regular
            expressions, of any case.
        like: meanings, by sentence similarity of at least ``threshold``.
        units: addresses, ``LAYER:3,17``, ``LAYER`` or a pattern of layers.
        exclude: layers, patterns of layers, addresses, or words.
        regex: whether ``match`` holds regular expressions.
        within: ``description``, or ``candidates``: the description and all that it won against.
        min_score: the least score of a unit.
        max_units: at most so many, the best matches first.
        threshold: cosine from which a text is like a meaning.
    """

    match: tuple[str, ...] = ()
    like: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    regex: bool = False
    within: str = "description"
    min_score: float | None = None
    max_units: int | None = None
    threshold: float = LIKE

    def __post_init__(self) -> None:
        if not (self.match or self.like or self.units):
            raise InputError(
                "no units are chosen",
                "no words, meaning or address is given",
                '--match "text", --like "written words" or --units LAYER:3,17',
            )
        if self.within not in WITHIN:
            raise InputError(f"cannot look in {self.within!r}", f"there are {', '.join(WITHIN)}")
        blank = [t for t in (*self.match, *self.like, *self.units, *self.exclude) if not t.strip()]
        if blank:
            raise InputError("an empty text is no choice", "it would match everything or nothing")
        for word in () if self.regex else self.match:
            if not normalise_text(word):
                raise InputError(
                    f"{word!r} holds no word",
                    "only letters and digits are compared",
                    "--regex compares signs too",
                )
        for pattern in self.match if self.regex else ():
            try:
                re.compile(pattern)
            except re.error as error:
                raise InputError(
                    f"{pattern!r} is no regular expression",
                    str(error),
                    "leave --regex away to look for the words",
                ) from error
        if self.max_units is not None and self.max_units < 1:
            raise InputError(f"at most {self.max_units} units are none", "--max-units is 1 or more")
        if not -1 <= self.threshold <= 1:
            raise InputError(f"no similarity is {self.threshold}", "a cosine lies from -1 to 1")
        for address in self.units:
            parse_address(address)


@dataclass(frozen=True)
class Chosen:
    """A unit that was chosen.

    Attributes:
        layer: address.
        unit: number.
        sign: of the description.
        text: its description.
        score: as the run says, or None.
        why: which words, or how similar.
        strength: 1 for its own description or address, less for a candidate or for similarity.
        exemplars: the folder of its layer's exemplars.
    """

    layer: str
    unit: int
    sign: str
    text: str
    score: float | None
    why: str
    strength: float
    exemplars: Path

    @property
    def address(self) -> str:
        """``LAYER:17``, as every command takes it."""
        return f"{self.layer}:{'-' if self.sign == '-' else ''}{self.unit}"


@dataclass(frozen=True)
class Choice:
    """The units that were chosen, the strongest match first, and what a reader should know."""

    units: tuple[Chosen, ...]
    selection: Selection
    notes: tuple[str, ...] = ()

    @property
    def layers(self) -> dict[str, tuple[int, ...]]:
        """The units of each layer, in their order."""
        found: dict[str, list[int]] = {}
        for chosen in self.units:
            found.setdefault(chosen.layer, []).append(chosen.unit)
        return {layer: tuple(units) for layer, units in found.items()}


@lru_cache(maxsize=4096)
def inflections(word: str) -> frozenset[str]:
    """Return a word with its singular and plural."""
    one = singular(word)
    return frozenset({word, one, plural(word), plural(one)})


def matches(text: str, phrase: str) -> bool:
    """Whether ``phrase`` stands in ``text`` as whole words, singular and plural alike."""
    words, wanted = normalise_text(text).split(), normalise_text(phrase).split()
    for start in range(len(words) - len(wanted) + 1):
        here = words[start : start + len(wanted)]
        if all(w == v or w in inflections(v) for w, v in zip(here, wanted, strict=True)):
            return bool(wanted)
    return False


@lru_cache(maxsize=1)
def _encoder() -> Any:
    import torch

    from milanx.features.smallclip import SmallClipEncoder

    with torch.random.fork_rng(devices=[]):  # its untrained projection is drawn, and not used
        return SmallClipEncoder()


def sentence_vectors(texts: Sequence[str]) -> np.ndarray:
    """Embed texts with the bundled describer's text tower; unit rows float32 [n, 384]."""
    vectors: np.ndarray = _encoder().texts(list(texts)).cpu().numpy()
    return vectors


def choose(run: Run, selection: Selection, *, embed: Embed = sentence_vectors) -> Choice:
    """Choose units of a run.

    Args:
        run: one with descriptions.
        selection: what to look for.
        embed: texts to unit rows, for ``like`` and for what is near.

    Raises:
        InputError: a run without descriptions, an address that it does not have, scores that were
            not measured, or nothing that matches, with what is near.
    """
    rows = run.rows  # refuses a run without descriptions
    if not any(row["description"] for row in rows):
        raise InputError(
            f"{run.root} holds no descriptions",
            "every unit is without a text",
            "describe it with other images",
        )
    search = _Search(run, rows, selection, embed)
    found = search.found()
    kept, notes = _without(rows, found, selection)
    kept, more = _scored(run, kept, selection)
    kept.sort(key=lambda c: (-c.strength, -(c.score if c.score is not None else -math.inf)))
    seen: set[tuple[str, int]] = set()
    single = [c for c in kept if not ((c.layer, c.unit) in seen or seen.add((c.layer, c.unit)))]  # type: ignore[func-returns-value]
    notes = [*notes, *more]
    if selection.max_units is not None and len(single) > selection.max_units:
        notes.append(f"{len(single)} units match; the first {selection.max_units} are kept")
        single = single[: selection.max_units]
    if not single:
        raise InputError(
            "no unit is left",
            "; ".join(notes) or "all are excluded",
            "exclude less, or lower --min-score",
        )
    return Choice(tuple(single), selection, tuple(notes))


@dataclass
class _Search:
    """Finds which rows match, and what is near where none does."""

    run: Run
    rows: list[dict[str, Any]]
    selection: Selection
    embed: Embed
    hits: dict[int, tuple[float, str]] = field(default_factory=dict)

    def found(self) -> list[Chosen]:
        """Return every unit that a word, a meaning or an address finds."""
        for address in self.selection.units:
            self._named(address)
        for word in self.selection.match:
            self._word(word)
        for meaning in self.selection.like:
            self._meaning(meaning)
        return [self._chosen(i, *self.hits[i]) for i in sorted(self.hits)]

    def _chosen(self, place: int, strength: float, why: str) -> Chosen:
        row = self.rows[place]
        return Chosen(
            row["layer"],
            row["unit"],
            row["sign"],
            row["description"],
            row["score"],
            why,
            strength,
            self.run.root / "exemplars" / row["layer"],
        )

    def _hit(self, place: int, strength: float, why: str) -> None:
        if strength > self.hits.get(place, (-math.inf, ""))[0]:
            self.hits[place] = (strength, why)

    def _texts(self, row: dict[str, Any]) -> list[str]:
        """Return the texts of a row that are looked at, its description first."""
        texts = [row["description"]] if row["description"] else []
        if self.selection.within == "candidates":
            texts += [c["text"] for c in row["candidates"] or [] if c["text"] not in texts]
        return texts

    def _named(self, text: str) -> None:
        address = parse_address(text)
        layers = list(dict.fromkeys(row["layer"] for row in self.rows))
        named = [name for name in layers if fnmatch.fnmatchcase(name, address.layer)]
        if not named:
            raise InputError(
                f"this run has no layer {address.layer!r}",
                f"it has {', '.join(layers)}",
                did_you_mean(address.layer, layers),
            )
        for layer in named:
            for unit in address.units or ():
                self.run[layer, unit, address.sign]  # says what there is where it is not
        for i, row in enumerate(self.rows):
            if row["layer"] in named and _is_named(row, address):
                self._hit(i, 1.0, "named")

    def _word(self, word: str) -> None:
        before = len(self.hits)
        hit = _finder(word, self.selection.regex)
        any_hit = False
        for i, row in enumerate(self.rows):
            for rank, text in enumerate(self._texts(row)):
                if hit(text):
                    where = "" if text == row["description"] else f" in candidate {text!r}"
                    self._hit(i, 1 / (1 + rank), f"{word!r}{where}")
                    any_hit = True
                    break
        if not any_hit and len(self.hits) == before:
            raise self._nothing(f"no {self._what()} holds {word!r}", word)

    def _meaning(self, meaning: str) -> None:
        texts = sorted({t for row in self.rows for t in self._texts(row)})
        close = self.embed(texts) @ self.embed([meaning])[0]
        similar = dict(zip(texts, close.tolist(), strict=True))
        any_hit = False
        for i, row in enumerate(self.rows):
            best = max(self._texts(row), key=similar.__getitem__, default=None)
            if best is not None and similar[best] >= self.selection.threshold:
                where = "" if best == row["description"] else f", candidate {best!r}"
                self._hit(
                    i, min(similar[best], 0.999), f"like {meaning!r} ({similar[best]:.2f}{where})"
                )
                any_hit = True
        if not any_hit:
            limit = self.selection.threshold
            raise self._nothing(
                f"no {self._what()} is like {meaning!r} ({limit:.2f} or more)", meaning
            )

    def _what(self) -> str:
        return "description" if self.selection.within == "description" else "candidate"

    def _nothing(self, what: str, wanted: str) -> InputError:
        """Say what is near by meaning and by letters, and what would find something."""
        texts = sorted({row["description"] for row in self.rows if row["description"]})
        close = self.embed(texts) @ self.embed([wanted])[0]
        order = np.argsort(-close, kind="stable")[:NEAR]
        meaning = ", ".join(f"{texts[i]!r} ({close[i]:.2f})" for i in order)
        words = sorted({w for t in texts for w in normalise_text(t).split()})
        letters = difflib.get_close_matches(wanted.lower(), words, n=NEAR, cutoff=0.6)
        why = f"nearest by meaning: {meaning}"
        if letters:
            why += f"; by letters: {', '.join(letters)}"
        hit = _finder(wanted, self.selection.regex)
        other = sum(any(hit(c["text"]) for c in row["candidates"] or []) for row in self.rows)
        ways = [f'--like "{wanted}" --threshold {max(close[order[0]] - 0.005, -1):.2f}']
        if other and self.selection.within == "description":
            ways.insert(0, f"--in candidates: {other} units have it among theirs")
        return InputError(what, why, ways)


def _is_named(row: dict[str, Any], address: Address) -> bool:
    if address.units is None:
        return row["sign"] == address.sign
    return row["unit"] in address.units and row["sign"] == address.sign


def _finder(word: str, regex: bool) -> Callable[[str], bool]:
    """Return what tells whether a text holds a word."""
    if not regex:
        return lambda text: matches(text, word)
    pattern = re.compile(word, re.IGNORECASE)
    return lambda text: pattern.search(text) is not None


def _without(
    rows: Iterable[dict[str, Any]], found: list[Chosen], selection: Selection
) -> tuple[list[Chosen], list[str]]:
    """Leave out what is excluded; an exclusion that excludes nothing is noted."""
    layers = {row["layer"] for row in rows}
    notes, kept = [], found
    for text in selection.exclude:
        layer, _, _ = text.rpartition(":") if ":" in text else (text, "", "")
        if any(fnmatch.fnmatchcase(name, layer) for name in layers):
            address = parse_address(text)
            out = [
                c
                for c in kept
                if fnmatch.fnmatchcase(c.layer, address.layer)
                and (address.units is None or c.unit in address.units)
            ]
        else:
            out = [c for c in kept if matches(c.text, text)]
        kept = [c for c in kept if c not in out]
        notes.append(f"{text!r} excludes {len(out)} of the units found")
    return kept, notes


def _scored(run: Run, found: list[Chosen], selection: Selection) -> tuple[list[Chosen], list[str]]:
    """Leave out what scores too low.

    Raises:
        InputError: no unit of the run has a score.
    """
    if selection.min_score is None:
        return found, []
    if found and all(c.score is None for c in found):
        why = (run.settings.get("score") or {}).get("reason") or "none of the units found has one"
        raise InputError(
            f"{run.root} has no scores",
            why,
            "leave --min-score away, or describe with more photos of your own",
        )
    kept = [c for c in found if c.score is not None and c.score >= selection.min_score]
    unknown = sum(c.score is None for c in found)
    notes = [
        f"{len(found) - len(kept)} units score less than {selection.min_score:g}"
        + (f" or have no score ({unknown})" if unknown else "")
    ]
    return kept, notes
