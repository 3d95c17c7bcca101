"""Search of a small grid of weights, and what is gained on units that took no part in the search.

A coordinate at a time, the value that gives the largest `share`: how far the ranking goes to the
best text of each unit, the mean over the measures (those of P1, P2 and P3) of their sets' means;
until no value of any coordinate gives more. What joins two things more often than `MOST_JOINED`
of hidden units counts against it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from milanx.describing.settings import RankSettings
from milanx.errors import InputError
from milanx.evaluate.weights.gather import hidden, planted
from milanx.evaluate.weights.lists import DEVELOPMENT, LEAST, WeightsAsked
from milanx.evaluate.weights.pools import FORETELLING, PoolSet
from milanx.files import write_json
from milanx.language.connectives import joins
from milanx.language.words import normalise_text
from milanx.measures.crossing import Crossing
from milanx.measures.folds import folds
from milanx.progress import Reporter, Silent

if TYPE_CHECKING:
    from milanx.describing.describer import Describer

FORMAT, VERSION = "milanx weights", 1
# Each has the value that the bundled describer ships, and the neighbours that were thought of.
GRID: Mapping[str, tuple[float, ...]] = {
    "lam": (0.0, 0.1, 0.2, 0.3, 0.4, 0.6),
    "agreement": (0.0, 0.5, 1.0, 1.5, 2.0, 3.0),
    "response": (0.0, 100.0, 200.0, 300.0, 450.0, 700.0),
    "joined": (0.0, 1.0, 2.0, 4.0, 8.0, 12.0, 16.0, 24.0),
    "without": (0.0, 1.5, 3.0, 4.5, 6.0),
    "absent": (0.0, 1.0, 2.0, 4.0, 6.0),
    "length_penalty": (-0.2, 0.0, 0.2, 0.4),
    "dim": (0.06, 0.12, 0.18),
    "unsure": (1.5, 2.5, 4.0),
    "least": (0.1, 0.3, 0.6, 0.8, 1.0),
}
# Of hidden units' texts, that may join two things: "A or B" foretells more than A by chance alone,
# and readers found one half of it absent in every other one.
MOST_JOINED = 0.15
GAIN = 1e-9  # shares that are nearer than this are the same


def share(sets: Sequence[PoolSet], how: RankSettings) -> float:
    """What the ranking reaches, as a share of the best texts' worth: mean over measures' sets."""
    return float(sum(weight * s.worth(how).mean() / s.best
                     for weight, s in zip(_counted(sets), sets, strict=True)))  # fmt: skip


def joined_share(sets: Sequence[PoolSet], how: RankSettings) -> float:
    """Share of hidden units whose text joins two things; 0 without such units."""
    texts = [pool.text(how) for s in sets if s.measure == FORETELLING for pool in s.pools]
    return float(np.mean([joins(normalise_text(text)) for text in texts])) if texts else 0.0


def aim(sets: Sequence[PoolSet], how: RankSettings) -> float:
    """What is searched for: `share`, less what more than `MOST_JOINED` join."""
    return share(sets, how) - max(0.0, joined_share(sets, how) - MOST_JOINED)


def _counted(sets: Sequence[PoolSet]) -> list[float]:
    """How much each set counts: every measure the same, and every set of one measure."""
    counts = Counter(s.measure for s in sets)
    return [1 / (len(counts) * counts[s.measure]) for s in sets]


def climb(
    sets: Sequence[PoolSet], start: RankSettings, grid: Mapping[str, Sequence[float]] = GRID
) -> RankSettings:
    """Search the grid, a coordinate at a time, from ``start``; of equal values the first stays."""
    best, known = start, aim(sets, start)
    moved = True
    while moved:
        moved = False
        for name, values in grid.items():
            for value in values:
                changes: dict[str, Any] = {name: value}
                trial = replace(best, **changes)
                found = aim(sets, trial) if trial != best else known
                if found > known + GAIN:
                    best, known, moved = trial, found, True
    return best


def gained(
    sets: Sequence[PoolSet],
    start: RankSettings,
    grid: Mapping[str, Sequence[float]] = GRID,
    seed: int = 0,
) -> dict[str, Any]:
    """What choosing gains over ``start`` in `share`, on units that took no part in the choice.

    The units of each set are halved; weights are chosen on either half and measured on the other.

    Returns:
        ``estimate`` and ``interval``, over units and the photographs that they show.
    """
    halves = [folds(len(s.pools), seed) % 2 == 0 for s in sets]
    values: list[np.ndarray] = [np.zeros(len(s.pools)) for s in sets]
    for side in (True, False):
        learned = climb([s.part(h == side) for s, h in zip(sets, halves, strict=True)], start, grid)
        for s, half, value in zip(sets, halves, values, strict=True):
            other = s.part(half != side)
            value[half != side] = other.worth(learned) - other.worth(start)
    total = sum(len(s.pools) for s in sets)
    scaled = [v / s.best * total * weight / len(s.pools)
              for v, s, weight in zip(values, sets, _counted(sets), strict=True)]  # fmt: skip
    shown = [pool.shown for s in sets for pool in s.pools]
    return Crossing(shown, seed).interval(np.concatenate(scaled))


def choose_weights(
    describer: Describer, asked: WeightsAsked, progress: Reporter | None = None
) -> dict[str, Any]:
    """Choose the weights of a describer's ranking on what is for development.

    The texts are those that the describer finds as it is; only their ranking is chosen.

    Args:
        describer: whose ranking; its own weights are where the search begins.
        asked: how much.
        progress: told about encoding, describing and the search.

    Returns:
        ``weights.json``: the weights that the describer has and those that were chosen, the worth
        of each set under both, and what choosing gains on units that did not choose.

    Raises:
        InputError: photos that cannot be used, or a describer that does not tell its training.
    """
    started, progress = time.monotonic(), progress or Silent()
    sets = [one for seed in DEVELOPMENT.seeds for one in planted(describer, asked, seed, progress)]
    sets += hidden(describer, asked, progress)
    small = [s for s in sets if len(s.pools) < LEAST]
    if small:
        raise InputError(f"{small[0].name} has {len(small[0].pools)} units",
                         f"{LEAST} are needed to choose anything")  # fmt: skip
    own = describer.settings
    with progress.stage("choose", None):
        best = climb(sets, own)
        gain = gained(sets, own, seed=asked.seed)
    report = {
        "describer": describer.name,
        "fingerprint": describer.fingerprint,
        "has": _weights(own),
        "chosen": _weights(best),
        "share": {"has": share(sets, own), "chosen": share(sets, best)},
        "joined": {"has": joined_share(sets, own), "chosen": joined_share(sets, best)},
        "gain on other units": gain,
        "sets": {s.name: _measured(s, own, best) for s in sets},
        "development": asdict(DEVELOPMENT),
        "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip
    write_json(asked.out / "weights.json", FORMAT, VERSION, report)
    return report


def _measured(units: PoolSet, own: RankSettings, best: RankSettings) -> dict[str, Any]:
    return {"measure": units.measure, "n": len(units.pools),
            "has": float(units.worth(own).mean()), "chosen": float(units.worth(best).mean()),
            "best text": units.best}  # fmt: skip


def _weights(how: RankSettings) -> dict[str, float]:
    return {name: float(getattr(how, name)) for name in GRID}
