"""Senses: does one unit answer to several things? Its exemplars in groups, each with a text.

A unit's exemplars are cut into groups in the features (`milanx.describing.cuts`), and each group is
described as a unit of its own (`milanx.exemplars.divided`), beside which the images of the others
count as what it is not. That makes proposals; `milanx.scoring.senses` keeps those that images kept
aside bear out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from milanx.describing.cuts import CutSettings, divide
from milanx.errors import InputError
from milanx.exemplars.divided import DividedStore, Part
from milanx.features.encoder import MASKED, WHOLE, tells_shown, view_maps
from milanx.features.evidence import UNITS_AT_ONCE, LayerGatherer
from milanx.language.compare import lemmas
from milanx.progress import Reporter, Silent

if TYPE_CHECKING:
    from milanx.describing.describer import Describer
    from milanx.describing.settings import SearchSettings
    from milanx.exemplars.store import ExemplarStore
    from milanx.features.evidence import Evidence

MOST = 3  # senses of a unit
ROWS_AT_ONCE = 128  # units whose parts are described together
NEVER = 99.0  # nats that a text costs which joins two things: a sense is one
LOWEST = 0.5  # share of the images below the lowest of the three bands of activation


@dataclass(frozen=True)
class SenseSettings(CutSettings):
    """When a unit is thought to have several senses; `CutSettings` says of its exemplars' groups.

    Attributes:
        near: similarity of two texts from which they mean the same.

    Raises:
        InputError: ``most`` is not 1 to 3.
    """

    near: float = 0.7

    def __post_init__(self) -> None:
        if not 1 <= self.most <= MOST:
            raise InputError(f"senses cannot be {self.most}", f"a unit may have 1 to {MOST}",
                             f"--senses {MOST}, or 1 for one text a unit")  # fmt: skip


@dataclass(frozen=True)
class Proposal:
    """A sense that a unit may have.

    Attributes:
        text: what its exemplars show.
        places: of these among the unit's exemplars.
        share: of the unit's photos.
    """

    text: str
    places: tuple[int, ...]
    share: float


def sense_points(describer: Describer, evidence: Evidence) -> np.ndarray:
    """Return what exemplars of units are compared by, float [u, k, p].

    That is what their masks show in the joint space and what the set encoder reads of them, each
    centred and of length one.
    """
    encoder = describer.set_encoder
    joint = F.normalize(evidence.joint[:, :, MASKED] - encoder.joint_mean, dim=-1)
    read = F.normalize(encoder.read(evidence.features[:, :, MASKED]), dim=-1)
    return torch.cat([joint, read], -1).cpu().double().numpy()


def of_photos(points: np.ndarray, photos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average points [k, p] of one photo; returns [n, p] and each point's place in it, [k]."""
    names, place = np.unique(photos, return_inverse=True)
    means = np.stack([points[photos == name].mean(0) for name in names])
    return means, np.asarray(place)


def mean_the_same(texts: Sequence[str], vectors: np.ndarray, near: float) -> bool:
    """Whether two of several texts mean the same, or one says all that another says.

    Args:
        texts: t of them.
        vectors: of each, unit rows [t, j].
        near: similarity from which they do.
    """
    words = [set(lemmas(text)) for text in texts]
    return any(
        words[i] <= words[j] or words[j] <= words[i] or float(vectors[i] @ vectors[j]) >= near
        for i in range(len(texts)) for j in range(i)
    )  # fmt: skip


def propose_senses(
    describer: Describer,
    store: ExemplarStore,
    features: dict[int, np.ndarray],
    how: SenseSettings,
    *,
    search: SearchSettings | None = None,
    progress: Reporter | None = None,
) -> dict[tuple[str, int, str], tuple[Proposal, ...]]:
    """Propose senses of the units of a store.

    Units of the sign ``-`` have one, for nothing tells on which images they are lowest, and so
    have those of layers without the maxima of every image.

    Args:
        describer: which described the units.
        store: the exemplars.
        features: of every view of the store (`milanx.features.encoded.encoded_views`).
        how: when a unit has several.
        search: how texts are searched; the describer's own settings when None.
        progress: told about it.

    Returns:
        Layer, unit and sign of the units that may have several, with two senses or more each.
    """
    found: dict[tuple[str, int, str], tuple[Proposal, ...]] = {}
    maps = view_maps(features) if tells_shown(describer.encoder) else None
    asked = _Asked(describer, features, maps, how, search)
    for layer in store.layers if how.most > 1 else ():
        if not store.has_maxima(layer) or not features:
            continue
        divided = _Layer(asked, store, layer).divided()
        with (progress or Silent()).stage("senses", len(divided)) as bar:
            rows = list(divided)
            for start in range(0, len(rows), ROWS_AT_ONCE):
                here = rows[start : start + ROWS_AT_ONCE]
                found |= _described(asked, store, layer, {row: divided[row] for row in here})
                bar.advance(len(here))
    return found


@dataclass(frozen=True)
class _Asked:
    """What senses are looked for with; as of `propose_senses`, and the maps of all views."""

    describer: Describer
    features: dict[int, np.ndarray]
    maps: dict[int, np.ndarray] | None
    how: SenseSettings
    search: SearchSettings | None


class _Layer:
    """One layer, whose units are divided."""

    def __init__(self, asked: _Asked, store: ExemplarStore, layer: str) -> None:
        self.asked, self.store, self.layer = asked, store, layer
        describer = asked.describer
        self.gatherer = LayerGatherer(describer.encoder, store, layer, asked.features, asked.maps,
                                      0)  # fmt: skip

    def divided(self) -> dict[int, list[Part]]:
        """Return the parts of each row that has several."""
        known, alive = self.store.units(self.layer), self.gatherer.alive
        plus = [row for row in alive if known[row][1] == "+"]
        found = {}
        for start in range(0, len(plus), UNITS_AT_ONCE):
            rows = plus[start : start + UNITS_AT_ONCE]
            evidence = self.gatherer.evidence(rows)
            points = sense_points(self.asked.describer, evidence)
            whole = evidence.joint[:, :, WHOLE].cpu().numpy()
            for place, row in enumerate(rows):
                images = self.store.images(self.layer)[row]
                there = np.flatnonzero(images >= 0)
                photos, which = of_photos(points[place, there], self.store.photos[images[there]])
                groups = divide(photos, self.asked.how)
                if groups.any():
                    parted = np.full(len(images), -1)
                    parted[there] = groups[which]
                    found[row] = self._parts(row, parted, whole[place])
        return found

    def _parts(self, row: int, groups: np.ndarray, whole: np.ndarray) -> list[Part]:
        """Return a row's parts, given the group of each exemplar [k], -1 where there is none."""
        images = self.store.images(self.layer)[row]
        names = range(groups.max() + 1)
        centres = np.stack([whole[groups == name].mean(0) for name in names])
        below, nearest = self._band(row, centres)
        return [
            Part(row, groups == name,
                 [*images[(groups >= 0) & (groups != name)], *below[nearest != name]])
            for name in names
        ]  # fmt: skip

    def _band(self, row: int, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Say of the views below a unit's exemplars which part each is like.

        Args:
            row: of the unit.
            centres: of its parts, [parts, j].

        Returns:
            The images of the three bands of activation, exemplars aside, and the part of each.
        """
        shown, looks = self._looks
        unit = self.store.units(self.layer)[row][0]
        values = self.store.maxima(self.layer)[:, self.store.column(self.layer, unit)]
        least = np.quantile(values[self.store.searched], LOWEST)
        inside = (values[shown] >= least) & ~np.isin(shown, self.store.images(self.layer)[row])
        return shown[inside], (looks[inside] @ (centres - centres.mean(0)).T).argmax(1)

    @cached_property
    def _looks(self) -> tuple[np.ndarray, np.ndarray]:
        """The stored views, int [n], and each whole in the joint space, centred [n, j]."""
        whole = self.gatherer.whole
        encoder = self.asked.describer.encoder
        rows = torch.from_numpy(np.stack([*whole.values()])).to(encoder.device)
        with torch.inference_mode():
            joint = encoder.joint(rows).cpu().numpy()
        return np.array([*whole], np.int64), joint - joint.mean(0)


def _described(
    asked: _Asked, store: ExemplarStore, layer: str, parts: Mapping[int, list[Part]]
) -> dict[tuple[str, int, str], tuple[Proposal, ...]]:
    """Describe the parts of some rows; those whose texts mean the same are none."""
    every = [part for row in parts.values() for part in row]
    divided = DividedStore(store, layer, every)
    alone = replace(asked.search or asked.describer.settings, joined=NEVER, without=NEVER,
                    composed=0)  # fmt: skip
    described = asked.describer.describe(
        divided, [layer], settings=alone, features=asked.features,
        units={layer: [(number, "+") for number in divided.numbers]})  # fmt: skip
    said = iter([description.text for description in described])
    distinct = sorted({description.text for description in described})
    with torch.inference_mode():
        rows = asked.describer.encoder.texts(distinct).cpu().numpy()
    known = dict(zip(distinct, rows, strict=True))
    found = {}
    for row, own in parts.items():
        texts = [next(said) for _ in own]
        vectors = np.stack([known[text] for text in texts])
        if not all(texts) or mean_the_same(texts, vectors, asked.how.near):
            continue
        photos = [len(set(store.photos[store.images(layer)[row][p.kept]].tolist())) for p in own]
        senses = [Proposal(text, tuple(np.flatnonzero(part.kept).tolist()), count / sum(photos))
                  for text, part, count in zip(texts, own, photos, strict=True)]  # fmt: skip
        found[(layer, *store.units(layer)[row])] = tuple(
            sorted(senses, key=lambda s: (-s.share, s.places))
        )
    return found
