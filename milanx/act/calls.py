"""The calls of a model's modules in one forward pass, and how their results are given again.

A call is one run of one module's ``forward``. Calls nest; those that end before an edited value
exists need not run again: their results, where anything else reads them, are given from store.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from milanx.targets.units import LayerInfo

Key = tuple[str, int]  # a module, and which of its calls
INPUT: Key = ("", 0)  # what the model itself is given


@dataclasses.dataclass
class Call:
    """One run of a module: when it began and ended, what it gave, what ran inside it."""

    key: Key
    began: int
    ended: int = -1
    tensor: bool = False
    inner: list[Call] = dataclasses.field(default_factory=list)


def record_calls(model: nn.Module, inputs: torch.Tensor) -> Call:
    """Run the model once and note its calls; returns the model's own."""
    clock, counts = 0, dict[str, int]()
    root = Call(INPUT, 0)
    stack = [root]

    def begin(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            nonlocal clock
            clock += 1
            call = Call((name, counts.get(name, 0)), clock)
            counts[name] = call.key[1] + 1
            stack[-1].inner.append(call)
            stack.append(call)

        return hook

    def end(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal clock
        clock += 1
        call = stack.pop()
        call.ended, call.tensor = clock, type(output) is torch.Tensor

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if name:
                hooks.callback(module.register_forward_pre_hook(begin(name)).remove)
                hooks.callback(module.register_forward_hook(end).remove)
        model(inputs)
    root.ended = clock + 1
    return root


def before(root: Call, infos: Sequence[LayerInfo]) -> list[Key]:
    """Return the outermost calls that end before any of some layers has its value.

    A layer's own call is among them: what is edited is its output.
    """
    cuts = []

    def visit(call: Call) -> None:
        for info in infos:
            if call.key[0] == (info.input_of or info.module):
                cuts.append(call.began - 1 if info.input_of else call.ended)
        for inner in call.inner:
            visit(inner)

    visit(root)
    cut = min(cuts, default=-1)

    def outermost(call: Call) -> Iterator[Key]:
        for inner in call.inner:
            if inner.ended <= cut and inner.tensor:
                yield inner.key
            elif inner.began <= cut:
                yield from outermost(inner)

    return list(outermost(root))


Run = Callable[[Key, Callable[[], torch.Tensor]], torch.Tensor]


@contextmanager
def replaced(model: nn.Module, keys: Sequence[Key], run: Run) -> Iterator[Callable[[], None]]:
    """Let ``run`` decide what some calls give; the model comes back as it was.

    Args:
        model: the model.
        keys: the calls.
        run: called with a call and what computes it.

    Yields:
        What must be called before each forward pass.
    """
    wanted: dict[str, set[int]] = {}
    for name, number in keys:
        wanted.setdefault(name, set()).add(number)
    counts: dict[str, int] = {}

    def wrap(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            number = counts.get(name, 0)
            counts[name] = number + 1
            if number not in wanted[name]:
                return original(*args, **kwargs)
            return run((name, number), lambda: original(*args, **kwargs))

        return forward

    with ExitStack() as stack:
        for name in wanted:
            module = model.get_submodule(name)
            own = module.__dict__.get("forward")  # an earlier replacement by somebody else
            module.__dict__["forward"] = wrap(name, module.forward)
            if own is None:
                stack.callback(module.__dict__.pop, "forward")
            else:
                stack.callback(module.__dict__.__setitem__, "forward", own)
        yield counts.clear


class _Reads(TorchFunctionMode):
    """Notes which results of calls are read by anything outside of such calls."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = 0
        self.of: dict[int, set[Key]] = {}
        self.alive: list[torch.Tensor] = []  # so that no id is used twice
        self.read: set[Key] = set()

    def note(self, tensor: torch.Tensor, key: Key) -> None:
        """Say that a tensor is the result of a call; one tensor may be that of several."""
        self.alive.append(tensor)
        self.of.setdefault(id(tensor), set()).add(key)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        asks = getattr(func, "__name__", "") in ("__get__", "size", "dim", "stride")
        if not self.inside and not (asks and not isinstance(result, torch.Tensor)):
            self._look((args, kwargs or {}))
        return result

    def _look(self, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            self.read |= self.of.get(id(value), set())
        elif isinstance(value, dict):
            for item in value.values():
                self._look(item)
        elif isinstance(value, tuple | list):
            for item in value:
                self._look(item)


def results_read(
    model: nn.Module, keys: Sequence[Key], inputs: torch.Tensor, last: Sequence[str]
) -> set[Key]:
    """Return those of some calls whose results the rest of the model reads.

    Args:
        model: the model.
        keys: the calls.
        inputs: of one forward pass; `INPUT` is returned too where they are read.
        last: modules whose results an edit reads.
    """
    reads = _Reads()

    def run(key: Key, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        reads.inside += 1
        try:
            output = compute()
        finally:
            reads.inside -= 1
        reads.note(output, key)
        if key[0] in last:
            reads.read.add(key)
        return output

    reads.note(inputs, INPUT)
    with replaced(model, keys, run) as begin, reads:
        begin()
        model(inputs)
    return reads.read


def cut(
    model: nn.Module, infos: Sequence[LayerInfo], inputs: torch.Tensor
) -> tuple[list[Key], set[Key]]:
    """Cut a model where the first of some layers has its value.

    Args:
        model: the model.
        infos: the layers that are edited.
        inputs: of the two or three forward passes in which its calls are looked at.

    Returns:
        The calls of the first part, none where the edits are at its start; and those of them, or
        `INPUT`, whose results the rest reads.
    """
    keys = before(record_calls(model, inputs), infos)
    edited = [info.module for info in infos if not info.input_of]
    return keys, results_read(model, keys, inputs, edited) if keys else set()
