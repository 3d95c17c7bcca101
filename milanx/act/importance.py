"""What units of a kind are worth: accuracy as they are ablated, beside random units.

MILAN, section 5: units are set to zero in steps of 2 % of all units, up to 18 %, and so are random
ones, five orders of each. Here the random units are of the same layers, the orders of a kind are
random too (a description names a kind or does not), the difference is tested, and the tests are
corrected over the kinds by Holm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from milanx.act.ablate import Edit, run_places
from milanx.act.data import EvalSet
from milanx.act.places import refuse_computed
from milanx.act.tail import Tail
from milanx.errors import InputError
from milanx.measures.intervals import holm, p_value, resampled_counts, with_interval
from milanx.progress import Reporter, Silent

if TYPE_CHECKING:
    from milanx.runs import Run
    from milanx.targets.zoo import Target

Unit = tuple[str, int]
MIN_ORDERS = 2  # of which a spread can be seen


@dataclass(frozen=True)
class ImportanceSettings:
    """How units are ablated.

    Attributes:
        step: share of all described units that a step ablates (the paper's .02).
        most: the last step (the paper's .18).
        orders: in which a kind's units, and as many random ones, are taken (the paper's 5).
        draws: of the bootstrap.
        batch_size: images a step.
        seed: of the orders and draws.
    """

    step: float = 0.02
    most: float = 0.18
    orders: int = 5
    draws: int = 2_000
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.step <= self.most <= 1:
            raise InputError(f"no steps from {self.step} to {self.most}",
                             "they are shares of the units, above 0 and up to 1",
                             "the paper's are .02 to .18")  # fmt: skip
        if self.orders < MIN_ORDERS:
            raise InputError(f"{self.orders} orders are too few", "their spread is reported",
                             "the paper took 5")  # fmt: skip

    def sizes(self, units: int) -> list[int]:
        """Return how many of ``units`` each step ablates, ascending, each once."""
        steps = np.arange(1, round(self.most / self.step) + 1) * self.step
        return sorted({max(1, round(float(s) * units)) for s in steps})


def importance(
    run: Run,
    target: Target,
    images: EvalSet,
    units: tuple[Mapping[str, Sequence[Unit]], Sequence[Unit]],
    settings: ImportanceSettings = ImportanceSettings(),
    progress: Reporter | None = None,
) -> dict[str, Any]:
    """Ablate the units of each kind, and random ones of the same layers.

    Args:
        run: says how its layers are read.
        target: its target.
        images: with labels.
        units: the units of each kind, and all described units.
        settings: steps, orders and seed.
        progress: told about passes over the images.

    Returns:
        ``images``, ``accuracy`` of the model as it is, ``kinds``: of each ``units``, ``sizes``,
        ``accuracy`` and ``random`` (mean over orders at each size), ``difference`` (of the kind
        from random, mean over sizes, orders and images: below zero where its units matter more)
        with ``interval``, ``p`` and ``p_holm``, or ``why`` it was not measured; and ``settings``.
    """
    kinds, everything = units[0], list(dict.fromkeys(units[1]))
    sizes = settings.sizes(len(everything))
    infos = run_places(run)
    named = list(dict.fromkeys(layer for layer, _ in everything))
    for layer in named:
        refuse_computed(infos[layer])
    plans = {
        kind: list(_plan(list(dict.fromkeys(members)), everything, sizes, settings))
        for kind, members in kinds.items()
    }
    passes = {key for plan in plans.values() for _, _, *sets in plan for key in sets}
    with Tail(target, [infos[n] for n in named], images, batch_size=settings.batch_size,
              progress=progress) as tail:  # fmt: skip
        right = _Right(tail, images)
        plain = right(frozenset())
        with (progress or Silent()).stage("ablate kinds", len(passes)) as bar:
            for key in sorted(passes, key=sorted):
                right(key)
                bar.advance()
        rows = {kind: _row(plan, sizes, right, settings) for kind, plan in plans.items()}
        notes = list(tail.notes)
    for kind, row in rows.items():
        row["units"] = len(set(kinds[kind]))
        if not plans[kind]:
            row["why"] = f"its units are fewer than the first step of {sizes[0]}"
    measured = [row for row in rows.values() if "p" in row]
    for row, corrected in zip(measured, holm([row["p"] for row in measured]), strict=True):
        row["p_holm"] = corrected
    return {"images": len(images), "accuracy": float(plain.mean()), "kinds": rows, "notes": notes,
            "settings": {"step": settings.step, "most": settings.most, "orders": settings.orders,
                         "seed": settings.seed, "ablation": "zero"}}  # fmt: skip


Set = frozenset[Unit]


def _plan(
    members: Sequence[Unit], everything: Sequence[Unit], sizes: Sequence[int],
    settings: ImportanceSettings,
) -> Iterator[tuple[int, int, Set, Set]]:  # fmt: skip
    """Yield order, size, the units of the kind and the random ones of the same layers."""
    layers: dict[str, list[Unit]] = {}
    for unit in everything:
        layers.setdefault(unit[0], []).append(unit)
    for order in range(settings.orders):
        # The random orders are the same for all kinds: in one layer they share their passes.
        beside = {
            layer: [own[i] for i in _order(len(own), settings.seed, order, place)]
            for place, (layer, own) in enumerate(layers.items(), 1)
        }
        first = [members[i] for i in _order(len(members), settings.seed, order, 0)]
        for size in sizes:
            if size <= len(members):
                chosen = first[:size]
                counts = Counter(layer for layer, _ in chosen)
                random = {u for layer, n in counts.items() for u in beside[layer][:n]}
                yield order, size, frozenset(chosen), frozenset(random)


def _order(count: int, *seed: int) -> list[int]:
    order: list[int] = np.random.default_rng(seed).permutation(count).tolist()
    return order


class _Right:
    """Says which images are classified right under an ablation; each set of units once."""

    def __init__(self, tail: Tail, images: EvalSet) -> None:
        self.tail, self.groups = tail, np.unique(images.groups, return_inverse=True)[1]
        assert images.labels is not None
        self.labels = images.labels
        self.known: dict[Set, np.ndarray] = {}

    def __call__(self, units: Set) -> np.ndarray:
        """Return bool [images]."""
        if units not in self.known:
            layers: dict[str, list[int]] = {}
            for layer, unit in sorted(units):
                layers.setdefault(layer, []).append(unit)
            edits = [Edit(layer, tuple(own)) for layer, own in layers.items()]
            logits = self.tail.logits(edits) if edits else self.tail.before
            self.known[units] = (logits.argmax(1).numpy() == self.labels).astype(float)
        return self.known[units]


def _row(
    plan: Sequence[tuple[int, int, Set, Set]], sizes: Sequence[int], right: _Right,
    settings: ImportanceSettings,
) -> dict[str, Any]:  # fmt: skip
    """Compare a kind with random units; empty where no step fits."""
    if not plan:
        return {}
    used = [s for s in sizes if any(size == s for _, size, _, _ in plan)]
    shape = (settings.orders, len(used), len(right.labels))
    own, random = np.zeros(shape), np.zeros(shape)
    for order, size, chosen, others in plan:
        own[order, used.index(size)] = right(chosen)
        random[order, used.index(size)] = right(others)
    difference = (own - random).mean(1)  # [orders, images]
    draws = _crossed(difference, right.groups, settings)
    found = with_interval(float(difference.mean()), draws)
    return {"sizes": used, "accuracy": own.mean((0, 2)).tolist(),
            "random": random.mean((0, 2)).tolist(), "difference": found["estimate"],
            "interval": found["interval"], "p": p_value(draws)}  # fmt: skip


def _crossed(values: np.ndarray, groups: np.ndarray, settings: ImportanceSettings) -> np.ndarray:
    """Mean of ``values`` [orders, images] in each draw of orders and photographs together, [d]."""
    rng = np.random.default_rng(settings.seed)
    rows = resampled_counts(len(values), settings.draws, rng)
    columns = resampled_counts(int(groups.max()) + 1, settings.draws, rng)[:, groups]
    found: np.ndarray = ((rows @ values) * columns).sum(1) / (rows.sum(1) * columns.sum(1))
    return found
