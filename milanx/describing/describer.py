"""A describer: encoder, p(d|E), p(d) and what ranks, as one object."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from milanx.describing.candidates import Candidate, Description
from milanx.describing.folder import read_parts
from milanx.describing.parts import About, Lexicon, fingerprint_weights
from milanx.describing.ranker import Ranker
from milanx.describing.response import layer_responses, see
from milanx.describing.search import Finder
from milanx.describing.settings import SearchSettings
from milanx.describing.texts import TextSpace
from milanx.describing.units import LayerEvidence, UnitsEvidence
from milanx.errors import FormatError, InputError
from milanx.files import fingerprint
from milanx.progress import Reporter, Silent

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

    from milanx.describing.set_encoder import SetEncoder
    from milanx.describing.trained import Trained
    from milanx.exemplars.store import ExemplarStore
    from milanx.features.encoder import Encoder
    from milanx.features.evidence import LayerGatherer
    from milanx.language.prior import Prior

UNITS_AT_ONCE = 256  # units that are described together
BUILTIN = "builtin"


class Describer:
    """Describes exemplar sets. Made of parts, which `Describer.load` reads from a folder.

    Args:
        encoder: what sees views.
        set_encoder: exemplar sets to prefixes, with its critic.
        decoder: p(d|E), GPT-2 with its adapter merged in.
        prior: p(d), with the tokenizer of both.
        ranker: ranks the texts that are found.
        lexicon: words of texts, and the phrases that are retrieved.
        about: its name, settings, training.

    Attributes:
        settings: how it searches and ranks unless told otherwise.

    Raises:
        ValueError: phrases that the set encoder does not hold vectors of.
    """

    def __init__(
        self,
        encoder: Encoder,
        set_encoder: SetEncoder,
        decoder: GPT2LMHeadModel,
        prior: Prior,
        ranker: Ranker | None = None,
        lexicon: Lexicon | None = None,
        about: About | None = None,
    ) -> None:
        self.encoder, self.set_encoder = encoder, set_encoder
        self.decoder, self.prior = decoder, prior
        self.ranker, self.lexicon = ranker or Ranker(), lexicon or Lexicon()
        self.about = about or About()
        self.settings = self.about.settings
        phrases, vectors = len(self.lexicon.vocabulary), len(set_encoder.vocabulary)
        if phrases not in (0, vectors):
            raise ValueError(f"{phrases} phrases, but the set encoder holds vectors of {vectors}")
        self._finder = Finder(decoder, prior, self.lexicon.words)
        self._texts = TextSpace(encoder, set_encoder, self.lexicon.vocabulary)

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
        parts = read_parts(describer_root(spec), device)
        return cls(
            parts.encoder, parts.set_encoder, parts.decoder, parts.prior, Ranker(),
            parts.lexicon, parts.about,
        )  # fmt: skip

    @property
    def name(self) -> str:
        """What it is called."""
        return self.about.name

    @property
    def training(self) -> Mapping[str, Any]:
        """What is known of its training."""
        return self.about.training

    @cached_property
    def trained(self) -> Trained:
        """The photos and classes that it was trained on, as its folder tells.

        Raises:
            InputError: it tells nothing of photos, or there is no folder.
            FormatError: what it tells is damaged.
        """
        from milanx.describing.folder import read_content
        from milanx.describing.trained import read_trained

        if self.root is None:
            raise InputError(f"the describer {self.name} does not tell what it was trained on",
                             "it was made of parts, without a folder",
                             "load one from its folder")  # fmt: skip
        return read_trained(read_content(self.root)[1], self.training)

    @property
    def root(self) -> Path | None:
        """The folder that it was read from; None for one that was made of parts."""
        return self.about.root

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The phrases that are retrieved for a set."""
        return self.lexicon.vocabulary

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that stand for all its weights and settings."""
        if self.about.fingerprint:
            return self.about.fingerprint
        weights = fingerprint_weights(
            [self.encoder.projection, self.set_encoder, self.decoder, self.prior.model]
        )
        return fingerprint(
            self.encoder.fingerprint(), weights, asdict(self.about.settings), self.about.contrast,
            asdict(self.set_encoder.spec), sorted(self.lexicon.words), self.lexicon.vocabulary,
            [term.name for term in self.ranker.terms],
        )  # fmt: skip

    def search_defaults(self, **changes: Any) -> SearchSettings:
        """Return the describer's settings with ``changes``."""
        return replace(self.settings, **changes)

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

        progress, how = progress or Silent(), settings or self.settings
        chosen = list(layers) if layers is not None else list(store.layers)
        if features is None:
            with progress.stage("encode", len(store.view_indices())) as bar:
                features = encode_views(self.encoder, store, advance=bar.advance)
        rows = {layer: _rows(store, layer, units) for layer in chosen}
        maps = view_maps(features) if tells_shown(self.encoder) else None
        views = see(self.encoder, store, features, maps) if how.response else None
        found: list[Description] = []
        with progress.stage("describe", sum(map(len, rows.values()))) as bar:
            for layer in chosen:
                if not rows[layer]:
                    continue
                gatherer = LayerGatherer(
                    self.encoder, store, layer, features, maps, self.about.contrast
                )
                responses = None
                if views is not None:
                    responses = layer_responses(
                        store, layer, views, rows[layer], gatherer.looks(), how
                    )
                evidence = LayerEvidence(self._others(gatherer, how.others), responses)
                found += self._describe_layer(gatherer, evidence, rows[layer], how, bar.advance)
        return found

    @torch.inference_mode()
    def _others(self, gatherer: LayerGatherer, count: int) -> torch.Tensor | None:
        """What the critic is told of units all over a layer, whichever are described."""
        sample = gatherer.alive[:: -(-len(gatherer.alive) // count) or 1]
        return self.set_encoder.critic_vectors(gatherer.evidence(sample)) if sample else None

    @torch.inference_mode()
    def _describe_layer(
        self,
        gatherer: LayerGatherer,
        layer: LayerEvidence,
        rows: Sequence[int],
        how: SearchSettings,
        advance: Callable[[int], None],
    ) -> list[Description]:
        """Describe ``rows`` of a layer, a part of them at a time."""
        known, alive = gatherer.store.units(gatherer.layer), set(gatherer.alive)
        ranked: dict[int, tuple[Candidate, ...]] = {}
        for start in range(0, len(rows), UNITS_AT_ONCE):
            part = range(start, min(start + UNITS_AT_ONCE, len(rows)))
            places = [place for place in part if rows[place] in alive]
            advance(len(part) - len(places))
            if not places:
                continue
            evidence = gatherer.evidence([rows[place] for place in places])
            vectors = self.set_encoder.critic_vectors(evidence)
            units = UnitsEvidence(self._texts, layer, vectors, places, how)
            prefixes = self.set_encoder(evidence, vectors=vectors)
            ranked |= zip(places, self._rank(units, prefixes, how, advance), strict=True)
        return [Description.of(gatherer.layer, *known[row], ranked.get(place, ()))
                for place, row in enumerate(rows)]  # fmt: skip

    def _rank(
        self,
        units: UnitsEvidence,
        prefixes: torch.Tensor,
        how: SearchSettings,
        advance: Callable[[int], None],
    ) -> list[tuple[Candidate, ...]]:
        """Find and rank the texts of units, given their prefixes [u, p, width]."""
        made: list[tuple[Candidate, ...]] = []
        for batch in self._finder.find(prefixes, how, units.retrieved()):
            units.prepare([hypothesis.text for found in batch for hypothesis in found])
            for found in batch:
                made.append(self.ranker.rank(found, how, units.unit(len(made))))
            advance(len(batch))
        return made


def describer_root(spec: str | Path) -> Path:
    """Return the folder of a describer."""
    if str(spec) == BUILTIN:
        import milanx.assets

        root = Path(milanx.assets.__path__[0]) / "mini"
        if not (root / "describer.json").is_file():
            raise FormatError(
                "the bundled describer is missing",
                f"{root} holds none, so the installation is incomplete",
                "install milanx again",
            )
        return root
    root = Path(spec)
    if not root.is_dir():
        raise InputError(
            f"no describer {str(spec)!r}",
            "it is neither 'builtin' nor a folder",
            "give the folder that `milanx train` wrote",
        )
    return root


def _rows(
    store: ExemplarStore, layer: str, units: dict[str, Sequence[tuple[int, str]]] | None
) -> list[int]:
    """Return the rows of a layer that are described."""
    known = store.units(layer)
    if units is None or layer not in units:
        return list(range(len(known)))
    place = {pair: row for row, pair in enumerate(known)}
    return [place[(int(unit), sign)] for unit, sign in units[layer]]
