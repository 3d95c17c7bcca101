"""A describer: encoder, p(d|E), p(d) and search settings as one object, and its folder."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from milanx.describing.folder import load_encoder, load_language, load_set_encoder
from milanx.describing.ranker import Candidate, SearchSettings
from milanx.describing.response import Responses, layer_responses, see
from milanx.errors import FormatError, InputError
from milanx.files import fingerprint, fingerprint_file, read_json
from milanx.language.connectives import best_pairs, join_features, joins, possible_pairs, split
from milanx.language.gpt2 import normalise_text
from milanx.progress import Reporter, Silent

if TYPE_CHECKING:
    from milanx.exemplars.store import ExemplarStore
    from milanx.features.evidence import LayerGatherer

UNITS_AT_ONCE = 256  # units that are described together
OTHERS = 256  # units of a layer, at most, beside which one of them is described
BUILTIN = "builtin"


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


@dataclass(frozen=True)
class Layer:
    """What all units of a layer are described with.

    Attributes:
        gatherer: of what the set encoder reads of them.
        others: what the critic is told of units all over the layer.
        responses: of the units that are described; None where they take no part.
    """

    gatherer: LayerGatherer
    others: torch.Tensor | None
    responses: Responses | None


class Describer:
    """Describes exemplar sets. Made by `Describer.load`.

    Attributes:
        name: what it is called.
        root: the folder that it was read from.
        settings: how it searches unless told otherwise.
        contrast: how many contrast views it looks at.
        vocabulary: the phrases that are retrieved for a set.
        training: what its folder says of its training.
        fingerprint: 16 hex digits that stand for all its weights and settings.
    """

    def __init__(self, root: Path, device: str = "cpu") -> None:
        self.root = root
        content = read_json(root / "describer.json", "milanx describer", 2)
        self.name: str = content["name"]
        self.training: dict[str, Any] = content["training"]
        self.settings = SearchSettings(**content["search"])
        self.contrast = int(content["contrast"])
        files = sorted(p for p in root.rglob("*") if p.suffix in {".safetensors", ".json"})
        self.fingerprint = fingerprint([[p.name, fingerprint_file(p)] for p in files])
        self.encoder = load_encoder(root, content).to(device)
        self.set_encoder = load_set_encoder(root, content).to(device)
        self.decoder, self.prior, self.tokenizer = load_language(root, content, device)
        words = read_json(root / "words.json", "milanx words", 1)
        self.words = frozenset(words["words"])
        self.vocabulary: list[str] = words["vocabulary"]
        self._place = {text: i for i, text in enumerate(self.vocabulary)}
        self._vectors: dict[str, torch.Tensor] = {}

    @classmethod
    def load(cls, spec: str | Path = BUILTIN, device: str = "cpu") -> Describer:
        """Load a describer.

        Args:
            spec: ``builtin``, or a describer's folder.
            device: where it computes.

        Raises:
            InputError: no such folder.
            FormatError: a folder that is no describer, or damaged.
            MissingWeights: an open_clip model or a GPT-2 that it needs cannot be had here.
        """
        if str(spec) == BUILTIN:
            import milanx.assets

            root = Path(milanx.assets.__path__[0]) / "mini"
            if not (root / "describer.json").is_file():
                raise FormatError(
                    "the bundled describer is missing",
                    f"{root} holds none, so the installation is incomplete",
                    "install milanx again",
                )
            return cls(root, device)
        root = Path(spec)
        if not root.is_dir():
            raise InputError(
                f"no describer {str(spec)!r}",
                "it is neither 'builtin' nor a folder",
                "give the folder that `milanx train` wrote",
            )
        return cls(root, device)

    def describe(
        self,
        store: ExemplarStore,
        layers: Sequence[str] | None = None,
        *,
        settings: SearchSettings | None = None,
        units: dict[str, Sequence[tuple[int, str]]] | None = None,
        features: dict[int, np.ndarray] | None = None,
        progress: Reporter | None = None,
    ) -> list[Description]:
        """Describe the units of a store.

        Args:
            store: the exemplars.
            layers: which layers; all when None.
            settings: how to search; the describer's own when None.
            units: (unit, sign) of each layer to describe; all that the store has when None.
            features: what `milanx.features.encoder.encode_views` returned for the store; encoded
                when None.
            progress: told about encoding and describing.

        Returns:
            A description a unit, in the order of the store.
        """
        from milanx.features.encoder import encode_views, tells_shown, view_maps
        from milanx.features.evidence import LayerGatherer

        progress = progress or Silent()
        settings = settings or self.settings
        chosen = list(layers) if layers is not None else list(store.layers)
        if features is None:
            with progress.stage("encode", len(store.view_indices())) as bar:
                features = encode_views(self.encoder, store, advance=bar.advance)
        rows = {layer: self._rows(store, layer, units) for layer in chosen}
        maps = view_maps(features) if tells_shown(self.encoder) else None
        views = see(self.encoder, store, features, maps) if settings.response else None
        found: list[Description] = []
        with progress.stage("describe", sum(map(len, rows.values()))) as bar:
            for layer in chosen:
                if not rows[layer]:
                    continue
                gatherer = LayerGatherer(self.encoder, store, layer, features, maps, self.contrast)
                responses = None
                if views is not None:
                    responses = layer_responses(store, layer, views, rows[layer], gatherer.looks())
                told = Layer(gatherer, self._others(gatherer), responses)
                for start in range(0, len(rows[layer]), UNITS_AT_ONCE):
                    part = range(start, min(start + UNITS_AT_ONCE, len(rows[layer])))
                    found += self._describe_rows(told, rows[layer], part, settings, bar.advance)
        return found

    @torch.inference_mode()
    def _others(self, gatherer: LayerGatherer) -> torch.Tensor | None:
        """What the critic is told of units all over a layer, whichever are described."""
        sample = gatherer.alive[:: -(-len(gatherer.alive) // OTHERS) or 1]
        return self.set_encoder.critic_vectors(gatherer.evidence(sample)) if sample else None

    def _rows(
        self,
        store: ExemplarStore,
        layer: str,
        units: dict[str, Sequence[tuple[int, str]]] | None,
    ) -> list[int]:
        known = store.units(layer)
        if units is None or layer not in units:
            return list(range(len(known)))
        place = {pair: row for row, pair in enumerate(known)}
        return [place[(int(unit), sign)] for unit, sign in units[layer]]

    @torch.inference_mode()
    def _describe_rows(
        self,
        told: Layer,
        rows: Sequence[int],
        part: range,
        settings: SearchSettings,
        advance: Callable[[int], None],
    ) -> list[Description]:
        """Describe a part of ``rows``, the rows of a layer that are described."""
        from milanx.describing.ranker import search

        store, layer = told.gatherer.store, told.gatherer.layer
        known, status = store.units(layer), store.status(layer)
        alive = [place for place in part if status[rows[place]] != "dead"]
        texts: dict[int, tuple[Candidate, ...]] = {}
        if alive:
            evidence = told.gatherer.evidence([rows[place] for place in alive])
            vectors = self.set_encoder.critic_vectors(evidence)
            prefixes = self.set_encoder(evidence, vectors=vectors)

            def agreement(row: int, candidates: Sequence[str]) -> list[float]:
                own, texts = vectors[row : row + 1], self._told(candidates)
                return self.set_encoder.agreement(own, texts, told.others)[0].tolist()

            def response(row: int, candidates: Sequence[str]) -> list[float]:
                if told.responses is None:
                    return [0.0] * len(candidates)
                return self._responses(told.responses, alive[row], candidates).tolist()

            ranked = search(
                self.decoder,
                self.prior,
                self.tokenizer,
                prefixes,
                settings,
                words=self.words,
                advance=advance,
                agreement=agreement,
                response=response,
                prepare=self._prepare,
                retrieved=self._retrieved(vectors, told.responses, alive, settings),
            )
            texts = dict(zip(alive, ranked, strict=True))
        advance(len(part) - len(alive))
        return [_description(layer, *known[rows[place]], texts.get(place, ())) for place in part]

    def _retrieved(
        self,
        vectors: torch.Tensor,
        responses: Responses | None,
        places: Sequence[int],
        settings: SearchSettings,
    ) -> list[list[str]]:
        """Return the phrases that are ranked beside what the search finds, for each unit."""
        count = min(settings.retrieved, len(self.vocabulary))
        found = self.retrieve(vectors, count)
        if not count:
            return found
        if responses is not None:
            r = responses.correlations(places, self.vocabulary, self.set_encoder.vocabulary)
            best = r.topk(count).indices.tolist()
            mixed = [[*itertools.chain(*zip(a, (self.vocabulary[i] for i in b), strict=True))]
                     for a, b in zip(found, best, strict=True)]  # fmt: skip
            found = [list(dict.fromkeys(row)) for row in mixed]
            if settings.composed:
                found = [[*row, *self._composed(responses, place, row, settings.composed)]
                         for place, row in zip(places, found, strict=True)]  # fmt: skip
        return found

    def _composed(
        self, responses: Responses, place: int, phrases: Sequence[str], count: int
    ) -> list[str]:
        """Join two of a unit's phrases where they foretell its activations better than each does.

        Returns:
            At most ``count`` texts a connective, best first.
        """
        parts = [text for text in phrases if not joins(normalise_text(text))]
        pairs = possible_pairs(parts)
        if not pairs:
            return []
        vectors = self._centred(parts)
        alone = responses.correlations([place], parts, vectors)[0]
        together = responses.joined(place, parts, vectors, pairs)
        return best_pairs(parts, pairs, alone.tolist(), together.tolist(), count)

    def _responses(self, responses: Responses, place: int, texts: Sequence[str]) -> torch.Tensor:
        """Return the response of one unit to texts [t], joined ones by what they join."""
        found = responses.correlations([place], texts, self._centred(texts))[0]
        divided = {i: split(text, self._place) for i, text in enumerate(texts)}
        joined = {i: parts for i, parts in divided.items() if parts}
        if joined:
            parts = sorted({part for first, _, second in joined.values()
                            for part in (first, second)})  # fmt: skip
            at = {part: i for i, part in enumerate(parts)}
            vectors = self._centred(parts)
            pairs = [(at[first], how, at[second]) for first, how, second in joined.values()]
            found[list(joined)] = responses.joined(place, parts, vectors, pairs)
        return found

    def retrieve(self, vectors: torch.Tensor, count: int) -> list[list[str]]:
        """Return the phrases of the vocabulary that agree most with the sets, best first.

        Args:
            vectors: of the sets, [u, 2 j + 1]
                (`milanx.describing.set_encoder.SetEncoder.critic_vectors`).
            count: how many.
        """
        if not count or not self.vocabulary:
            return [[] for _ in range(len(vectors))]
        nearest = self.set_encoder.word_scores(vectors).topk(min(count, len(self.vocabulary)))
        return [[self.vocabulary[i] for i in row] for row in nearest.indices.tolist()]

    def _prepare(self, texts: Sequence[str]) -> None:
        """Embed texts and what they join, all of them together."""
        divided = (split(text, self._place) for text in texts)
        parts = {part for found in divided if found for part in (found[0], found[2])}
        self._embedded(list({*texts, *parts.difference(self._place)}))

    def _centred(self, texts: Sequence[str]) -> torch.Tensor:
        """Return texts' vectors as responses compare them: centred unit rows [t, j]."""
        found = self.set_encoder.vocabulary.new_zeros(len(texts), self.set_encoder.spec.joint)
        known = [i for i, text in enumerate(texts) if text in self._place]
        others = [i for i, text in enumerate(texts) if text not in self._place]
        found[known] = self.set_encoder.vocabulary[[self._place[texts[i]] for i in known]]
        if others:
            embedded = self._embedded([texts[i] for i in others])
            found[others] = self.set_encoder.centred_texts(embedded)
        return found

    def _embedded(self, texts: Sequence[str]) -> torch.Tensor:
        """Return the joint space's vectors of texts [t, j]; each distinct text once."""
        new = [text for text in texts if text not in self._vectors]
        if new:
            self._vectors.update(zip(new, self.encoder.texts(new), strict=True))
        return torch.stack([self._vectors[text] for text in texts])

    def _told(self, texts: Sequence[str]) -> torch.Tensor:
        """Return what the critic is told of texts [t, 2 j + 3]."""
        embedded = self._embedded(texts)
        return self.set_encoder.told_texts(
            embedded, join_features(texts, self._embedded, self._place)
        )

    def search_defaults(self, **changes: Any) -> SearchSettings:
        """Return the describer's search settings with ``changes``."""
        return replace(self.settings, **changes)


def _description(
    layer: str, unit: int, sign: str, candidates: tuple[Candidate, ...]
) -> Description:
    if not candidates:
        return Description(layer, unit, sign, "dead")
    best = candidates[0]
    return Description(
        layer,
        unit,
        sign,
        "described",
        best.text,
        best.pmi,
        best.log_p_given_exemplars,
        best.log_p_prior,
        candidates,
        best.agreement,
        best.response,
    )
