"""What a place in a foreign format holds, before a run is made of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from milanx.errors import InputError

UnitKey = tuple[str, int, str]  # layer, unit, sign


@dataclass(frozen=True)
class Text:
    """What is said of a unit.

    Attributes:
        description: empty where nothing is.
        candidates: every text that is known, best first, with ``rank`` where it has one.
        row: other columns of the table (`milanx.rows.units_schema`) that are known.
    """

    description: str
    candidates: tuple[tuple[str, float | None], ...] = ()
    row: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Units:
    """The exemplars of a layer's units.

    Attributes:
        layer: name.
        units: (unit, sign) of each row.
        images: numbers of the images, int64 [rows, k]; -1 where there is none.
        activations: float32 [rows, k]; NaN where there is none, or none is known.
        masks: of a row bool [k, H, W]; None where none are known.
    """

    layer: str
    units: tuple[tuple[int, str], ...]
    images: np.ndarray
    activations: np.ndarray
    masks: Callable[[int], np.ndarray] | None = None


@dataclass(frozen=True)
class Bundle:
    """What is made a run of.

    Attributes:
        target: the model's name; empty where it is not known.
        layers: with their exemplars.
        texts: of the units that have one.
        view: the view of an image by its number, uint8 [H, W, 3]; None where there are no views.
        size: (H, W) of the views.
        records: what is known of images by their numbers: path, label, name, wnid, group, source.
        notes: what was not taken over, a sentence each.
    """

    target: str
    layers: tuple[Units, ...]
    texts: dict[UnitKey, Text]
    view: Callable[[int], np.ndarray] | None = None
    size: tuple[int, int] = (0, 0)
    records: dict[int, dict[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def gathered(
    rows: Sequence[tuple[UnitKey, str, float | None]],
) -> dict[UnitKey, Text]:
    """Bring several texts of one unit together: the first is its description.

    Args:
        rows: of each text its unit, itself, and its figure if it has one.
    """
    found: dict[UnitKey, list[tuple[str, float | None]]] = {}
    for key, text, figure in rows:
        found.setdefault(key, [])
        if text:
            found[key].append((text, figure))
    return {key: Text(texts[0][0] if texts else "", tuple(texts)) for key, texts in found.items()}


def without_exemplars(texts: dict[UnitKey, Text]) -> tuple[Units, ...]:
    """Return layers whose units have texts and no exemplars."""
    layers: dict[str, list[tuple[int, str]]] = {}
    for layer, unit, sign in texts:
        layers.setdefault(layer, []).append((unit, sign))
    return tuple(
        Units(layer, tuple(units), np.full((len(units), 1), -1, np.int64),
              np.full((len(units), 1), np.nan, np.float32))
        for layer, units in layers.items()
    )  # fmt: skip


def whole(value: str, what: str, path: Path, line: int) -> int:
    """Read a whole number of a file of text, 0 or more.

    Raises:
        InputError: it is none.
    """
    text = value.strip()
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InputError(f"{path}, line {line}: {what} is {value[:40]!r}",
                         "it is a whole number, 0 or more", "mend that line")  # fmt: skip
    return int(text)


def missing(path: Path, why: str, way: str) -> InputError:
    """Say that a place is not in the format that was named."""
    return InputError(f"{path} cannot be imported", why, way)
