"""Where the maps of a generator lie: which part of the image moves when a part of a map does.

The picture of a generator comes last, so that no change of it shows in a map. Instead each quarter
of a layer's output is changed in turn, and the image must move there more than anywhere else; what
follows no quarter of the image is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from milanx.targets.flow import Layout
from milanx.targets.layout import ASPECT, SHOWN, quarter, unit_axis
from milanx.targets.probing import PARTS, Probed, Seen
from milanx.targets.units import first_tensor, replace_first
from milanx.targets.zoo import Target

STRENGTH = 1.0  # of the noise that is added, in deviations of the layer's own values
NOWHERE = "no change of it reaches the generated image, so that its places cannot be told"


@dataclass(frozen=True)
class Settled:
    """What changes of a layer showed.

    Attributes:
        layout: where units and places are, or why that cannot be told.
        inert: nothing of it reaches the image.
    """

    layout: Layout | str
    inert: bool = False


def settle(target: Target, probed: Probed, record: Seen) -> Settled:
    """Find where the units and places of one layer are by changing it.

    Args:
        target: a generator.
        probed: what the probing passes of its latents showed.
        record: the layer.
    """
    if record.refused:
        return Settled(record.refused)
    if record.groups > 1:
        return Settled(f"{record.groups} rows of it belong to each image, whose places cannot be "
                       "told")  # fmt: skip
    if record.constant:
        return Settled("it gives the same whatever the latent is")
    shape = record.places
    single = [a for a in unit_axis(record) if math.prod(shape) == shape[a]]
    if single or len(shape) == 1:
        plain = Layout(single[0] if single else 0)
        return Settled(plain, not bool(_moved(target, probed, record, [torch.ones(shape)]).any()))
    seen = False
    for layout in _candidates(target, record):
        parts = [_part(layout, part, shape) for part in range(PARTS)]
        moved = _moved(target, probed, record, parts)
        seen |= bool(moved.any())
        if _follows(moved, layout.map_size):
            return Settled(layout)
    if not seen:
        return Settled(NOWHERE, True)
    return Settled("a change of one part of its " + " x ".join(map(str, shape))
                   + " values does not show at one part of the generated image")  # fmt: skip


def _candidates(target: Target, record: Seen) -> Iterator[Layout]:
    """Yield the layouts that a shape allows: maps of about the image's shape, and rows of them."""
    height, width = target.preprocess.size
    shape = record.places
    for axis in unit_axis(record) if len(shape) == 3 else unit_axis(record)[-1:]:
        places = [n for a, n in enumerate(shape) if a != axis]
        if len(places) == 1:
            h = round(math.sqrt(places[0] * height / width))
            places = [h, places[0] // h] if h and places[0] % h == 0 else [1, places[0]]
        if 1 / ASPECT <= places[0] / places[1] * width / height <= ASPECT:
            yield Layout(axis, (places[0], places[1]))


def _part(layout: Layout, part: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Return 1 where a quarter of a layer's values lies, and 0 elsewhere, of the shape of them."""
    inside = quarter(part, layout.map_size).float()
    places = [n for a, n in enumerate(shape) if a != layout.axis]
    return inside.reshape(places).unsqueeze(layout.axis).expand(shape)


def _moved(target: Target, probed: Probed, record: Seen, parts: list[torch.Tensor]) -> torch.Tensor:
    """Return how far each pixel moves when noise is added to parts of a layer, [parts, H, W]."""
    generator = torch.Generator().manual_seed(0)
    deviation = float(record.value.double().std()) or 1.0
    noise = torch.randn(record.places, generator=generator) * STRENGTH * deviation
    added = torch.stack([torch.zeros(record.places), *(noise * part for part in parts)])

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        return replace_first(output, lambda tensor: tensor + added.to(tensor))

    handle = record.module.register_forward_hook(hook)
    try:
        with torch.no_grad():
            inputs = probed.inputs[:1].repeat(len(added), 1, 1, 1)
            image = first_tensor(target.model(inputs))
    finally:
        handle.remove()
    assert image is not None
    return (image[1:].double() - image[:1].double()).abs().mean(1).cpu()


def _follows(moved: torch.Tensor, grid: tuple[int, int]) -> bool:
    """Whether each quarter of the image moves most with its own quarter of a map."""
    size = (int(moved.shape[1]), int(moved.shape[2]))
    quarters = torch.stack([quarter(part, size) for part in range(PARTS)])  # [quarter, pixels]
    cells = moved.flatten(1)
    total = cells.mean(1, keepdim=True)
    if not bool((total > 0).all()):
        return False
    share = cells / total
    inside = quarters @ share.T / quarters.sum(1, keepdim=True)  # [quarter, part]
    if 1 in grid:  # one row or column: two parts of four are one
        pairs = [(0, 2), (1, 3)] if grid[0] == 1 else [(0, 1), (2, 3)]
        inside = torch.stack([inside[a] + inside[b] for a, b in pairs])[:, [a for a, _ in pairs]]
    own = inside.diagonal()
    others = inside - torch.diag(torch.full_like(own, math.inf))
    return bool((own > others.amax(1) * (1 + SHOWN)).all())
