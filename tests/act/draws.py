"""NumPy's old random state with the methods of a generator: for code that draws from it."""

from __future__ import annotations

from typing import Any, cast

import numpy as np


class _Legacy:
    def __init__(self, seed: int) -> None:
        state = np.random.RandomState(seed)
        self.normal, self.poisson, self.uniform = state.normal, state.poisson, state.uniform
        self.integers = state.randint


def legacy(seed: int) -> np.random.Generator:
    """Draw what ``np.random`` draws after ``np.random.seed(seed)``."""
    return cast(np.random.Generator, _Legacy(seed))


class _Given:
    def __init__(self, values: Any) -> None:
        self.values = values

    def integers(self, low: int, high: int, size: tuple[int, ...]) -> Any:
        assert self.values.shape == size
        assert low <= self.values.min() and self.values.max() < high
        return self.values


def given(values: Any) -> np.random.Generator:
    """Draw whole numbers that were drawn elsewhere."""
    return cast(np.random.Generator, _Given(values))
