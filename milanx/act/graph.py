"""Who makes a layer's value and who reads it: the operations of one forward pass.

Only what the weights of a module express can be written into weights, so that what matters is
which module's weights the value comes from, and whether weights are all that reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from milanx.targets.layers import NONLINEAR, PASSING, Consumed, consumed
from milanx.targets.units import LayerInfo, first_tensor
from milanx.targets.zoo import Target

# Operations whose weight has a row for each unit that they give.
MAKERS = {"linear", "conv2d", "batch_norm", "layer_norm", "group_norm"}
# Operations whose weight has a column, or a factor, for each unit that they read.
READERS = {"linear", "conv2d", "batch_norm"}
# What brings units on one by one: a unit that is constant stays so, one that is scaled stays so.
THROUGH = PASSING | {
    "mean", "amax", "adaptive_avg_pool2d", "adaptive_max_pool2d", "avg_pool2d", "max_pool2d", "pad",
    "__getitem__", "squeeze", "unsqueeze",
}  # fmt: skip
ASKING = {"size", "dim", "stride", "numel", "is_floating_point", "__len__"}


@dataclass(frozen=True)
class Op:
    """One operation.

    Attributes:
        name: of the function, without the mark of working in place.
        module: the innermost module in which it ran.
        reads: the tensors that it was given, by number.
        gives: the tensor that it gave; one that was changed in place has a new number.
        weight: whether it was given the module's own weight, as it is.
        done: the nonlinearity, where it is one.
    """

    name: str
    module: str
    reads: tuple[int, ...]
    gives: int
    weight: bool
    done: Consumed | None


@dataclass
class Graph:
    """The operations of a forward pass, in their order."""

    ops: list[Op] = field(default_factory=list)
    given: dict[str, int] = field(default_factory=dict)  # to a module, by its name
    gave: dict[str, int] = field(default_factory=dict)  # by a module

    def maker(self, tensor: int) -> Op | None:
        """Return what made a tensor, through what only hands it on."""
        for op in reversed(self.ops):
            if op.gives == tensor:
                if op.name in PASSING and op.reads:
                    return self.maker(op.reads[0])
                return op
        return None

    def readers(self, tensor: int, through: set[str] = THROUGH) -> list[Op]:
        """Return what reads a tensor, through what brings its units on one by one."""
        carriers, found = {tensor}, []
        for op in self.ops:
            if carriers.isdisjoint(op.reads):
                continue
            if op.name in through and op.reads[0] in carriers:
                carriers.add(op.gives)
            else:
                found.append(op)
        return found

    def value(self, info: LayerInfo) -> int | None:
        """Return the tensor that holds a layer's value."""
        if info.input_of:
            return self.given.get(info.input_of)
        start = self.gave.get(info.module)
        if start is None or info.nonlinearity is None:
            return start
        for op in self.readers(start, PASSING):
            if op.done is not None and op.done.name == info.nonlinearity:
                return op.gives
        return None


class _Notes(TorchFunctionMode):
    """Writes down every operation of a forward pass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.graph = Graph()
        self.model = model
        self.inside: list[str] = [""]
        self.numbers: dict[int, int] = {}
        self.alive: list[torch.Tensor] = []  # so that no id is used twice
        self.next = 0

    def number(self, tensor: torch.Tensor, anew: bool = False) -> int:
        if anew or id(tensor) not in self.numbers:
            self.alive.append(tensor)
            self.numbers[id(tensor)], self.next = self.next, self.next + 1
        return self.numbers[id(tensor)]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = str(getattr(func, "__name__", ""))
        tensors = list(_tensors((args, kwargs)))
        reads = tuple(self.number(t) for t in tensors)
        result = func(*args, **kwargs)
        plain = name if name.startswith("__") else name.rstrip("_")
        given = next(_tensors(result), None)
        if given is None or name in ASKING:
            return result
        module = self.model.get_submodule(self.inside[-1])
        weight = getattr(module, "weight", None)
        done = consumed(plain, tuple(args[1:]), kwargs) if plain in NONLINEAR else None
        changed = any(given is t for t in tensors)
        self.graph.ops.append(Op(
            plain, self.inside[-1], reads, self.number(given, anew=changed),
            any(t is weight for t in tensors), done,
        ))  # fmt: skip
        return result


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)


@torch.no_grad()
def draw(target: Target) -> Graph:
    """Run a target once and write down its operations."""
    model, notes = target.model, _Notes(target.model)
    inputs = target.inputs(torch.zeros(2, 3, *target.preprocess.size, dtype=torch.uint8))

    def begin(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            notes.inside.append(name)
            with torch._C.DisableTorchFunction():
                if args and isinstance(args[0], torch.Tensor):
                    notes.graph.given.setdefault(name, notes.number(args[0]))

        return hook

    def end(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            notes.inside.pop()
            with torch._C.DisableTorchFunction():
                tensor = first_tensor(output)
                if tensor is not None:
                    notes.graph.gave.setdefault(name, notes.number(tensor))

        return hook

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if name:
                hooks.callback(module.register_forward_pre_hook(begin(name)).remove)
                hooks.callback(module.register_forward_hook(end(name)).remove)
        with notes:
            model(inputs)
    return notes.graph
