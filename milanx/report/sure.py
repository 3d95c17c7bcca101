"""How sure a run's descriptions are beside one another, and the order in which units are shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from milanx.errors import InputError, did_you_mean

NUMBER, SURE, SCORE = "number", "sure", "score"
SORTS = (SURE, SCORE, NUMBER)  # the first is what is shown unless told otherwise
CHECKS = ("agreement", "response")  # what is asked of every text that a describer ranks first


def check_order(by: str) -> None:
    """Look whether units can be sorted by it.

    Raises:
        InputError: there is no such order.
    """
    if by not in SORTS:
        raise InputError(f"units cannot be sorted by {by!r}", f"there are {', '.join(SORTS)}",
                         did_you_mean(by, SORTS) or f"--sort {SURE}")  # fmt: skip


def check_sort(by: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return ``by`` if these rows can be sorted by it.

    Raises:
        InputError: there is no such order, or none of them has a score.
    """
    check_order(by)
    if by == SCORE and all(row["score"] is None for row in rows):
        raise InputError("units cannot be sorted by score", "none of this run's has one",
                         f"--sort {SURE}")  # fmt: skip
    return by


def calibrated(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether rows tell a calibrated confidence, which says more than their places."""
    return any(row.get("confidence") is not None for row in rows)


def sureness(rows: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """Say of each unit that has a text how sure it is.

    That is its confidence where the run has them (`calibrated`). Else it is the share of the
    others than which it is surer, as `_shares` says.

    Args:
        rows: of a run's table.

    Returns:
        From 0 to 1, a row each; None without a text, or where nothing was measured of it.
    """
    if calibrated(rows):
        return [row["confidence"] if row["description"] else None for row in rows]
    return _shares(rows)


def _shares(rows: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """Place each unit among those that have a text.

    Three checks of the first text count alike, each by the unit's place among the run's units: the
    critic's agreement of text and exemplars, the response (how well the text foretells the unit
    on the stored views), and the lower end of the score's interval on images kept aside, where
    one was measured. Units are placed again by the mean of their places, so that the figure is a
    share of units and no probability of being right. The margin to the next different text and
    the number of distinct photos take no part: they say nothing of how well a text fits its
    exemplars (docs/first-description.md has what was read). In a table without these checks the
    rank of the first text stands for them.
    """
    texts = [place for place, row in enumerate(rows) if row["description"]]
    checks = [_column([rows[place] for place in texts], name) for name in CHECKS]
    if all(np.isnan(check).all() for check in checks):
        checks = [_column([rows[place] for place in texts], "rank")]
    checks.append(np.array([_low(rows[place]) for place in texts], float))
    places = np.array([_places(check) for check in checks]).reshape(len(checks), len(texts))
    known = ~np.isnan(places)
    mean = np.where(known, places, 0).sum(0) / np.maximum(known.sum(0), 1)
    found: list[float | None] = [None] * len(rows)
    for place, value in zip(texts, _places(np.where(known.any(0), mean, np.nan)), strict=True):
        found[place] = None if np.isnan(value) else float(value)
    return found


def ordered(
    rows: Sequence[Mapping[str, Any]], by: str, sure: Sequence[float | None] | None = None
) -> list[int]:
    """Return the places of rows in the order in which they are shown.

    Args:
        rows: of a run's table, by layer and number.
        by: ``sure``, the surest unit of each text before any text comes again, and described units
            before those that are unclear; ``score``, the highest first; or ``number``.
        sure: what `sureness` says of them, where it is known already.

    Returns:
        Units without a text come last, those without the figure before them.
    """
    figures: Sequence[float | None] = [None] * len(rows)
    if by == SURE:
        figures = sureness(rows) if sure is None else sure
    elif by == SCORE:
        figures = [row["score"] for row in rows]

    def key(place: int) -> tuple[bool, float, int]:
        figure = figures[place]
        return not rows[place]["description"], np.inf if figure is None else -figure, place

    order = sorted(range(len(rows)), key=key)
    return _varied(rows, order) if by == SURE else order


def _varied(rows: Sequence[Mapping[str, Any]], order: Sequence[int]) -> list[int]:
    """Put what says a text again behind all texts, among described and among unclear units each."""
    met: Counter[tuple[bool, str]] = Counter()
    turns: dict[int, tuple[bool, bool, int]] = {}
    for place in order:
        text, unclear = rows[place]["description"] or "", rows[place].get("status") == "unclear"
        turns[place] = not text, unclear, met[unclear, text] if text else 0
        met[unclear, text] += 1
    return sorted(order, key=lambda place: turns[place])


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    return np.array([np.nan if row.get(name) is None else row[name] for row in rows], float)


def _low(row: Mapping[str, Any]) -> float:
    """Return the lower end of a score's interval; the score itself where it has none."""
    if row["score_interval"]:
        return float(row["score_interval"][0])
    return np.nan if row["score"] is None else float(row["score"])


def _places(values: np.ndarray) -> np.ndarray:
    """Return the share of the others that lie below each value, equals by half; NaN stays NaN."""
    known = ~np.isnan(values)
    found = np.full(len(values), np.nan)
    given = values[known]
    if len(given):
        ordered = np.sort(given)
        below = ordered.searchsorted(given)
        half_of_equals = (ordered.searchsorted(given, "right") - below - 1) / 2
        found[known] = (below + half_of_equals) / (len(given) - 1) if len(given) > 1 else 0.5
    return found
