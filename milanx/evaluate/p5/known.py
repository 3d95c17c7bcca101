"""Units whose concept is known: logits over labelled images, and units that are built.

No photos are needed to build one: a measure looks at labels and activations alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from milanx.errors import InputError
from milanx.evaluate.common.names import accepted_names
from milanx.evaluate.p1.logits import classes_of
from milanx.evaluate.p3.aside import MIN_SOURCE, run_features
from milanx.evaluate.p5.measures import Excited
from milanx.measures.folds import folds
from milanx.progress import Reporter
from milanx.runs import Run
from milanx.scoring.correlate import fit_sigmoids, predict
from milanx.scoring.simulator import Simulator

POSITIVES = 50  # images kept aside that must show a concept
TOP = 0.05  # share of the images that excite a unit, where a signal foretells it
LOOKED_AT = 600  # images kept aside on which signals are compared, as of the score
SEARCHED = 100  # other images, on which the slope of the simulator is fitted, as of the score
# Of built units: how many of the images that excite them show the concept, and of those that show
# it excite them (the purity of P2's units), and the most that the others excite them (likewise).
HELD = (0.7, 1.0)
BACKGROUND = 0.1
NOISE = 0.15  # deviation of what a built unit does from the signal that it follows


@dataclass(frozen=True)
class Case:
    """A unit with its concept.

    Attributes:
        unit: what it does on n images.
        signal: how much each image shows the concept, 0 to 1, float [n].
        least: of the signal, from which on an image is labelled with it.
    """

    unit: Excited
    signal: np.ndarray
    least: float = 0.5


@dataclass(frozen=True)
class Logits:
    """Logits of a run whose classes enough of its images kept aside have.

    Attributes:
        names: of the classes, u.
        shows: which images have the class, bool [u, n].
        activations: [u, n].
        sources: number of each image's source, int [n].
        indices: of the images in the run, int [n].
        columns: layer and number of each unit.
    """

    names: tuple[str, ...]
    shows: np.ndarray
    activations: np.ndarray
    sources: np.ndarray
    indices: np.ndarray
    columns: tuple[tuple[str, int], ...]


def known_logits(run: Run) -> Logits:
    """Find the logits of a run whose classes are those of `POSITIVES` images kept aside or more.

    Raises:
        InputError: there are none; it says what is missing.
    """
    store, order = run.store, list(accepted_names())
    layers = [name for name in store.layers
              if store.record(name).kind == "logits" and store.has_maxima(name)]  # fmt: skip
    if not layers:
        raise InputError("no logits", "none of the run's layers is a classifier's",
                         "milanx exemplars MODEL --layer classifier (or fc, head)")  # fmt: skip
    table = store.image_table()
    kept = [row for row in table if row["split"] == "aside"]
    names = sorted({row["source"] for row in kept})
    indices = np.array([row["index"] for row in kept], int)
    labels = np.array(classes_of(kept), object)
    at = [(layer, unit) for layer in layers for unit, sign in store.units(layer)
          if sign == "+" and unit < len(order)
          and (labels == order[unit]).sum() >= POSITIVES]  # fmt: skip
    if not at:
        most = max(((labels == wnid).sum() for wnid in set(labels) - {""}), default=0)
        raise InputError(
            f"no logit's class is that of {POSITIVES} images kept aside",
            f"{len(kept)} were kept, at most {most} of one class of ImageNet",
            ["probe with more labelled images", "keep more aside: milanx exemplars --aside 0.7"],
        )
    values = np.stack([np.asarray(store.maxima(layer)[indices, store.column(layer, unit)])
                       for layer, unit in at])  # fmt: skip
    wnids = [order[unit] for _, unit in at]
    return Logits(
        tuple(accepted_names()[w][0] for w in wnids), np.stack([labels == w for w in wnids]),
        values.astype(np.float64), np.array([names.index(row["source"]) for row in kept]),
        indices, tuple(at),
    )  # fmt: skip


def labelled(logits: Logits, frequency: float, rng: np.random.Generator) -> Iterator[Case]:
    """Yield each logit among images of which a share ``frequency`` has its class.

    Positives or negatives are drawn, whichever are too many. A unit that keeps fewer than
    `POSITIVES` positives is left out.
    """
    for shows, values in zip(logits.shows, logits.activations, strict=True):
        yes, no = np.flatnonzero(shows), np.flatnonzero(~shows)
        odds = frequency / (1 - frequency)
        count = min(len(yes), round(len(no) * odds))
        if count < POSITIVES:
            continue
        others = rng.permutation(no)[: round(count / odds)]
        chosen = np.sort(np.concatenate([rng.permutation(yes)[:count], others]))
        here = shows[chosen]
        unit = Excited.most(values[chosen], count, logits.sources[chosen])
        yield Case(unit, here.astype(float))


def planted(frequency: float, count: int, images: int, rng: np.random.Generator) -> Iterator[Case]:
    """Build units whose concept a share ``frequency`` of the images shows."""
    shown = round(frequency * images)
    for _ in range(count):
        order = rng.permutation(images)
        labels = np.zeros(images, bool)
        labels[order[:shown]] = True
        hit = round(shown * rng.uniform(*HELD))
        wrong = round(hit / rng.uniform(*HELD)) - hit
        values = rng.uniform(0, BACKGROUND, images)
        excite = np.concatenate([order[:hit], order[shown : shown + wrong]])
        values[excite] = rng.uniform(0.5, 1, len(excite))
        unit = Excited.most(values, shown, np.zeros(images, int))
        yield Case(unit, labels.astype(float))


def planted_signals(count: int, images: int, rng: np.random.Generator) -> Iterator[Case]:
    """Build units that follow a signal, which most images show little of."""
    for _ in range(count):
        signal = rng.uniform(0, 1, images) ** 3
        values = signal + rng.normal(0, NOISE, images)
        yield _foretold(values, signal, np.zeros(images, int))


def _foretold(values: np.ndarray, signal: np.ndarray, sources: np.ndarray) -> Case:
    """Make a case of a signal; as many images are labelled as excite the unit."""
    count = max(1, round(TOP * len(values)))
    return Case(Excited.most(values, count, sources), signal, float(np.sort(signal)[-count]))


def foretold(
    run: Run, logits: Logits, judge: Simulator, images: Sequence[str], seed: int,
    progress: Reporter,
) -> Iterator[Case]:  # fmt: skip
    """Yield each logit with what the simulator foretells from its class's name, as our score does.

    Args:
        run: the run.
        logits: of it.
        judge: the simulator.
        images: where the run's sources lie now; where the run says when empty.
        seed: of the images that are drawn, and of the folds.
        progress: told about encoding.

    Raises:
        InputError: images that are not found again.
    """
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(logits.indices))[:LOOKED_AT])
    few = {s for s in np.unique(logits.sources[chosen])
           if (logits.sources[chosen] == s).sum() < MIN_SOURCE}  # fmt: skip
    chosen = chosen[[s not in few for s in logits.sources[chosen]]]
    searched = np.sort(rng.permutation(run.store.searched)[:SEARCHED])
    aside = logits.indices[chosen]
    with progress.stage("encode images", len(aside) + len(searched)) as bar:
        seen, others = (run_features(judge, run, some.tolist(), images, bar.advance)
                        for some in (aside, searched))  # fmt: skip
    fold = folds(len(logits.names), seed)
    activations = np.stack([run.store.maxima(layer)[searched, run.store.column(layer, unit)]
                            for layer, unit in logits.columns])  # fmt: skip
    sigmoids = fit_sigmoids(judge.similarity(logits.names, others), activations, fold)
    signals = predict(judge.similarity(logits.names, seen), sigmoids, fold)
    for values, signal in zip(logits.activations[:, chosen], signals, strict=True):
        yield _foretold(values, signal, logits.sources[chosen])
