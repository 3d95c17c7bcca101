"""Where the value of a unit is, and how it is replaced there while the model runs.

A unit is read after its own nonlinearity (`milanx.targets`). Where the layer's module already gives
that value, its output is replaced; where a down projection reads it, that input; where a function
or another module applies the nonlinearity later, the module's output travels on as a `Followed`
tensor until that nonlinearity reads it, and the result is replaced. One that is written out by hand
is told by its values: what was computed of the output, element by element, is the value of the unit
as soon as it equals the nonlinearity of it. No value before a nonlinearity gives every value after
it, so nothing is changed before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from milanx.errors import InputError
from milanx.targets.functions import computes
from milanx.targets.layers import NONLINEAR, PASSING, consumed
from milanx.targets.operations import ELEMENTWISE, operation
from milanx.targets.units import LayerInfo, tensors_of
from milanx.targets.watch import is_one, sample

POSITIONS = ("all", "patches", "class")
# Of what hands a tensor on, what only moves its elements.
MOVES = {"view", "reshape", "flatten", "permute", "transpose", "contiguous"}
# Of what computes elements, what may be a nonlinearity that leaves all values as they are.
BOUNDING = {"clamp", "clamp_min", "clamp_max", "clip", "maximum", "minimum", "threshold", "where"}

Move = Callable[[torch.Tensor], torch.Tensor]
# (value, number of the first image of the batch among all that ran) -> the new value
Replace = Callable[[torch.Tensor, int], torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Where:
    """Some units of a layer at some positions, within the tensor that the layer writes.

    Attributes:
        info: the layer.
        units: their numbers.
        positions: ``all``, ``patches`` or ``class``; layers without tokens have ``all``.
    """

    info: LayerInfo
    units: tuple[int, ...]
    positions: str = "all"

    def axis(self, ndim: int) -> int:
        """Return which dimension of a tensor of ``ndim`` holds the units."""
        first = ndim == 3 and self.info.order and not self.info.channels_last  # [b, u, n]
        return ndim - 1 if self.info.channels_last or (ndim == 3 and not first) else 1

    def mask(self, like: torch.Tensor) -> torch.Tensor:
        """Return bool, true at the units and positions; it broadcasts to ``like``."""
        axis = self.axis(like.ndim)
        chosen = torch.zeros(like.shape[axis], dtype=torch.bool, device=like.device)
        chosen[list(self.units)] = True
        shape = [1] * like.ndim
        shape[axis] = -1
        mask = chosen.view(shape)
        if like.ndim != 3 or self.positions == "all":
            return mask
        at = torch.arange(like.shape[1], device=like.device)[None, :, None]
        end = like.shape[1] - self.info.suffix_tokens
        patches = (at >= self.info.prefix_tokens) & (at < end)
        return mask & (at < 1 if self.positions == "class" else patches)

    def spread(self, values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Bring ``values`` [units] to the place of the units; broadcasts to ``like``."""
        axis = self.axis(like.ndim)
        full = torch.zeros(like.shape[axis], dtype=like.dtype, device=like.device)
        full[list(self.units)] = values.to(full)
        shape = [1] * like.ndim
        shape[axis] = -1
        return full.view(shape)

    def take(self, output: torch.Tensor) -> torch.Tensor:
        """Return the values of the units alone, in the layout of ``output``."""
        index = torch.tensor(self.units, device=output.device)
        return output.index_select(self.axis(output.ndim), index)

    def put(self, rows: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the shape of ``like`` that holds ``rows``, as `take` gave them."""
        full = torch.zeros_like(like)
        index = torch.tensor(self.units, device=like.device)
        return full.index_copy(self.axis(like.ndim), index, rows.to(full))


def refuse_computed(info: LayerInfo) -> None:
    """Refuse units that are computed beside the model: nothing in it has their value.

    Raises:
        InputError: such units.
    """
    if info.through:
        raise InputError(
            f"units of {info.name} cannot be edited",
            f"{info.kind} are computed from units of {info.module} beside the model, which holds "
            "no value of theirs that could be set",
            f"describe {info.module} itself, and edit its own units",
        )


def check_units(info: LayerInfo, units: tuple[int, ...], positions: str) -> Where:
    """Make a `Where` of what a user names.

    Raises:
        InputError: units that the layer does not have or that the model has no value of, or
            positions that it does not have.
    """
    refuse_computed(info)
    beyond = [u for u in units if not 0 <= u < info.units]
    if beyond:
        raise InputError(
            f"{info.name} has no unit {beyond[0]}", f"its units are 0 to {info.units - 1}"
        )
    if info.class_token:
        if positions == "patches":
            raise InputError(
                f"{info.name} has no patches",
                "it is the class token",
                f"name {info.module} for its patches",
            )
        return Where(info, units, "class")
    if positions == "class" and not info.prefix_tokens:
        raise InputError(
            f"{info.name} has no class token",
            "nothing stands before its patches",
            "leave the positions away",
        )
    beside = info.prefix_tokens or info.suffix_tokens
    return Where(info, units, positions if beside else "all")


@dataclasses.dataclass
class _Way:
    """What is known of a layer's output on its way to the nonlinearity that reads it.

    Attributes:
        places: that await the same nonlinearity, first come first.
        origin: shape of the layer's output.
        start: some of its values, as the layer gave them; taken when something is computed of it.
        arrived: whether the nonlinearity was met.
    """

    places: tuple[Place, ...]
    origin: torch.Size
    start: torch.Tensor | None = None
    arrived: bool = False

    @property
    def info(self) -> LayerInfo:
        """The layer."""
        return self.places[0].info

    def is_reached(self, name: str, result: torch.Tensor) -> bool:
        """Whether what an operation of that name gave is the layer's value."""
        assert self.start is not None
        told = computes(str(self.info.nonlinearity), self.info.consumed, self.start, sample(result))
        return name in BOUNDING if told is None else told


class Followed(torch.Tensor):
    """A layer's output on its way to the nonlinearity that reads it.

    It is the same memory. Every operation computes as if it were a plain tensor and gives a plain
    tensor, but three: what only moves elements gives a `Followed` again; so does what computes
    elements from it alone, until the values are those of the nonlinearity; and the nonlinearity
    gives its result with the units replaced.
    """

    way: _Way
    moved: tuple[Move, ...]  # how its elements were moved since
    derived: bool  # computed from the layer's output, no longer that itself
    spent: bool  # changed in place by the nonlinearity: from here on it is the value itself

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute ``func`` on plain tensors and look whether it was awaited."""
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            follows = [t for t in tensors_of((args, kwargs))
                       if isinstance(t, Followed) and not t.spent]  # fmt: skip
            if not follows:
                return func(*args, **kwargs)
            called = str(getattr(func, "__name__", ""))
            first, name = follows[0], operation(func)
            leads = bool(args) and first is args[0]
            if leads and name in NONLINEAR and not first.derived:
                done = consumed(name, tuple(args[1:]), kwargs)
                if done.name == first.way.info.nonlinearity:
                    first.way.arrived = True
                    if name != called or kwargs.get("inplace") or args[-1] is True:
                        return _arrive_in_place(first, done)
                    return _arrive(first, func(*args, **kwargs))
            computing = not first.way.arrived and (name in ELEMENTWISE or name in NONLINEAR)
            if computing and first.way.start is None:  # before it may be changed in place
                first.way.start = sample(_unmoved(first, first.as_subclass(torch.Tensor)))
            result = func(*args, **kwargs)
            if leads and name in PASSING and type(result) is torch.Tensor:
                move = (lambda t: func(t, *args[1:], **kwargs)) if name in MOVES else None
                moved = (*first.moved, move) if move else first.moved
                return _followed(result, first.way, moved, first.derived)
            others = [t for t in tensors_of((args, kwargs)) if not isinstance(t, Followed)]
            if computing and all(is_one(t) for t in others):
                return _computed(name, follows, result)
            return result


def _computed(name: str, follows: list[Followed], result: Any) -> Any:
    """Go on with what an operation computed from followed tensors alone, element by element.

    Called with subclasses disabled.
    """
    first, way = follows[0], follows[0].way
    if not isinstance(result, torch.Tensor) or result.shape != first.shape:
        return result
    if any(f.way is not way for f in follows):
        return result
    value = result.as_subclass(torch.Tensor)
    if value.is_floating_point() and way.is_reached(name, _unmoved(first, value)):
        way.arrived = True
        new = _arrive(first, value)
        if not isinstance(result, Followed):
            return new
        result.spent = True  # computed in place: others may hold it
        return value.copy_(new)
    if isinstance(result, Followed):
        result.derived = True
        return result
    return _followed(value, way, first.moved, derived=True)


def _followed(
    tensor: torch.Tensor, way: _Way, moved: tuple[Move, ...] = (), derived: bool = False
) -> torch.Tensor:
    """Let a plain tensor be followed on its way."""
    followed: Followed = tensor.as_subclass(Followed)
    followed.way, followed.moved = way, moved
    followed.derived, followed.spent = derived, False
    return followed


def _arrive(followed: Followed, result: torch.Tensor) -> torch.Tensor:
    """Replace the units in what the nonlinearity gave; called with subclasses disabled."""
    new = _unmoved(followed, result)
    for place in followed.way.places:
        new = place.new(new)
    for move in followed.moved:
        new = move(new)
    return new


def _arrive_in_place(followed: Followed, nonlinearity: Move) -> torch.Tensor:
    """Do the same for one that writes into its argument, which others may hold.

    What autograd keeps of the nonlinearity is a copy that is not written to.
    """
    plain = followed.as_subclass(torch.Tensor)
    followed.spent = True
    before = plain.clone() if plain.requires_grad else plain
    return plain.copy_(_arrive(followed, nonlinearity(before)))


class Place:
    """Replaces the value of a layer wherever it appears; hooks one module.

    Args:
        model: the model.
        info: the layer.
        replace: gives the new value for the old one, both in the layout that the layer writes; it
            must not change its argument, and may be asked twice for one batch.

    Attributes:
        began: how often the layer's module ran.
        done: how often the value was replaced.
        first: number of the first image of this batch among all that ran.
        seen: how many images ran.
    """

    def __init__(self, model: nn.Module, info: LayerInfo, replace: Replace) -> None:
        self.info, self.replace = info, replace
        self.began = self.done = self.first = self.seen = 0
        module = model.get_submodule(info.input_of or info.module)
        self.handle: Any = (
            module.register_forward_pre_hook(self._before)
            if info.input_of
            else module.register_forward_hook(self._after)
        )

    def remove(self) -> None:
        """Take the hook away."""
        self.handle.remove()

    def check(self) -> None:
        """Refuse what was not replaced.

        Raises:
            InputError: the layer ran, and its value was not met.
        """
        if self.done < self.began:
            raise InputError(
                f"the edit of {self.info.name} did not take place",
                f"nothing computed {self.info.nonlinearity} of what {self.info.module} gave",
                "edit it as the module gives it (--read raw)",
            )

    def _before(self, module: nn.Module, args: Any) -> Any:
        if not args or not isinstance(args[0], torch.Tensor):
            raise InputError(f"{self.info.input_of} got no tensor", "it was called by keyword")
        self._begin(args[0])
        return (self.new(args[0]), *args[1:])

    def _after(self, module: nn.Module, args: Any, output: Any) -> Any:
        def change(tensor: torch.Tensor) -> torch.Tensor:
            self._begin(tensor)
            if self.info.nonlinearity is None:
                return self.new(tensor)
            if isinstance(tensor, Followed) and not (tensor.spent or tensor.derived):
                tensor.way.places = (*tensor.way.places, self)
                return tensor
            plain = tensor.as_subclass(torch.Tensor)
            return _followed(plain, _Way((self,), plain.shape))

        return with_tensor(output, change)

    def _begin(self, tensor: torch.Tensor) -> None:
        self.began += 1
        self.first, self.seen = self.seen, self.seen + len(tensor) // self.info.groups

    def new(self, value: torch.Tensor) -> torch.Tensor:
        """Return the replaced value, in the memory layout of the old one."""
        self.done += 1
        new = self.replace(value, self.first)
        return new if new.stride() == value.stride() else _laid_out(new, value)


def _laid_out(new: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    out = torch.empty_strided(like.shape, like.stride(), dtype=new.dtype, device=new.device)
    return out.copy_(new)


def _unmoved(followed: Followed, result: torch.Tensor) -> torch.Tensor:
    """Bring what was moved on its way back to the layout of the layer's output."""
    if not followed.moved:
        return result
    place = torch.arange(result.numel(), device=result.device)
    source = place.view(followed.way.origin)
    for move in followed.moved:
        source = move(source)
    back = torch.empty_like(place)
    back[source.reshape(-1)] = place
    return result.reshape(-1)[back].view(followed.way.origin)


def with_tensor(output: Any, change: Move) -> Any:
    """Return a module's output with its tensor (`targets.units.first_tensor`) changed.

    Raises:
        InputError: there is no tensor.
    """
    if isinstance(output, torch.Tensor):
        return change(output)
    for name in ("last_hidden_state", "logits"):
        if isinstance(getattr(output, name, None), torch.Tensor):
            made = type(output)(**{**output, name: change(getattr(output, name))})
            return made
    if isinstance(output, tuple | list) and output and isinstance(output[0], torch.Tensor):
        rest = [change(output[0]), *output[1:]]
        named = hasattr(output, "_fields")
        return type(output)(*rest) if named else type(output)(rest)
    raise InputError("the layer gave no tensor", f"it gave {type(output).__name__}")
