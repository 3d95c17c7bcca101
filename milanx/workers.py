"""Threads of a processor that each compute whole steps, and do not wait for one another.

torch shares out every operation over all its threads, which meet again at its end: of thousands of
small operations most of the time is waiting, and where other processes are busy each meeting waits
for the thread that was put off. Here each thread computes steps of its own, one after another.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

MOST = 16  # threads of steps; more processors are given to the operations of each
# Where the kernel says how much of the processors a group of processes may use: version 2 of its
# groups (quota and period in one file), and version 1 (a file each).
QUOTA = Path("/sys/fs/cgroup/cpu.max")
QUOTAS = (Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us"))

T = TypeVar("T")
R = TypeVar("R")


class Workers:
    """What shares out steps; `workers` makes it.

    Args:
        pool: of its threads; None computes in the thread that asks.
    """

    def __init__(self, pool: ThreadPoolExecutor | None = None) -> None:
        self._pool = pool

    def map(self, step: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Yield the results of a step for all items, in their order.

        What is raised for an item is raised when its result is asked for; what has not begun by
        then is not begun.
        """
        if self._pool is None:
            yield from map(step, items)
            return
        import torch

        still = torch.is_inference_mode_enabled()

        def alike(item: T) -> R:
            with torch.inference_mode(still):  # which each thread has for itself
                return step(item)

        asked = [self._pool.submit(alike, item) for item in items]
        try:
            for one in asked:
                yield one.result()
        finally:
            for one in asked:
                one.cancel()


ALONE = Workers()


@contextlib.contextmanager
def workers(device: torch.device) -> Iterator[Workers]:
    """Yield workers for a device: on a CPU as many as torch has threads, else none.

    Meanwhile torch shares out no operation over threads, so that a step's numbers do not depend on
    how many there are.
    """
    import torch

    threads = torch.get_num_threads()
    count = min(threads, MOST)
    if device.type != "cpu" or count == 1:
        yield ALONE
        return
    pool = ThreadPoolExecutor(count, "milanx")
    torch.set_num_threads(threads // count)
    try:
        yield Workers(pool)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def processors() -> int:
    """Return how many processors this process may use: by its affinity and its group's quota."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    share = _quota()
    return count if share is None else max(1, min(count, int(share)))


def _quota() -> float | None:
    """How many processors' time the group of this process may use; None where nothing is set."""
    with contextlib.suppress(OSError, ValueError):
        told = QUOTA.read_text().split() if QUOTA.is_file() else [q.read_text() for q in QUOTAS]
        quota, period = (float(part) for part in told)  # "max" is no number
        return quota / period if quota > 0 and period > 0 else None
    return None
