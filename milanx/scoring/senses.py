"""Which of a unit's proposed senses hold on images kept aside.

A simulator says how much each image shows each text. Several senses foretell a unit as the one of
them that an image shows most, the maximum of a fuzzy "or" (Zadeh 1965); they are kept where that
correlates better with what the unit does than any single text does that was thought of for it, and
than they do without each of them. Better means that the 95 % interval of the difference, over
photographs that are drawn anew, lies above zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from milanx.language.connectives import split
from milanx.language.gpt2 import normalise_text
from milanx.scoring import correlate as co
from milanx.scoring.column import Images, Opened, UnitKey, photo_counts

if TYPE_CHECKING:
    from milanx.describing.senses import Proposal
    from milanx.exemplars.store import ExemplarStore

LOW, HIGH = 2.5, 97.5  # percentiles of a 95 % interval


@dataclass(frozen=True)
class Sense:
    """One of the things that a unit answers to.

    Attributes:
        text: what.
        share: of the unit's photos that show it.
        score: correlation of the text alone with what the unit does on images kept aside.
        score_interval: its 95 % interval.
        exemplars: their places among the unit's exemplars, best first.
    """

    text: str
    share: float
    score: float
    score_interval: tuple[float, float]
    exemplars: tuple[int, ...]


@dataclass(frozen=True)
class Senses:
    """The units of a run that have several senses.

    Attributes:
        units: the senses of each of these, that of the largest share first.
        facts: for ``run.json``: how many were asked for, proposed and kept, or why none was.
    """

    units: Mapping[UnitKey, tuple[Sense, ...]]
    facts: dict[str, Any]


def keep_senses(
    proposed: Mapping[UnitKey, Sequence[Proposal]],
    texts: Mapping[UnitKey, Sequence[str]],
    store: ExemplarStore,
    with_: Opened,
) -> dict[UnitKey, tuple[Sense, ...]]:
    """Keep the senses that hold on images kept aside.

    Args:
        proposed: two senses or more of some units, of layers with the maxima of every image.
        texts: all that was thought of for each of these units, its description among them.
        store: their exemplars.
        with_: images kept aside and what compares texts with them.
    """
    side = with_.sides.aside
    distinct = sorted({p.text for senses in proposed.values() for p in senses}
                      | {text for key in proposed for text in texts[key] if text})  # fmt: skip
    if not distinct:
        return {}
    similar = with_.judge.similarity(distinct, with_.look(side.indices))
    rows = dict(zip(distinct, _within_sources(similar, side.sources), strict=True))
    counts = photo_counts(side, with_.seed)
    found = {}
    for key, senses in proposed.items():
        layer, unit, _ = key
        column = store.maxima(layer)[side.indices, store.column(layer, unit)]
        answers = np.asarray(column, np.float64)[None]
        if not co.varying(answers, side.sources).any():
            continue
        judge = _Unit(rows, answers, side, counts)
        single = [text for text in texts[key] if text and not joined_by_or(text)]
        kept = judge.kept(senses, single)
        if kept:
            found[key] = kept
    return found


def joined_by_or(text: str) -> bool:
    """Whether a text names one thing or another."""
    divided = split(normalise_text(text))
    return divided is not None and divided[1] == "or"


def _within_sources(similar: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """Bring similarities [t, n] to mean 0 and variance 1 within each source."""
    out = np.zeros(similar.shape)
    for source in np.unique(sources):
        here = sources == source
        out[:, here] = co.standardised(similar[:, here]) * here.sum() ** 0.5
    return out


@dataclass(frozen=True)
class _Unit:
    """What one unit does on images kept aside, and what texts foretell there.

    Attributes:
        rows: text -> how much each image shows it, [n].
        answers: of the unit, [1, n].
        side: the images.
        counts: how often each is drawn, [draws, n].
    """

    rows: Mapping[str, np.ndarray]
    answers: np.ndarray
    side: Images
    counts: np.ndarray

    def kept(self, senses: Sequence[Proposal], single: Sequence[str]) -> tuple[Sense, ...]:
        """Return the senses that hold; none where fewer than two do.

        Args:
            senses: that are proposed.
            single: texts of one thing that were thought of for the unit.
        """
        left = list(senses)
        while len(left) > 1:
            without = [self._together([s for s in left if s is not own]) for own in left]
            least, low = self._gain(self._together(left), without)
            if low > 0:
                break
            left.pop(least)
        if len(left) < 2:
            return ()
        others = [self.rows[text] for text in dict.fromkeys([*single, *(s.text for s in left)])]
        if self._gain(self._together(left), others)[1] <= 0:
            return ()
        return tuple(self._scored(sense) for sense in left)

    def _together(self, senses: Sequence[Proposal]) -> np.ndarray:
        return np.maximum.reduce([self.rows[sense.text] for sense in senses])

    def _gain(self, row: np.ndarray, others: Sequence[np.ndarray]) -> tuple[int, float]:
        """Return which of ``others`` foretells the unit best, and the gain over it.

        That is the lower end of the difference's 95 % interval.
        """
        values = co.correlations(np.stack(others), self._answers(len(others)), self.side.sources)
        best = int(values.argmax())
        drawn = self._drawn(np.stack([row, others[best]]))
        return best, float(np.percentile(drawn[:, 0] - drawn[:, 1], LOW))

    def _scored(self, sense: Proposal) -> Sense:
        row = self.rows[sense.text][None]
        value = float(co.correlations(row, self.answers, self.side.sources)[0])
        low, high = np.percentile(self._drawn(row)[:, 0], [LOW, HIGH])
        return Sense(sense.text, sense.share, value, (float(low), float(high)), sense.places)

    def _answers(self, count: int) -> np.ndarray:
        return np.repeat(self.answers, count, 0)

    def _drawn(self, rows: np.ndarray) -> np.ndarray:
        """Return correlations of rows [r, n] in each draw, [draws, r]."""
        return co.weighted_correlations(rows, self._answers(len(rows)), self.side.sources,
                                        self.counts)  # fmt: skip
