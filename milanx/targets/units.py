"""What a layer writes, as a map of units [b, u, h, w], and how layers and units are addressed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch.nn import functional as F

from milanx.errors import InputError

CLASS = "@class"
# Elementwise nonlinearities by the name of the function that computes them.
NONLINEAR: dict[str, Callable[..., torch.Tensor]] = {
    "relu": F.relu, "relu6": F.relu6, "hardtanh": F.hardtanh, "gelu": F.gelu, "silu": F.silu,
    "hardswish": F.hardswish, "hardsigmoid": F.hardsigmoid, "mish": F.mish, "elu": F.elu,
    "celu": F.celu, "selu": F.selu, "softplus": F.softplus, "leaky_relu": F.leaky_relu,
    "sigmoid": torch.sigmoid, "tanh": torch.tanh, "prelu": F.prelu, "softsign": F.softsign,
}  # fmt: skip


@dataclass(frozen=True)
class Consumed:
    """The nonlinearity that first reads a tensor, with its arguments after the tensor."""

    name: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    def __call__(self, value: torch.Tensor) -> torch.Tensor:
        """Apply it, never in place."""
        kwargs = {k: v for k, v in self.kwargs.items() if k != "inplace"}
        return NONLINEAR[self.name](value, *self.args, **kwargs)


@dataclass(frozen=True)
class LayerInfo:
    """A layer that can be described.

    Attributes:
        name: its address, ``blocks.6`` or ``blocks.6@class``.
        module: its name in ``named_modules()``.
        kind: ``conv``, ``tokens``, ``neurons``, ``vector`` or ``logits``.
        units: how many.
        map_size: (h, w) of a unit's map.
        read: ``after relu6``, ``output``, ...: what is read.
        rectified: values are never below zero.
        upper: the most that a value can be, such as 6 after a ReLU6.
        linear: no elementwise nonlinearity of its own.
        inert: no path from these positions to the model's output.
        better: the nearest layer that reads clearer, for a linear one.
        nonlinearity: name of what turns the module's output into what is read; None for none.
        channels_last: whether the units are the output's last dimension.
        changed: the output is changed in place afterwards, so a copy is taken.
        input_of: the module whose input is read instead (a gated MLP's down projection).
        prefix_tokens: tokens before the patches.
        class_token: read at the class token instead of the patches.
        consumed: the nonlinearity itself, as discovery saw it; no part of what is written.
    """

    name: str
    module: str
    kind: str
    units: int
    map_size: tuple[int, int]
    read: str = "output"
    rectified: bool = False
    upper: float | None = None
    linear: bool = True
    inert: bool = False
    better: str | None = None
    nonlinearity: str | None = None
    channels_last: bool = False
    changed: bool = False
    input_of: str | None = None
    prefix_tokens: int = 0
    class_token: bool = False
    consumed: Consumed | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return what is written of a layer, and what stands for it in fingerprints."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "consumed"}


@dataclass(frozen=True)
class Address:
    """Which units: a layer or a pattern, some of its units or all (None), and their sign."""

    layer: str
    units: tuple[int, ...] | None = None
    sign: str = "+"


def parse_units(text: str) -> tuple[int, ...]:
    """Read ``0-63,70`` as unit numbers.

    Raises:
        InputError: text that is no list of units.
    """
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if not match or (match[2] and int(match[2]) < int(match[1])):
            raise InputError(
                f"cannot read the units {text!r}",
                f"{part.strip()!r} is neither a number nor a range from low to high",
                "for example 0-63 or 3,17,40-47",
            )
        found.extend(range(int(match[1]), int(match[2] or match[1]) + 1))
    return tuple(dict.fromkeys(found))


def parse_address(text: str) -> Address:
    """Read ``LAYER``, ``LAYER@class``, ``LAYER:17``, ``LAYER:0-63`` or ``LAYER:-17``.

    Raises:
        InputError: an address that has units which cannot be read.
    """
    layer, separator, units = text.rpartition(":")
    if not separator:
        return Address(text)
    if units.startswith("-"):
        return Address(layer, parse_units(units[1:]), "-")
    return Address(layer, parse_units(units))


def first_tensor(output: Any) -> torch.Tensor | None:
    """Return the tensor of a module's output: itself, the first of a tuple, a last hidden state."""
    if isinstance(output, torch.Tensor):
        return output
    for name in ("last_hidden_state", "logits"):
        if isinstance(getattr(output, name, None), torch.Tensor):
            return getattr(output, name)
    if isinstance(output, tuple | list) and output and isinstance(output[0], torch.Tensor):
        return output[0]
    return None


def to_maps(output: torch.Tensor, info: LayerInfo) -> torch.Tensor:
    """Bring a layer's output to [b, u, h, w] (a view of it where possible).

    Args:
        output: [b, u, h, w], [b, h, w, u], [b, n, u] or [b, u], as ``info`` says.
        info: the layer.
    """
    if output.ndim == 4:
        return output.permute(0, 3, 1, 2) if info.channels_last else output
    if output.ndim == 2:
        return output[:, :, None, None]
    if info.class_token:
        return output[:, 0, :, None, None]
    patches = output[:, info.prefix_tokens :]
    return patches.transpose(1, 2).unflatten(2, info.map_size)
