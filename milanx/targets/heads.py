"""Attention heads as units: how much each head writes at each position, or what one of them writes.

An attention module gathers what its heads found side by side and applies one linear projection to
it, so that its output is a sum over heads (and the projection's bias): the columns of a head times
its part of the projection's input. ``blocks.6.attn@head`` has one unit a head, the length of that
vector; ``blocks.6.attn@head3`` has the vector of head 3 itself, a unit an axis of the stream.
"""

from __future__ import annotations

import copy
import dataclasses
import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import nn

from milanx.errors import InputError
from milanx.files import fingerprint
from milanx.targets.probing import Probed, Seen
from milanx.targets.units import CLASS, HEAD, LayerInfo

# Where modules say how many heads they have.
COUNTS = ("num_heads", "num_attention_heads", "n_heads", "heads", "n_head", "nhead")
OUT = "out_proj"  # name of the projection of torch's own attention
NONE = "no output projection was found that gathers its heads"
ADDRESS = re.compile(rf"(?P<base>.+{HEAD})(?P<number>\d*)(?P<at>{CLASS})?")


@dataclass(frozen=True, eq=False)
class Heads:
    """What heads write into the residual stream: a lens over a projection's input.

    Attributes:
        projection: the output projection.
        count: how many heads there are.
        one: the head whose vector is read; None for the lengths of all heads'.
    """

    projection: nn.Linear
    count: int
    one: int | None = None

    suffix = HEAD

    @property
    def kind(self) -> str:
        """Of the units."""
        return "heads" if self.one is None else "head"

    @property
    def title(self) -> str:
        """What it is, in words."""
        return "lengths of what heads write" if self.one is None else "what one head writes"

    @property
    def width(self) -> int:
        """Units that it reads: the projection's input."""
        return self.projection.in_features

    @property
    def units(self) -> int:
        """Heads, or axes of the stream."""
        return self.count if self.one is None else self.projection.out_features

    @property
    def rectified(self) -> bool:
        """Whether no value is below zero: lengths are not."""
        return self.one is None

    @property
    def linear(self) -> bool:
        """Whether it computes no nonlinearity."""
        return self.one is not None

    @property
    def key(self) -> str:
        """Fingerprint; the weights are the target's, which has its own."""
        return fingerprint("heads", self.count, self.one)

    def _written(self, inputs: torch.Tensor, head: int) -> torch.Tensor:
        """Return what a head writes [..., d], of the projection's input [..., heads * size]."""
        size = self.width // self.count
        part = slice(head * size, (head + 1) * size)
        columns = self.projection.weight.detach()[:, part].to(inputs)
        return inputs[..., part] @ columns.T

    def __call__(self, maps: torch.Tensor) -> torch.Tensor:
        """Compute lengths [b, heads, h, w] or a vector [b, d, h, w], in float32."""
        inputs = maps.movedim(1, -1).float()
        if self.one is not None:
            return self._written(inputs, self.one).movedim(-1, 1)
        return torch.stack([self._written(inputs, h).norm(dim=-1) for h in range(self.count)], 1)

    def facts(self) -> dict[str, Any]:
        """Return what is to be known of it, for json."""
        return {"kind": self.kind, "heads": self.count, "head": self.one, "fingerprint": self.key}

    def notes(self, module: str, at_map: bool) -> list[str]:
        """Say nothing: it was found where it is."""
        return []


def is_torch_attention(module: nn.Module) -> TypeGuard[nn.MultiheadAttention]:
    """Whether a module is torch's own attention, which never calls its output projection."""
    return isinstance(module, nn.MultiheadAttention) and (
        type(module).forward is nn.MultiheadAttention.forward
    )


def gathered(
    module: nn.MultiheadAttention, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> torch.Tensor:
    """Return what heads found side by side: the output projection's input.

    torch's own attention applies the projection's weights by a function. Attention is computed
    again with weights that leave everything as it is, in a twin that shares the rest.

    Args:
        module: the attention.
        args: it was called with.
        kwargs: likewise, by name.
    """
    weight = module.out_proj.weight
    same = nn.Module()
    same.register_buffer("weight", torch.eye(len(weight), dtype=weight.dtype, device=weight.device))
    same.register_parameter("bias", None)
    twin = copy.copy(module)
    twin._modules = dict(module._modules) | {OUT: same}
    found: torch.Tensor = twin.forward(*args, **kwargs)[0]
    return found


def with_heads(probed: Probed, infos: list[LayerInfo]) -> list[LayerInfo]:
    """Return layers with the heads of every attention module behind its own entries."""
    places = {info.name: info for info in infos}
    found: dict[str, LayerInfo] = {}
    taken: set[str] = set()
    for record in probed.seen.values():
        count = _count(record.module)
        if count is None:
            continue
        if is_torch_attention(record.module):
            own = Heads(record.module.out_proj, count)
            found[record.name] = _heads(record.name, own, places[record.name],
                                        f"{record.name}.{OUT}")  # fmt: skip
            continue
        projection = _projection(probed, record, count)
        if projection is not None and projection.name not in taken:
            taken.add(projection.name)
            assert isinstance(projection.module, nn.Linear)
            lens = Heads(projection.module, count)
            found[record.name] = _heads(record.name, lens, places[projection.name],
                                        projection.name)  # fmt: skip
        elif projection is None and _is_attention(record) and not _inside(record.name, found):
            found[record.name] = _refused(record.name, NONE)
    made = []
    for i, info in enumerate(infos):
        made.append(info)
        following = infos[i + 1].module if i + 1 < len(infos) else None
        if info.module in found and following != info.module:
            made.append(found.pop(info.module))
    return made + list(found.values())


def _count(module: nn.Module) -> int | None:
    """Return how many heads a module says that it has."""
    values = (getattr(module, name, None) for name in COUNTS)
    return next((v for v in values if type(v) is int and v > 0), None)


def _is_attention(record: Seen) -> bool:
    named = f"{type(record.module).__name__} {record.name.rpartition('.')[2]}".lower()
    return "attention" in named or "attn" in named


def _inside(name: str, found: Iterable[str]) -> bool:
    return any(name.startswith(f"{other}.") or other.startswith(f"{name}.") for other in found)


def _projection(probed: Probed, record: Seen, count: int) -> Seen | None:
    """Return the linear layer whose output is what an attention module gives.

    It is inside, and the module gives what it gives; or it stands beside the module and reads what
    that gives, as in transformers' models where the two are modules of one parent.
    """
    linear = [r for r in probed.seen.values() if isinstance(r.module, nn.Linear) and r.calls == 1
              and r.module.in_features % count == 0]  # fmt: skip
    inside = [r for r in linear if r.name.startswith(f"{record.name}.")
              and r.given != record.given and _same(r.value, record.value)]  # fmt: skip
    if inside or not _is_attention(record):
        return inside[-1] if inside else None
    parent = record.name.rpartition(".")[0]
    beside = [r for r in linear if r.given == record.number and r.name.startswith(f"{parent}.")]
    return beside[0] if len(beside) == 1 else None


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def _refused(name: str, why: str) -> LayerInfo:
    return LayerInfo(name + HEAD, name, "", 0, (0, 0), inert=None, refused=why)


def _heads(name: str, lens: Heads, place: LayerInfo, projection: str) -> LayerInfo:
    """Make the entry of all heads, at the places of what their projection gives."""
    if place.refused is not None:
        return _refused(name, f"of its output projection {projection}: {place.refused}")
    own = dataclasses.replace(place, input_of=projection, better=None, upper=None, off=None,
                              changed=False, nonlinearity=None, consumed=None)  # fmt: skip
    return _through(own, lens, name + HEAD)


def _through(info: LayerInfo, lens: Heads, name: str) -> LayerInfo:
    return dataclasses.replace(
        info, name=name, kind=lens.kind, units=lens.units, read=lens.title,
        rectified=lens.rectified, linear=lens.linear, through=lens.key, lens=lens,
    )  # fmt: skip


def named_heads(known: Mapping[str, LayerInfo], layers: Iterable[str]) -> dict[str, LayerInfo]:
    """Return the known layers with the single heads and class tokens that addresses name.

    Args:
        known: every layer by name, with ``LAYER@head`` of attention modules.
        layers: ``blocks.6.attn@head3``, ``blocks.*.attn@head@class``.

    Raises:
        InputError: a head that there is not, or that cannot be read.
    """
    beside: dict[str, list[LayerInfo]] = {}
    for layer in layers:
        match = ADDRESS.fullmatch(layer)
        if match is None or not (match["number"] or match["at"]):
            continue
        named = known.get(match["base"])
        if named is not None and named.refused is not None:
            raise InputError(f"{layer} cannot be described", named.refused,
                             f"{named.module} itself may be")  # fmt: skip
        for name in fnmatch.filter(known, match["base"]):
            if isinstance(known[name].lens, Heads):
                beside.setdefault(name, []).append(_named(known, known[name], match))
    made = {}
    for name, info in known.items():
        made[name] = info
        made.update({other.name: other for other in beside.get(name, ())})
    return made


def _named(known: Mapping[str, LayerInfo], info: LayerInfo, match: re.Match[str]) -> LayerInfo:
    lens = info.lens
    assert isinstance(lens, Heads)
    name = info.name
    if match["number"]:
        number = int(match["number"])
        if number >= lens.count:
            raise InputError(f"{info.name.removesuffix(HEAD)} has no head {number}",
                             f"its heads are 0 to {lens.count - 1}",
                             f"{info.name} reads all of them")  # fmt: skip
        name += match["number"]
        info = _through(info, dataclasses.replace(lens, one=number), name)
    if match["at"]:
        at_class = known.get(info.module + CLASS)
        if at_class is None:
            raise InputError(f"{name} has no class token", "nothing stands before its patches",
                             f"name {name}")  # fmt: skip
        info = dataclasses.replace(info, name=name + CLASS, map_size=(1, 1), class_token=True,
                                   inert=at_class.inert)  # fmt: skip
    return info
