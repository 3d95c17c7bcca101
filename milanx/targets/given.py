"""A module as its owner gave it: what is under a wrapper, what is refused, how it comes back."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, ParamSpec, TypeVar

import torch
from torch import nn

from milanx.errors import InputError, MilanxError

# A module that is called in its place, by what holds the original: of torch.compile, and of
# DataParallel and its kin.
WRAPPERS = {
    "OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module",
    "AveragedModel": "module",
}  # fmt: skip
PREFIXES = ("_orig_mod.", "module.")  # of the names of what is in a wrapper
# Where a module holds hooks.
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs",
         "_forward_pre_hooks_with_kwargs", "_forward_hooks_always_called", "_backward_hooks",
         "_backward_pre_hooks")  # fmt: skip
PACKED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.nn.quantized",
          "torchao.", "bitsandbytes.", "optimum.", "auto_gptq.", "awq.")  # fmt: skip

P = ParamSpec("P")
R = TypeVar("R")


def original(model: nn.Module) -> nn.Module:
    """Return the module under torch.compile, DataParallel and their kin."""
    while type(model).__name__ in WRAPPERS:
        model = getattr(model, WRAPPERS[type(model).__name__])
    return model


def check_readable(model: nn.Module, name: str) -> None:
    """Refuse a module whose layers cannot be read.

    Raises:
        InputError: a scripted, exported or quantised module, or one without values.
    """
    if any(isinstance(m, torch.jit.ScriptModule) for m in model.modules()):
        raise InputError(
            f"{name} is scripted or traced",
            "TorchScript runs its own code, so that no layer can be read",
            "give the module that it was made of",
        )
    if isinstance(model, torch.fx.GraphModule) and any(
        isinstance(node.target, torch._ops.OpOverload) for node in model.graph.nodes
    ):
        raise InputError(
            f"{name} is an exported program",
            "its operations belong to no modules any more, so that there are no layers",
            "give the module that it was made of",
        )
    held = [*model.named_parameters(), *model.named_buffers()]
    bare = next((key for key, value in held if value.is_meta), None)
    if bare is not None:
        raise InputError(
            f"{name} has no weights",
            f"{bare} is on the meta device, which holds shapes alone",
            "build it on a device, or load its weights first (to_empty, load_state_dict)",
        )
    packed = next((key for key, value in held if value.is_quantized), None) or next(
        (key for key, m in model.named_modules() if type(m).__module__.startswith(PACKED)), None
    )
    if packed is not None:
        raise InputError(
            f"{name} is quantised",
            f"{packed} holds packed whole numbers, whose activations are not those of the model",
            "give the model in floating point",
        )


@contextmanager
def as_given(*models: Any) -> Iterator[None]:
    """Let modules come back as they were, and the global random state with them.

    Values, types, places, memory layout, modes, gradients, buffers and hooks of modules.

    Args:
        models: modules; anything else, such as a name, is left alone.
    """
    found = {id(m): m for m in models if isinstance(m, nn.Module)}
    with ExitStack() as stack:
        stack.callback(torch.set_rng_state, torch.get_rng_state())
        if torch.cuda.is_initialized():
            stack.callback(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all())
        for model in found.values():
            stack.enter_context(_kept(model))
        yield


@contextmanager
def _kept(model: nn.Module) -> Iterator[None]:
    modules = list(model.modules())
    modes = [(m, m.training) for m in modules]
    weights = [(p, p.data, p.requires_grad, p.grad) for p in model.parameters()]
    slopes = [(p.grad, p.grad.data) for p in model.parameters() if p.grad is not None]
    # A forward pass may write into buffers: what they held is kept beside.
    buffers = [(m, key, b, None if b is None else b.detach().clone())
               for m in modules for key, b in m._buffers.items()]  # fmt: skip
    hooks = [(held, dict(held)) for m in modules for name in HOOKS
             if isinstance(held := getattr(m, name, None), dict)]  # fmt: skip
    try:
        yield
    finally:
        for held, before in hooks:
            held.clear()
            held.update(before)
        for module, training in modes:
            module.training = training
        for slope, data in slopes:
            slope.data = data
        for parameter, data, requires, gradient in weights:
            parameter.grad = None  # one of another type would not let the values back
            parameter.data = data
            parameter.requires_grad_(requires)
            parameter.grad = gradient
        for module, key, buffer, values in buffers:
            module._buffers[key] = buffer
            if buffer is not None and values is not None and not _alike(buffer, values):
                buffer.detach().copy_(values)


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors hold the same; what cannot be compared has not been changed."""
    if one.is_meta or one.is_quantized:
        return True
    return bool(((one == other) | ((one != one) & (other != other))).all())


def gives_back(function: Callable[P, R]) -> Callable[P, R]:
    """Let the modules among a function's arguments come back as they were (`as_given`).

    They are found as they are, in a `Target` or what holds one, and in mappings of any of these.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with as_given(*_modules([*args, *kwargs.values()])):
            return function(*args, **kwargs)

    return run


def _modules(values: Iterable[Any]) -> Iterator[nn.Module]:
    for value in values:
        if isinstance(value, nn.Module):
            yield value
        elif isinstance(value, Mapping):
            yield from _modules(value.values())
        else:
            for name in ("model", "target"):  # of a target, of a subject
                inner = getattr(value, name, None)
                if isinstance(inner, nn.Module) or isinstance(getattr(inner, "model", None),
                                                              nn.Module):  # fmt: skip
                    yield from _modules([inner])


class Enough(BaseException):
    """All layers were seen; the rest of the forward pass is not needed.

    No `Exception`, so that no model's own `except` takes it.
    """


@contextmanager
def running(name: str, model: nn.Module, inputs: torch.Tensor) -> Iterator[None]:
    """Run a model in this context: uncompiled, and with its own errors put into one of ours.

    Args:
        name: what the user called it.
        model: it.
        inputs: what it is given [b, c, H, W].

    Raises:
        InputError: it raised something.
    """
    with ExitStack() as stack:
        if any(type(m).__name__ == "OptimizedModule" or m._compiled_call_impl is not None
               for m in model.modules()):  # fmt: skip
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # which calls none of its inner modules
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        try:
            yield
        except MilanxError:
            raise
        except Exception as error:
            raise _failed(name, model, inputs, error) from error


def _failed(name: str, model: nn.Module, inputs: torch.Tensor, error: Exception) -> InputError:
    """Say what of an input a model did not take."""
    wanted = first_channels(model)
    shape = list(inputs.shape)
    said = str(error).strip().splitlines() or [""]
    why = f"{type(error).__name__}: {said[0]}".rstrip(": ")
    ways = ["--debug shows where"]
    missing = missing_inputs(model)
    if missing:
        why = f"its forward also takes {', '.join(missing)}, and gets an image alone; {why}"
        ways.insert(0, "give the part of it that takes images alone, or a module that calls it "
                       "with the rest filled in")  # fmt: skip
    elif wanted is not None and wanted != shape[1]:
        why = f"it takes {wanted} channels, and images have {shape[1]}; {why}"
        ways.insert(0, "give a module that makes its channels of an RGB image first")
    else:
        ways.insert(0, f"is {shape[2]} x {shape[3]} the size that it takes? Preprocess(size=...) "
                       "sets another")  # fmt: skip
    return InputError(f"{name} fails on an input of {shape}", why, ways)


def first_channels(model: nn.Module) -> int | None:
    """Return how many channels the first convolution takes; None where there is none."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    return None


def missing_inputs(model: nn.Module) -> list[str]:
    """Return the inputs that a model's forward needs and that come from no image."""
    try:
        parameters = list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):
        return []
    names = [p.name for p in parameters]
    main = getattr(model, "main_input_name", None)  # of transformers' models
    if main in names and main != "pixel_values" and "pixel_values" in names:
        return [str(main)]
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p for p in parameters if p.default is p.empty]
    first = next((p.name for p in parameters if p.kind in plain), None)
    return [p.name for p in needed
            if p.name != first and p.kind in (*plain, inspect.Parameter.KEYWORD_ONLY)]  # fmt: skip
