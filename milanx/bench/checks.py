"""Each described layer of a model against plain hooks: units, images, values and places.

Nothing of `milanx.targets` but the list of layers and the capture of their maps is taken for
granted: the expected numbers come from the modules' own attributes and from hooks that copy what
they see.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from milanx.bench.places import FINE, by_quarters, is_shifted, moved_places, pictures
from milanx.targets.capture import Capture
from milanx.targets.layers import discover
from milanx.targets.units import HEAD, LayerInfo, first_tensor
from milanx.targets.zoo import Target

NEAR = 1e-4  # relative distance of maps that are the same, across batches
# Modules that are an elementwise nonlinearity, torch's and timm's.
BENDING = {"ReLU", "ReLU6", "GELU", "GELUTanh", "SiLU", "Swish", "Hardswish", "HardSwish", "Mish",
           "QuickGELU", "QuickGELUActivation", "GELUActivation", "SiLUActivation", "LeakyReLU",
           "ELU", "SELU", "CELU", "Softplus", "Hardsigmoid", "Sigmoid", "Tanh"}  # fmt: skip


@dataclass
class Checked:
    """What was found of one model; a list names layers.

    Attributes:
        described: how many layers can be described.
        refused: how many cannot, by reason (numbers in it replaced).
        maps: how many have a map of more than one row and column that moves with the picture.
        units: layers whose units are not their module's.
        rows: layers whose maps are not those of the images, in their order.
        placed: layers whose map shows changes of the picture at another quarter.
        shifted: layers whose map shows them clearer when it is rolled by more than a cell.
        bent: layers whose values are not what the model computes of their output.
        untold: layers whose map shows changes as much in one quarter as in another.
    """

    described: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    maps: int = 0
    units: list[str] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)
    placed: list[str] = field(default_factory=list)
    shifted: list[str] = field(default_factory=list)
    bent: list[str] = field(default_factory=list)
    untold: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> int:
        """How many layers are read wrongly."""
        return len({*self.units, *self.rows, *self.placed, *self.shifted, *self.bent})


@torch.no_grad()
def check_model(target: Target) -> Checked:
    """Check every layer of a target that can be described.

    Raises:
        MilanxError: the target does not run.
    """
    with torch.enable_grad():
        known = [info for info in discover(target) if HEAD not in info.name]
    infos, found = [info for info in known if info.refused is None], Checked()
    found.refused.update(_reason(str(info.refused)) for info in known if info.refused)
    found.described = len(infos)
    shown = pictures(target.preprocess.size)
    inputs = target.inputs(torch.stack([shown[0][0], shown[1][0]]))
    with Capture(target, infos) as capture:
        maps = capture.run(inputs)
        again = capture.run(inputs.flip(0))
    plain = _Plain(target, inputs)
    modules = dict(target.model.named_modules())
    for info in infos:
        here = maps[info.name].float()
        own = own_units(modules[info.module])
        if own is not None and own != info.units and not info.input_of:
            found.units.append(info.name)
        if not _near(here, again[info.name].float().flip(0)):
            found.rows.append(info.name)
        if not plain.gives(info, here):
            found.bent.append(info.name)
    _check_places(found, target, infos, shown)
    return found


def _reason(text: str) -> str:
    """Return a reason without the numbers of one layer."""
    words = ("n" if any(c.isdigit() for c in word) else word for word in text.split())
    kept: list[str] = []
    for word in words:
        if word != "n" or kept[-1:] != ["n"]:
            kept.append(word)
    return " ".join(kept)


def own_units(module: nn.Module) -> int | None:
    """Return how many units a module's own attributes say that it gives."""
    for kind, name in (
        (nn.Conv2d, "out_channels"), (nn.Linear, "out_features"), (nn.GroupNorm, "num_channels"),
        (nn.modules.batchnorm._NormBase, "num_features"),
    ):  # fmt: skip
        if isinstance(module, kind):
            return int(getattr(module, name))
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1:
        return int(module.normalized_shape[0])
    return None


def _near(one: torch.Tensor, other: torch.Tensor) -> bool:
    scale = float(one.abs().amax())
    return one.shape == other.shape and float((one - other).abs().amax()) <= NEAR * max(scale, 1e-6)


# Values


class _Plain:
    """What every module is given and gives, by hooks that copy it the first time.

    Attributes:
        gave: by the module's name.
        read_by: kinds of the innermost modules that are given a module's very output, by its name.
    """

    def __init__(self, target: Target, inputs: torch.Tensor) -> None:
        self.gave: dict[str, torch.Tensor] = {}
        self.sums: dict[int, set[tuple[float, float]]] = {}  # of all, by their number of values
        self.shaped: dict[tuple[int, ...], list[torch.Tensor]] = {}  # tokens, by their shape
        self.read_by: dict[str, set[str]] = {}
        self.makers: dict[int, tuple[torch.Tensor, list[str], int]] = {}
        handles = []
        for name, module in target.model.named_modules():
            handles += [module.register_forward_pre_hook(self._before, with_kwargs=True),
                        module.register_forward_hook(self._after(name))]  # fmt: skip
        try:
            target.model(inputs)
        finally:
            for handle in handles:
                handle.remove()

    def _before(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        tensor = first_tensor([args, kwargs])
        if tensor is None:
            return
        self._note(tensor)
        if list(module.children()):  # what is inside it reads
            return
        made = self.makers.get(id(tensor))
        same = made is not None and made[2] == tensor._version  # nothing wrote into it since
        for name in made[1] if made and same else ():
            self.read_by.setdefault(name, set()).add(type(module).__name__)

    def _after(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            tensor = first_tensor(output)
            if tensor is None:
                return
            self._note(tensor)
            self.gave.setdefault(name, tensor.clone())
            made = self.makers.get(id(tensor))
            names = made[1] if made and made[2] == tensor._version else []
            self.makers[id(tensor)] = (tensor, [*names, name], tensor._version)

        return hook

    def _note(self, tensor: torch.Tensor) -> None:
        self.sums.setdefault(tensor.numel(), set()).add(_sums(tensor))
        if tensor.ndim == 3:
            self.shaped.setdefault(tuple(tensor.shape), []).append(tensor.clone())

    def gives(self, info: LayerInfo, here: torch.Tensor) -> bool:
        """Whether a layer's values are ones that the model computes, in whatever order they lie.

        They are compared by their sum, and that of their squares, with what the layer's own module
        gives, or, where a nonlinearity follows, with what any module is given or gives.
        """
        if info.rectified and float(here.amin()) < 0:
            return False
        if info.upper is not None and float(here.amax()) > info.upper:
            return False
        readers = self.read_by.get(info.module, set())
        if info.linear and readers and readers <= BENDING:
            return False
        if info.nonlinearity is None and info.input_of is None:
            own = self.gave[info.module]
            if self._whole(info, own, here):
                return _same(_sums(_part(info, own)), _sums(here))
            return bool(torch.isin(here, own).all())  # a part of it, to the bit
        if info.prefix_tokens or info.suffix_tokens or info.class_token:
            own = self.gave[info.module]
            shape = (*own.shape[:2], info.units)
            found = self.shaped.get(shape, [])
            return any(_same(_sums(_part(info, t)), _sums(here)) for t in found)
        if not self._whole(info, self.gave[info.module], here) and not info.input_of:
            return True  # windows that were padded: what is read of them, no module is given alone
        return any(_same(s, _sums(here)) for s in self.sums.get(here.numel(), ()))

    def _whole(self, info: LayerInfo, own: torch.Tensor, here: torch.Tensor) -> bool:
        return info.input_of is not None or _part(info, own).numel() == here.numel()


def _part(info: LayerInfo, own: torch.Tensor) -> torch.Tensor:
    """Return what of a module's output is read: without the tokens beside the patches."""
    if info.class_token:
        return own[:, 0]
    if info.order or own.ndim != 3:
        return own
    return own[:, info.prefix_tokens : own.shape[1] - info.suffix_tokens]


def _sums(value: torch.Tensor) -> tuple[float, float]:
    flat = value.double().flatten()
    return float(flat.abs().sum()), float(flat.square().sum())


def _same(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return all(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)
               for a, b in zip(one, other, strict=True))  # fmt: skip


def _check_places(
    found: Checked, target: Target, infos: Sequence[LayerInfo], shown: Sequence[torch.Tensor]
) -> None:
    """Look where changes of parts of the picture show."""
    wide = [i for i in infos if min(i.map_size) > 1 and not i.class_token]
    if not wide:
        return
    for info, (quarters, spots) in zip(wide, moved_places(target, wide, shown), strict=True):
        if not bool(quarters.any()):
            continue
        found.maps += 1
        verdict = by_quarters(quarters)
        if verdict is False:
            found.placed.append(info.name)
        elif verdict is None:
            found.untold.append(info.name)
        elif min(info.map_size) >= FINE and is_shifted(spots):
            found.shifted.append(info.name)
