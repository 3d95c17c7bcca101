"""Lenses: what computes other units from a layer's own, position by position.

A layer that is read through one has the lens's units on its own map: latents of a sparse
autoencoder (`autoencoders`), projections on directions (`directions`), what attention heads write
(`heads`). Its address is the layer's with a suffix, ``blocks.6@sae``, so that no unit is taken for
one of the layer's own.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch

# Suffixes of the addresses of layers that are read through a file, and how it is given.
LENSES = {"@sae": "--sae FOLDER", "@directions": "--directions FILE"}


class Shows(Protocol):
    """Computes maps that show where units come from, beside their own.

    Attributes:
        source: the layer that it reads, as a `milanx.targets.units.LayerInfo`.
    """

    @property
    def source(self) -> Any: ...  # noqa: D102

    def __call__(self, maps: torch.Tensor) -> torch.Tensor:
        """Compute maps [b, u, h, w] from those of the source."""
        ...


class Lens(Protocol):
    """Computes units from those of a layer.

    Attributes:
        kind: of the units, as `LayerInfo.kind` has it.
        suffix: of the addresses of layers that are read through it.
        title: what it is, in words.
        width: units of the layer.
        units: it makes so many of them.
        rectified: none of its values is below zero.
        linear: it computes no nonlinearity.
        key: fingerprint of all that its values depend on.
    """

    @property
    def kind(self) -> str: ...  # noqa: D102

    @property
    def suffix(self) -> str: ...  # noqa: D102

    @property
    def title(self) -> str: ...  # noqa: D102

    @property
    def width(self) -> int: ...  # noqa: D102

    @property
    def units(self) -> int: ...  # noqa: D102

    @property
    def rectified(self) -> bool: ...  # noqa: D102

    @property
    def linear(self) -> bool: ...  # noqa: D102

    @property
    def key(self) -> str: ...  # noqa: D102

    def __call__(self, maps: torch.Tensor) -> torch.Tensor:
        """Compute units [b, units, h, w] from those of a layer [b, width, h, w]."""
        ...

    def facts(self) -> dict[str, Any]:
        """Return what is to be known of it, for json."""
        ...

    def notes(self, module: str, at_map: bool) -> list[str]:
        """Say what does not agree with a layer that is read through it.

        Args:
            module: the layer's name in ``named_modules()``.
            at_map: whether it is read at places of the image, and not at a class token.
        """
        ...
