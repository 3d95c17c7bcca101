"""Which layers a target has, and how their units are read.

One forward pass finds what layers write and which nonlinearity follows; one backward pass finds
positions that have no path to the output.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from milanx.errors import InputError
from milanx.targets.units import CLASS, NONLINEAR, Consumed, LayerInfo, first_tensor
from milanx.targets.zoo import Target

RECTIFIERS = {"relu", "relu6", "sigmoid", "hardsigmoid", "softplus"}
UPPER = {"relu6": 6.0, "sigmoid": 1.0, "hardsigmoid": 1.0, "tanh": 1.0}
# What hands a tensor on as it is, so that the question goes on to what reads the result.
PASSING = {"dropout", "dropout2d", "contiguous", "alpha_dropout", "view", "reshape", "flatten",
           "detach", "to", "float", "permute", "transpose", "feature_dropout"}  # fmt: skip
GATED = (("fc1_g", "fc1_x", "fc2"), ("gate_proj", "up_proj", "down_proj"), ("w1", "w3", "w2"))
MAX_PREFIX = 16  # class, distillation and register tokens


def consumed(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Consumed:
    """Note a nonlinearity; torch's ReLU6 is a hardtanh from 0 to 6."""
    if name == "hardtanh":
        bounds = (
            [*(a for a in args if not isinstance(a, bool)), -1.0, 1.0][:2]
            if not args
            else [a for a in args if not isinstance(a, bool)]
        )
        low, high = (kwargs.get("min_val", bounds[0]), kwargs.get("max_val", bounds[1]))
        if (low, high) == (0, 6):
            return Consumed("relu6")
        return Consumed(name, (low, high))
    return Consumed(name, tuple(a for a in args if not isinstance(a, bool)), dict(kwargs))


@dataclass
class _Seen:
    """What one forward pass showed of a tensor."""

    made_by: Consumed | None = None  # the nonlinearity that made it, if one did
    consumer: Consumed | None = None
    read: bool = False
    changed: bool = False  # by an operation in place, after its module returned


class _Watch(TorchFunctionMode):
    """Notes what reads, makes and changes tensors during one forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, _Seen] = {}
        self.alive: list[torch.Tensor] = []  # so that no id is used twice
        self.alias: dict[int, int] = {}
        self.depth = 0

    def of(self, tensor: torch.Tensor) -> _Seen:
        """Return the note of a tensor, or of the tensor that it merely passes on."""
        key = self.alias.get(id(tensor), id(tensor))
        if key not in self.seen:
            self.seen[key] = _Seen()
            self.alive.append(tensor)
        return self.seen[key]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ("__get__", "__set__", "size", "dim") or not args:
            return func(*args, **kwargs)
        plain = name.rstrip("_") if not name.startswith("__") else name
        first = args[0] if isinstance(args[0], torch.Tensor) else None
        result = func(*args, **kwargs)
        inplace = (
            kwargs.get("inplace") is True
            or (name.endswith("_") and not name.endswith("__"))
            or name.startswith("__i")
        )
        if first is not None:
            self._note(first, plain, args, kwargs, result, inplace)
        for other in args[1:]:
            if isinstance(other, torch.Tensor):
                self.of(other).read = True
        return result

    def _note(
        self, first: torch.Tensor, plain: str, args: Any, kwargs: Any, result: Any, inplace: bool
    ) -> None:
        note = self.of(first)
        if plain in PASSING:
            if isinstance(result, torch.Tensor) and result is not first:
                self.alive.append(result)
                self.alias[id(result)] = self.alias.get(id(first), id(first))
            return
        arguments = tuple(args[1:])
        inplace = inplace or (
            plain
            in (
                "relu",
                "relu6",
                "silu",
                "hardswish",
                "leaky_relu",
                "elu",
                "celu",
                "selu",
                "mish",
                "hardtanh",
            )
            and bool(arguments)
            and arguments[-1] is True
        )
        done = None
        if plain in NONLINEAR:
            done = consumed(plain, arguments, kwargs)
            if not note.read:
                note.consumer = done
            if isinstance(result, torch.Tensor) and not inplace:
                self.of(result).made_by = done
        if inplace:
            note.changed = True
            if isinstance(result, torch.Tensor):
                self.later(result, _Seen(made_by=done))
        note.read = True

    def later(self, tensor: torch.Tensor, fresh: _Seen) -> None:
        """From here on, a tensor that was changed in place is noted anew."""
        self.alive.append(tensor)
        marker = object()
        self.alive.append(marker)  # type: ignore[arg-type]
        self.seen[id(marker)] = fresh
        self.alias[id(tensor)] = id(marker)


@dataclass
class _Found:
    """A module's output in the discovery pass."""

    name: str
    module: nn.Module
    shape: tuple[int, ...]
    note: _Seen
    calls: int = 1
    reached: bool = False  # there is a path to the output from some position
    at_class: bool = True  # and from the first token
    at_patches: bool = True  # and from the others

    @property
    def inert(self) -> bool:
        """No path from the patches: a gradient of exact zeros there alone, or none at all.

        Zeros everywhere are weights that are zero, such as a fresh residual branch's, not a
        missing path.
        """
        return not self.reached or (self.at_class and not self.at_patches)

    @property
    def class_inert(self) -> bool:
        """No path from the class token."""
        return not self.reached or (self.at_patches and not self.at_class)


@contextmanager
def _hooks(found: dict[str, _Found], watch: _Watch, model: nn.Module) -> Iterator[None]:
    """Note every module's output; the hooks are gone afterwards."""
    with ExitStack() as stack:
        for name, module in model.named_modules():
            if not name:
                continue

            def note(module: nn.Module, args: Any, output: Any, name: str = name) -> None:
                with torch._C.DisableTorchFunction():  # looking is no reading
                    tensor = first_tensor(output)
                    if tensor is None or tensor.ndim not in (2, 3, 4):
                        return
                    if name in found:
                        found[name].calls += 1
                        return
                    record = _Found(name, module, tuple(tensor.shape), watch.of(tensor))
                    found[name] = record
                    if tensor.requires_grad:
                        tensor.register_hook(lambda g, r=record: _note_gradient(r, g))

            stack.callback(module.register_forward_hook(note).remove)
        yield


def _note_gradient(record: _Found, gradient: torch.Tensor) -> None:
    record.reached = True
    if gradient.ndim == 3:
        record.at_class = bool(gradient[:, 0].any())
        record.at_patches = bool(gradient[:, 1:].any())


def _example(target: Target) -> torch.Tensor:
    """A normalised input of the target's own size, [1, 3, H, W], the same at each call."""
    generator = torch.Generator().manual_seed(0)
    size = target.preprocess.size
    views = torch.randint(0, 256, (1, 3, *size), generator=generator, dtype=torch.uint8)
    return target.inputs(views)


def _patch_grid(
    model: nn.Module, size: tuple[int, int], tokens: int
) -> tuple[tuple[int, int], int]:
    """Infer (grid, tokens before the patches) of a sequence of ``tokens``.

    Raises:
        InputError: no grid fits.
    """
    strides = {
        (module.stride[0], module.stride[1])
        for module in model.modules()
        if isinstance(module, nn.Conv2d)
        and module.stride == module.kernel_size
        and max(module.stride) > 1
    }
    grids = [(size[0] // sy, size[1] // sx) for sy, sx in sorted(strides)]
    ratio = size[0] / size[1]
    for prefix in range(MAX_PREFIX + 1):
        h = round(math.sqrt(max(tokens - prefix, 0) * ratio))
        if h and (tokens - prefix) % h == 0 and abs((tokens - prefix) // h * ratio - h) < 1:
            grids.append((h, (tokens - prefix) // h))
    for grid in grids:
        if 0 <= tokens - grid[0] * grid[1] <= MAX_PREFIX and grid[0] * grid[1] > 1:
            return grid, tokens - grid[0] * grid[1]
    raise InputError(
        f"{tokens} tokens are no grid",
        f"the model's input is {size[0]} x {size[1]}",
        "describe a layer whose output is [b, u, h, w], [b, patches, u] or [b, u]",
    )


def _gated(model: nn.Module, name: str) -> str | None:
    """Return the down projection of the gated MLP whose gate or value ``name`` is, if it is one."""
    parent_name, _, own = name.rpartition(".")
    parent = model.get_submodule(parent_name)
    for gate, value, down in GATED:
        if own in (gate, value) and all(hasattr(parent, part) for part in (gate, value, down)):
            return f"{parent_name}.{down}".strip(".")
    if own in ("fc1", "w12") and "glu" in type(parent).__name__.lower():
        return f"{parent_name}.{'fc2' if own == 'fc1' else 'w3'}".strip(".")
    return None


def discover(target: Target) -> list[LayerInfo]:
    """Find every layer that can be described, by one forward and one backward pass.

    Returns:
        The layers in the order of the forward pass, each token layer also at its class token;
        those that a nonlinearity follows carry it.
    """
    found: dict[str, _Found] = {}
    watch = _Watch()
    model = target.model
    inputs = _example(target)
    gradients = {p: p.grad for p in model.parameters()}  # the caller's, put back below
    model.zero_grad(set_to_none=True)
    try:
        with torch.enable_grad(), _hooks(found, watch, model), watch:
            output = first_tensor(model(inputs.clone().requires_grad_(True)))
        if output is not None and output.requires_grad:
            generator = torch.Generator().manual_seed(1)
            weights = torch.randn(output.shape, generator=generator).to(output)
            with torch.enable_grad():
                (output * weights).sum().backward()
    finally:
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
    infos: list[LayerInfo] = []
    shape = tuple(output.shape) if output is not None else ()
    for record in found.values():
        if record.calls > 1 or type(record.module).__name__ in ("Identity", "Dropout"):
            continue
        infos.extend(_infos(target, record, shape))
    return _with_better(model, infos)


def _infos(target: Target, record: _Found, output: tuple[int, ...]) -> list[LayerInfo]:
    """Make the entries of one module: one, or two for tokens with a class token."""
    shape, base = record.shape, _base(target.model, record)
    if len(shape) == 2:
        kind = "logits" if shape == output else "vector"
        return [dataclasses.replace(base, kind=kind)]
    if len(shape) == 4:
        last = shape[1] == shape[2] != shape[3] or (
            isinstance(record.module, nn.Linear | nn.LayerNorm) and shape[1] != shape[3]
        )
        units, grid = (shape[3], shape[1:3]) if last else (shape[1], shape[2:4])
        made = dataclasses.replace(
            base, units=units, map_size=(grid[0], grid[1]), channels_last=last
        )
        return [made]
    return _token_infos(target, record, base)


def _base(model: nn.Module, record: _Found) -> LayerInfo:
    """What holds of a module's output whatever its shape."""
    note = record.note
    down = _gated(model, record.name)
    done = note.consumer or note.made_by
    reading = done.name if done else None
    low, high = _range(done)
    own = None if down else note.consumer
    return LayerInfo(
        record.name,
        record.name,
        "conv",
        record.shape[1],
        (1, 1),
        read="into " + down if down else f"after {reading}" if reading else "output",
        rectified=low and not down,
        upper=None if down else high,
        linear=reading is None and down is None,
        inert=record.inert,
        nonlinearity=own.name if own else None,
        changed=note.changed,
        input_of=down,
        consumed=own,
    )


def _token_infos(target: Target, record: _Found, base: LayerInfo) -> list[LayerInfo]:
    """Make the entries of a sequence [b, n, u]: its patches, and its class token if it has one."""
    try:
        grid, prefix = _patch_grid(target.model, target.preprocess.size, record.shape[1])
    except InputError:
        return []
    down = base.input_of
    projection: Any = target.model.get_submodule(down) if down else None
    units = projection.in_features if down else record.shape[2]
    kind = "neurons" if not base.linear and isinstance(record.module, nn.Linear) else "tokens"
    patch = dataclasses.replace(
        base, kind=kind, units=int(units), map_size=grid, prefix_tokens=prefix
    )
    if not prefix:
        return [patch]
    at_class = dataclasses.replace(
        patch,
        name=record.name + CLASS,
        map_size=(1, 1),
        class_token=True,
        inert=record.class_inert,
    )
    return [patch, at_class]


def _range(done: Consumed | None) -> tuple[bool, float | None]:
    """Whether values are never below zero, and the most that they can be."""
    if done is None:
        return False, None
    if done.name == "hardtanh":
        return done.args[0] >= 0, float(done.args[1])
    return done.name in RECTIFIERS, UPPER.get(done.name)


def _with_better(model: nn.Module, infos: list[LayerInfo]) -> list[LayerInfo]:
    """Point from each linear or inert layer to the nearest that is neither."""
    good = [
        i
        for i, info in enumerate(infos)
        if not info.linear
        and not info.inert
        and not info.class_token
        and next(model.get_submodule(info.module).parameters(), None) is not None
    ]
    made = []
    for i, info in enumerate(infos):
        if (info.linear or info.inert) and good and info.kind != "logits":
            block = info.module.rpartition(".")[0] or info.module

            def distance(j: int, i: int = i, block: str = block) -> tuple[bool, int, int]:
                return not infos[j].module.startswith(block), abs(i - j), j

            info = dataclasses.replace(info, better=infos[min(good, key=distance)].name)
        made.append(info)
    return made
