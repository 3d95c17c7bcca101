"""What is known of units that are described together, and what they say of texts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from milanx.describing.critic import beside_others
from milanx.language.connectives import best_pairs, joins, possible_pairs
from milanx.language.gpt2 import normalise_text
from milanx.language.words import plural

if TYPE_CHECKING:
    from milanx.describing.response import Responses
    from milanx.describing.settings import RankSettings
    from milanx.describing.signs import Crowd
    from milanx.describing.texts import TextSpace
    from milanx.features.encoder import Encoder
    from milanx.features.evidence import Evidence


@dataclass(frozen=True)
class LayerEvidence:
    """What all units of a layer are described with.

    Attributes:
        others: what the critic is told of units all over the layer, [o, 2 j + 1]; None without
            living ones.
        responses: of the units that are described; None where they take no part.
        crowd: exemplars of these units, beside which signs are read; None without living ones.
    """

    others: torch.Tensor | None
    responses: Responses | None
    crowd: Crowd | None = None


@dataclass(frozen=True)
class UnitsEvidence:
    """What some units of a layer say of texts.

    Attributes:
        texts: as units are compared with them.
        layer: of the units.
        vectors: what the critic is told of the units, [u, 2 j + 1].
        places: of each unit among the layer's responses.
        how: what is retrieved, and what others count.
        named: further phrases that are ranked, of each unit; none where it is empty.
    """

    texts: TextSpace
    layer: LayerEvidence
    vectors: torch.Tensor
    places: Sequence[int]
    how: RankSettings
    named: Sequence[Sequence[str]] = ()

    def unit(self, row: int) -> OneUnit:
        """Return what one of them says of texts: the evidence that a ranker asks."""
        return OneUnit(self, row)

    def prepare(self, texts: Sequence[str]) -> None:
        """Embed texts of several units together, where they are compared with them at all."""
        if self.how.agreement or self.how.response:
            self.texts.prepare(texts)

    def agreement(self, row: int, texts: Sequence[str]) -> list[float]:
        """Return how far texts and a unit's exemplars speak of one thing, in nats.

        That is the critic's estimate of the PMI, beside the layer's other units.
        """
        critic, told = self.texts.set_encoder, self.texts.told(texts)
        scores = critic.agreement(self.vectors[row : row + 1], told)
        if self.layer.others is not None:
            others = critic.agreement(self.layer.others, told)
            scores = beside_others(scores, others, self.how.pseudo)
        found: list[float] = scores[0].tolist()
        return found

    def response(self, row: int, texts: Sequence[str]) -> list[float]:
        """Return how far texts foretell a unit's activations; joined ones by what they join."""
        responses, place = self.layer.responses, self.places[row]
        if responses is None:
            return [0.0] * len(texts)
        found = responses.correlations([place], texts, self.texts.centred(texts))[0]
        divided = {i: parts for i, parts in enumerate(map(self.texts.split, texts)) if parts}
        if divided:
            parts = sorted({part for first, _, second in divided.values()
                            for part in (first, second)})  # fmt: skip
            at = {part: i for i, part in enumerate(parts)}
            pairs = [(at[first], how, at[second]) for first, how, second in divided.values()]
            found[list(divided)] = responses.joined(place, parts, self.texts.centred(parts), pairs)
        correlations: list[float] = found.tolist()
        return correlations

    def retrieved(self) -> list[list[str]]:
        """Return the phrases that are ranked beside what the search finds, for each unit.

        Those that the critic finds to agree most and those that foretell the activations best, in
        turns, then pairs of them, then those of ``named``.
        """
        found = self._found()
        return [[*a, *b] for a, b in zip(found, self.named, strict=True)] if self.named else found

    def _found(self) -> list[list[str]]:
        found = self.texts.retrieve(self.vectors, self.how.retrieved)
        responses, known = self.layer.responses, self.texts.vocabulary
        count = min(self.how.retrieved, len(known))
        if responses is None or not count:
            return found
        vectors = self.texts.set_encoder.vocabulary
        best = responses.correlations(self.places, known, vectors).topk(count).indices.tolist()
        mixed = [[*itertools.chain(*zip(a, (known[i] for i in b), strict=True))]
                 for a, b in zip(found, best, strict=True)]  # fmt: skip
        found = [list(dict.fromkeys(row)) for row in mixed]
        if not self.how.composed:
            return found
        return [[*row, *self._composed(responses, place, row)]
                for place, row in zip(self.places, found, strict=True)]  # fmt: skip

    def _composed(self, responses: Responses, place: int, phrases: Sequence[str]) -> list[str]:
        """Join two of a unit's phrases where they foretell its activations better than each does.

        Returns:
            At most ``composed`` texts a connective, best first.
        """
        parts = [text for text in phrases if not joins(normalise_text(text))]
        pairs = possible_pairs(parts)
        if not pairs:
            return []
        vectors = self.texts.centred(parts)
        alone = responses.correlations([place], parts, vectors)[0]
        together = responses.joined(place, parts, vectors, pairs)
        return best_pairs(parts, pairs, alone.tolist(), together.tolist(), self.how.composed)


def class_names(encoder: Encoder, evidence: Evidence, count: int) -> list[list[str]]:
    """Return what an encoder's own classifier names of units, in the plural.

    Nothing where it has none, or ``count`` is 0.
    """
    from milanx.features.classes import class_head

    head = class_head(encoder) if count else None
    named = head.most(evidence, count) if head else []
    return [[plural(name) for name in row] for row in named]


@dataclass(frozen=True)
class OneUnit:
    """One of the units, as a `milanx.describing.ranker.UnitEvidence`."""

    units: UnitsEvidence
    row: int

    def agreement(self, texts: Sequence[str]) -> list[float]:
        """Return how far texts and the unit's exemplars speak of one thing, in nats."""
        return self.units.agreement(self.row, texts)

    def response(self, texts: Sequence[str]) -> list[float]:
        """Return how far texts foretell the unit's activations, as correlations."""
        return self.units.response(self.row, texts)
