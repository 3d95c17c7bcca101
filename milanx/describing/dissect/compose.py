"""Compositional explanations: the formula over names that overlaps a unit's activity most.

Mu & Andreas 2020, "Compositional Explanations of Neurons", section 2: beam search over formulas
with AND, OR and AND NOT, each step of which joins a name to the formulas of the beam.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from milanx.images.regions import Regions

LENGTH = 3  # names of a formula, as in the authors' release
BEAM = 10
KEPT = 256  # formulas whose overlap with every name is kept for the next units
OPERATORS = ("or", "and", "without")


@dataclass(frozen=True)
class Formula:
    """Names joined from the left, with where they lie.

    Attributes:
        parts: the first name, then operator and name in turn.
        iou: of the unit that it is searched for.
        bits: packed, uint8 [n, g * g / 8].
    """

    parts: tuple[int | str, ...]
    iou: float
    bits: np.ndarray

    def text(self, names: tuple[str, ...]) -> str:
        """Write it; what is joined first stands in parentheses where the operators differ."""
        text, operators = "", {p for p in self.parts if isinstance(p, str)}
        for place, part in enumerate(self.parts):
            if isinstance(part, int):
                text += names[part]
            else:
                joined = place > 1 and len(operators) > 1
                text = f"({text}) {part} " if joined else f"{text} {part} "
        return text


class Composer:
    """Searches formulas for one unit after another over the same regions."""

    def __init__(self, regions: Regions) -> None:
        self.names = regions.names
        self.bits = np.stack([regions.packed(i) for i in range(len(regions.names))])
        self.sizes = _count(self.bits, (1, 2))
        self._kept: OrderedDict[tuple[int | str, ...], np.ndarray] = OrderedDict()

    def search(self, active: np.ndarray, length: int = LENGTH, beam: int = BEAM) -> list[Formula]:
        """Return the best formulas of each unit's activity, best first.

        Args:
            active: where the unit is active, packed as the regions' bits, uint8 [n, g * g / 8].
            length: names that a formula has at most.
            beam: formulas that are kept of each length.
        """
        area = int(_count(active, (0, 1)))
        inside = _count(self.bits & active, (1, 2))
        iou = _iou(inside, self.sizes, area)
        best = np.argsort(-iou, kind="stable")[:beam]
        found = [Formula((int(i),), float(iou[i]), self.bits[i]) for i in best if inside[i]]
        every = list(found)
        for _ in range(length - 1):
            found = self._longer(found, active, inside, area, beam)
            every += found
        return sorted(every, key=lambda f: (-f.iou, len(f.parts), f.parts))[:beam]

    def _longer(
        self, found: list[Formula], active: np.ndarray, inside: np.ndarray, area: int, beam: int
    ) -> list[Formula]:
        """Join every name to every formula of a beam; returns the best of what is made."""
        made: list[tuple[float, int, str, int]] = []
        for place, formula in enumerate(found):
            shared = self._shared(formula)
            common = _count(self.bits & (formula.bits & active), (1, 2))
            size, both = int(_count(formula.bits, (0, 1))), int(
                _count(formula.bits & active, (0, 1)))  # fmt: skip
            values = {
                "or": _iou(both + inside - common, size + self.sizes - shared, area),
                "and": _iou(common, shared, area),
                "without": _iou(both - common, size - shared, area),
            }
            own = [part for part in formula.parts if isinstance(part, int)]
            for operator in OPERATORS:
                scores = values[operator]
                scores[own] = -1  # a name joined to itself says nothing more
                for name in np.argsort(-scores, kind="stable")[:beam].tolist():
                    if scores[name] > formula.iou:  # a longer formula must say more
                        made.append((float(scores[name]), place, operator, name))
        made.sort(key=lambda m: (-m[0], m[1], OPERATORS.index(m[2]), m[3]))
        longer, seen = [], set[bytes]()
        for value, place, operator, name in made:
            bits = _joined(found[place].bits, operator, self.bits[name])
            key = bits.tobytes()
            if key not in seen:  # "a or b" and "b or a" are one
                seen.add(key)
                longer.append(Formula((*found[place].parts, operator, name), value, bits))
            if len(longer) == beam:
                break
        return longer

    def _shared(self, formula: Formula) -> np.ndarray:
        """Return in how many cells a formula and each name lie, int64 [names]."""
        known = self._kept.get(formula.parts)
        if known is None:
            known = _count(self.bits & formula.bits, (1, 2))
            self._kept[formula.parts] = known
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return known


def _joined(first: np.ndarray, operator: str, second: np.ndarray) -> np.ndarray:
    if operator == "or":
        return first | second
    return first & (second if operator == "and" else ~second)


def _iou(both: np.ndarray, size: np.ndarray, area: int) -> np.ndarray:
    union = size + area - both
    return np.asarray(both / np.maximum(union, 1), np.float64)


def _count(bits: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Return how many bits are set, summed over axes."""
    return np.asarray(np.bitwise_count(bits).sum(axes, dtype=np.int64))
