"""Training units: exemplar sets drawn from meanings, as impure and loose as real ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from milanx.features.evidence import Evidence
from milanx.language.words import plural
from milanx.train.recipe import KindShare
from milanx.train.units.meanings import FURTHER
from milanx.train.units.phrases import vary
from milanx.train.units.table import Entry, Table

# How often each kind of meaning is drawn, unless a recipe says otherwise. Of the further ones,
# which have none by themselves, none is made.
SHARES = {
    "class": 0.24, "kind": 0.08, "region": 0.12, "texture": 0.02, "phrase": 0.18, "pixel": 0.14,
    "channel": 0.12, "both": 0.05, "without": 0.05, "annotated": 1.0,
    **dict.fromkeys(FURTHER, 0.0),
}  # fmt: skip
# Whose words are seen.
NAMING = frozenset({"class", "kind", "texture", "region", "phrase", *FURTHER})
TWO_SENSES = 0.15  # share of units that mean "A or B"
WHOLE_VIEW = 0.25  # share of sets whose masks are whole views, as those of logits are
WHOLE_KINDS = frozenset(
    {"class", "kind", "texture", "phrase", "hypernym", "scene", "light", "dish", "recognised"}
)
JOINED = frozenset({"both", "without", "channel"})  # kinds that are never one of two senses
NO_CONTRAST = 0.15  # share of the units without contrast views
MIN_EXEMPLARS = 6
FULL_SET = 0.7  # share of the units with all k exemplars
# Share of the units whose views are all of one source. Real units often live on photos of one
# kind, and where sources lie with meanings, the source would be learned in their place.
ONE_SOURCE = 0.6
MIN_OWN = 4  # views of a meaning that a source must have for it
PARTNERS = 8  # draws of a second meaning, until one source shows both
# Photographs that must show a meaning, in training and in the check: sets of views of two or three
# are known by heart, and tell nothing of the meaning.
MIN_GROUPS, MIN_CHECKED = 5, 3


@dataclass(frozen=True)
class Unit:
    """One training unit before its features are looked up.

    Attributes:
        rows: int64 [k], rows of the table; of whole views their photos.
        whole: whether the masks are whole views.
        contrast: int64 [c], photos.
        text: its description.
        kind: of its first meaning.
        senses: the texts of each of its meanings.
    """

    rows: np.ndarray
    whole: bool
    contrast: np.ndarray
    text: str
    kind: str
    senses: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Batch:
    """Training units: what the set encoder reads of them, their texts, kinds of meaning."""

    evidence: Evidence
    texts: list[str]
    kinds: list[str]


def kind_shares(told: Iterable[KindShare]) -> dict[str, float]:
    """Return how often each kind of meaning is drawn, with what a recipe says of some of them."""
    return SHARES | {each.kind: each.share for each in told}


class Corpus:
    """Draws training units from the meanings of a table.

    Args:
        table: pooled features.
        exemplars: k.
        contrast: contrast views of a unit.
        min_purity: least share of a set that shows its meaning.
        check: draw the units that a training is checked on, of photos that no training sees.
        shares: how often each kind of meaning is drawn.

    Attributes:
        kinds: of meanings that can be drawn; none where too few photos are kept for the check.
        varied: whether texts are also said in the plural.
        least: photographs that must show a meaning, in training and in the check.
    """

    varied = True
    least = (MIN_GROUPS, MIN_CHECKED)

    def __init__(
        self,
        table: Table,
        exemplars: int = 15,
        contrast: int = 4,
        min_purity: float = 0.6,
        *,
        check: bool = False,
        shares: Mapping[str, float] = SHARES,
    ) -> None:
        self.table = table
        self.check = check
        self.exemplars = exemplars
        self.contrast = contrast
        self.min_purity = min_purity
        self.rows = np.flatnonzero(np.asarray(table.checked)[table.photo] == check)
        origin = np.asarray(table.source)[table.photo[self.rows]]
        self.rows_of = {int(s): self.rows[origin == s] for s in np.unique(origin)}
        self.views: dict[int, np.ndarray] = {}
        self.views_of: dict[int, dict[int, np.ndarray]] = {}
        self.by_kind: dict[str, list[Entry]] = {}
        for entry in table.entries:
            views = self._own(entry)
            if shares[entry.kind] and self._photographs(entry, views) >= self.least[check]:
                self.views[entry.start] = views
                self.views_of[entry.start] = self._by_source(entry, views)
                self.by_kind.setdefault(entry.kind, []).append(entry)
        self.kinds = sorted(self.by_kind)
        drawn = np.array([shares[kind] for kind in self.kinds])
        self.shares = drawn / max(drawn.sum(), 1e-9)
        # Within a kind the square root of the count: frequent meanings lead, rare ones are met.
        self.weights = {}
        for kind, group in self.by_kind.items():
            counts = np.sqrt([min(e.photos, 60) for e in group])
            self.weights[kind] = counts / counts.sum()

    def _entry(self, rng: np.random.Generator, *, alone: bool = True) -> Entry:
        while True:
            kind = str(rng.choice(self.kinds, p=self.shares))
            if alone or kind not in JOINED:
                group = self.by_kind[kind]
                return group[int(rng.choice(len(group), p=self.weights[kind]))]

    def _own(self, entry: Entry) -> np.ndarray:
        """Return which views of a meaning these units may show: places among its views."""
        last = entry.start + entry.photos * entry.variants
        shown = self.table.photo[entry.start : last : entry.variants]
        return np.flatnonzero(self.table.checked[shown] == self.check)

    def _photographs(self, entry: Entry, views: np.ndarray) -> int:
        """Count the photographs that are shown by places among a meaning's views."""
        shown = self.table.photo[entry.start + views * entry.variants]
        return len(np.unique(self.table.group[shown]))

    def _by_source(self, entry: Entry, views: np.ndarray) -> dict[int, np.ndarray]:
        """Divide the views of a meaning by source; sources with few of them are left out."""
        origin = self.table.source[self.table.photo[entry.start + views * entry.variants]]
        parts = {int(s): views[origin == s] for s in np.unique(origin)}
        return {s: part for s, part in parts.items() if len(part) >= MIN_OWN}

    def frequencies(self) -> dict[str, float]:
        """Return how often each text is drawn for a unit of one meaning; they sum to one."""
        found: dict[str, float] = {}
        for kind, share in zip(self.kinds, self.shares, strict=True):
            for entry, weight in zip(self.by_kind[kind], self.weights[kind], strict=True):
                for text in entry.texts:
                    found[text] = found.get(text, 0.0) + share * weight / len(entry.texts)
        return found

    def _phrase(self, entry: Entry, rng: np.random.Generator) -> str:
        text = str(rng.choice(entry.texts))
        return vary(text, rng) if entry.countable else text

    def _senses(self, rng: np.random.Generator) -> tuple[list[Entry], str, int | None]:
        """Draw one meaning, sometimes two, their words, and a source where all is of one."""
        one_source = rng.random() < ONE_SOURCE
        if rng.random() >= TWO_SENSES:
            senses = [self._entry(rng)]
            text = self._phrase(senses[0], rng)
        else:
            first = self._entry(rng, alone=False)
            for _ in range(PARTNERS if one_source else 1):
                senses = [first, self._entry(rng, alone=False)]
                if self._shared(senses):
                    break
            text = " or ".join(dict.fromkeys(self._phrase(e, rng) for e in senses))
        shared = self._shared(senses) if one_source else {}
        if not shared:
            return senses, text, None
        counts = np.array([*shared.values()], float)
        return senses, text, int(rng.choice([*shared], p=counts / counts.sum()))

    def _shared(self, senses: list[Entry]) -> dict[int, int]:
        """Return the sources that show every one of some meanings, and how many views of them."""
        parts = [self.views_of[entry.start] for entry in senses]
        return {s: sum(len(p[s]) for p in parts) for s in parts[0] if all(s in p for p in parts)}

    def text(self, rng: np.random.Generator) -> str:
        """Draw one description alone, with the frequencies of `batch`."""
        return self._senses(rng)[1]

    def all_texts(self) -> list[str]:
        """Return every phrase that `text` can draw of a single meaning."""
        found: list[str] = []
        for group in self.by_kind.values():
            for entry in group:
                found += entry.texts
                if entry.countable:
                    found += [plural(text) for text in entry.texts]
        return found

    def vocabulary(self) -> list[str]:
        """Return the phrases that can be retrieved for a set."""
        named = NAMING | {"pixel"}
        entries = itertools.chain(*(self.by_kind.get(kind, []) for kind in named))
        return sorted({t for e in entries for t in e.texts})

    def unit(self, rng: np.random.Generator) -> Unit:
        """Draw one unit."""
        senses, text, source = self._senses(rng)
        k = self.exemplars
        if rng.random() >= FULL_SET:
            k = int(rng.integers(min(MIN_EXEMPLARS, k), k + 1))
        pure = rng.random(k) < rng.uniform(self.min_purity, 1)
        which = rng.integers(0, len(senses), k)
        whole = all(e.kind in WHOLE_KINDS for e in senses) and rng.random() < WHOLE_VIEW
        rows = rng.choice(self.rows if source is None else self.rows_of[source], k)
        for sense, entry in enumerate(senses):
            places = np.flatnonzero(pure & (which == sense))
            views = self.views[entry.start]
            if source is not None:
                views = self.views_of[entry.start][source]
            shown = rng.permutation(views)[np.arange(len(places)) % len(views)]
            variant = rng.integers(0, entry.variants, len(places))
            rows[places] = entry.start + shown * entry.variants + variant
        if whole:
            rows = self.table.photo[rows].astype(np.int64)
        near = np.concatenate([entry.near for entry in senses])
        near = near if self.check else near[~self.table.checked[near]]
        if source is not None:
            near = near[self.table.source[near] == source]
        drawn = rng.permutation(near)[: self.contrast if rng.random() >= NO_CONTRAST else 0]
        return Unit(rows, whole, drawn, text, senses[0].kind, tuple(e.texts for e in senses))

    def batch(self, size: int, rng: np.random.Generator) -> Batch:
        """Draw ``size`` units."""
        units = [self.unit(rng) for _ in range(size)]
        return Batch(self.evidence(units), [u.text for u in units], [u.kind for u in units])

    def evidence(self, units: list[Unit]) -> Evidence:
        """Look up the features of ``units``."""
        table, n = self.table, len(units)
        d, j = table.whole.shape[1], table.whole_joint.shape[1]
        features = np.zeros((n, self.exemplars, 2, d), np.float32)
        joint = np.zeros((n, self.exemplars, 2, j), np.float32)
        valid = np.zeros((n, self.exemplars), bool)
        contrast = np.zeros((n, self.contrast, d), np.float32)
        contrast_joint = np.zeros((n, self.contrast, j), np.float32)
        contrast_valid = np.zeros((n, self.contrast), bool)
        for u, unit in enumerate(units):
            k, c = len(unit.rows), len(unit.contrast)
            photos = unit.rows if unit.whole else table.photo[unit.rows]
            features[u, :k, 1], joint[u, :k, 1] = table.whole[photos], table.whole_joint[photos]
            if unit.whole:
                features[u, :k, 0], joint[u, :k, 0] = features[u, :k, 1], joint[u, :k, 1]
            else:
                features[u, :k, 0] = table.masked[unit.rows]
                joint[u, :k, 0] = table.masked_joint[unit.rows]
            valid[u, :k] = True
            contrast[u, :c] = table.whole[unit.contrast]
            contrast_joint[u, :c] = table.whole_joint[unit.contrast]
            contrast_valid[u, :c] = True
        arrays = (features, joint, valid, contrast, contrast_joint, contrast_valid)
        return Evidence(*(torch.from_numpy(a) for a in arrays))
