"""Ablation: units set to zero, to their mean, to other images' values, or scaled, where read.

    with ablate(target, [Edit("blocks.6.mlp.fc1", (3, 17))], infos):
        logits = target.model(inputs)

The edits act by hooks inside the context alone; the model is the caller's and comes back as it was.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from milanx.act.places import POSITIONS, Place, Replace, Where, check_units
from milanx.errors import InputError
from milanx.targets.capture import find_layers
from milanx.targets.units import LayerInfo, to_maps

if TYPE_CHECKING:
    from milanx.runs import Run
    from milanx.targets.zoo import Target

KINDS = ("zero", "mean", "resample", "scale")


@dataclasses.dataclass(frozen=True)
class Edit:
    """What becomes of some units of a layer.

    Attributes:
        layer: its address; ``LAYER@class`` for the class token.
        units: their numbers, each once.
        kind: ``zero``; ``mean``: ``values``; ``resample``: the values of other images, of which
            ``bank`` holds some; ``scale``: the old value times ``factor``.
        positions: of tokens: ``all``, ``patches`` or ``class``.
        values: for ``mean``, one a unit.
        factor: for ``scale``.
        bank: for ``resample``, what `remember` gave.
        seed: for ``resample``, of the order in which the bank is used.
    """

    layer: str
    units: tuple[int, ...]
    kind: str = "zero"
    positions: str = "all"
    values: tuple[float, ...] = ()
    factor: float = 0.0
    bank: torch.Tensor | None = dataclasses.field(default=None, compare=False, repr=False)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"no ablation {self.kind!r}", f"there are {', '.join(KINDS)}")
        if self.positions not in POSITIONS:
            raise InputError(
                f"no positions {self.positions!r}", f"there are {', '.join(POSITIONS)}"
            )
        if not self.units:
            raise InputError(f"an edit of {self.layer} names no unit", "nothing would be edited")
        if len(set(self.units)) != len(self.units):
            raise InputError(f"an edit of {self.layer} names a unit twice", str(self.units))
        if self.kind == "mean" and len(self.values) != len(self.units):
            raise InputError(
                f"an edit of {self.layer} has {len(self.values)} means for {len(self.units)} units",
                "setting units to their mean needs one value each",
                "stored_means and measured_means give them",
            )
        if not all(math.isfinite(v) for v in (*self.values, self.factor)):
            raise InputError(
                f"an edit of {self.layer} has a value that is no number",
                f"{[*self.values, self.factor]}",
            )
        if self.kind == "resample" and (self.bank is None or len(self.bank) < 2):
            raise InputError(
                f"an edit of {self.layer} has no other images' values",
                "resampling takes them from two images or more",
                "remember gives them",
            )

    def only(self, units: Sequence[int]) -> Edit:
        """Return the same edit of some of its units."""
        places = [self.units.index(u) for u in units]
        values = tuple(self.values[p] for p in places) if self.values else ()
        bank = None
        if self.bank is not None:  # [n, units, ...], as `remember` gives it
            bank = self.bank[:, places]
        return dataclasses.replace(self, units=tuple(units), values=values, bank=bank)


def replacement(edit: Edit, where: Where) -> Replace:
    """Return what gives the edited value of a layer for its own; it never writes in place.

    A resampled image takes the values of the image that follows it in a seeded circle through the
    bank: when the bank holds the images that run, in their order, none gets its own.
    """
    if edit.kind == "zero":
        return lambda old, _: old.masked_fill(where.mask(old), 0.0)
    if edit.kind == "scale":
        return lambda old, _: torch.where(where.mask(old), old * edit.factor, old)
    if edit.kind == "mean":
        values = torch.tensor(edit.values)
        return lambda old, _: torch.where(where.mask(old), where.spread(values, old), old)
    assert edit.bank is not None
    bank = edit.bank
    circle = np.random.default_rng(edit.seed).permutation(len(bank))
    follower = np.empty(len(bank), np.int64)
    follower[circle] = np.roll(circle, -1)

    def resample(old: torch.Tensor, first: int) -> torch.Tensor:
        rows = torch.from_numpy(follower[np.arange(first, first + len(old)) % len(bank)])
        other = bank[rows].movedim(1, where.axis(old.ndim))
        return torch.where(where.mask(old), where.put(other, old), old)

    return resample


@contextmanager
def ablate(
    target: Target, edits: Sequence[Edit], infos: Mapping[str, LayerInfo] | None = None
) -> Iterator[None]:
    """Apply edits while the context lasts.

    Args:
        target: the model; it runs as ever, by ``target.model(inputs)``.
        edits: any number; none is the model as it is.
        infos: how its layers are read, by address, as a run or `find_layers` says; found by a
            forward pass when None.

    Raises:
        InputError: a layer or a unit that is not there, a unit edited twice, or, at the end, an
            edit that did not take place because the model went another way.
    """
    known = read_places(target, [e.layer for e in edits]) if infos is None else infos
    check_apart(edits)
    places: list[Place] = []
    with ExitStack() as stack:
        for edit in edits:
            if edit.layer not in known:
                raise InputError(f"no layer {edit.layer!r} here", f"there are {', '.join(known)}")
            where = check_units(known[edit.layer], edit.units, edit.positions)
            places.append(Place(target.model, where.info, replacement(edit, where)))
            stack.callback(places[-1].remove)
        yield
    for place in places:
        place.check()


def check_apart(edits: Sequence[Edit]) -> None:
    """Refuse edits of which two concern one unit.

    Raises:
        InputError: there are.
    """
    seen: set[tuple[str, int]] = set()
    for edit in edits:
        for unit in edit.units:
            if (edit.layer, unit) in seen:
                raise InputError(f"{edit.layer}:{unit} is edited twice", "one edit a unit")
            seen.add((edit.layer, unit))


def read_places(target: Target, layers: Sequence[str]) -> dict[str, LayerInfo]:
    """Find how layers are read, by one forward and one backward pass.

    Raises:
        InputError: a layer that is not there.
    """
    names = list(dict.fromkeys(layers))
    return {info.name: info for info in find_layers(target, names)} if names else {}


def run_places(run: Run) -> dict[str, LayerInfo]:
    """Return how the layers of a run were read, by address."""
    return {stored["name"]: layer_from(stored) for stored in run.settings.get("layers", [])}


def layer_from(stored: Mapping[str, Any]) -> LayerInfo:
    """Make a layer of what `LayerInfo.to_dict` gave and json kept; enough to edit it."""
    known = {f.name for f in dataclasses.fields(LayerInfo)}
    values: dict[str, Any] = {k: v for k, v in stored.items() if k in known}
    return LayerInfo(**{**values, "map_size": tuple(stored["map_size"])})


def stored_means(run: Run, layer: str, units: Sequence[int]) -> tuple[float, ...]:
    """Return the mean of units over all probe images of a run and the positions they are read at.

    Raises:
        InputError: the run does not hold a unit.
    """
    rows = {unit: row for row, (unit, _) in enumerate(run.store.units(layer))}
    absent = [u for u in units if u not in rows]
    if absent:
        raise InputError(
            f"the run knows no mean of {layer}:{absent[0]}",
            f"it holds {len(rows)} units of that layer",
            "--mode zero needs none",
        )
    means = run.store.stats(layer)["mean"]
    return tuple(float(means[rows[u]]) for u in units)


def measured_means(
    target: Target, info: LayerInfo, units: Sequence[int], batches: Iterator[torch.Tensor]
) -> tuple[float, ...]:
    """Measure the mean of units over images and the positions they are read at.

    Args:
        target: the model.
        info: the layer.
        units: which.
        batches: inputs [b, 3, H, W].
    """
    total, count = torch.zeros(len(units), dtype=torch.float64), 0

    def add(value: torch.Tensor, first: int) -> torch.Tensor:
        nonlocal total, count
        maps = to_maps(value, info)[:, list(units)].double()
        total += maps.sum((0, 2, 3)).cpu()
        count += maps.shape[0] * maps.shape[2] * maps.shape[3]
        return value

    _watch(target, info, add, batches)
    return tuple((total / max(count, 1)).tolist())


@torch.no_grad()
def _watch(target: Target, info: LayerInfo, look: Replace, batches: Iterator[torch.Tensor]) -> None:
    """Let ``look`` see a layer's value on every batch."""
    place = Place(target.model, info, look)
    try:
        for inputs in batches:
            target.model(inputs)
        place.check()
    finally:
        place.remove()


def remember(target: Target, info: LayerInfo, edit: Edit, batches: Iterator[torch.Tensor]) -> Edit:
    """Return ``edit`` as one that resamples from the images of ``batches``.

    Args:
        target: the model.
        info: the layer.
        edit: which units; its kind is not looked at.
        batches: inputs [b, 3, H, W]; all their values of the units are held in memory.
    """
    where, kept = check_units(info, edit.units, edit.positions), []

    def keep(old: torch.Tensor, first: int) -> torch.Tensor:
        kept.append(where.take(old).movedim(where.axis(old.ndim), 1).clone())
        return old

    _watch(target, info, keep, batches)
    return dataclasses.replace(edit, kind="resample", bank=torch.cat(kept) if kept else None)
