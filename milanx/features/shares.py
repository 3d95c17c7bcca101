"""Work in shares: of several processes that do the same, each computes some of the batches.

Every process has all results in the end, batch after batch, the very ones that a process alone
would have: batches are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from accelerate import PartialState

T = TypeVar("T")


class Shares(Generic[T]):
    """Items in batches, of which each process computes every so-manieth.

    Args:
        items: the same in all processes.
        batch_size: items of a batch.
        process: what is known of the processes that call this together; None computes all here.

    Attributes:
        own: the batches that this process computes, one a round. In a last round of fewer batches
            than processes the last one is computed by several.
    """

    def __init__(
        self, items: Sequence[T], batch_size: int, process: PartialState | None = None
    ) -> None:
        ranks = process.num_processes if process is not None else 1
        batches = [list(items[i : i + batch_size]) for i in range(0, len(items), batch_size)]
        self._process, self._size = process, batch_size
        self._rounds = [batches[i : i + ranks] for i in range(0, len(batches), ranks)]
        rank = process.process_index if process is not None else 0
        self.own = [part[min(rank, len(part) - 1)] for part in self._rounds]

    def gathered(self, results: Iterable[torch.Tensor]) -> Iterator[tuple[list[T], torch.Tensor]]:
        """Give the results of all batches in order, each with its items.

        Args:
            results: of this process's own batches, [items, ...] each, made when they are asked for.

        Yields:
            The items of a batch and their results, on the CPU where several processes have them.
        """
        for part, made in zip(self._rounds, results, strict=True):
            if self._process is None or self._process.num_processes == 1:
                yield part[0], made
                continue
            whole = self._gather(self._process, made)
            for place, batch in enumerate(part):
                yield batch, whole[place, : len(batch)]

    def _gather(self, process: PartialState, made: torch.Tensor) -> torch.Tensor:
        """Return what all processes made in a round, [ranks, batch_size, ...]."""
        from accelerate.utils import gather

        short = self._size - len(made)
        padded = F.pad(made, [0, 0] * (made.ndim - 1) + [0, short])
        whole: torch.Tensor = gather(padded.contiguous().to(process.device))
        return whole.cpu().unflatten(0, (process.num_processes, self._size))


def agreed(process: PartialState | None, here: bool) -> bool:
    """Whether something holds in every process that calls this together."""
    if process is None or process.num_processes == 1:
        return here
    from accelerate.utils import gather

    return bool(gather(torch.tensor([here], dtype=torch.int32, device=process.device)).all())
