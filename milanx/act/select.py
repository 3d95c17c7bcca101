"""Which units of a run: by words, by meaning, by address, by a rule of the audit.

Units that match a word, are like a meaning, fall under a rule, or are named, are taken together;
then what is excluded goes, then what scores too low, then what is too many.
"""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milanx.act.audit.rules import Rule
from milanx.act.find import LIKE, WITHIN, Finder, check_threshold
from milanx.errors import InputError
from milanx.language.compare import Embed, Sentences, contains, nouns
from milanx.language.words import normalise_text
from milanx.rows import UNCLEAR
from milanx.targets.units import layer_folder, parse_address

if TYPE_CHECKING:
    from milanx.runs import Run


@dataclass(frozen=True)
class Selection:
    """What to look for in a run; it checks itself.

    Attributes:
        match: words or phrases, whole words, one and many alike; with ``regex``, regular
            expressions, of any case.
        like: meanings, by sentence similarity of at least ``threshold``.
        units: addresses, ``LAYER:3,17``, ``LAYER`` or a pattern of layers.
        rules: of the audit; `milanx.act.audit.rules.pick_rules` finds them by name.
        exclude: layers, patterns of layers, addresses, or words.
        regex: whether ``match`` holds regular expressions.
        within: ``description``, or ``candidates``: the description and all that it won against.
        min_score: the least score of a unit.
        min_confidence: the least confidence of a unit.
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
    rules: tuple[Rule, ...] = ()
    min_confidence: float | None = None

    def __post_init__(self) -> None:
        if not (self.match or self.like or self.units or self.rules):
            raise InputError(
                "no units are chosen",
                "no words, meaning, rule or address is given",
                '--match "text", --like "written words", --rule text or --units LAYER:3,17',
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
        check_threshold(self.threshold)
        if self.min_score is not None and math.isnan(self.min_score):
            raise InputError("no score is nan", "--min-score is a number")
        check_confidence(self.min_confidence)
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
        confidence: likewise.
        why: which words, how similar, or which rule found what.
        strength: 1 for its own description or address, less for a candidate or for similarity.
        exemplars: the folder of its layer's exemplars.
        status: ``described``, or ``unclear`` where the text is a best guess.
    """

    layer: str
    unit: int
    sign: str
    text: str
    score: float | None
    why: str
    strength: float
    exemplars: Path
    confidence: float | None = None
    status: str = "described"

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


def described(run: Run, least: float | None = None) -> list[dict[str, Any]]:
    """Return the rows of a run's table that have a text: a description, or an unclear best guess.

    Args:
        run: with descriptions.
        least: confidence of a row; all are returned when None.

    Raises:
        InputError: nothing was described, no unit has a text, or ``least`` is no confidence or asks
            for what the run does not tell.
    """
    check_confidence(least)
    rows = [row for row in run.rows if row["description"]]
    if not rows:
        raise InputError(
            f"{run.root} holds no descriptions",
            "every unit is dead or unclear",
            "describe other layers, or with other images",
        )
    if least is None:
        return rows
    sure = sure_enough(run, [row["confidence"] for row in rows], least)
    return [row for row, kept in zip(rows, sure, strict=True) if kept]


def tally(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say how many units are described and how many unclear: ``210 described, 933 unclear``."""
    unclear = sum(row["status"] == UNCLEAR for row in rows)
    return f"{len(rows) - unclear} described" + (f", {unclear} unclear" if unclear else "")


def taking_part(run: Run, rows: Sequence[Mapping[str, Any]]) -> str:
    """Say which units of a run take part, and what the unclear ones are."""
    told = f"{len(rows)} of {len(run.rows)} units take part ({tally(rows)})"
    guesses = any(row["status"] == UNCLEAR for row in rows)
    return told + ("; the texts of unclear units are best guesses." if guesses else ".")


def check_confidence(least: float | None) -> None:
    """Refuse what is no confidence.

    Raises:
        InputError: it lies outside 0 to 1.
    """
    if least is not None and not 0 <= least <= 1:
        raise InputError(f"no confidence is {least}", "--min-confidence lies from 0 to 1")


def sure_enough(run: Run, known: Sequence[float | None], least: float) -> list[bool]:
    """Say which units are sure enough, by their confidences; unknown ones are not.

    Raises:
        InputError: of none of them it is known.
    """
    if known and all(value is None for value in known):
        raise InputError(
            f"{run.root} does not say how sure it is",
            (run.settings.get("confidence") or {}).get("reason")
            or "it was described by an earlier milanx",
            "leave --min-confidence away, or describe with a describer that was calibrated",
        )
    return [value is not None and value >= least for value in known]


def choose(run: Run, selection: Selection, *, embed: Embed | None = None) -> Choice:
    """Choose units of a run.

    Args:
        run: one with descriptions.
        selection: what to look for.
        embed: texts to unit rows, for ``like``, rules and what is near; all-MiniLM-L6-v2 when None.

    Raises:
        InputError: a run without descriptions, an address that it does not have, scores that were
            not measured, or nothing that matches, with what is near.
    """
    described(run)
    kept, notes = _without(run.rows, _found(run, selection, embed or Sentences()), selection)
    kept, more = _scored(run, kept, selection)
    kept, unsure = _sure(run, kept, selection)
    kept.sort(key=lambda c: (-c.strength, -(c.score if c.score is not None else -math.inf)))
    units: dict[tuple[str, int], Chosen] = {}
    for chosen in kept:  # a unit of both signs is one unit: its stronger side is kept
        units.setdefault((chosen.layer, chosen.unit), chosen)
    single, notes = list(units.values()), [*notes, *more, *unsure]
    if selection.max_units is not None and len(single) > selection.max_units:
        notes.append(f"{len(single)} units match; the first {selection.max_units} are kept")
        single = single[: selection.max_units]
    if not single:
        raise InputError(
            "no unit is left",
            "; ".join(notes) or "all are excluded",
            "exclude less, or lower --min-score or --min-confidence",
        )
    guesses = sum(bool(chosen.text) and chosen.status == UNCLEAR for chosen in single)
    if guesses:
        notes.append(f"{guesses} of the {len(single)} units chosen are unclear, their texts best "
                     "guesses; --min-confidence bounds the choice")  # fmt: skip
    return Choice(tuple(single), selection, tuple(notes))


def _found(run: Run, selection: Selection, embed: Embed) -> list[Chosen]:
    """Return every unit that an address, a word, a meaning or a rule finds."""
    finder = Finder(run, selection.within, embed)
    for address in selection.units:
        finder.named(address)
    for word in selection.match:
        finder.said(word, selection.regex)
    for meaning in selection.like:
        finder.alike(meaning, selection.threshold)
    finder.ruled(selection.rules)
    return [_chosen(run, place, *finder.hits[place]) for place in sorted(finder.hits)]


def _chosen(run: Run, place: int, strength: float, why: str) -> Chosen:
    row = run.rows[place]
    return Chosen(
        row["layer"],
        row["unit"],
        row["sign"],
        row["description"],
        row["score"],
        why,
        strength,
        run.root / "exemplars" / layer_folder(row["layer"]),
        row["confidence"],
        row["status"],
    )


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
            out = [c for c in kept if contains(c.text, (text,), nouns)]
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


def _sure(run: Run, found: list[Chosen], selection: Selection) -> tuple[list[Chosen], list[str]]:
    """Leave out what is not sure enough.

    Raises:
        InputError: of no unit found is it known.
    """
    if selection.min_confidence is None:
        return found, []
    known = sure_enough(run, [c.confidence for c in found], selection.min_confidence)
    kept = [chosen for chosen, sure in zip(found, known, strict=True) if sure]
    left = len(found) - len(kept)
    return kept, [f"{left} units are less sure than {selection.min_confidence:g}"]
