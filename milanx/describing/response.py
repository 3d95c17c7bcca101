"""How far a text foretells how strongly a unit responds to all stored views, not its best alone.

Exemplars show where a unit is strongest; that a text names something rarer or commoner than what
the unit answers to, or what its neighbours in the layer answer to as well, shows only over all
views. The correlation of the text's similarity to views with the unit's activations is what
simulation measures on images that were kept aside (Bills et al. 2023, "Language models can explain
neurons in language models"); here it is computed on the views that exemplars came from, and takes
part in the choice of a text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from milanx.describing.classes import classes_named, counting, with_kinds
from milanx.describing.settings import ResponseSettings
from milanx.features.classes import class_head
from milanx.features.pixels import shown_texts
from milanx.language.connectives import CONNECTIVES
from milanx.language.words import normalise_text

if TYPE_CHECKING:
    from milanx.exemplars.store import ExemplarStore
    from milanx.features.encoder import Encoder

TINY = 1e-6  # standard deviation below which nothing varies
NUMBERS_AT_ONCE = 2**18  # of pairs of texts and views; they fit in the cache of a core


def stored_activations(store: ExemplarStore, layer: str, rows: Sequence[int]) -> torch.Tensor:
    """Return how much each of a layer's rows is activated by each stored view, [views, rows].

    That is its spatial maximum; of the sign ``-``, whose spatial minimum is not kept, its spatial
    mean turned around.
    """
    known = store.units(layer)
    column = {unit: i for i, unit in enumerate(dict.fromkeys(unit for unit, _ in known))}
    views = store.view_indices()
    largest, mean = np.asarray(store.maxima(layer)[views]), np.asarray(store.means(layer)[views])
    values = [
        largest[:, column[unit]] if sign == "+" else -mean[:, column[unit]]
        for unit, sign in (known[row] for row in rows)
    ]
    return torch.from_numpy(np.stack(values, 1) if values else np.zeros((len(views), 0)))


@dataclass(frozen=True)
class Views:
    """The views that a store holds, in its order, as texts are compared with them.

    Attributes:
        joint: [n, j], whole views in the joint space.
        sources: [n], names of where they come from; correlations are taken within each and
            averaged by its number of views, so that telling sources apart gains nothing.
        photographs: how many different ones there are; several views of one are told by their
            group. A thousand cuts of twenty photographs tell no more than twenty.
        shown: what pixels tell -> [n], how much of each view shows it; the joint space is not
            asked for these texts.
        classes: [n, classes + kinds], the square roots of the probabilities that the encoder's own
            classifier gives them (`milanx.describing.classes.with_kinds`); None where it has none.
    """

    joint: torch.Tensor
    sources: Sequence[str]
    photographs: int
    shown: Mapping[str, torch.Tensor] = field(default_factory=dict)
    classes: torch.Tensor | None = None


@torch.inference_mode()
def see(
    encoder: Encoder,
    store: ExemplarStore,
    features: dict[int, np.ndarray],
    maps: dict[int, np.ndarray] | None = None,
) -> Views:
    """Bring a store's views to what texts can meet.

    Args:
        encoder: of the features.
        store: whose views they are.
        features: of every stored view (`milanx.features.encoder.encode_views`).
        maps: of every stored view (`milanx.features.encoder.view_maps`); without, pixels tell
            nothing.
    """
    dense = [features[int(i)] for i in store.view_indices()]
    whole = torch.from_numpy(np.stack([view.mean((0, 1), np.float32) for view in dense]))
    shown: dict[str, torch.Tensor] = {}
    if maps is not None:
        shares = np.sqrt([maps[int(i)].mean((0, 1)) for i in store.view_indices()])
        for texts, share in zip(shown_texts(), torch.from_numpy(shares).float().T, strict=True):
            shown |= dict.fromkeys(texts, share)
    table = store.image_table()
    rows = [table[int(i)] for i in store.view_indices()]
    sources = [str(row.get("source") or "") for row in rows]
    groups = {row.get("group") or row["index"] for row in rows}
    head = class_head(encoder)
    classes = with_kinds(head.shares(whole)).sqrt().cpu() if head else None
    return Views(encoder.joint(whole.to(encoder.device)), sources, len(groups), shown, classes)


def layer_responses(
    store: ExemplarStore,
    layer: str,
    views: Views,
    rows: Sequence[int],
    looks: torch.Tensor,
    how: ResponseSettings,
) -> Responses | None:
    """Return the responses of a layer's ``rows``; None without living units or activations.

    Args:
        store: the exemplars.
        layer: its address.
        views: of `see`.
        rows: places of units in the layer.
        looks: [o, d], pooled features of the living units of the layer, in order.
        how: neighbours, and what counts.
    """
    if not store.has_maxima(layer):
        return None
    alive = [row for row, status in enumerate(store.status(layer)) if status != "dead"]
    if not alive:
        return None
    place = {row: i for i, row in enumerate(alive)}
    near = most_alike(looks, [place.get(row, 0) for row in rows], how.near)
    beside = Others(stored_activations(store, layer, alive), near)
    return Responses(views, stored_activations(store, layer, rows), how, beside)


def most_alike(looks: torch.Tensor, units: Sequence[int], count: int) -> torch.Tensor:
    """Find the units of a layer whose exemplars look most alike: int64 [u, at most ``count``].

    Args:
        looks: [o, d], pooled features of the layer's units.
        units: places of u units among them; none of them is its own neighbour.
        count: how many.
    """
    centred = (looks - looks.mean(0)) / looks.std(0, correction=0).clamp_min(TINY)
    centred = F.normalize(centred, dim=1)
    likeness = centred[units] @ centred.T
    likeness[torch.arange(len(units)), units] = -torch.inf
    return likeness.topk(max(0, min(count, len(looks) - 1)), dim=1).indices


@dataclass(frozen=True)
class Others:
    """Units all over a layer, beyond which the responses of some are told.

    Sharp photos excite all of a layer, and that says nothing of one.

    Attributes:
        activations: [n, o].
        near: int64 [u, k], places among them of the units whose exemplars look most alike
            (`most_alike`): a text that holds for all of them does not tell the unit from them.
    """

    activations: torch.Tensor
    near: torch.Tensor


@dataclass(frozen=True)
class Shown:
    """How much views show texts.

    Attributes:
        parts: of each source, [t, n], rows of mean 0 and variance 1 (or 0 where nothing varies).
        weights: of each text, [t]: what its correlations count.
    """

    parts: tuple[torch.Tensor, ...]
    weights: torch.Tensor

    def rows(self, chosen: Sequence[int]) -> Shown:
        """Return those of some texts."""
        return Shown(tuple(part[chosen] for part in self.parts), self.weights[chosen])


class Responses:
    """Units' responses to views, ready to be compared with texts of the views' joint space.

    Args:
        views: n of them.
        activations: [n, u].
        how: what counts.
        beside: units of the layer, beyond whose mean correlations are told, of which the nearest
            count for ``near_share``; None tells them of the units alone.
    """

    def __init__(
        self,
        views: Views,
        activations: torch.Tensor,
        how: ResponseSettings,
        beside: Others | None = None,
    ) -> None:
        seen, shown = views.joint, views.shown
        total = len(seen) * (1 + how.no_opinion / max(1, views.photographs))
        shares = torch.stack([*shown.values()], 1) if shown else seen.new_zeros(len(seen), 0)
        self._known = {text: column for column, text in enumerate(shown)}
        self._exact = how.exact
        self._shown = torch.zeros(activations.shape[1], len(self._known))
        evident = views.classes if how.evident else None
        named = evident if evident is not None else seen.new_zeros(len(seen), 0)
        self._named = torch.zeros(activations.shape[1], named.shape[1])
        counts = counting(named.shape[1], how.evident)
        self._parts: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._sources: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        self._total = total
        for inside in _places(views.sources).values():
            joint = seen[inside].float()
            joint = joint - joint.mean(0)
            values = _standardised(activations[inside].float())
            if beside is not None:
                others = _standardised(beside.activations[inside].float())
                values = values - _taken_off(others, beside.near, how.near_share)
            values = values.to(seen.device)
            share = _standardised(shares[inside].float()).to(values)
            evidence = _standardised(named[inside].float()).to(values)
            self._named += counts * (values.T @ evidence / total).cpu()
            self._shown += self._exact * (values.T @ share / total).cpu()
            self._parts.append((values.T @ joint / total, joint.T @ joint / len(inside)))
            self._sources.append((joint, values, share))

    def correlations(
        self, units: Sequence[int], texts: Sequence[str], vectors: torch.Tensor
    ) -> torch.Tensor:
        """Correlate texts' similarities with units' activations.

        Args:
            units: which of them.
            texts: t of them.
            vectors: of these in the joint space, [t, j].

        Returns:
            [len(units), t], Pearson correlations within each source, less those of the others'
            means, shrunk by ``no_opinion`` photographs: few say little. Those of texts that
            pixels tell are weighted by ``exact``. Of the name of a class or kind, that of the
            classifier, weighted by ``evident``, where it is larger.
        """
        found = vectors.new_zeros(len(units), len(texts))
        for towards, covariance in self._parts:
            spread = ((vectors @ covariance) * vectors).sum(1).clamp_min(TINY**2).sqrt()
            found += towards[units] @ vectors.T / spread
        columns = [i for i, text in enumerate(texts) if text in self._known]
        if columns:
            places = [self._known[texts[i]] for i in columns]
            found[:, columns] = self._shown[units][:, places].to(found)
        if self._named.shape[1]:
            known = classes_named()
            named = [(i, j) for i, text in enumerate(texts)
                     for j in known.get(normalise_text(text), ())]  # fmt: skip
            for i, j in named:
                torch.maximum(found[:, i], self._named[units, j].to(found), out=found[:, i])
        return found

    def shown(self, texts: Sequence[str], vectors: torch.Tensor) -> Shown:
        """Say how much each view shows each text, for `joined`.

        Args:
            texts: t of them.
            vectors: of these in the joint space, [t, j].
        """
        columns = [i for i, text in enumerate(texts) if text in self._known]
        places = [self._known[texts[i]] for i in columns]
        parts = []
        for views, _, share in self._sources:
            similar = _standardised(views @ vectors.T)
            similar[:, columns] = share[:, places]
            parts.append(similar.T.contiguous())
        weights = torch.ones(len(texts), device=vectors.device)
        weights[columns] = self._exact
        return Shown(tuple(parts), weights)

    def joined(
        self, units: Sequence[int], shown: Shown, pairs: Sequence[tuple[int, str, int]]
    ) -> torch.Tensor:
        """Correlate what pairs of texts say together with units' activations.

        A view shows "A or B" as much as the one of them that it shows more, "A and B" as much as
        the other one, "A without B" as much as it shows A and lacks B: the maximum and the minimum
        of fuzzy sets (Zadeh 1965), of similarities brought to mean 0 and variance 1.

        Args:
            units: which of them.
            shown: of the texts.
            pairs: (place of A, connective, place of B) among the texts.

        Returns:
            [len(units), len(pairs)], correlations as of `correlations`.
        """
        found = shown.weights.new_zeros(len(units), len(pairs))
        for views, (_, values, _) in zip(shown.parts, self._sources, strict=True):
            towards = values[:, units]
            size = max(1, NUMBERS_AT_ONCE // views.shape[1])
            for connective in CONNECTIVES:
                places = [p for p, pair in enumerate(pairs) if pair[1] == connective]
                for start in range(0, len(places), size):
                    here = places[start : start + size]
                    first, second = (views[[pairs[p][side] for p in here]] for side in (0, 2))
                    together = _together(connective, first, second)
                    # In place of bringing them to variance 1, which takes more passes over them.
                    together -= together.mean(1, keepdim=True)
                    spread = torch.linalg.vector_norm(together, dim=1) / views.shape[1] ** 0.5
                    towards_them = (together @ towards).T / (spread.clamp_min(TINY) * self._total)
                    found[:, here] += torch.where(spread > TINY, towards_them, 0.0)
        whole = [shown.weights[[pair[side] for pair in pairs]] for side in (0, 2)]
        return found * (whole[0] + whole[1]) / 2


def _together(connective: str, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return how much views show of pairs [p, n]; ``second`` may be changed."""
    if connective == "or":
        return torch.maximum(first, second)
    return torch.minimum(first, second.neg_() if connective == "without" else second)


def _places(sources: Sequence[str]) -> dict[str, list[int]]:
    """Return where the views of each source are."""
    places: dict[str, list[int]] = {}
    for place, source in enumerate(sources):
        places.setdefault(source, []).append(place)
    return places


def _taken_off(others: torch.Tensor, near: torch.Tensor, near_share: float) -> torch.Tensor:
    """Return what is taken off each unit: [n, u], or [n, 1] where none has near ones."""
    everywhere = others.mean(1, keepdim=True)
    if not near.shape[1]:
        return everywhere
    share = others.new_zeros(others.shape[1], len(near))
    share.scatter_(0, near.T, 1 / near.shape[1])
    return (1 - near_share) * everywhere + near_share * (others @ share)


def _standardised(values: torch.Tensor) -> torch.Tensor:
    """Bring columns [n, c] to mean 0 and variance 1; those that do not vary to 0."""
    centred = values - values.mean(0)
    spread = centred.square().mean(0).sqrt()
    return torch.where(spread > TINY, centred / spread.clamp_min(TINY), 0.0)
