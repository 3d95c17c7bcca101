"""What a target is given in a pass: its inputs for images, or the numbers of its latents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from milanx.images.probe import ProbeImages
from milanx.targets.generator import Generator
from milanx.targets.zoo import Target


def pixels(target: Target, views: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Turn views into what the target is given in a pass; a generator gets its latents' numbers.

    Args:
        target: the model.
        views: uint8 [b, 3, H, W].
        indices: of the images, int64 [b].
    """
    if isinstance(target.model, Generator):
        return target.model.numbers(indices.tolist())
    return target.inputs(views).contiguous(memory_format=torch.channels_last)


def stream(
    target: Target, images: ProbeImages, indices: Sequence[int], batch_size: int, workers: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield what the target is given for images, batch by batch, and their indices int64 [b].

    A generator makes no image here: it runs as far as the layers that are read.
    """
    if isinstance(target.model, Generator):
        for start in range(0, len(indices), batch_size):
            some = list(indices[start : start + batch_size])
            yield target.model.numbers(some), torch.tensor(some)
        return
    for views, here in images.iterate(indices, target.preprocess, batch_size, workers):
        yield pixels(target, views, here), here
