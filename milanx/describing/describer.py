"""A describer: encoder, p(d|E), p(d) and what ranks, as one object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from milanx.describing.candidates import Candidate, Description, Signs
from milanx.describing.classes import class_names
from milanx.describing.folder import BUILTIN, describer_root, read_parts
from milanx.describing.halves import Sets
from milanx.describing.parts import About, Lexicon, Parts, fingerprint_weights
from milanx.describing.ranker import Ranker
from milanx.describing.response import Responses, layer_responses, see
from milanx.describing.search import Finder
from milanx.describing.settings import SearchSettings
from milanx.describing.signs import Crowd, masked, read_signs
from milanx.describing.tasks import Gathered, Task, one_ahead
from milanx.describing.texts import TextSpace
from milanx.describing.units import LayerEvidence, UnitsEvidence
from milanx.describing.where import look, usual_cells
from milanx.errors import InputError
from milanx.files import fingerprint
from milanx.hub.address import read_address
from milanx.hub.fetch import Access, way_out_of
from milanx.hub.send import Destination, Sent, send
from milanx.progress import Reporter, Silent
from milanx.workers import workers

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

    from milanx.describing.confidence import Judge
    from milanx.describing.set_encoder import SetEncoder
    from milanx.describing.trained import Trained
    from milanx.exemplars.store import ExemplarStore
    from milanx.features.encoder import Encoder
    from milanx.features.evidence import LayerGatherer
    from milanx.language.prior import Prior

UNITS_AT_ONCE = 256  # units that are described together


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
        self._texts = TextSpace(
            encoder, set_encoder, self.lexicon.vocabulary, self.about.fingerprint
        )

    @classmethod
    def load(cls, spec: str | Path = BUILTIN, device: str = "cpu") -> Describer:
        """Load a describer.

        Args:
            spec: ``builtin``, a describer's folder, or a repository of the Hugging Face Hub,
                ``owner/name`` or ``owner/name@revision``. A folder that is there wins.
            device: where it computes.

        Raises:
            InputError: no such folder or repository.
            FormatError: a folder that is no describer, or damaged.
            MissingWeights: an open_clip model or a GPT-2 that it needs cannot be had here.
        """
        root = describer_root(spec)
        with way_out_of(root):
            return cls._of(read_parts(root, device))

    @classmethod
    def from_pretrained(
        cls,
        repo_id: str | Path,
        *,
        revision: str | None = None,
        device: str = "cpu",
        token: str | bool | None = None,
        cache_dir: Path | str | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
    ) -> Describer:
        """Load a describer from the Hugging Face Hub, or a folder; see `load`.

        Args:
            repo_id: ``owner/name``, ``owner/name@revision``, or a folder that is there.
            revision: a branch, a tag or a commit.
            device: where it computes.
            token: of the Hub; the one that ``hf auth login`` stored, or ``HF_TOKEN``, when None.
            cache_dir: where fetched folders lie; in milanx's cache when None.
            local_files_only: ask nothing of the network.
            force_download: fetch what is in the cache again.

        Raises:
            InputError: no such repository, or it may not be asked for.
            FormatError: it holds no describer, or a damaged one.
            MilanxError: the Hub does not answer, and nothing was fetched before.
        """
        access = Access(token, cache_dir, local_files_only, force_download)
        root = describer_root(repo_id, revision, access)
        with way_out_of(root):
            return cls._of(read_parts(root, device))

    @classmethod
    def _of(cls, parts: Parts) -> Describer:
        return cls(
            parts.encoder, parts.set_encoder, parts.decoder, parts.prior, Ranker(),
            parts.lexicon, parts.about,
        )  # fmt: skip

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        branch: str | None = None,
        create_pr: bool = False,
        token: str | bool | None = None,
        commit_message: str | None = None,
        license: str | None = None,
        progress: Reporter | None = None,
    ) -> Sent:
        """Send the folder that the describer was read from to the Hugging Face Hub.

        Args:
            repo_id: ``owner/name``, made where it is not there.
            private: nobody else sees it: yes, unless this is False.
            branch: made where it is not there; the main one when None.
            create_pr: open a pull request instead.
            token: of the Hub; the one that ``hf auth login`` stored, or ``HF_TOKEN``, when None.
            commit_message: one line.
            license: of the card, over its own.
            progress: told about it.

        Raises:
            InputError: it was made of parts and lies nowhere, its card names no licence, or the
                Hub refuses.
            MilanxError: the Hub does not answer.
        """
        from milanx.describing.parcel import describer_parcel

        if self.root is None:
            raise InputError(
                f"the describer {self.name} cannot be pushed",
                "it was made of parts and lies in no folder",
                "push one that was loaded from its folder",
            )
        to = Destination(read_address(repo_id).at(branch), private is not False, create_pr, token,
                         commit_message)  # fmt: skip
        return send(describer_parcel(self.root, to.address, licence=license), to, progress)

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

    def judge(self) -> Judge:
        """What says how sure its descriptions are, by the folder's ``confidence.json``.

        Raises:
            FormatError: that is damaged.
        """
        from milanx.describing.confidence import Judge, read_calibration

        found = read_calibration(self.root) if self.root is not None else None
        if found is None:
            return Judge(reason="the describer was not calibrated (milanx bench confidence)")
        if found.describer != self.fingerprint:
            return Judge(reason="the describer's confidence was calibrated for other weights")
        return Judge(found)

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

    def forget(self) -> None:
        """Forget what was computed of texts, as it is before a describer is first used."""
        self.prior.forget()
        self._texts.forget()

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
            features: of every view of the store (`milanx.features.encoded.encoded_views`, which
                is asked when None).
            progress: told about encoding and describing.

        Returns:
            A description a unit, in the order of the store.
        """
        from milanx.features.encoded import encoded_views
        from milanx.features.encoder import tells_shown, view_maps
        from milanx.features.evidence import LayerGatherer

        progress, how = progress or Silent(), settings or self.settings
        chosen = list(layers) if layers is not None else list(store.layers)
        rows = {layer: _rows(store, layer, units) for layer in chosen}
        if not len(store.view_indices()):  # nothing excites any of them: there is nothing to see
            return [Description.of(layer, *store.units(layer)[row], ())
                    for layer in chosen for row in rows[layer]]  # fmt: skip
        if features is None:
            with progress.stage("encode", len(store.view_indices())) as bar:
                features = encoded_views(self.encoder, store, advance=bar.advance)
        self._texts.recall()
        maps = view_maps(features) if tells_shown(self.encoder) else None
        views = see(self.encoder, store, features, maps) if how.response else None
        found: list[Description] = []
        with (
            progress.stage("describe", sum(map(len, rows.values()))) as bar,
            workers(self.encoder.device) as threads,
        ):
            for layer in (name for name in chosen if rows[name]):
                gatherer = LayerGatherer(
                    self.encoder, store, layer, features, maps, self.about.contrast, threads
                )
                responses = None
                if views is not None:
                    responses = layer_responses(
                        store, layer, views, rows[layer], gatherer.looks(), how
                    )
                evidence = self._layer(gatherer, responses, how)
                task = Task(gatherer, evidence, how, threads, bar.advance)
                found += self._describe_layer(task, rows[layer])
        self._texts.keep()
        return found

    @torch.inference_mode()
    def _layer(
        self, gatherer: LayerGatherer, responses: Responses | None, how: SearchSettings
    ) -> LayerEvidence:
        """What units are described beside: others all over the layer, whichever are described."""
        sample = gatherer.alive[:: -(-len(gatherer.alive) // how.others) or 1]
        if not sample:
            return LayerEvidence(None, responses)
        evidence = gatherer.evidence(sample)
        crowd = Crowd.of(evidence, self.set_encoder.joint_mean)
        asked = how.cells and responses is not None and gatherer.maps is not None
        usual = usual_cells(gatherer, sample) if asked else None
        return LayerEvidence(self.set_encoder.critic_vectors(evidence), responses, crowd, usual)

    @torch.inference_mode()
    def _describe_layer(self, task: Task, rows: Sequence[int]) -> list[Description]:
        """Describe ``rows`` of a layer, a part of them at a time."""
        gatherer = task.gatherer
        known, alive = gatherer.store.units(gatherer.layer), set(gatherer.alive)
        photos, images = gatherer.store.photos, gatherer.store.images(gatherer.layer)
        ranked: dict[int, tuple[Candidate, ...]] = {}
        signs: dict[int, Signs] = {}
        parts = [range(start, min(start + UNITS_AT_ONCE, len(rows)))
                 for start in range(0, len(rows), UNITS_AT_ONCE)]  # fmt: skip

        def gathered(part: range) -> Gathered | None:
            places = [place for place in part if rows[place] in alive]
            return self._gathered(task, rows, places) if places else None

        for part, there in one_ahead(gathered, parts, task.threads):
            if there is not None:
                places, evidence, crowd = there.units.places, there.evidence, task.layer.crowd
                found = self._rank(there.units, there.prefixes, task)
                ranked |= zip(places, found, strict=True)
                if crowd is not None:
                    seen = photos[images[[rows[place] for place in places]]]
                    texts = [candidates[0].text if candidates else "" for candidates in found]
                    read = read_signs(evidence, seen, crowd, texts, self._texts)
                    signs |= zip(places, read, strict=True)
            task.advance(len(part))
        return [Description.of(gatherer.layer, *known[row], ranked.get(place, ()), signs.get(place))
                for place, row in enumerate(rows)]  # fmt: skip

    def _gathered(self, task: Task, rows: Sequence[int], places: Sequence[int]) -> Gathered:
        """Gather what units are described by, given their places among ``rows``."""
        here = [rows[place] for place in places]
        evidence = task.gatherer.evidence(here)
        vectors = self.set_encoder.critic_vectors(evidence)
        named = class_names(self.encoder, evidence, task.how.classes)
        shown, crowd = masked(evidence, self.set_encoder.joint_mean), task.layer.crowd
        sets = Sets(shown, evidence.valid, crowd) if crowd else None
        where = look(task.gatherer, here, task.layer.usual, task.how.cells)
        named = where.beside(named, task.how.placed) if where else named
        units = UnitsEvidence(
            self._texts, task.layer, vectors, places, task.how, named, sets, where
        )
        return Gathered(evidence, units, self.set_encoder(evidence, vectors=vectors))

    def _rank(
        self, units: UnitsEvidence, prefixes: torch.Tensor, task: Task
    ) -> list[tuple[Candidate, ...]]:
        """Find and rank the texts of units, given their prefixes [u, p, width]."""
        how, threads = task.how, task.threads
        found = self._finder.find(prefixes, how, units.retrieved(threads), threads)
        said = units.said_of([[h.text for h in row] for row in found], threads)
        return [self.ranker.rank(row, how, unit) for row, unit in zip(found, said, strict=True)]


def _rows(
    store: ExemplarStore, layer: str, units: dict[str, Sequence[tuple[int, str]]] | None
) -> list[int]:
    """Return the rows of a layer that are described."""
    known = store.units(layer)
    if units is None or layer not in units:
        return list(range(len(known)))
    place = {pair: row for row, pair in enumerate(known)}
    return [place[(int(unit), sign)] for unit, sign in units[layer]]
