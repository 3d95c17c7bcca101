"""What a layer's units are described with, gathered for some while others are worked on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch

from milanx.workers import ALONE, Workers

if TYPE_CHECKING:
    from milanx.describing.settings import SearchSettings
    from milanx.describing.units import LayerEvidence, UnitsEvidence
    from milanx.features.evidence import Evidence, LayerGatherer

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Gathered:
    """What units that are described together are described by.

    Attributes:
        evidence: of their exemplar sets.
        units: what they say of texts.
        prefixes: [u, p, width], which p(d|E) reads.
    """

    evidence: Evidence
    units: UnitsEvidence
    prefixes: torch.Tensor


@dataclass(frozen=True)
class Task:
    """What a layer's units are described with.

    Attributes:
        gatherer: of the layer's evidence.
        layer: what all its units say.
        how: settings.
        threads: share out the work.
        advance: told how many units more are done.
    """

    gatherer: LayerGatherer
    layer: LayerEvidence
    how: SearchSettings
    threads: Workers
    advance: Callable[[int], None]


def one_ahead(
    step: Callable[[T], R], items: Sequence[T], workers: Workers
) -> Iterator[tuple[T, R]]:
    """Yield items with the results of a step, in order, the next being made meanwhile.

    Args:
        step: of which one runs at a time, without gradients.
        items: what it is given.
        workers: of the rest of the work; where there are none, nothing is made ahead.
    """
    if workers is ALONE or len(items) < 2:
        yield from ((item, step(item)) for item in items)
        return
    still = torch.is_inference_mode_enabled()  # which each thread has for itself

    def alike(item: T) -> R:
        with torch.inference_mode(still):
            return step(item)

    with ThreadPoolExecutor(1, "milanx-ahead") as pool:
        coming = pool.submit(alike, items[0])
        for place, item in enumerate(items):
            made = coming.result()
            if place + 1 < len(items):
                coming = pool.submit(alike, items[place + 1])
            yield item, made
