"""What a description is: candidates with what each term of the ranking says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Term:
    """One term of a candidate's rank.

    Attributes:
        name: of the term (`milanx.describing.ranker.TERMS`).
        value: what was measured, in the term's own measure; None where it was not asked for.
        added: what it added to the rank, in nats.
    """

    name: str
    value: float | None
    added: float


@dataclass(frozen=True)
class Candidate:
    """One text for a unit.

    Attributes:
        text: as it was spelled most likely.
        pmi: its weighted PMI, in nats; what a describer without language models ranks by.
        log_p_given_exemplars: log p(d|E), in nats; None without language models.
        log_p_prior: log p(d), in nats; None without language models.
        agreement: of text and exemplars, in nats (`milanx.describing.critic`); None where it took
            no part in the ranking.
        response: correlation of text and activations (`milanx.describing.response`); None likewise.
        rank: what it is ranked by, the sum of what its terms added; None in the table of an earlier
            milanx.
        terms: of the rank; empty likewise.
    """

    text: str
    pmi: float
    log_p_given_exemplars: float | None
    log_p_prior: float | None
    agreement: float | None = None
    response: float | None = None
    rank: float | None = None
    terms: tuple[Term, ...] = ()

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Candidate:
        """Read a candidate of the table's ``candidates``."""
        terms = tuple(Term(**term) for term in row.get("terms") or ())
        return cls(**{**row, "terms": terms})

    @classmethod
    def of_pmi(cls, text: str, pmi: float) -> Candidate:
        """Return the candidate of a describer without language models, which ranks by ``pmi``."""
        return cls(text, pmi, None, None, rank=pmi, terms=(Term("pmi", pmi, pmi),))


@dataclass(frozen=True)
class Signs:
    """What exemplars say of a unit's description (`milanx.describing.signs`); None: nobody looked.

    Attributes:
        alike: mean cosine of exemplars of different photos under their masks, less that of
            exemplars and the layer's others; -2 to 2, near 0 where nothing is shared.
        shown: how often the text fits an exemplar better than one of the layer's others, 0 to 1,
            near one half where it tells nothing (an area under the ROC curve).
    """

    alike: float | None = None
    shown: float | None = None


@dataclass(frozen=True)
class Description:
    """What one unit detects, in words.

    Attributes:
        layer: address of the layer.
        unit: its number in the layer.
        sign: ``+`` or ``-``.
        status: ``described``, ``unclear`` or ``dead``.
        text: the description; empty for a dead unit.
        pmi: its weighted PMI, in nats; not a probability of being right.
        log_p_given_exemplars: log p(d|E), in nats.
        log_p_prior: log p(d), in nats.
        candidates: the best texts, best first; the first is the description.
        agreement: of text and exemplars beside the layer's other units, in nats, where it took part
            in the ranking.
        response: correlation of text and activations over the views that exemplars came from,
            beyond those of the layer's mean unit and of the units most alike, where it took part
            in the ranking. It chose the text: it is no measure of its quality.
        rank: what ranked the text before the others of this unit; what each term added to it stands
            in the candidates.
        alike: whether the exemplars share anything (`milanx.describing.signs`); None where nobody
            looked, as is the next.
        shown: whether the text tells them from the exemplars of the layer's other units.
    """

    layer: str
    unit: int
    sign: str
    status: str
    text: str = ""
    pmi: float | None = None
    log_p_given_exemplars: float | None = None
    log_p_prior: float | None = None
    candidates: tuple[Candidate, ...] = ()
    agreement: float | None = None
    response: float | None = None
    rank: float | None = None
    alike: float | None = None
    shown: float | None = None

    @classmethod
    def of(
        cls,
        layer: str,
        unit: int,
        sign: str,
        candidates: Sequence[Candidate],
        signs: Signs | None = None,
    ) -> Description:
        """Return the description that candidates, best first, make; a dead unit's where none."""
        if not candidates:
            return cls(layer, unit, sign, "dead")
        best, read = candidates[0], signs or Signs()
        return cls(
            layer, unit, sign, "described", best.text, best.pmi, best.log_p_given_exemplars,
            best.log_p_prior, tuple(candidates), best.agreement, best.response, best.rank,
            read.alike, read.shown,
        )  # fmt: skip

    @property
    def likeliest(self) -> str:
        """The text of the highest log p(d|E); the description where none has one."""
        return likeliest(self.candidates, self.text)


def likeliest(candidates: Sequence[Candidate], otherwise: str = "") -> str:
    """Return the text of the highest log p(d|E), ``otherwise`` where no candidate has one."""
    scored = [(c.log_p_given_exemplars, c.text) for c in candidates
              if c.log_p_given_exemplars is not None]  # fmt: skip
    return max(scored, key=lambda pair: pair[0], default=(0.0, otherwise))[1]
