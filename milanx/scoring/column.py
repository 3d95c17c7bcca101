"""The score of every description of a run: does the text foretell the unit on images kept aside?

The Pearson correlation, within each source, of the unit's spatial maximum with what a simulator
predicts from the text alone, s = sigmoid(a * similarity(text, image) + b), a > 0. One pair a, b a
layer, fitted on other units and on the searched images: nothing is fitted on the unit, and no image
kept aside took part in its exemplars. The interval is a percentile bootstrap over photographs:
images of one group (crops and near-duplicates) are drawn together.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from milanx.describing.where import located_texts
from milanx.errors import MissingWeights
from milanx.measures.folds import folds
from milanx.measures.intervals import CROSSED_DRAWS, resampled_counts
from milanx.progress import Reporter, Silent
from milanx.scoring import correlate as co
from milanx.scoring.features import image_features
from milanx.scoring.simulator import BUILTIN, Simulating, Simulator

if TYPE_CHECKING:
    from milanx.exemplars.store import ExemplarStore
    from milanx.images.probe import ProbeImages
    from milanx.targets.zoo import Target

MIN_PHOTOS = 50  # distinct ones kept aside, below which nothing is said
MIN_SOURCE = 20  # images kept aside of a source, below which it is left out
ASIDE = 600  # images kept aside that are looked at, drawn by seed where there are more
ASIDE_SHARE, TENS = 0.2, 10  # of photos, kept aside where nothing is known; what advice is told in
SEARCHED = 100  # searched images on which a layer's slope is fitted
UNITS_AT_ONCE = 1024  # whose draws are in memory at a time

NOT_ASKED = "--no-score was given"
UNSEEN = (
    "it says colour, light, lines or a place in the view, which a likeness of texts and whole "
    "views hardly tells"
)

UnitKey = tuple[str, int, str]  # layer, unit, sign
Look = Callable[[np.ndarray], np.ndarray]  # indices of images -> their features


@dataclass(frozen=True)
class Score:
    """How well one text foretells its unit.

    Attributes:
        value: correlation, -1 to 1; None where it cannot be measured.
        interval: its 95 % interval.
        reason: why there is none; empty where there is one.
    """

    value: float | None = None
    interval: tuple[float, float] | None = None
    reason: str = ""


@dataclass(frozen=True)
class Scores:
    """The scores of a run.

    Attributes:
        units: one for each unit and sign.
        facts: for ``run.json``: the simulator, how many images and photographs of which sources,
            or the reason why nothing is scored.
    """

    units: dict[UnitKey, Score]
    facts: dict[str, Any]

    @classmethod
    def none(cls, keys: Iterable[UnitKey], reason: str) -> Scores:
        """Return no score for any unit, and why."""
        return cls({key: Score(reason=reason) for key in keys}, {"reason": reason})


@dataclass(frozen=True)
class Images:
    """Images that texts are scored on, or a slope is fitted on.

    Attributes:
        indices: int64 [n].
        sources: number of each image's source, int [n].
        groups: number of each image's photograph, int [n].
    """

    indices: np.ndarray
    sources: np.ndarray
    groups: np.ndarray


def score_texts(
    texts: Mapping[UnitKey, str],
    store: ExemplarStore,
    images: ProbeImages,
    target: Target,
    *,
    simulator: Simulating | Simulator | str = BUILTIN,
    seed: int = 0,
    progress: Reporter | None = None,
) -> Scores:
    """Score the descriptions of a run.

    Args:
        texts: of each unit and sign; empty for one that is not described.
        store: its exemplars.
        images: its probe images, opened.
        target: whose views they become.
        simulator: one, or what `Simulator.load` takes, with where it computes or without.
        seed: of folds, of the images drawn where there are many, and of the draws.
        progress: told about encoding.

    Returns:
        A score or a reason for every unit: what the images lack is no error.
    """
    with opened(store, images, target, simulator, seed, progress) as found:
        if isinstance(found, str):
            return Scores.none(texts, found)
        return found.sides.scores(texts, store, found.judge, found.look, seed)


@dataclass(frozen=True)
class Opened:
    """What texts are compared with: a simulator, images, and its features of them.

    Attributes:
        sides: the images.
        judge: the simulator.
        look: gives its features of images by their indices.
        seed: of draws.
    """

    sides: Sides
    judge: Simulator
    look: Look
    seed: int


@contextlib.contextmanager
def opened(
    store: ExemplarStore,
    images: ProbeImages,
    target: Target,
    simulator: Simulating | Simulator | str,
    seed: int,
    progress: Reporter | None,
) -> Iterator[Opened | str]:
    """Open what the texts of a run are compared with; see `score_texts`.

    Yields:
        It, or why nothing can be compared.
    """
    sides = Sides.of(store, seed)
    if sides.lack:
        yield sides.lack
        return
    with contextlib.ExitStack() as stack:
        try:
            judge = stack.enter_context(Simulating.of(simulator).opened())
        except MissingWeights as error:
            yield f"{error.what}: {error.why}"
            return
        if judge.tower is not None and judge.tower == target.name:
            yield f"the image tower of {judge.name}, which scores, is the target itself"
            return
        bar = stack.enter_context((progress or Silent()).stage(
            "score", len(sides.aside.indices) + len(sides.searched.indices)))  # fmt: skip

        def look(indices: np.ndarray) -> np.ndarray:
            wanted = [sides.table[i]["fingerprint"] for i in indices]
            return image_features(judge, target.preprocess, wanted,
                                  lambda: (images, indices.tolist()), bar.advance)  # fmt: skip

        yield Opened(sides, judge, look, seed)


def score_stored(
    texts: Mapping[UnitKey, str], store: ExemplarStore, judge: Simulator, look: Look, seed: int = 0
) -> Scores:
    """Score descriptions of units that no target has, as `score_texts` scores those of a run.

    Args:
        texts: of each unit and sign.
        store: its exemplars, and which images were kept aside.
        judge: the simulator.
        look: gives the simulator's features of images by their indices, float16 [n, c].
        seed: as there.
    """
    sides = Sides.of(store, seed)
    if sides.lack:
        return Scores.none(texts, sides.lack)
    return sides.scores(texts, store, judge, look, seed)


@dataclass(frozen=True)
class Sides:
    """The images of a store that texts are scored on, and those that slopes are fitted on.

    Attributes:
        table: what is known of all images.
        sources: names of those with enough of them.
        aside: on which texts are scored.
        searched: on which slopes are fitted.
        photos: how many distinct ones were kept aside.
        lack: why nothing can be scored; empty where it can.
    """

    table: list[dict[str, Any]]
    sources: list[str]
    aside: Images
    searched: Images
    photos: int
    lack: str

    @classmethod
    def of(cls, store: ExemplarStore, seed: int) -> Sides:
        """Find the images of both sides; many are drawn by ``seed``."""
        table = store.image_table()
        names = _sources(table)
        aside = _some(table, names, "aside", ASIDE, seed)
        searched = _some(table, names, "exemplars", SEARCHED, seed)
        photos, lack = len(np.unique(aside.groups)), ""
        if photos < MIN_PHOTOS or not len(searched.indices):
            lack = _lack(table, photos)
        return cls(table, names, aside, searched, photos, lack)

    def scores(
        self, texts: Mapping[UnitKey, str], store: ExemplarStore, judge: Simulator, look: Look,
        seed: int,
    ) -> Scores:  # fmt: skip
        """Score texts; see `score_stored`."""
        features = [look(some.indices) for some in (self.aside, self.searched)]
        found: dict[UnitKey, Score] = {}
        for layer in dict.fromkeys(layer for layer, _, _ in texts):
            here = {key: text for key, text in texts.items() if key[0] == layer}
            found |= _layer(here, store, judge, (self.aside, self.searched), features, seed)
        facts = {"simulator": judge.name, "fingerprint": judge.fingerprint,
                 "shared": list(judge.shared), "images": len(self.aside.indices),
                 "photos": self.photos, "sources": self.sources, "seed": seed}  # fmt: skip
        return Scores(found, facts)


def _lack(table: list[dict[str, Any]], photos: int) -> str:
    """Say how many photos were kept aside, how many a score needs, and how many to give.

    Args:
        table: of all images.
        photos: distinct ones kept aside, of sources with enough of them.
    """
    kept = len({row["group"] for row in table if row["split"] == "aside"})
    if kept > photos and kept >= MIN_PHOTOS:
        return (f"of {kept} distinct photos kept aside {photos} are of sources with "
                f"{MIN_SOURCE} images kept aside or more, and a score needs {MIN_PHOTOS}: give "
                "fewer sources, with more photos each")  # fmt: skip
    every = len({row["group"] for row in table})
    share = kept / every if kept else ASIDE_SHARE
    least = -(-round(MIN_PHOTOS / share) // TENS) * TENS
    return (f"{kept} of {every} distinct photos were kept aside, and a score needs {MIN_PHOTOS}: "
            f"give about {least} photos or more")  # fmt: skip


def _sources(table: list[dict[str, Any]]) -> list[str]:
    """Return the sources of which enough images were kept aside, and some searched."""
    kept = Counter(row["source"] for row in table if row["split"] == "aside")
    searched = {row["source"] for row in table if row["split"] != "aside"}
    return [name for name, count in kept.items() if count >= MIN_SOURCE and name in searched]


def _some(
    table: list[dict[str, Any]], names: list[str], split: str, most: int, seed: int
) -> Images:
    """Return at most so many images of one side of the split."""
    rows = [row for row in table if (row["split"] == "aside") == (split == "aside")
            and row["source"] in names]  # fmt: skip
    if len(rows) > most:
        drawn = np.random.default_rng(seed).permutation(len(rows))[:most]
        rows = [rows[i] for i in np.sort(drawn)]
    groups = np.unique([row["group"] for row in rows], return_inverse=True)[1]
    return Images(np.array([row["index"] for row in rows], np.int64),
                   np.array([names.index(row["source"]) for row in rows], np.int64),
                   np.asarray(groups, np.int64))  # fmt: skip


def _layer(
    texts: dict[UnitKey, str],
    store: ExemplarStore,
    judge: Simulator,
    sides: tuple[Images, Images],
    features: list[np.ndarray],
    seed: int,
) -> dict[UnitKey, Score]:
    """Score the units of one layer."""
    layer = next(iter(texts))[0]
    found: dict[UnitKey, Score] = {}
    if not store.has_maxima(layer):
        return {key: Score(reason="the run has no record of every image") for key in texts}
    for key, text in texts.items():
        if key[2] == "-":
            found[key] = Score(reason="of the low side (-) there is no record of every image")
        elif not text:
            found[key] = Score(reason="it has no description")
        elif text in located_texts():
            found[key] = Score(reason=UNSEEN)
    keys = [key for key in texts if key not in found]
    if not keys:
        return found
    columns = [store.column(layer, unit) for _, unit, _ in keys]
    aside, searched = (np.asarray(store.maxima(layer)[side.indices], np.float64)[:, columns].T
                       for side in sides)  # fmt: skip
    varies: np.ndarray = np.asarray(co.varying(aside, sides[0].sources).any(1))
    for key in (key for key, varied in zip(keys, varies, strict=True) if not varied):
        found[key] = Score(reason="it gives one value on all images kept aside")
    keys = [key for key, varied in zip(keys, varies, strict=True) if varied]
    if not keys:
        return found
    distinct, own = np.unique([texts[key] for key in keys], return_inverse=True)
    fold = folds(len(keys), seed)
    on_aside, on_searched = (judge.similarity(distinct.tolist(), part)[own] for part in features)
    sigmoids = co.fit_sigmoids(on_searched, searched[varies], fold)
    predictions = co.predict(on_aside, sigmoids, fold)
    values, low, high = _intervals(predictions, aside[varies], sides[0], seed)
    for key, *figures in zip(keys, values, low, high, strict=True):
        value, *interval = (float(f) for f in figures)
        found[key] = Score(value, (interval[0], interval[1]))
    return found


def photo_counts(side: Images, seed: int) -> np.ndarray:
    """Draw photographs anew within their source: how often each image is drawn, [draws, n]."""
    rng = np.random.default_rng(seed)
    counts = np.zeros((CROSSED_DRAWS, len(side.sources)), np.float32)
    for source in np.unique(side.sources):
        here = np.flatnonzero(side.sources == source)
        photos, which = np.unique(side.groups[here], return_inverse=True)
        counts[:, here] = resampled_counts(len(photos), CROSSED_DRAWS, rng)[:, which]
    return counts


def _intervals(
    predictions: np.ndarray, activations: np.ndarray, side: Images, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return correlations and the ends of their intervals, each [u].

    A draw in which one image stands for a source counts that source as 0.
    """
    counts = photo_counts(side, seed)
    values = co.correlations(predictions, activations, side.sources)
    ends = []
    for start in range(0, len(values), UNITS_AT_ONCE):
        part = slice(start, start + UNITS_AT_ONCE)
        drawn = co.weighted_correlations(predictions[part], activations[part], side.sources, counts)
        ends.append(np.percentile(drawn, [2.5, 97.5], axis=0))
    low, high = np.concatenate(ends, 1)
    return values, low, high
