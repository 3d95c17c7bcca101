"""What is known of units that are described together, and what they say of texts."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from milanx.describing.critic import beside_others
from milanx.language.connectives import best_pairs, joins, possible_pairs, whole_of
from milanx.language.words import normalise_text
from milanx.workers import ALONE, Workers

if TYPE_CHECKING:
    from milanx.describing.halves import Sets
    from milanx.describing.response import Responses
    from milanx.describing.settings import RankSettings
    from milanx.describing.signs import Crowd
    from milanx.describing.texts import TextSpace
    from milanx.describing.where import Located

TEXTS_AT_ONCE = 1024  # that units are compared with together


@dataclass(frozen=True)
class LayerEvidence:
    """What all units of a layer are described with.

    Attributes:
        others: what the critic is told of units all over the layer, [o, 2 j + 1]; None without
            living ones.
        responses: of the units that are described; None where they take no part.
        crowd: exemplars of these units, beside which signs are read; None without living ones.
        usual: what cells tell of the layer's mean unit, [maps]
            (`milanx.describing.where.usual_cells`); None where cells are not asked.
    """

    others: torch.Tensor | None
    responses: Responses | None
    crowd: Crowd | None = None
    usual: torch.Tensor | None = None


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
        sets: what their masks show; None where the layer has no living units.
        located: what cells tell of texts; None where they are not asked.
    """

    texts: TextSpace
    layer: LayerEvidence
    vectors: torch.Tensor
    places: Sequence[int]
    how: RankSettings
    named: Sequence[Sequence[str]] = ()
    sets: Sets | None = None
    located: Located | None = None

    def said_of(
        self, texts: Sequence[Sequence[str]], workers: Workers = ALONE
    ) -> list[SaidOfTexts]:
        """Return what each unit says of its own texts; each distinct text is looked at once.

        Args:
            texts: of each unit.
            workers: share out the texts.
        """
        distinct = sorted({text for row in texts for text in row})
        place = {text: i for i, text in enumerate(distinct)}
        parts = [distinct[i : i + TEXTS_AT_ONCE] for i in range(0, len(distinct), TEXTS_AT_ONCE)]
        asked = [self._agreement if self.how.agreement else None,
                 self._response if self.how.response else None,
                 self._cells if self.how.response and self.how.cells else None,
                 self._absent if self.how.absent else None]  # fmt: skip
        if any(asked):
            self.texts.prepare(distinct, workers)

        def part(here: list[str]) -> list[torch.Tensor | None]:
            return [ask(here).cpu() if ask else None for ask in asked]

        found = [*workers.map(part, parts)]
        columns = [
            torch.cat([f for f in column if f is not None], 1).numpy() if ask and found else None
            for ask, column in zip(
                asked, [*zip(*found, strict=True)] or [()] * len(asked), strict=True
            )
        ]
        return [
            SaidOfTexts(place, *(None if column is None else column[row] for column in columns))
            for row in range(len(self.places))
        ]

    def _agreement(self, texts: Sequence[str]) -> torch.Tensor:
        """Return how far texts and the units' exemplars speak of one thing: [u, t], in nats.

        That is the critic's estimate of the PMI, beside the layer's other units.
        """
        critic, told = self.texts.set_encoder, self.texts.told(texts)
        scores = critic.agreement(self.vectors, told)
        if self.layer.others is None:
            return scores
        return beside_others(scores, critic.agreement(self.layer.others, told), self.how.pseudo)

    def _response(self, texts: Sequence[str]) -> torch.Tensor:
        """Return how far texts foretell activations [u, t]; joined ones by what they join.

        Whole views do not tell where a unit looks: they show a cat wherever they show its head. So
        a part foretells no less than the thing that it is of; p(d|E) and the critic, which see
        masks, tell the two apart.
        """
        responses = self.layer.responses
        if responses is None:
            return self.vectors.new_zeros(len(self.places), len(texts))
        found = responses.correlations(self.places, texts, self.texts.centred(texts))
        wholes = {i: whole for i, whole in enumerate(map(whole_of, texts)) if whole}
        if wholes:
            things = {whole: column for column, whole in enumerate(sorted({*wholes.values()}))}
            vectors = self.texts.centred([*things])
            of_things = responses.correlations(self.places, [*things], vectors)
            own = of_things[:, [things[whole] for whole in wholes.values()]]
            found[:, [*wholes]] = torch.maximum(found[:, [*wholes]], own)
        divided = {i: parts for i, parts in enumerate(map(self.texts.split, texts)) if parts}
        if divided:
            parts = sorted({part for first, _, second in divided.values()
                            for part in (first, second)})  # fmt: skip
            at = {part: i for i, part in enumerate(parts)}
            pairs = [(at[first], how, at[second]) for first, how, second in divided.values()]
            shown = responses.shown(parts, self.texts.centred(parts))
            found[:, list(divided)] = responses.joined(self.places, shown, pairs)
        if self.located is not None:
            told, values = self.located.of(texts)
            found[:, told] = torch.maximum(found[:, told], values.to(found))
        return found

    def _cells(self, texts: Sequence[str]) -> torch.Tensor:
        """Return what cells tell of texts [u, t], 0 of those of which they tell nothing."""
        found = self.vectors.new_zeros(len(self.places), len(texts))
        if self.located is not None:
            told, values = self.located.of(texts)
            found[:, told] = values.to(found)
        return found

    def _absent(self, texts: Sequence[str]) -> torch.Tensor:
        """Return how far one of the things that texts join is not shown: [u, t] in 0..1."""
        if self.sets is None:
            return self.vectors.new_zeros(len(self.places), len(texts))
        return self.sets.absent(texts, self.texts)

    def retrieved(self, workers: Workers = ALONE) -> list[list[str]]:
        """Return the phrases that are ranked beside what the search finds, for each unit.

        Those that the critic finds to agree most and those that foretell the activations best, in
        turns, then pairs of them, then those of ``named``.
        """
        found = self._found(workers)
        return [[*a, *b] for a, b in zip(found, self.named, strict=True)] if self.named else found

    def _found(self, workers: Workers) -> list[list[str]]:
        found = self.texts.retrieve(self.vectors, self.how.retrieved)
        responses, known = self.layer.responses, self.texts.vocabulary
        count = min(self.how.retrieved, len(known))
        if responses is None or not count:
            return found
        vectors = self.texts.set_encoder.vocabulary
        alone = responses.correlations(self.places, known, vectors)
        best = alone.topk(count).indices.tolist()
        mixed = [[*itertools.chain(*zip(a, (known[i] for i in b), strict=True))]
                 for a, b in zip(found, best, strict=True)]  # fmt: skip
        found = [list(dict.fromkeys(row)) for row in mixed]
        if not self.how.composed:
            return found
        return self._with_composed(responses, found, alone, workers)

    def _with_composed(
        self,
        responses: Responses,
        phrases: list[list[str]],
        alone: torch.Tensor,
        workers: Workers,
    ) -> list[list[str]]:
        """Add to each unit's phrases pairs of them that foretell its activations better.

        Args:
            responses: of the units.
            phrases: of each unit.
            alone: how well the vocabulary's phrases do, [u, v].
            workers: share out the units.

        Returns:
            With at most ``composed`` texts a connective, best first.
        """
        place = {text: i for i, text in enumerate(self.texts.vocabulary)}
        every = sorted({text for row in phrases for text in row if not joins(normalise_text(text))})
        at = {text: i for i, text in enumerate(every)}
        shown = responses.shown(every, self.texts.centred(every))

        def composed(row: int) -> list[str]:
            parts = [text for text in phrases[row] if text in at]
            pairs = possible_pairs(parts)
            if not pairs:
                return phrases[row]
            own = shown.rows([at[text] for text in parts])
            together = responses.joined([self.places[row]], own, pairs)[0]
            apart = alone[row, [place[text] for text in parts]]
            return [*phrases[row], *best_pairs(parts, pairs, apart.tolist(), together.tolist(),
                                               self.how.composed)]  # fmt: skip

        return list(workers.map(composed, range(len(phrases))))


@dataclass(frozen=True)
class SaidOfTexts:
    """What one of the units says of texts, as a `milanx.describing.ranker.UnitEvidence`.

    Attributes:
        place: of each text.
        agreements: of each, in nats, float [t]; None where it takes no part.
        correlations: likewise.
        covered: what cells tell, likewise.
        missing: how far one of the things that each joins is not shown, likewise.
    """

    place: Mapping[str, int]
    agreements: np.ndarray | None
    correlations: np.ndarray | None
    covered: np.ndarray | None = None
    missing: np.ndarray | None = None

    def agreement(self, texts: Sequence[str]) -> list[float]:
        """Return how far texts and the unit's exemplars speak of one thing, in nats."""
        return self._of("agreement", self.agreements, texts)

    def response(self, texts: Sequence[str]) -> list[float]:
        """Return how far texts foretell the unit's activations, as correlations."""
        return self._of("response", self.correlations, texts)

    def cells(self, texts: Sequence[str]) -> list[float]:
        """Return how well what texts say of cells covers what the unit looks at; 0 of others."""
        return self._of("cells", self.covered, texts)

    def absent(self, texts: Sequence[str]) -> list[float]:
        """Return how far one of the things that texts join is not shown, 0 to 1."""
        return self._of("absent", self.missing, texts)

    def _of(self, name: str, values: np.ndarray | None, texts: Sequence[str]) -> list[float]:
        if values is None:
            raise ValueError(f"{name} is asked for, but has no weight")
        found: list[float] = values[[self.place[text] for text in texts]].tolist()
        return found
