"""What a layer writes, as a map of units [b, u, h, w], and how layers and units are addressed."""

from __future__ import annotations

import copy
import dataclasses
import fnmatch
import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import torch

from milanx.errors import InputError
from milanx.targets.functions import Consumed

if TYPE_CHECKING:
    from milanx.targets.lens import Lens, Shows

CLASS, HEAD = "@class", "@head"
SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+ -]{0,99}(?<![. ])")  # names that are folders as is
UNITS = re.compile(r"[-\d,\s]*\d[-\d,\s]*")  # what may be a list of units
FOLDER = 80  # characters of any other name that its folder keeps; a digest tells it apart


@dataclass(frozen=True)
class LayerInfo:
    """A layer that can be described.

    Attributes:
        name: its address, ``blocks.6`` or ``blocks.6@class``.
        module: its name in ``named_modules()``.
        kind: ``conv``, ``tokens``, ``neurons``, ``vector`` or ``logits``; of units that are
            computed from a layer's own, ``latents``, ``directions``, ``heads`` or ``head``.
        units: how many.
        map_size: (h, w) of a unit's map.
        read: ``after relu6``, ``output``, ...: what is read.
        rectified: values are never below zero.
        upper: the most that a value can be, such as 6 after a ReLU6.
        off: the value at which, and below which, a unit is off, such as 0 after a ReLU; None where
            there is none.
        linear: no elementwise nonlinearity of its own.
        inert: no path from these positions to the model's output; None where that is not known.
        better: the nearest layer that reads clearer, for a linear one.
        nonlinearity: name of what turns the module's output into what is read; None for none.
        channels_last: whether the units are the output's last dimension.
        changed: the output is changed in place afterwards, so a copy is taken.
        input_of: the module whose input is read instead (a gated MLP's down projection).
        prefix_tokens: tokens before the patches.
        class_token: read at the class token instead of the patches.
        suffix_tokens: tokens behind the patches, such as those that detect objects.
        groups: rows of the output's first axis that belong to one image, such as its windows.
        order: which position of an image's rows holds each cell of the map, row by row, where
            that is no plain row after row.
        refused: why the layer cannot be described; None for one that can.
        through: fingerprint of what computes the units from the layer's own; "" for those.
        shown: (h, w) of maps that show where logits come from; () for the layer's own.
        consumed: the nonlinearity itself, as discovery saw it; no part of what is written.
        lens: what computes the units, likewise.
        cam: what computes those maps, likewise.
    """

    name: str
    module: str
    kind: str
    units: int
    map_size: tuple[int, int]
    read: str = "output"
    rectified: bool = False
    upper: float | None = None
    off: float | None = None
    linear: bool = True
    inert: bool | None = False
    better: str | None = None
    nonlinearity: str | None = None
    channels_last: bool = False
    changed: bool = False
    input_of: str | None = None
    prefix_tokens: int = 0
    class_token: bool = False
    suffix_tokens: int = 0
    groups: int = 1
    order: tuple[int, ...] = field(default=(), repr=False)
    refused: str | None = None
    through: str = ""
    shown: tuple[int, ...] = ()
    consumed: Consumed | None = field(default=None, repr=False, compare=False)
    lens: Lens | None = field(default=None, repr=False, compare=False)
    cam: Shows | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return what is written of a layer, and what stands for it in fingerprints.

        What few layers have is left out of the others, whose fingerprints are those of old.
        """
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in UNWRITTEN}
        return {k: v for k, v in values.items() if k not in RARE or v != RARE[k]}


UNWRITTEN = ("consumed", "lens", "cam")
RARE: dict[str, Any] = {
    "suffix_tokens": 0, "groups": 1, "order": (), "refused": None, "off": None, "through": "",
    "shown": (),
}  # fmt: skip


DIGITS = 6  # of a unit's number: a million units are more than any layer has


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
        if len(match[2] or match[1]) > DIGITS:
            raise InputError(
                f"cannot read the units {text!r}", "no layer has so many units",
                "milanx layers MODEL says how many a layer has",
            )  # fmt: skip
        found.extend(range(int(match[1]), int(match[2] or match[1]) + 1))
    return tuple(dict.fromkeys(found))


def parse_address(text: str, known: Collection[str] = ()) -> Address:
    """Read ``LAYER``, ``LAYER@class``, ``LAYER:17``, ``LAYER:0-63`` or ``LAYER:-17``.

    Args:
        text: the address.
        known: names of layers; one of them is that layer, whatever it looks like. What stands
            behind a colon and is no list of units belongs to the name too.

    Raises:
        InputError: units that cannot be read, such as 5-2.
    """
    layer, separator, units = text.rpartition(":")
    if not separator or text in known or not UNITS.fullmatch(units):
        return Address(text)
    if units.startswith("-"):
        return Address(layer, parse_units(units[1:]), "-")
    return Address(layer, parse_units(units))


def matches(name: str, pattern: str) -> bool:
    """Whether a layer's name is a pattern, to the letter or as the shell reads it."""
    return name == pattern or fnmatch.fnmatchcase(name, pattern)


def layer_folder(name: str) -> str:
    """Return the name of the folder that holds what is known of a layer.

    It is the layer's own where that is a plain file name; anything else is escaped, cut short and
    told apart by a digest, so that no name leaves the run folder or is too long for a disk.
    """
    if SAFE.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    return f"{quote(name, safe='@ ')[:FOLDER].strip('. ')}-{digest}"


def tensors_of(output: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors of an output, through dicts, lists, tuples and dataclasses."""
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from tensors_of(value)
    elif isinstance(output, Sequence) and not isinstance(output, str | bytes):
        for value in output:
            yield from tensors_of(value)
    elif hasattr(output, "__dataclass_fields__"):
        for name in output.__dataclass_fields__:
            yield from tensors_of(getattr(output, name))


def first_tensor(output: Any) -> torch.Tensor | None:
    """Return the tensor of a module's output: itself, a last hidden state, logits, or the first."""
    if isinstance(output, torch.Tensor):
        return output
    for name in ("last_hidden_state", "logits"):
        found = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(found, torch.Tensor):
            return found
    return next(tensors_of(output), None)


def replace_first(output: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return a module's output with its tensor (`first_tensor`) changed, the rest as it is.

    Raises:
        InputError: there is no tensor, or it is in something that cannot be made anew.
    """
    tensor = first_tensor(output)
    if tensor is None:
        raise InputError("the layer gave no tensor", f"it gave {type(output).__name__}")
    return _replaced(output, tensor, change(tensor))


def _replaced(output: Any, old: torch.Tensor, new: torch.Tensor) -> Any:
    if output is old:
        return new
    if isinstance(output, Mapping):
        made = copy.copy(output)
        for key, value in output.items():
            if any(t is old for t in tensors_of(value)):
                made[key] = _replaced(value, old, new)  # type: ignore[index]
        return made
    if isinstance(output, tuple | list):
        rest = [_replaced(v, old, new) if any(t is old for t in tensors_of(v)) else v
                for v in output]  # fmt: skip
        return type(output)(*rest) if hasattr(output, "_fields") else type(output)(rest)
    if hasattr(output, "__dataclass_fields__"):
        held = {name: getattr(output, name) for name in output.__dataclass_fields__}
        changes = {name: _replaced(value, old, new) for name, value in held.items()
                   if any(t is old for t in tensors_of(value))}  # fmt: skip
        return dataclasses.replace(output, **changes)
    raise InputError("the layer's tensor cannot be replaced", f"it is in a {type(output).__name__}")


def to_maps(output: torch.Tensor, info: LayerInfo) -> torch.Tensor:
    """Bring a layer's output to [b, u, h, w] (a view of it where possible).

    Args:
        output: [b, u, h, w], [b, h, w, u], [b, n, u], [b, u, n] or [b, u], as ``info`` says; where
            several rows belong to an image (``info.groups``), [b * groups, ...].
        info: the layer.
    """
    if info.groups > 1 or info.order:
        return _gathered(output, info)
    if output.ndim == 4:
        return output.permute(0, 3, 1, 2) if info.channels_last else output
    if output.ndim == 2:
        return output[:, :, None, None]
    if info.class_token:
        return output[:, 0, :, None, None]
    patches = output[:, info.prefix_tokens : output.shape[1] - info.suffix_tokens]
    return patches.transpose(1, 2).unflatten(2, info.map_size)


def _gathered(output: torch.Tensor, info: LayerInfo) -> torch.Tensor:
    """Bring windows, groups or tokens of another order to their places, [b, u, h, w]."""
    rows = output.unflatten(0, (-1, info.groups)) if info.groups > 1 else output
    # Units are last, or, where they are not, behind the rows that belong to an image.
    axis = -1 if info.channels_last else (2 if info.groups > 1 else 1)
    flat = rows.movedim(axis, -1).flatten(1, -2)  # [b, positions, u]
    if info.order:
        flat = flat[:, torch.tensor(info.order, device=flat.device)]
    return flat.transpose(1, 2).unflatten(2, info.map_size)
