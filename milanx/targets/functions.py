"""Elementwise nonlinearities: torch's by the name of their function, others by their values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional as F


def quick_gelu(value: torch.Tensor, beta: float = 1.702) -> torch.Tensor:
    """Return x sigmoid(beta x) (https://arxiv.org/abs/1606.08415, section 2)."""
    return value * torch.sigmoid(beta * value)


def relu_squared(value: torch.Tensor) -> torch.Tensor:
    """Return relu(x)^2 (https://arxiv.org/abs/2109.08668, section 3)."""
    return F.relu(value).square()


# By the name of the function that computes them; `quick_gelu` and `relu_squared` are no function
# of torch's and are known by their values alone.
NONLINEAR: dict[str, Callable[..., torch.Tensor]] = {
    "relu": F.relu, "relu6": F.relu6, "hardtanh": F.hardtanh, "gelu": F.gelu, "silu": F.silu,
    "hardswish": F.hardswish, "hardsigmoid": F.hardsigmoid, "mish": F.mish, "elu": F.elu,
    "celu": F.celu, "selu": F.selu, "softplus": F.softplus, "leaky_relu": F.leaky_relu,
    "sigmoid": torch.sigmoid, "tanh": torch.tanh, "prelu": F.prelu, "softsign": F.softsign,
    "clamp": torch.clamp, "quick_gelu": quick_gelu, "relu_squared": relu_squared,
}  # fmt: skip
RECTIFIERS = {"relu", "relu6", "sigmoid", "hardsigmoid", "softplus", "relu_squared"}
# The value that nonlinearities have for all that is low enough: a unit is off there. That of hard
# swish is 0, below -3; what it gives below 0 excites a unit less than that.
OFF = {"hardswish": 0.0} | dict.fromkeys(RECTIFIERS, 0.0)
UPPER = {"relu6": 6.0, "sigmoid": 1.0, "hardsigmoid": 1.0, "tanh": 1.0}
# Precision that a match of values needs, in units of the type's own rounding: a handwritten
# function rounds at each of its operations. Half precision has none to spare: of the functions
# that fit, the one that fits best is meant.
ROUNDINGS = {torch.float16: 4, torch.bfloat16: 4}
ROUNDINGS_FULL = 64
BETTER = 0.5  # share of the other's distance from which a function fits better


@dataclass(frozen=True)
class Consumed:
    """The nonlinearity that first reads a tensor, with its arguments after the tensor."""

    name: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    def __call__(self, value: torch.Tensor) -> torch.Tensor:
        """Apply it, never in place."""
        kwargs = {k: v for k, v in self.kwargs.items() if k != "inplace"}
        return NONLINEAR[self.name](value, *self.args, **kwargs)


def consumed(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Consumed:
    """Note a nonlinearity; torch's ReLU6 is a hardtanh from 0 to 6, and a clamp at 0 a ReLU."""
    values = tuple(a for a in args if not isinstance(a, bool))
    if name == "hardtanh":
        bounds = [*values, *(-1.0, 1.0)[len(values) :]]
        return _bounded(kwargs.get("min_val", bounds[0]), kwargs.get("max_val", bounds[1]))
    if name == "clamp":
        low, high = (*values, None, None)[:2]
        return _bounded(kwargs.get("min", low), kwargs.get("max", high))
    return Consumed(name, values, dict(kwargs))


def _bounded(low: Any, high: Any) -> Consumed:
    """Name what cuts values off below ``low`` and above ``high``."""
    plain = all(b is None or isinstance(b, int | float) for b in (low, high))
    if plain and low == 0 and high is None:
        return Consumed("relu")
    if plain and (low, high) == (0, 6):
        return Consumed("relu6")
    if plain and low is not None and high is not None:
        return Consumed("hardtanh", (low, high))
    return Consumed("clamp", (low, high))


def value_range(done: Consumed | None) -> tuple[bool, float | None]:
    """Whether values are never below zero, and the most that they can be."""
    if done is None:
        return False, None
    if done.name in ("hardtanh", "clamp"):
        low, high = done.args
        known = [isinstance(b, int | float) for b in done.args]
        return known[0] and low >= 0, float(high) if known[1] else None
    return done.name in RECTIFIERS, UPPER.get(done.name)


def off_value(done: Consumed | None) -> float | None:
    """The value of a unit that is off, at which or below which nothing excites it.

    None for what goes on to fall, such as a leaky ReLU, and for what has no value that it takes for
    good, such as GELU.
    """
    if done is None:
        return None
    if done.name in ("hardtanh", "clamp"):
        low = done.args[0]
        return float(low) if isinstance(low, int | float) else None
    return OFF.get(done.name)


def recognise(before: torch.Tensor, after: torch.Tensor) -> Consumed | None:
    """Name the function that turns some values into others, if it is one that is known.

    Args:
        before: [n].
        after: [n], of the same places.

    Returns:
        The function, or None where none fits, or where the values do not tell it from x itself.
    """
    if before.shape != after.shape or not (before.is_floating_point() and before.numel()):
        return None
    kinds = {before.dtype, after.dtype} & set(ROUNDINGS) or {torch.float32}
    rounding = max(ROUNDINGS.get(k, ROUNDINGS_FULL) * torch.finfo(k).eps for k in kinds)
    known = torch.isfinite(before) & torch.isfinite(after)
    x, y = before[known].double(), after[known].double()
    scale = float(y.abs().amax()) if len(y) else 0.0
    if scale == 0:
        return None

    def distance(one: torch.Tensor) -> float:
        """Largest distance, in units of what rounding may do."""
        return float(((one - y).abs() / (rounding * (scale + y.abs()))).amax())

    if distance(x) <= 1:
        return None
    best: tuple[float, Consumed] | None = None
    for done in _candidates(x, y):
        far = distance(done(x))
        if far <= 1 and (best is None or far < BETTER * best[0]):
            best = (far, done)
    return best[1] if best else None


def computes(
    name: str, done: Consumed | None, before: torch.Tensor, after: torch.Tensor
) -> bool | None:
    """Whether some values are a nonlinearity of others, by whatever operations it was computed.

    Args:
        name: of the nonlinearity.
        done: itself, where its arguments are known.
        before: [n].
        after: [n], of the same places.

    Returns:
        None where the nonlinearity changes none of these values, so that they do not tell.
    """
    if done is None:
        found = recognise(before, after)
        if found is not None:
            return found.name == name
        done = Consumed(name)
    try:
        expected = done(before)
    except TypeError:  # it has arguments that nothing was kept of
        return False
    if not _equal(expected, after):
        return False
    return None if _equal(before, after) else True


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors differ by no more than what rounding may do."""
    kinds = {one.dtype, other.dtype} & set(ROUNDINGS) or {torch.float32}
    rounding = max(ROUNDINGS.get(k, ROUNDINGS_FULL) * torch.finfo(k).eps for k in kinds)
    x, y = one.double(), other.double()
    allowed = rounding * (float(y.abs().amax()) + y.abs())
    return x.shape == y.shape and bool(((x - y).abs() <= allowed).all())


def _candidates(x: torch.Tensor, y: torch.Tensor) -> Iterator[Consumed]:
    """Yield the functions that are known, those with a parameter fitted; common ones first."""
    for name in ("relu", "relu6", "gelu"):
        yield Consumed(name)
    yield Consumed("gelu", kwargs={"approximate": "tanh"})
    for name in ("silu", "quick_gelu", "hardswish", "mish", "sigmoid", "tanh", "hardsigmoid",
                 "softplus", "elu", "selu", "softsign", "relu_squared"):  # fmt: skip
        yield Consumed(name)
    low, high = float(y.amin()), float(y.amax())
    if bool((x < low).any()):
        yield Consumed("clamp", (low, None))
    if bool((x > high).any()):
        yield Consumed("clamp", (None, high))
        yield Consumed("hardtanh", (low, high))
    yield from _fitted(x, y)


def _fitted(x: torch.Tensor, y: torch.Tensor) -> Iterator[Consumed]:
    """Yield the functions with a parameter, fitted at one value."""
    lowest = int(x.argmin())
    if x[lowest] < 0 and y[lowest]:
        slope, alpha = float(y[lowest] / x[lowest]), float(y[lowest] / torch.expm1(x[lowest]))
        if 0 < slope < 1:
            yield Consumed("leaky_relu", (slope,))
        if alpha > 0:
            yield Consumed("elu", (alpha,))
    middle = int((x.abs() - 1).abs().argmin())
    ratio = y[middle] / x[middle]
    if 0 < ratio < 1:
        beta = float(torch.logit(ratio) / x[middle])
        if beta > 0:
            yield Consumed("quick_gelu", (round(beta, 6),))
