"""Units of a run that say words, and those whose texts are near to them in meaning.

By the rule of a run's page, and by its vectors (`milanx.language.meanings`), so that both find the
same units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from milanx.act.find import WITHIN, check_threshold, phrase
from milanx.errors import InputError
from milanx.language.compare import Embed, Sentences
from milanx.language.meanings import ALIKE, parts, query_vectors, vocabulary
from milanx.language.words import normalise_text

if TYPE_CHECKING:
    from milanx.runs import Run

NEAR = 5  # texts that are told where nothing is found


@dataclass(frozen=True)
class Found:
    """Units of a run, by their places in its table; each is found once.

    Attributes:
        words: that were looked for.
        said: whose description says them.
        like: how like the description of others is; the likest first.
        beside: of others, the candidate that says them.
    """

    words: str
    said: tuple[int, ...]
    like: Mapping[int, float]
    beside: Mapping[int, str]

    def __len__(self) -> int:
        return len(self.said) + len(self.like) + len(self.beside)


def search(
    run: Run,
    words: str,
    *,
    within: str = WITHIN[1],
    meaning: bool = True,
    threshold: float = ALIKE,
    embed: Embed | None = None,
) -> Found:
    """Find the units whose texts say words, or are near to them in meaning.

    Args:
        run: one with descriptions.
        words: whole words of a text, in their order, one and many alike.
        within: ``candidates``, or ``description`` for that alone.
        meaning: whether descriptions of a like meaning are found too.
        threshold: likeness from which they are.
        embed: texts to unit rows; all-MiniLM-L6-v2 when None.

    Raises:
        InputError: nothing was found, with what is near; or no words, another ``within``, or a
            threshold that no likeness reaches.
    """
    if within not in WITHIN:
        raise InputError(f"cannot look in {within!r}", f"there are {' and '.join(WITHIN)}",
                         f"--in {WITHIN[1]}")  # fmt: skip
    check_threshold(threshold)
    if not normalise_text(words):
        raise InputError("nothing is looked for", f"{words!r} holds no word", "milanx find water")
    rows, says = run.rows, phrase(words)
    said = tuple(p for p, row in enumerate(rows) if any(says(_texts(row))))
    likeness = _likeness(run, words, embed or Sentences()) if meaning else {}
    close = {p: value for p, value in likeness.items() if value >= threshold and p not in said}
    close = dict(sorted(close.items(), key=lambda pair: -pair[1]))
    beside = {}
    for p, row in enumerate(rows) if within == WITHIN[1] else ():
        if p not in said and p not in close:
            texts = [c["text"] for c in row["candidates"] or ()]
            if any(found := says(texts)):
                beside[p] = texts[list(found).index(True)]
    if not (said or close or beside):
        raise _nothing(run, words, likeness)
    return Found(words, said, close, beside)


def _texts(row: Mapping[str, Any]) -> list[str]:
    """Return what a unit is said to be: its description, and its senses where it has several."""
    return [row["description"] or "", *(sense["text"] for sense in row["senses"] or ())]


def _likeness(run: Run, words: str, embed: Embed) -> dict[int, float]:
    """Return how like each description is to words, by the likest of its parts."""
    own = {p: parts(row["description"] or "") for p, row in enumerate(run.rows)}
    texts = sorted({part for found in own.values() for part in found})
    if not texts:
        return {}
    known = vocabulary()
    vectors = known.project(embed(texts))
    wanted = query_vectors(words.strip().lower(), texts, vectors, embed)
    like = dict(zip(texts, known.likeness(vectors, wanted).tolist(), strict=True))
    return {p: max(like[part] for part in found) for p, found in own.items() if found}


def _nothing(run: Run, words: str, likeness: Mapping[int, float]) -> InputError:
    """Say what is nearest."""
    best: dict[str, float] = {}
    for p in sorted(likeness, key=lambda p: -likeness[p]):
        best.setdefault(run.rows[p]["description"], likeness[p])
    near = ", ".join(f"{text!r} ({best[text]:.2f})" for text in list(best)[:NEAR])
    ways = ["other words"]
    if best:
        ways.insert(0, f"--threshold {np.floor(100 * next(iter(best.values()))) / 100:.2f}")
    why = f"nearest by meaning: {near}" if near else "no text holds it"
    return InputError(f"no unit says {words!r} or the like", why, ways)
