"""Parts of exemplar sets as units of their own, beside the units that they are parts of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from milanx.exemplars.store import ExemplarStore

BESIDE = 256  # whole units, at most, that stand beside the parts


@dataclass(frozen=True)
class Part:
    """A part of one unit's exemplars.

    Attributes:
        row: of the unit in its layer.
        kept: which of its exemplars, bool [k].
        without: images that belong to the unit's other parts: they leave this one at its lowest,
            so that they are evidence of what it is not.
    """

    row: int
    kept: np.ndarray
    without: Sequence[int]


class DividedStore(ExemplarStore):
    """One layer of a store, with parts of its units behind a sample of its whole units.

    A part answers as its unit does, but to images of the unit's other parts. Nothing is written;
    whoever describes units describes parts as it does any unit.

    Args:
        store: the exemplars.
        layer: its address.
        parts: of units of the sign ``+``.

    Attributes:
        numbers: of the parts, as units of the layer.
    """

    def __init__(self, store: ExemplarStore, layer: str, parts: Sequence[Part]) -> None:
        self.__dict__.update(store.__dict__)
        self._records = {layer: store.record(layer)}
        known = store.units(layer)
        plus = [row for row, (_, sign) in enumerate(known) if sign == "+"]
        beside = plus[:: -(-len(plus) // BESIDE) or 1]
        first = max((unit for unit, _ in known), default=-1) + 1
        self.numbers = [first + i for i in range(len(parts))]
        self._content = _content(store, layer, beside, parts)
        self._content["units"] = [known[row] for row in beside] + [(n, "+") for n in self.numbers]
        self._arrays = {}
        if store.has_maxima(layer):
            columns = [store.column(layer, known[row][0]) for row in beside]
            columns += [store.column(layer, known[part.row][0]) for part in parts]
            for name, whole in (("max.npy", store.maxima), ("mean.npy", store.means)):
                values = np.array(whole(layer)[:, columns])
                for column, part in enumerate(parts, len(beside)):
                    values[list(part.without), column] = values[:, column].min()
                self._arrays[layer, name] = values

    def _layer(self, layer: str) -> dict[str, Any]:
        return self._content if layer in self._records else super()._layer(layer)

    def _numbers(self, layer: str, name: str) -> np.ndarray:
        return self._arrays[layer, name]


def _content(
    store: ExemplarStore, layer: str, beside: Sequence[int], parts: Sequence[Part]
) -> dict[str, Any]:
    """Return what a store keeps of a layer (`milanx.exemplars.reading.read_layer`), of its rows."""
    rows = [*beside, *(part.row for part in parts)]
    images, activations = store.images(layer)[rows], store.activations(layer)[rows]
    for place, part in enumerate(parts, len(beside)):
        images[place, ~part.kept], activations[place, ~part.kept] = -1, np.nan
    stats = {name: column[rows] for name, column in store.stats(layer).items()}
    return {"images": images, "activations": activations, "maps": store.maps(layer)[rows],
            "stats": stats}  # fmt: skip
