"""Which of a unit's proposed senses hold on images kept aside.

A simulator says how much each image shows each text. Several senses foretell a unit as the one of
them that an image shows most, the maximum of a fuzzy "or" (Zadeh 1965). They are kept where each
alone correlates positively with what the unit does, where all of them do so better than without any
of them, and better than any single text that was thought of for the unit: the best of these is
chosen on the same images, which favours one sense.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from milanx.language.connectives import split
from milanx.language.words import normalise_text
from milanx.scoring import correlate as co
from milanx.scoring.column import Images, Opened, UnitKey, photo_counts

if TYPE_CHECKING:
    from milanx.describing.senses import Proposal
    from milanx.exemplars.store import ExemplarStore

BANDS = (0.5, 0.9, 0.99)  # shares of the searched images below each band of activation
MET = 0.1  # share of the images kept aside that show a text most, which are said to meet it
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
        bands: how many of the images kept aside meet the text, as shares of those in each of three
            bands of activation, the lowest first (`BANDS`); by chance `MET` do. None where there
            is no image in a band.
    """

    text: str
    share: float
    score: float
    score_interval: tuple[float, float]
    exemplars: tuple[int, ...]
    bands: tuple[float | None, ...] = ()


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
        values = store.maxima(layer)[:, store.column(layer, unit)]
        answers = np.asarray(values[side.indices], np.float64)[None]
        if not co.varying(answers, side.sources).any():
            continue
        steps = np.quantile(values[store.searched], BANDS)
        bands = np.searchsorted(steps, answers[0], side="right") - 1
        judge = _Unit(rows, answers, side, counts, bands)
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
        bands: number of the band that each is in, below the lowest -1, int [n].
    """

    rows: Mapping[str, np.ndarray]
    answers: np.ndarray
    side: Images
    counts: np.ndarray
    bands: np.ndarray

    def kept(self, senses: Sequence[Proposal], single: Sequence[str]) -> tuple[Sense, ...]:
        """Return the senses that hold; none where fewer than two do.

        Args:
            senses: that are proposed.
            single: texts of one thing that were thought of for the unit.
        """
        left = [sense for sense in senses if self._agree([sense]) > 0]
        while len(left) > 1:
            without = [self._agree([s for s in left if s is not own]) for own in left]
            if self._agree(left) > max(without):
                break
            left.pop(int(np.argmax(without)))
        if len(left) < 2:
            return ()
        others = np.stack([self.rows[text] for text in (*single, *(s.text for s in left))])
        if self._agree(left) <= self._correlations(others).max():
            return ()
        return tuple(self._scored(sense) for sense in left)

    def _agree(self, senses: Sequence[Proposal]) -> float:
        """Say how well senses foretell the unit together."""
        together = np.maximum.reduce([self.rows[sense.text] for sense in senses])
        return float(self._correlations(together[None])[0])

    def _correlations(self, rows: np.ndarray) -> np.ndarray:
        """Correlate rows [r, n] with what the unit does, [r]."""
        answers = np.repeat(self.answers, len(rows), 0)
        return co.correlations(rows, answers, self.side.sources)

    def _scored(self, sense: Proposal) -> Sense:
        row = self.rows[sense.text][None]
        drawn = co.weighted_correlations(row, self.answers, self.side.sources, self.counts)
        low, high = np.percentile(drawn[:, 0], [LOW, HIGH])
        value = self._agree([sense])
        met = row[0] >= np.quantile(row[0], 1 - MET)
        rates = tuple(float(met[self.bands == band].mean()) if (self.bands == band).any() else None
                      for band in range(len(BANDS)))  # fmt: skip
        return Sense(sense.text, sense.share, value, (float(low), float(high)), sense.places, rates)
