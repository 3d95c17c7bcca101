"""Units whose text is known to be right or wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from milanx.exemplars.store import ExemplarStore

RANDOM = "sets of photos at random"  # the kind of units without a meaning


@dataclass(frozen=True)
class Judged:
    """A described unit, and whether its text is right.

    Attributes:
        row: of the table.
        right: 1 or 0.
        kind: what it is.
        shown: what stands for the photographs of its exemplars.
        meaning: what it means, in words; empty where that is nothing.
    """

    row: dict[str, Any]
    right: float
    kind: str
    shown: tuple[str, ...]
    meaning: str = ""

    @classmethod
    def of_rows(
        cls,
        rows: Sequence[dict[str, Any]],
        right: Sequence[float],
        kinds: Sequence[str],
        store: ExemplarStore,
        meanings: Sequence[str] = (),
    ) -> list[Judged]:
        """Make them of the rows of a run's table; units without a text are left out.

        Without ``meanings`` they mean nothing.
        """
        table = store.image_table()
        groups = [str(r.get("group") or f"image {r['index']}") for r in table]
        return [
            cls(row, float(value), kind, tuple(groups[i] for i in row["images"]), meaning)
            for row, value, kind, meaning in
            zip(rows, right, kinds, meanings or [""] * len(kinds), strict=True)
            if row["description"]
        ]  # fmt: skip
