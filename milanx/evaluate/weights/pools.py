"""The texts that were found for a unit, each with the value of every term and with its worth.

Ranking them under other weights needs no model: the terms of `milanx.describing.ranker` are asked
again, and what they ask of the unit stands in the pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from milanx.describing.candidates import Candidate
from milanx.describing.ranker import TERMS, Hypothesis, Texts
from milanx.describing.settings import RankSettings

FORETELLING = "correlation on images kept aside"  # the measure of hidden units' texts
EVERY = 10**6  # candidates that a describer is told to keep: all


@dataclass(frozen=True)
class Pool:
    """The texts of one unit.

    Attributes:
        found: all of them.
        agreements: of each text.
        responses: of each text.
        covered: of each text, what cells tell.
        absents: of each text, how far one of the things that it joins is not shown.
        worth: of each text, by the measure of the set that the unit belongs to.
        shown: what stands for the photographs of the unit's exemplars.
    """

    found: tuple[Hypothesis, ...]
    agreements: dict[str, float]
    responses: dict[str, float]
    covered: dict[str, float]
    absents: dict[str, float]
    worth: dict[str, float]
    shown: tuple[str, ...]

    @classmethod
    def of(
        cls, candidates: Sequence[Candidate], worth: dict[str, float], shown: Sequence[str]
    ) -> Pool:
        """Make one of candidates that carry the values of all terms."""
        values = [{t.name: t.value for t in c.terms} for c in candidates]
        tokens = [int(known["length"] or 0) for known in values]
        return cls(
            tuple(Hypothesis(c.text, float(c.log_p_given_exemplars or 0),
                             float(c.log_p_prior or 0), n)
                  for c, n in zip(candidates, tokens, strict=True)),
            {c.text: float(c.agreement or 0) for c in candidates},
            {c.text: float(c.response or 0) for c in candidates},
            {c.text: float(v.get("cells") or 0) for c, v in zip(candidates, values, strict=True)},
            {c.text: float(v.get("absent") or 0) for c, v in zip(candidates, values, strict=True)},
            worth,
            tuple(shown),
        )  # fmt: skip

    def agreement(self, texts: Sequence[str]) -> list[float]:
        """Return how far texts and the unit's exemplars speak of one thing, in nats."""
        return [self.agreements[text] for text in texts]

    def response(self, texts: Sequence[str]) -> list[float]:
        """Return how far texts foretell the unit's activations, as correlations."""
        return [self.responses[text] for text in texts]

    def cells(self, texts: Sequence[str]) -> list[float]:
        """Return how well what texts say of cells covers what the unit looks at; 0 of others."""
        return [self.covered[text] for text in texts]

    def absent(self, texts: Sequence[str]) -> list[float]:
        """Return how far one of the things that texts join is not shown, 0 to 1."""
        return [self.absents[text] for text in texts]

    def best(self) -> float:
        """Return the worth of the best text that was found."""
        return max(self.worth.values())

    @cached_property
    def _unit(self) -> Texts:
        return Texts.merge(self.found, self)

    def text(self, how: RankSettings) -> str:
        """Return the text that ranks first, as `milanx.describing.ranker.Ranker` ranks by PMI.

        What it merges is the same under all weights, and is merged once.
        """
        unit = self._unit
        terms = zip(*(term.of(unit, how) for term in TERMS), strict=True)
        totals = [sum(term.added for term in row) for row in terms]
        return min(zip(totals, unit.texts, strict=True), key=lambda pair: (-pair[0], pair[1]))[1]

    def chosen(self, how: RankSettings) -> float:
        """Return the worth of the text that ranks first."""
        return self.worth[self.text(how)]


@dataclass(frozen=True)
class PoolSet:
    """Units whose texts are measured in one way.

    Attributes:
        name: of the set.
        measure: of its texts' worth; the sets of each measure count as much as those of another.
        pools: of its units.
    """

    name: str
    measure: str
    pools: tuple[Pool, ...]

    @property
    def best(self) -> float:
        """The mean worth where every unit has its best text: as far as any ranking reaches."""
        return float(np.mean([pool.best() for pool in self.pools]))

    def worth(self, how: RankSettings) -> np.ndarray:
        """Return the worth of the text of each unit under some weights, float [n]."""
        return np.array([pool.chosen(how) for pool in self.pools])

    def part(self, inside: np.ndarray) -> PoolSet:
        """Return some of the units, bool [n]."""
        pools = tuple(p for p, i in zip(self.pools, inside, strict=True) if i)
        return PoolSet(self.name, self.measure, pools)
