"""What ranks the candidates of a unit: one object with named terms, each with its weight.

The rank of a text is the sum of what the terms add to it, in nats. Every candidate carries what
each term measured and what it added, so that a table can say why a text won.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from milanx.describing.candidates import Candidate, Term
from milanx.describing.settings import RankSettings
from milanx.features.pixels import place_texts
from milanx.language.connectives import joins, named, says_missing
from milanx.language.words import normalise_text


@dataclass(frozen=True)
class Hypothesis:
    """A text that was found for a unit, as one spelling.

    Attributes:
        text: as it was spelled.
        log_p_given_exemplars: log p(d|E), in nats.
        log_p_prior: log p(d), in nats.
        tokens: how many it has, its end token included.
    """

    text: str
    log_p_given_exemplars: float
    log_p_prior: float
    tokens: int


class UnitEvidence(Protocol):
    """What a unit says of texts, beside p(d|E)."""

    def agreement(self, texts: Sequence[str]) -> Sequence[float]:
        """Return how far texts and the unit's exemplars speak of one thing, in nats."""

    def response(self, texts: Sequence[str]) -> Sequence[float]:
        """Return how far texts foretell the unit's activations, as correlations."""

    def cells(self, texts: Sequence[str]) -> Sequence[float]:
        """Return how well what texts say of cells covers what the unit looks at; 0 of others."""

    def absent(self, texts: Sequence[str]) -> Sequence[float]:
        """Return how far one of the things that texts join is not shown, 0 to 1."""


@dataclass(frozen=True)
class Texts:
    """The texts of a unit that are ranked beside each other, spellings of one text merged.

    Attributes:
        texts: each as its likeliest spelling.
        folded: as `normalise_text` folds them; no two are the same.
        log_p_given_exemplars: of each, all its spellings together, in nats.
        log_p_prior: likewise.
        tokens: of each, its end token included.
        evidence: of the unit; None where no term asks for it.
    """

    texts: tuple[str, ...]
    folded: tuple[str, ...]
    log_p_given_exemplars: tuple[float, ...]
    log_p_prior: tuple[float, ...]
    tokens: tuple[int, ...]
    evidence: UnitEvidence | None

    @classmethod
    def merge(cls, found: Sequence[Hypothesis], evidence: UnitEvidence | None) -> Texts:
        """Merge hypotheses that are the same after normalisation; those of no words are left out.

        Probabilities add; a text that was found twice has the tokens of its first finding.
        """
        spellings: dict[str, dict[str, Hypothesis]] = {}
        for new in found:
            known = spellings.setdefault(normalise_text(new.text), {})
            old = known.get(new.text)
            if old is not None:
                log_p = _log_sum([old.log_p_given_exemplars, new.log_p_given_exemplars])
                new = Hypothesis(new.text, log_p, old.log_p_prior, old.tokens)
            known[new.text] = new
        spellings.pop("", None)
        groups = [list(known.values()) for known in spellings.values()]
        shown = [max(g, key=lambda h: (h.log_p_given_exemplars, h.text)) for g in groups]
        return cls(
            tuple(h.text for h in shown),
            tuple(spellings),
            tuple(_log_sum([h.log_p_given_exemplars for h in g]) for g in groups),
            tuple(_log_sum([h.log_p_prior for h in g]) for g in groups),
            tuple(h.tokens for h in shown),
            evidence,
        )


def _as_measured(values: Sequence[float], unit: Texts, how: RankSettings) -> Sequence[float]:
    return values


@dataclass(frozen=True)
class RankTerm:
    """A term of the rank: it adds its weight times what counts of what it measures.

    Attributes:
        name: as which it is known in tables.
        weight: of the term, of a describer's settings.
        values: what it measures of a unit's texts.
        counts: what counts of these values in the ranking.
        dear: whether it is measured only where it has a weight.
    """

    name: str
    weight: Callable[[RankSettings], float]
    values: Callable[[Texts, RankSettings], Sequence[float]]
    counts: Callable[[Sequence[float], Texts, RankSettings], Sequence[float]] = _as_measured
    dear: bool = False

    def of(self, unit: Texts, how: RankSettings) -> list[Term]:
        """Return the term of each text of a unit."""
        weight = self.weight(how)
        if self.dear and not weight:
            return [Term(self.name, None, 0.0)] * len(unit.texts)
        values = [float(value) for value in self.values(unit, how)]
        counts = self.counts(values, unit, how)
        return [Term(self.name, value, weight * count)
                for value, count in zip(values, counts, strict=True)]  # fmt: skip


def _pmi(unit: Texts, how: RankSettings) -> list[float]:
    """Weighted PMI, log p(d|E) - lambda log p(d) (Hernandez et al. 2022), in nats."""
    pairs = zip(unit.log_p_given_exemplars, unit.log_p_prior, strict=True)
    return [given - how.lam * prior for given, prior in pairs]


def _agreement(unit: Texts, how: RankSettings) -> Sequence[float]:
    return _asked("agreement", unit).agreement(unit.texts)


def _response(unit: Texts, how: RankSettings) -> Sequence[float]:
    return _asked("response", unit).response(unit.texts)


def _cells(unit: Texts, how: RankSettings) -> Sequence[float]:
    return _asked("cells", unit).cells(unit.texts)


def _absent(unit: Texts, how: RankSettings) -> Sequence[float]:
    return _asked("absent", unit).absent(unit.texts)


def _asked(name: str, unit: Texts) -> UnitEvidence:
    if unit.evidence is None:
        raise ValueError(f"{name} has a weight, but nothing tells it")
    return unit.evidence


def _foretold(values: Sequence[float], unit: Texts, how: RankSettings) -> list[float]:
    """What responses count: the less the surer p(d|E) is, and hardly where they may be chance."""
    doubt = doubt_of(max(unit.log_p_given_exemplars), how)
    return [doubt * foretells(value, how) for value in values]


def _surely(values: Sequence[float], unit: Texts, how: RankSettings) -> list[float]:
    """What is taken off responses that cells tell: where p(d|E) is sure, what is named counts more.

    A sky is at the top, and a sheet of paper may lie in the middle of all its photos.
    """
    likeliest, responses = max(unit.log_p_given_exemplars), _response(unit, how)
    off = doubt_of(likeliest, how) - doubt_of(likeliest, how, how.least_cells)
    return [-off * foretells(value, how) if value > 0 and value >= response else 0.0
            for value, response in zip(values, responses, strict=True)]  # fmt: skip


def doubt_of(likeliest: float, how: RankSettings, least: float | None = None) -> float:
    """Return what responses count where p(d|E)'s likeliest text has this log p, at most 1.

    In full where it costs ``unsure`` nats or more, by the square of the cost below, and at least
    ``least``, that of the settings when None.
    """
    return min(1.0, max(how.least if least is None else least, (likeliest / how.unsure) ** 2))


def foretells(correlation: float, how: RankSettings) -> float:
    """Return what a text's correlation with a unit's activations counts in the ranking."""
    return correlation**3 / (correlation**2 + how.dim**2)


TERMS = (
    RankTerm("pmi", lambda how: 1.0, _pmi),
    RankTerm("agreement", lambda how: how.agreement, _agreement, dear=True),
    RankTerm("response", lambda how: how.response, _response, _foretold, dear=True),
    RankTerm("cells", lambda how: how.response if how.cells else 0.0, _cells, _surely, dear=True),
    RankTerm("place", lambda how: -how.place,
             lambda unit, how: [text in place_texts() for text in unit.folded]),
    RankTerm("joined", lambda how: -how.joined, lambda unit, how: [*map(joins, unit.folded)]),
    RankTerm("without", lambda how: -how.without,
             lambda unit, how: [*map(says_missing, unit.folded)]),
    RankTerm("absent", lambda how: -how.absent, _absent, dear=True),
    RankTerm("length", lambda how: -how.length_penalty, lambda unit, how: unit.tokens),
)  # fmt: skip
LIKELIHOOD = "likelihood"  # the only term of the method ``argmax``: log p(d|E)


@dataclass(frozen=True)
class Ranker:
    """Ranks the texts of a unit.

    Attributes:
        terms: whose sum is the rank of a text.
    """

    terms: tuple[RankTerm, ...] = TERMS

    def rank(
        self,
        found: Sequence[Hypothesis],
        how: RankSettings,
        evidence: UnitEvidence | None = None,
    ) -> tuple[Candidate, ...]:
        """Merge texts that are the same after normalisation, and rank what is left.

        Args:
            found: in any order.
            how: weights, method, how many are kept.
            evidence: of the unit; needed where a term that asks for it has a weight.

        Returns:
            At least the best by rank, best first by the settings' method (``argmax`` is
            log p(d|E) alone), joined texts that repeat what stands before them behind all others;
            beside the best ``candidates`` of that method the likeliest by log p(d|E) is always
            among them, and the best by all terms.

        Raises:
            ValueError: a weight without what it weighs.
        """
        unit = Texts.merge(found, evidence)
        if not unit.texts:
            return ()
        terms = list(zip(*(term.of(unit, how) for term in self.terms), strict=True))
        totals = [sum(term.added for term in row) for row in terms]
        plain = how.method == "pmi"
        made = [
            _candidate(unit, place, row if plain else _alone(row, unit, place))
            for place, row in enumerate(terms)
        ]
        by_rank, by_likelihood = (
            [c for _, c in sorted(zip(scores, made, strict=True), key=lambda s: (-s[0], s[1].text))]
            for scores in (totals, unit.log_p_given_exemplars)
        )
        first, second = (by_rank, by_likelihood) if plain else (by_likelihood, by_rank)
        kept = _varied(first)[: how.candidates]
        return tuple(kept if second[0] in kept else [*kept, second[0]])


def _alone(terms: Sequence[Term], unit: Texts, place: int) -> tuple[Term, ...]:
    """Return the terms of a text where its log p(d|E) ranks it alone."""
    log_p = unit.log_p_given_exemplars[place]
    return (*(Term(t.name, t.value, 0.0) for t in terms), Term(LIKELIHOOD, log_p, log_p))


def _candidate(unit: Texts, place: int, terms: Sequence[Term]) -> Candidate:
    values = {term.name: term.value for term in terms}
    return Candidate(
        unit.texts[place],
        float(values["pmi"] or 0.0),
        unit.log_p_given_exemplars[place],
        unit.log_p_prior[place],
        values.get("agreement"),
        values.get("response"),
        sum(term.added for term in terms),
        tuple(terms),
    )


def _varied(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Put joined texts that repeat a word of what stands before them behind all others.

    Who asks for the next best wants another thing, not "dogs or cats" and "dogs or cars" after
    "dogs". The first stays first.
    """
    kept: list[Candidate] = []
    behind: list[Candidate] = []
    said: set[str] = set()
    for candidate in candidates:
        folded = normalise_text(candidate.text)
        words = set(named(folded))
        repeats = bool(kept) and joins(folded) and bool(words & said)
        (behind if repeats else kept).append(candidate)
        if not repeats:
            said |= words
    return kept + behind


def _log_sum(values: Sequence[float]) -> float:
    """Return the logarithm of a sum of exponentials."""
    return float(np.logaddexp.reduce(values))
