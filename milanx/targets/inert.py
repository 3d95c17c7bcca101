"""Which positions of a layer have no path to the model's output: yes, no, or not known.

A gradient that arrives says no. None says yes only where the output does not change when those
positions are changed, since gradients also end at code that keeps none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from milanx.targets.given import running
from milanx.targets.units import LayerInfo, first_tensor, replace_first, tensors_of
from milanx.targets.zoo import Target


@dataclass
class _Arrived:
    """What the gradient of a module's output showed."""

    known: bool = False  # the output takes part in automatic differentiation
    reached: bool = False
    at_class: bool = True
    at_map: bool = True


def find_inert(target: Target, inputs: torch.Tensor, infos: list[LayerInfo]) -> list[bool | None]:
    """Say of each layer whether its positions are inert.

    Zeros everywhere are weights that are zero, such as a fresh residual branch's, not a missing
    path; zeros at some positions alone are one.

    Args:
        target: the model.
        inputs: two images [2, c, H, W].
        infos: the layers.
    """
    arrived = _gradients(target, inputs, infos)
    answers: list[bool | None] = []
    for info in infos:
        found = arrived.get(info.module, _Arrived())
        own, other = found.at_map, found.at_class
        if info.class_token:
            own, other = other, own
        inert = not found.reached or (other and not own)
        answers.append(inert if found.known or found.reached else None)
    claimed = [i for i, answer in enumerate(answers) if answer]
    for i in _contradicted(target, inputs, [infos[i] for i in claimed]):
        answers[claimed[i]] = None
    return answers


def _gradients(
    target: Target, inputs: torch.Tensor, infos: list[LayerInfo]
) -> Mapping[str, _Arrived]:
    """Run forth and back; what cannot be differentiated says nothing."""
    model, arrived = target.model, {}
    layers = {info.module: info for info in infos if not info.class_token}
    kept = {p: p.grad for p in model.parameters()}  # the caller's
    model.zero_grad(set_to_none=True)
    devices = [inputs.device] if inputs.device.type == "cuda" else []
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(devices))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(contextlib.suppress(Exception))
            for name, info in layers.items():
                module = model.get_submodule(name)
                arrived[name] = _Arrived()
                hook = _listener(arrived[name], info)
                stack.callback(module.register_forward_hook(hook).remove)
            leaf = inputs.clone().requires_grad_(True)
            with running(target.name, model, inputs):
                output = model(leaf * 1)  # no leaf: a model may write into its input
            loss = _loss(output)
            if loss is None:
                return {}
            loss.backward()
            return arrived
    finally:
        for parameter, gradient in kept.items():
            parameter.grad = gradient
    return {}


def _listener(arrived: _Arrived, info: LayerInfo) -> Any:
    def note(gradient: torch.Tensor) -> None:
        arrived.reached = True
        if gradient.ndim != 3 or not (info.prefix_tokens or info.suffix_tokens):
            return
        end = gradient.shape[1] - info.suffix_tokens
        inside = gradient[:, info.prefix_tokens : end]
        arrived.at_map = bool(inside.any())
        arrived.at_class = bool(gradient[:, :1].any()) if info.prefix_tokens else True
        if not arrived.at_map:  # what reaches the output is beside the map: any token there
            arrived.at_class |= bool(gradient.any())

    def hook(module: nn.Module, args: Any, output: Any) -> None:
        tensor = first_tensor(output)
        if tensor is not None and tensor.requires_grad:
            arrived.known = True
            tensor.register_hook(note)

    return hook


def _loss(output: Any) -> torch.Tensor | None:
    """Return a number that everything in an output takes part in, by seeded weights."""
    generator = torch.Generator().manual_seed(1)
    total = None
    for tensor in tensors_of(output):
        if tensor.is_floating_point() and tensor.requires_grad:
            weights = torch.randn(tensor.shape, generator=generator).to(tensor)
            part = (tensor * weights).sum()
            total = part if total is None else total + part.to(total)
    return total


def _contradicted(target: Target, inputs: torch.Tensor, infos: list[LayerInfo]) -> list[int]:
    """Return which of some layers change the output after all when they are changed."""
    if not infos:
        return []
    with torch.no_grad():
        plain = _outputs(target, inputs, [])
        open_ = [list(range(len(infos)))]
        wrong: list[int] = []
        while open_:
            group = open_.pop()
            if _equal(plain, _outputs(target, inputs, [infos[i] for i in group])):
                continue
            if len(group) == 1:
                wrong += group
            else:
                half = len(group) // 2
                open_ += [group[:half], group[half:]]
    return sorted(wrong)


def _outputs(target: Target, inputs: torch.Tensor, infos: list[LayerInfo]) -> list[torch.Tensor]:
    """Return the model's tensors with some layers' positions changed."""
    devices = [inputs.device] if inputs.device.type == "cuda" else []
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices))
        torch.manual_seed(0)
        for info in infos:
            module = target.model.get_submodule(info.module)

            def hook(module: nn.Module, args: Any, output: Any, info: LayerInfo = info) -> Any:
                return replace_first(output, lambda tensor: _shifted(tensor, info))

            stack.callback(module.register_forward_hook(hook).remove)
        stack.enter_context(running(target.name, target.model, inputs))
        return [t.clone() for t in tensors_of(target.model(inputs.clone()))]


def _shifted(tensor: torch.Tensor, info: LayerInfo) -> torch.Tensor:
    """Return a layer's output with the positions that it is read at changed."""
    changed = tensor + 1
    if tensor.ndim != 3 or not (info.prefix_tokens or info.suffix_tokens):
        return changed
    at = torch.arange(tensor.shape[1], device=tensor.device)[None, :, None]
    if info.class_token:
        return torch.where(at == 0, changed, tensor)
    end = tensor.shape[1] - info.suffix_tokens
    return torch.where((at >= info.prefix_tokens) & (at < end), changed, tensor)


def _equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(
        a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())
        for a, b in zip(one, other, strict=True)
    )
