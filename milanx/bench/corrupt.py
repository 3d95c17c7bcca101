"""How long the corruptions of ImageNet-C take, by type, and whether workers help."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from milanx.act.corruptions import CORRUPTIONS, SEVERITIES, Pixels, corrupt, generator_for
from milanx.images.preprocess import Preprocess
from milanx.images.probe import open_images
from milanx.progress import Reporter, Silent


def bench_corrupt(
    images: str | Path = "builtin:probe",
    *,
    count: int = 16,
    workers: int = 2,
    progress: Reporter | None = None,
) -> dict[str, Any]:
    """Corrupt views of 224 x 224 in every way, once by one thread and once by ``workers``.

    Args:
        images: a source.
        count: at most this many of its images.
        workers: threads of the second measurement.
        progress: told about the types.

    Returns:
        Seconds of each type at all severities with its share of all, by one thread; seconds of all
        of them by one thread and by ``workers``, pictures a second, and the quotient of the two.
    """
    progress = progress or Silent()
    opened, preprocess = open_images([images], limit=count), Preprocess()
    views = [preprocess.view(opened.read(i)) for i in range(len(opened))]
    corrupt(views[0], "frost", 1, generator_for(0, "0", "frost", 1))  # makes the ice
    alone: dict[str, float] = {}
    together: dict[str, float] = {}
    with progress.stage("corrupt", 2 * len(CORRUPTIONS)) as bar:
        for name in CORRUPTIONS:
            for threads, seconds in ((1, alone), (workers, together)):
                started = time.perf_counter()
                _all_severities(views, name, threads)
                seconds[name] = time.perf_counter() - started
                bar.advance()
    total = sum(alone.values())
    made = len(views) * len(CORRUPTIONS) * len(SEVERITIES)
    return {
        "images": len(views),
        "pictures": made,
        "workers": workers,
        "seconds": total,
        "seconds_workers": sum(together.values()),
        "pictures_per_s": made / total,
        "speedup": total / sum(together.values()),
        "types": {n: {"seconds": s, "share": s / total} for n, s in alone.items()},
    }


def _all_severities(views: Sequence[Pixels], name: str, threads: int) -> None:
    def one(job: tuple[int, int]) -> None:
        number, severity = job
        corrupt(views[number], name, severity, generator_for(0, str(number), name, severity))

    jobs = [(i, severity) for i in range(len(views)) for severity in SEVERITIES]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, jobs))
