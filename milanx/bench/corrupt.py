"""How long the corruptions of ImageNet-C take, by type, and how much workers help."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from milanx.act.corruptions import CORRUPTIONS, SEVERITIES, Pixels
from milanx.act.corruptions.makers import Makers
from milanx.errors import InputError
from milanx.images.preprocess import Preprocess
from milanx.images.probe import open_images
from milanx.progress import Reporter, Silent

WORKERS = (1, 2, 4)


def bench_corrupt(
    images: str | Path = "builtin:probe",
    *,
    count: int = 16,
    workers: Sequence[int] = WORKERS,
    progress: Reporter | None = None,
) -> dict[str, Any]:
    """Corrupt views of 224 x 224 in every way, by one worker and by several.

    Args:
        images: a source.
        count: at most this many of its images.
        workers: how many; one is this process, more are processes that have begun before.
        progress: told about the types.

    Returns:
        Seconds of each type at all severities, with its share of all, by the first of ``workers``;
        and of each number of workers the seconds of all types, pictures a second, and how many
        times as fast as the first it is.
    """
    if min(workers, default=0) < 1:
        raise InputError(f"{list(workers)} workers", "one is the least", "--workers 1,2,4")
    progress = progress or Silent()
    opened, preprocess = open_images([images], limit=count), Preprocess()
    for note in opened.notes:
        progress.say(f"note: {note}")
    views = [preprocess.view(opened.read(i)) for i in range(len(opened))]
    seconds: dict[int, dict[str, float]] = {}
    with progress.stage("corrupt", len(workers) * len(CORRUPTIONS)) as bar:
        for number in workers:
            with Makers(number) as makers:
                for _ in range(number):  # each begins, and makes its ice
                    makers.make(views[0], "frost", 1, 0, "0")
                for name in CORRUPTIONS:
                    started = time.perf_counter()
                    _all_severities(views, name, number, makers)
                    seconds.setdefault(number, {})[name] = time.perf_counter() - started
                    bar.advance()
    totals = {number: sum(by_type.values()) for number, by_type in seconds.items()}
    first = workers[0]
    made = len(views) * len(CORRUPTIONS) * len(SEVERITIES)
    return {
        "images": len(views),
        "pictures": made,
        "types": {n: {"seconds": s, "share": s / totals[first]} for n, s in seconds[first].items()},
        "workers": {
            str(number): {"seconds": total, "pictures_per_s": made / total,
                          "speedup": totals[first] / total}
            for number, total in totals.items()
        },
    }  # fmt: skip


def _all_severities(views: Sequence[Pixels], name: str, workers: int, makers: Makers) -> None:
    def one(job: tuple[int, int]) -> None:
        number, severity = job
        makers.make(views[number], name, severity, 0, str(number))

    jobs = [(i, severity) for i in range(len(views)) for severity in SEVERITIES]
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(one, jobs))
