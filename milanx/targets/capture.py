"""Any number of layers in one forward pass: hooks that are gone after any exit."""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from milanx.errors import InputError, did_you_mean
from milanx.targets.layers import discover
from milanx.targets.units import LayerInfo, first_tensor, to_maps
from milanx.targets.zoo import Target

PATTERN = frozenset("*?[")
READS = ("auto", "raw")


def list_layers(target: Target) -> list[LayerInfo]:
    """List every layer that can be described, in the order of the forward pass."""
    return discover(target)


def check_read(read: str) -> None:
    """Refuse a way to read units that is none.

    Raises:
        InputError: neither ``auto`` nor ``raw``.
    """
    if read not in READS:
        raise InputError(f"cannot read units {read!r}", "--read is auto or raw", "leave it away")


def find_layers(target: Target, patterns: Sequence[str], *, read: str = "auto") -> list[LayerInfo]:
    """Find the layers that addresses or shell patterns name.

    Args:
        target: the model.
        patterns: ``blocks.6``, ``blocks.6@class``, ``blocks.*.mlp.fc1``.
        read: ``auto``: after the layer's own nonlinearity; ``raw``: the module's own output.

    Raises:
        InputError: a pattern that matches nothing, or a value of ``read`` that is not known.
    """
    check_read(read)
    known = {info.name: info for info in list_layers(target)}
    chosen: dict[str, LayerInfo] = {}
    for pattern in patterns:
        names = [n for n in known if fnmatch.fnmatchcase(n, pattern)]
        if not names:
            raise _unknown(target, pattern, known)
        chosen.update((name, known[name]) for name in names)
    infos = [known[name] for name in known if name in chosen]
    return [_raw(info) for info in infos] if read == "raw" else infos


def _raw(info: LayerInfo) -> LayerInfo:
    if info.nonlinearity is None and info.input_of is None:
        return info
    return dataclasses.replace(info, read="raw", rectified=False, upper=None, linear=True,
                               nonlinearity=None, input_of=None, consumed=None)  # fmt: skip


def _unknown(target: Target, pattern: str, known: dict[str, LayerInfo]) -> InputError:
    modules = {name for name, _ in target.model.named_modules()}
    if pattern in modules:
        why = "that module's output is no map of units, or it runs more than once a forward pass"
    elif PATTERN & set(pattern):
        why = "no layer matches the pattern"
    else:
        why = "there is no such layer"
    hint = did_you_mean(pattern, known)
    return InputError(f"{target.name} has no layer {pattern!r} to describe", why,
                      hint or f"milanx layers {target.name} lists them")  # fmt: skip


class _Enough(Exception):
    """All layers were seen; the rest of the forward pass is not needed."""


class Capture:
    """Reads layers of a model; a context manager.

    Args:
        target: the model.
        infos: the layers, as `find_layers` gives them.

    Inside the context `run` gives the maps of a batch. Nothing stays on the model afterwards.

    Raises:
        ValueError: a layer that was not discovered here, but rebuilt from what is written of it.
    """

    def __init__(self, target: Target, infos: Sequence[LayerInfo]) -> None:
        self.model = target.model
        self.infos = list(infos)
        for info in infos:
            if info.nonlinearity and info.consumed is None:
                raise ValueError(f"{info.name} does not carry its {info.nonlinearity}")
        self._handles: list[Any] = []
        self._raw: dict[str, torch.Tensor] = {}
        self._wanted = {(i.module, i.input_of) for i in infos}

    def __enter__(self) -> Capture:
        for name, down in sorted(self._wanted, key=str):
            module = self.model.get_submodule(down or name)
            keep = self._keep(name)
            if down:
                self._handles.append(module.register_forward_pre_hook(keep))
            else:
                self._handles.append(module.register_forward_hook(keep))
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._raw.clear()

    def _keep(self, name: str) -> Callable[..., None]:
        """Make the hook of one module: the value is fixed before anything can change it."""
        raw, here = self._raw, [i for i in self.infos if i.module == name]
        apply = here[0].consumed
        changed = any(i.changed for i in here)
        total = len(self._wanted)

        def hook(module: nn.Module, args: Any, output: Any = None) -> None:
            tensor = first_tensor(args if output is None else output)
            if tensor is None:
                raise InputError(f"{name} gave no tensor", f"it gave {type(output).__name__}")
            if apply is not None:
                tensor = apply(tensor)
            elif changed:
                tensor = tensor.clone()
            raw[name] = tensor
            if len(raw) == total:
                raise _Enough

        return hook

    @torch.inference_mode()
    def run(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Run the model on ``inputs`` [b, 3, H, W] as far as is needed.

        Returns:
            The maps [b, u, h, w] of each layer, by its name.

        Raises:
            InputError: a layer that this forward pass did not reach.
        """
        self._raw.clear()
        with contextlib.suppress(_Enough):
            self.model(inputs)
        missing = [i.name for i in self.infos if i.module not in self._raw]
        if missing:
            raise InputError(f"{missing[0]} did not run", "this forward pass did not reach it")
        maps = {i.name: to_maps(self._raw[i.module], i) for i in self.infos}
        self._raw.clear()
        return maps
