"""MILAN's describer as one object: encoder, p(d|E), p(d), search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from milanx.describing.candidates import Candidate, Description
from milanx.describing.milan.network import AttentionDecoder, LanguageModel
from milanx.describing.milan.search import MilanSearch, beam_search, ranked
from milanx.describing.milan.words import Vocabulary
from milanx.errors import InputError
from milanx.progress import Reporter, Silent

if TYPE_CHECKING:
    from milanx.describing.trained import Trained
    from milanx.exemplars.store import ExemplarStore
    from milanx.features.encoder import Encoder

UNITS_AT_ONCE = 24  # of a beam of 50: their states and keys fit in some 100 MB
BUILTIN = "builtin"


@dataclass(frozen=True, eq=False)
class Milan:
    """Describes exemplar sets as MILAN does.

    Attributes:
        encoder: what sees views.
        decoder: p(d|E).
        prior: p(d).
        vocabulary: the words of both.
        name: what it is called.
        fingerprint: 16 hex digits that stand for its weights and settings.
        settings: how it searches.
        training: what is known of its training.
        root: the folder that it was read from; None for one that was made of parts.
    """

    encoder: Encoder
    decoder: AttentionDecoder
    prior: LanguageModel
    vocabulary: Vocabulary
    name: str = "milan"
    fingerprint: str = ""
    settings: MilanSearch = field(default_factory=MilanSearch)
    training: Mapping[str, Any] = field(default_factory=dict)
    root: Path | None = None

    @property
    def trained(self) -> Trained:
        """The photos and classes that it was trained on, as its folder tells.

        Raises:
            InputError: it tells nothing of photos, or there is no folder.
            FormatError: what it tells is damaged.
        """
        from milanx.describing.milan.folder import read_listing
        from milanx.describing.trained import read_trained

        if self.root is None:
            raise InputError(f"{self.name} does not tell what it was trained on",
                             "it was made of parts, without a folder",
                             "load one from its folder")  # fmt: skip
        return read_trained(read_listing(self.root)[1], self.training)

    @classmethod
    def load(
        cls, spec: str | Path, device: str = "cpu", settings: MilanSearch | None = None
    ) -> Milan:
        """Load it from the folder that ``milanx train milan`` wrote.

        Args:
            spec: the folder.
            device: where it computes.
            settings: how to search; the folder's own when None.

        Raises:
            InputError: no such folder.
            FormatError: it holds none, or a damaged one.
            MissingWeights: an open_clip model that it needs cannot be had here.
        """
        from milanx.describing.milan.folder import read_milan

        if str(spec) == BUILTIN or not Path(spec).is_dir():
            why = "none is bundled" if str(spec) == BUILTIN else f"there is no folder {spec}"
            raise InputError(
                "which MILAN describes?", why,
                ["train one: milanx train milan data.root=FOLDER --out my-milan",
                 "--method milan --describer my-milan"],
            )  # fmt: skip
        parts = read_milan(Path(spec))
        return cls(
            parts.encoder.to(device), parts.decoder.to(device), parts.prior.to(device),
            Vocabulary(parts.words), parts.name, parts.fingerprint, settings or parts.search,
            parts.training, Path(spec),
        )  # fmt: skip

    def searching(self, **changes: Any) -> Milan:
        """Return it with some settings of its search changed.

        Raises:
            InputError: a setting that MILAN's search does not have.
        """
        strange = sorted(changes.keys() - {f.name for f in fields(MilanSearch)})
        if strange:
            raise InputError(f"MILAN's search has no {strange[0]}",
                             "it is a beam whose texts are ranked by weighted PMI",
                             "leave it out; --beam and --lam are its own")  # fmt: skip
        return replace(self, settings=replace(self.settings, **changes))

    def describe(
        self,
        store: ExemplarStore,
        layers: Sequence[str] | None = None,
        *,
        settings: MilanSearch | None = None,
        units: dict[str, Sequence[tuple[int, str]]] | None = None,
        features: dict[int, np.ndarray] | None = None,
        progress: Reporter | None = None,
    ) -> list[Description]:
        """Describe the units of a store; `milanx.describing.describer.Describer.describe` says how.

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
        maps = view_maps(features) if tells_shown(self.encoder) else None
        asked = {layer: _asked(store, layer, units) for layer in chosen}
        found: list[Description] = []
        with progress.stage("describe", sum(map(len, asked.values()))) as bar:
            for layer in chosen:
                gatherer = LayerGatherer(self.encoder, store, layer, features, maps, contrast=0)
                place = {pair: row for row, pair in enumerate(store.units(layer))}
                alive = set(gatherer.alive)
                for start in range(0, len(asked[layer]), UNITS_AT_ONCE):
                    part = asked[layer][start : start + UNITS_AT_ONCE]
                    rows = [place[pair] for pair in part if place[pair] in alive]
                    made = iter(self._rank(gatherer.evidence(rows), how) if rows else ())
                    found += [Description.of(layer, *pair, next(made) if place[pair] in alive
                                             else ()) for pair in part]  # fmt: skip
                    bar.advance(len(part))
        return found

    @torch.inference_mode()
    def _rank(self, evidence: Any, how: MilanSearch) -> list[tuple[Candidate, ...]]:
        """Find and rank the texts of units."""
        found = beam_search(self.decoder, self.decoder.look(evidence), how.beam)
        return ranked(found, self.prior, self.vocabulary, how)


def _asked(
    store: ExemplarStore, layer: str, units: dict[str, Sequence[tuple[int, str]]] | None
) -> list[tuple[int, str]]:
    """Return the units of a layer that are asked for."""
    known = store.units(layer)
    return list(known if units is None or layer not in units else units[layer])
