"""What was computed for texts, of the latest of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Generic, TypeVar

V = TypeVar("V")


class Remembered(Generic[V]):
    """Values of texts, each computed once; beyond a number the first asked for are forgotten.

    Args:
        most: texts that are remembered.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._values: dict[str, V] = {}

    def of(
        self, texts: Sequence[str], compute: Callable[[Sequence[str]], Sequence[V]]
    ) -> dict[str, V]:
        """Return the value of every text.

        Args:
            texts: any of which may come several times.
            compute: asked for those that are not known, each once and sorted.
        """
        asked = dict.fromkeys(texts)
        new = sorted(text for text in asked if text not in self._values)
        fresh = dict(zip(new, compute(new), strict=True)) if new else {}
        found = {text: fresh[text] if text in fresh else self._values[text] for text in asked}
        for text in found:  # the latest stand last
            self._values.pop(text, None)
        self._values |= found
        self._forget()
        return found

    def latest(self) -> dict[str, V]:
        """Return all that is remembered, the latest asked for last."""
        return dict(self._values)

    def learn(self, values: dict[str, V]) -> None:
        """Remember values that were computed elsewhere, as if asked for before all others."""
        self._values = {**{t: v for t, v in values.items() if t not in self._values},
                        **self._values}  # fmt: skip
        self._forget()

    def _forget(self) -> None:
        for text in list(islice(self._values, max(0, len(self._values) - self.most))):
            del self._values[text]
