"""Arrays that stand one behind another and are read as one, each where it lies on disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


class Stacked:
    """Arrays [n_i, ...] as one array [n, ...], read by their rows.

    Attributes:
        shape: of all together.
    """

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        self._arrays = list(arrays)
        self._ends = np.cumsum([len(array) for array in arrays])
        self.shape = (int(self._ends[-1]), *arrays[0].shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        """Return rows, as numpy does of one array: by number, slice, mask or list of numbers.

        What stands behind the rows in ``index`` is asked of each array: no fancy index may stand
        there.
        """
        rows, *rest = index if isinstance(index, tuple) else (index,)
        numbers = np.arange(len(self))[rows]
        if numbers.ndim == 0:
            place = int(np.searchsorted(self._ends, numbers, side="right"))
            return np.asarray(self._arrays[place][(self._row(place, numbers), *rest)])
        places = np.searchsorted(self._ends, numbers, side="right")
        shaped = self._arrays[0][(slice(0, 0), *rest)]
        found = np.empty((len(numbers), *shaped.shape[1:]), shaped.dtype)
        for place in np.unique(places):
            here = places == place
            found[here] = self._arrays[place][(self._row(int(place), numbers[here]), *rest)]
        return found

    def _row(self, place: int, numbers: Any) -> Any:
        """Bring rows of all to those of one array."""
        return numbers - (self._ends[place - 1] if place else 0)
