"""What is done to a concept's labels, or to a continuous signal of it: missing, extra, shuffled."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Worse = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]  # [n], d, drawn from -> [d, n]


def missing_labels(labels: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Turn a random half of the positives off; of an odd number the larger half."""
    shown = np.flatnonzero(labels)
    return _changed(labels, _some(shown, -(-len(shown) // 2), draws, rng), False)


def extra_labels(labels: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Turn as many random negatives on as there are positives; all where they are fewer."""
    others = np.flatnonzero(~labels)
    return _changed(labels, _some(others, min(int(labels.sum()), len(others)), draws, rng), True)


def _some(places: np.ndarray, count: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Draw some of the places anew each time, [d, count]."""
    return rng.permuted(np.tile(places, (draws, 1)), axis=1)[:, :count]


def _changed(labels: np.ndarray, places: np.ndarray, to: bool) -> np.ndarray:
    made = np.tile(labels, (len(places), 1))
    np.put_along_axis(made, places, to, axis=1)
    return made


def missing_signal(signal: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Replace the top half by value by draws from the rest."""
    order = np.argsort(-signal, kind="stable")
    half = len(signal) // 2
    return _drawn(signal, order[:half], order[half:], draws, rng)


def extra_signal(signal: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Replace the rest by draws from the top half."""
    order = np.argsort(-signal, kind="stable")
    half = len(signal) // 2
    return _drawn(signal, order[half:], order[:half], draws, rng)


def _drawn(
    signal: np.ndarray, lost: np.ndarray, kept: np.ndarray, draws: int, rng: np.random.Generator
) -> np.ndarray:
    made = np.tile(signal, (draws, 1))
    made[:, lost] = signal[rng.choice(kept, (draws, len(lost)))]
    return made


def shuffled(values: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Deal the values out at random: what a concept scores that has nothing to do with the unit."""
    return rng.permuted(np.tile(values, (draws, 1)), axis=1)


LABELS: dict[str, Worse] = {"missing": missing_labels, "extra": extra_labels}
SIGNALS: dict[str, Worse] = {"missing": missing_signal, "extra": extra_signal}
