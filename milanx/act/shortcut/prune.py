"""What pruning units by their descriptions gains where the text lies, beside its controls.

The units are set to zero one by one, most helpful first: the paper's score of a unit is the
accuracy on validation images with only this unit set to zero (section 7). How many is chosen on
validation images whose text lies, and reported on test images that took no part. The controls are
all units of the layer sorted the same way, random ones of the same layer, and, as what descriptions
could reach, the units that lettering truly changes the most.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from milanx.act.ablate import read_places
from milanx.act.categories import affirmed
from milanx.act.curve import Bench, Editor, Unit, random_orders
from milanx.act.data import EvalSet
from milanx.act.shortcut.change import change_by_text
from milanx.act.shortcut.folder import LYING, PLAIN, Experiment, Images, text_version
from milanx.act.tail import Tail
from milanx.language.compare import contains, nouns
from milanx.measures.intervals import auroc
from milanx.runs import Run
from milanx.targets.units import LayerInfo
from milanx.targets.zoo import Target

# Words of a description for which its unit is taken for one of lettering.
MATCH = ("text", "word", "letter", "lettering", "writing", "written", "caption", "sign", "font")
DRAWS = 20  # random orders of the layer's units
ORDERS = (LYING, "alike")  # the validation images that order units: text lies, or as in training
MOST = 49  # units that are set to zero at most; the paper's


@dataclass(frozen=True)
class Pruned:
    """One network, pruned.

    Attributes:
        figures: what json can hold.
        right: [images] of each row, whether the test images are right; a share where it is a mean.
    """

    figures: dict[str, Any]
    right: dict[str, np.ndarray] = field(default_factory=dict)


def eval_set(name: str, images: Images) -> EvalSet:
    """Return a split as what edits are measured on."""
    views = images.views.permute(0, 2, 3, 1).contiguous().numpy()
    groups = tuple(map(str, range(len(images))))
    return EvalSet(name, lambda i: views[i], groups, images.labels.numpy())


def matched(
    run: Run, layer: str, words: Sequence[str], within: str = "description"
) -> dict[int, str]:
    """Find the units of a layer whose texts hold one of the words, in any inflection.

    What a text says to be missing ("office without letters") is not looked at.

    Args:
        run: with descriptions.
        layer: of the units.
        words: any of them chooses a unit.
        within: ``description``, or ``candidates``: the description and all that it won against.

    Returns:
        For each unit, by number, the first of its texts that holds a word.
    """
    found = {}
    for row in sorted(run.rows, key=lambda r: r["unit"]):
        if row["layer"] != layer:
            continue
        texts = [row["description"] or ""]
        if within == "candidates":
            texts += [candidate["text"] for candidate in row["candidates"] or ()]
        for text in texts:
            if contains(affirmed(text), tuple(words), nouns):
                found[int(row["unit"])] = text
                break
    return found


@dataclass(frozen=True)
class Sides:
    """A network's layer on the images that choose and on those that are reported.

    Attributes:
        info: the layer.
        choosing: validation images whose text lies.
        alike: validation images as in training.
        lying: test images whose text lies.
        plain: test images without text.
        trained: test images as in training.
        follows: share of the lying test images that are taken for what is written.
    """

    info: LayerInfo
    choosing: Bench
    alike: Bench
    lying: Bench
    plain: Bench
    trained: Bench
    follows: float


@contextmanager
def _sides(target: Target, layer: str, experiment: Experiment, share: int) -> Iterator[Sides]:
    infos = read_places(target, [layer])
    with ExitStack() as stack:

        def bench(split: str, version: str) -> Bench:
            images = eval_set(f"{split} {version}", experiment.load(split, version))
            assert images.labels is not None
            tail = Tail(target, list(infos.values()), images, batch_size=len(images))
            return Bench(stack.enter_context(tail), images.labels, Editor(infos))

        alike, lying = text_version(share), bench("test", LYING)
        written = experiment.load("test", LYING).written
        follows = float((lying.tail.before.argmax(1) == written).float().mean())
        yield Sides(
            infos[layer], bench("validation", LYING), bench("validation", alike), lying,
            bench("test", PLAIN), bench("test", alike), follows,
        )  # fmt: skip


def _curve(bench: Bench, order: Sequence[Unit]) -> np.ndarray:
    """Return which images are right without the first n units, bool [points, images]."""
    most = min(MOST, len(order))
    return np.stack([bench.correct(order[:n]) for n in range(most + 1)])


def prune_layer(
    target: Target, layer: str, units: Sequence[int], experiment: Experiment, share: int,
    seed: int, draws: int = DRAWS,
) -> Pruned:  # fmt: skip
    """Prune some units of a layer, and measure the controls.

    Args:
        target: the network.
        layer: its layer.
        units: what a description chose.
        experiment: the images.
        share: percent of the training images that carried their name.
        seed: of the random orders.
        draws: how many of these.
    """
    chosen = [(layer, int(u)) for u in units]
    change = change_by_text(target.model, layer, experiment)
    changed = [(layer, int(u)) for u in np.argsort(-change, kind="stable")[: len(chosen)]]
    with _sides(target, layer, experiment, share) as sides:
        random, note = random_orders(chosen, {layer: sides.info}, draws, seed)
        drawn = np.stack([_curve(sides.lying, order) for order in random])
        right = {
            "unedited": sides.lying.correct([]),
            "unedited, plain": sides.plain.correct([]),
            "unedited, alike": sides.trained.correct([]),
        }
        orders = {}
        for name, judge in zip(ORDERS, (sides.choosing, sides.alike), strict=True):
            orders[name], found = _order(sides, judge, chosen, changed, drawn)
            right |= {f"{name}: {row}": values for row, values in found.items()}
    figures = {
        "layer": layer, "units": sides.info.units, "matched": [u for _, u in chosen],
        "follows": sides.follows, "note": note, "orders": orders,
        "change": change.tolist(), "auroc": _tells(change, units),
        "random_curve": drawn.mean((0, 2)).tolist(),
    }  # fmt: skip
    return Pruned(figures, right)


def _tells(change: np.ndarray, units: Sequence[int]) -> float | None:
    """Return the AUROC of the change for units against the others; None where it has none."""
    if not 0 < len(units) < len(change):
        return None
    holds = np.zeros(len(change), bool)
    holds[list(units)] = True
    return float(auroc(change, holds)[0])


def _order(
    sides: Sides, judge: Bench, chosen: Sequence[Unit], changed: Sequence[Unit], drawn: np.ndarray
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Prune chosen units, and all, in the order of their effects.

    Args:
        sides: what to measure on.
        judge: the images whose accuracy orders units.
        chosen: the units that a description chose.
        changed: as many that lettering changes the most.
        drawn: whether test images are right on random orders, bool [draws, points, images].
    """
    name = sides.info.name
    everyone = judge.by_effect([(name, u) for u in range(sides.info.units)], "effects")
    own, truly = ([u for u in everyone if u in set(some)] for some in (chosen, changed))
    ways = {"match": own, "all": everyone, "changed": truly}
    test, choosing = ({kind: _curve(bench, order) for kind, order in ways.items()}
                      for bench in (sides.lying, sides.choosing))  # fmt: skip
    # The least number of units with the highest accuracy where the validation text lies.
    count, free, most = (int(np.argmax(choosing[kind].mean(1))) for kind in ways)
    right = {
        "match": test["match"][count],
        "all": test["all"][count],
        "all, own count": test["all"][free],
        "changed": test["changed"][most],
        "random": drawn[:, count].mean(0),
        "match, plain": sides.plain.correct(own[:count]),
        "match, alike": sides.trained.correct(own[:count]),
        "all, plain": sides.plain.correct(everyone[:count]),
        "all, alike": sides.trained.correct(everyone[:count]),
        "all, own count, plain": sides.plain.correct(everyone[:free]),
        "all, own count, alike": sides.trained.correct(everyone[:free]),
        "changed, plain": sides.plain.correct(truly[:most]),
        "changed, alike": sides.trained.correct(truly[:most]),
    }
    beaten = drawn[:, count].mean(1) < test["match"][count].mean()
    figures = {
        "count": count, "count_all": free, "count_changed": most, "order": [u for _, u in own],
        "random_beaten": float(beaten.mean()),
        "curves": {kind: {"test": test[kind].mean(1).tolist(),
                          "validation": choosing[kind].mean(1).tolist()} for kind in test},
    }  # fmt: skip
    return figures, right
