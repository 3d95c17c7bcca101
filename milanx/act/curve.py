"""Curves: how many images are still right as units go one by one, and what controls do.

All points of all curves run the same images through the tail of the network (`Tail`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from milanx.act.ablate import Edit, measured_means, remember, replacement
from milanx.act.data import EvalSet
from milanx.act.places import Place, Where, check_units
from milanx.act.tail import Tail
from milanx.errors import InputError
from milanx.progress import Reporter, Silent
from milanx.targets.units import LayerInfo
from milanx.targets.zoo import Target

ORDERS = ("effect", "score", "match")
# Units that are ablated one by one for the control of all units, at least, where layers hold more,
# and for each chosen unit: those that a gradient expects to help most.
SCREENED, FOR_EACH = 64, 2
BANK_IMAGES = 64  # whose values are taken in resampling
POINTS = 5  # at which many draws are measured, besides 0 units; a mean and its band need no more

Unit = tuple[str, int]  # layer, number


@dataclass(frozen=True)
class Curve:
    """A measure as units go.

    Attributes:
        sizes: how many units are gone.
        values: the measure, one row a draw [draws, sizes].
        order: the units of each draw, first gone first.
    """

    sizes: tuple[int, ...]
    values: np.ndarray
    order: tuple[tuple[Unit, ...], ...]


@dataclass(frozen=True)
class Editor:
    """Makes edits of any units of some layers, all of one kind.

    Attributes:
        infos: the layers.
        kind: as `Edit` says.
        factor: likewise.
        positions: likewise.
        whole: for mean and resample, an edit of all units of each layer, of which parts are taken.
        seed: of resampling.
    """

    infos: Mapping[str, LayerInfo]
    kind: str = "zero"
    factor: float = 0.0
    positions: str = "all"
    whole: Mapping[str, Edit] = field(default_factory=dict)
    seed: int = 0

    def edits(self, units: Sequence[Unit]) -> list[Edit]:
        """Return the edits of some units, one a layer."""
        layers: dict[str, list[int]] = {}
        for layer, unit in units:
            layers.setdefault(layer, []).append(unit)
        made = []
        for layer, numbers in layers.items():
            if layer in self.whole:
                made.append(self.whole[layer].only(numbers))
            else:
                made.append(Edit(layer, tuple(numbers), self.kind, self.positions,
                                 factor=self.factor, seed=self.seed))  # fmt: skip
        return made


def make_editor(
    target: Target,
    infos: Mapping[str, LayerInfo],
    like: Edit,
    images: EvalSet,
    means: Mapping[str, Sequence[float]],
    batch_size: int,
) -> Editor:
    """Make what edits units of some layers.

    Args:
        target: the model.
        infos: the layers.
        like: any edit of the kind that is wanted; its layer, units and values are not looked at.
        images: on which means that are not known are measured, and whose values are resampled.
        means: of all units of a layer, where they are known.
        batch_size: images a step.
    """
    whole = {}
    for name, info in infos.items():
        if like.kind not in ("mean", "resample"):
            break
        every = tuple(range(info.units))
        few = images.subset(range(min(BANK_IMAGES, len(images))))
        source = images if like.kind == "mean" else few
        batches = (target.inputs(v) for v in source.batches(batch_size))
        if like.kind == "mean":
            known = means.get(name)
            values = tuple(known) if known else measured_means(target, info, every, batches)
            whole[name] = Edit(name, every, "mean", like.positions, values)
        else:
            blank = Edit(name, every, positions=like.positions, seed=like.seed)
            whole[name] = remember(target, info, blank, batches)
    return Editor(infos, like.kind, like.factor, like.positions, whole, like.seed)


class Bench:
    """Some images, what is right for each, and a model whose edits are measured on them.

    Args:
        tail: the images in the model; entered by the caller.
        right: int64 [n], the class that counts as right.
        editor: makes edits.
        progress: told about points.
    """

    def __init__(
        self, tail: Tail, right: np.ndarray, editor: Editor, progress: Reporter | None = None
    ) -> None:
        self.tail, self.right, self.editor = tail, torch.from_numpy(right), editor
        self.progress = progress or Silent()
        self._known: dict[tuple[Unit, ...], tuple[np.ndarray, float]] = {}

    def correct(self, units: Sequence[Unit]) -> np.ndarray:
        """Return which images are right without some units, bool [n]."""
        return self._measure(units)[0]

    def effect(self, unit: Unit) -> tuple[float, float]:
        """Return accuracy without one unit, and the mean log-probability of what is right.

        The second tells apart units between which no image changes sides.
        """
        correct, log_p = self._measure([unit])
        return float(correct.mean()), log_p

    def _measure(self, units: Sequence[Unit]) -> tuple[np.ndarray, float]:
        key = tuple(sorted(units))
        if key not in self._known:
            edits = self.editor.edits(key)
            logits = self.tail.logits(edits) if edits else self.tail.before
            correct = (logits.argmax(1) == self.right).numpy()
            log_p = logits.log_softmax(1).gather(1, self.right[:, None]).mean()
            self._known[key] = (correct, float(log_p))
        return self._known[key]

    def by_effect(self, units: Sequence[Unit], name: str) -> list[Unit]:
        """Order units by accuracy without each alone, the best first (the paper's order)."""
        with self.progress.stage(name, len(units)) as bar:
            found = {}
            for unit in units:
                found[unit] = self.effect(unit)
                bar.advance()
        return sorted(units, key=lambda u: (-found[u][0], -found[u][1], u))

    def curve(self, orders: Sequence[Sequence[Unit]], sizes: Sequence[int], name: str) -> Curve:
        """Measure what is right as units go, for each of some orders."""
        values = np.zeros((len(orders), len(sizes)))
        with self.progress.stage(name, values.size) as bar:
            for i, order in enumerate(orders):
                for j, size in enumerate(sizes):
                    values[i, j] = self.correct(order[:size]).mean()
                    bar.advance()
        return Curve(tuple(sizes), values, tuple(tuple(o) for o in orders))


def grid(most: int) -> list[int]:
    """Return the sizes at which many draws are measured: 0 to ``most``, two or more apart."""
    steps = max(1, min(POINTS, most // 2))
    return [round(most * step / steps) for step in range(steps + 1)]


def random_orders(
    order: Sequence[Unit], infos: Mapping[str, LayerInfo], draws: int, seed: int
) -> tuple[list[list[Unit]], str]:
    """Draw units of the same layers, in the same turn of layers.

    They are drawn among those that were not chosen, where enough are left, else among all.

    Returns:
        The draws, and a note where chosen units may be among them.
    """
    rng = np.random.default_rng(seed)
    chosen = set(order)
    pools, note = {}, ""
    for layer in dict.fromkeys(layer for layer, _ in order):
        need = sum(name == layer for name, _ in order)
        others = [u for u in range(infos[layer].units) if (layer, u) not in chosen]
        if len(others) < need:
            others = list(range(infos[layer].units))
            note = f"random units of {layer} may be chosen ones: too few others are left"
        pools[layer] = others
    made = []
    for _ in range(draws):
        decks = {layer: rng.permutation(pool).tolist() for layer, pool in pools.items()}
        made.append([(layer, int(decks[layer].pop())) for layer, _ in order])
    return made, note


def screen(bench: Bench, keep: int) -> list[Unit]:
    """Return the units of the layers that a gradient expects to help most when they alone go.

    To first order, each image's margin of what is right over the best other class changes by its
    slope times the change of the unit's value, at all positions. Units go by how many images would
    have a margin above 0, then by the log-probability of what is right, to first order likewise:
    the order of `Bench.by_effect`, expected and not measured.

    Returns:
        ``keep`` units, the best first; all units where the layers hold no more.
    """
    every = [(name, u) for name, info in bench.editor.infos.items() for u in range(info.units)]
    if len(every) <= keep:
        return every
    found: dict[Unit, tuple[int, float]] = {}
    for name, info in bench.editor.infos.items():
        right, gain = _expected(bench, info)
        rows = zip(right.tolist(), gain.tolist(), strict=True)
        found |= {(name, u): row for u, row in enumerate(rows)}
    return sorted(found, key=lambda u: (-found[u][0], -found[u][1], u))[:keep]


def _expected(bench: Bench, info: LayerInfo) -> tuple[torch.Tensor, torch.Tensor]:
    """Return, for each unit alone, how many images are right, and the change of their log p."""
    edit = bench.editor.edits([(info.name, u) for u in range(info.units)])[0]
    where: Where = check_units(info, edit.units, edit.positions)
    change, tail = replacement(edit, where), bench.tail
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def watch(old: torch.Tensor, first: int) -> torch.Tensor:
        value = old.detach().clone().requires_grad_(True)
        seen.append((value, change(value.detach(), first) - value.detach()))
        return value

    def changes(of: torch.Tensor) -> torch.Tensor:
        """First-order changes of a sum over images, [b, u]."""
        value, moved = seen[-1]
        (slope,) = torch.autograd.grad(of.sum(), value, retain_graph=True)
        return (slope * moved).movedim(where.axis(value.ndim), 1).flatten(2).sum(2).cpu()

    right, gain = torch.zeros(info.units), torch.zeros(info.units)
    place = Place(tail.target.model, info, watch)
    try:
        with torch.enable_grad(), tail.run() as run:
            for number, label in enumerate(bench.right[:, None].split(tail.batch_size)):
                seen.clear()
                logits = run(number)
                others = logits.scatter(1, label, -torch.inf).amax(1)
                margin = logits.gather(1, label)[:, 0] - others
                right += (margin.detach()[:, None] + changes(margin) > 0).sum(0)
                gain += changes(logits.log_softmax(1).gather(1, label)).sum(0)
        place.check()
    finally:
        place.remove()
    return right, gain


def refuse_whole_layers(units: Sequence[Unit], infos: Mapping[str, LayerInfo], edit: Edit) -> None:
    """Refuse to take every unit of a layer away.

    Raises:
        InputError: an edit would.
    """
    if edit.kind == "scale" and edit.factor != 0:
        return
    for layer in dict.fromkeys(layer for layer, _ in units):
        count = sum(name == layer for name, _ in units)
        if count >= infos[layer].units:
            raise InputError(
                f"this would remove the whole of {layer}",
                f"all of its {infos[layer].units} units are chosen",
                ["choose fewer: --max-units, --min-score, --exclude", "--mode scale --factor 0.5"],
            )


def right_classes(
    images: EvalSet, tail_before: torch.Tensor, clean: Callable[[EvalSet], torch.Tensor]
) -> np.ndarray:
    """Return the class that counts as right for each image, int64 [n].

    Its label, or, where there are none, what the unedited model says of the clean image.
    """
    if images.labels is not None:
        return images.labels
    logits = tail_before if images.clean is None else clean(images.clean)
    return logits.argmax(1).numpy()
