"""Which function follows a layer, whatever code computes it; what gates are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from milanx.images.preprocess import Preprocess
from milanx.targets.capture import Capture, find_layers
from milanx.targets.functions import recognise
from milanx.targets.units import LayerInfo
from milanx.targets.zoo import load_target

SMALL = Preprocess((64, 64), 64)
Function = Callable[[torch.Tensor], torch.Tensor]


class Own(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(x)


@torch.jit.script
def scripted(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(x)


class Scripted(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return scripted(x)


HANDWRITTEN: dict[str, tuple[Function, str]] = {
    "swish": (lambda x: x * torch.sigmoid(x), "silu"),
    "swish in place": (lambda x: x.mul_(x.sigmoid()), "silu"),
    "swish by division": (lambda x: x / (1 + torch.exp(-x)), "silu"),
    "swish of its own": (Own.apply, "silu"),
    "scripted": (Scripted(), "silu"),
    "quick gelu": (lambda x: x * torch.sigmoid(1.702 * x), "quick_gelu"),
    "mish": (lambda x: x * torch.tanh(F.softplus(x)), "mish"),
    "hard swish": (lambda x: x * F.relu6(x + 3) / 6, "hardswish"),
    "hard sigmoid": (lambda x: (x + 3).clamp(0, 6) / 6, "hardsigmoid"),
    "clamp": (lambda x: x.clamp(min=0), "relu"),
    "clamp to 6": (lambda x: torch.clamp(x, 0, 6), "relu6"),
    "maximum": (lambda x: torch.maximum(x, torch.zeros_like(x)), "relu"),
    "where": (lambda x: torch.where(x > 0, x, 0.1 * x), "leaky_relu"),
    "absolute": (lambda x: (x + x.abs()) / 2, "relu"),
    "squared": (lambda x: F.relu(x) ** 2, "relu_squared"),
    "gelu by tanh": (
        lambda x: 0.5 * x * (1 + torch.tanh(0.7978845608 * (x + 0.044715 * x**3))), "gelu",
    ),
    "elu": (lambda x: torch.where(x > 0, x, torch.exp(x) - 1), "elu"),
}  # fmt: skip
NONE: dict[str, Function] = {
    "scaled": lambda x: 2 * x + 1,
    "sine": lambda x: x + torch.sin(x) ** 2,
    "swish of something else": lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
    "glu": lambda x: F.glu(x, 1).repeat(1, 2, 1, 1),
}


class Net(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.function = function
        self.conv1, self.fc = nn.Conv2d(3, 16, 3, 2, 1), nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.function(self.conv1(x)).mean((2, 3)))


def found(model: nn.Module, name: str, x: torch.Tensor) -> tuple[LayerInfo, torch.Tensor]:
    target = load_target(model, preprocess=SMALL)
    infos = find_layers(target, [name])
    with Capture(target, infos) as capture:
        return infos[0], capture.run(x)[name]


@pytest.mark.parametrize("case", HANDWRITTEN)
@torch.no_grad()
def test_handwritten_functions_are_what_they_compute(case: str) -> None:
    function, name = HANDWRITTEN[case]
    model, x = Net(function).eval(), 2 * torch.randn(2, 3, 64, 64)
    info, value = found(model, "conv1", x)
    assert info.nonlinearity == name
    torch.testing.assert_close(value, function(model.conv1(x)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("case", NONE)
@torch.no_grad()
def test_what_is_no_known_function_is_read_as_it_is(case: str) -> None:
    model, x = Net(NONE[case]).eval(), torch.randn(2, 3, 64, 64)
    info, value = found(model, "conv1", x)
    assert info.nonlinearity is None
    assert info.linear
    torch.testing.assert_close(value, model.conv1(x))


def test_values_alone_tell_functions_apart() -> None:
    x = torch.linspace(-5, 5, 500)
    assert recognise(x, x) is None
    assert recognise(x, 3 * x) is None
    known = {"gelu": F.gelu(x), "silu": F.silu(x), "mish": F.mish(x), "softplus": F.softplus(x),
             "clamp": x.clamp(min=-1), "hardtanh": x.clamp(-1, 2)}  # fmt: skip
    for name, y in known.items():
        done = recognise(x, y)
        assert done is not None
        assert done.name == name
        torch.testing.assert_close(done(x), y)
    half = recognise(x.half(), F.silu(x.half()))
    assert half is not None
    assert half.name == "silu"


class Pair(nn.Module):
    """Two halves whose product a third layer reads, in the ways that people write it."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind = kind
        self.patch = nn.Conv2d(3, 6, 8, 8)
        self.one, self.two = nn.Linear(6, 9), nn.Linear(6, 9)
        self.both, self.down = nn.Linear(6, 18), nn.Linear(9, 6)

    def product(self, tokens: torch.Tensor) -> torch.Tensor:
        if self.kind == "packed":
            gate, value = self.both(tokens).chunk(2, -1)
            return F.silu(gate) * value
        if self.kind == "glu":
            return F.glu(self.both(tokens), -1)
        if self.kind == "two inputs":  # a gate of something else: no gated MLP
            return F.silu(self.one(tokens)) * self.two(tokens.flip(1))
        if self.kind == "linear":
            return self.one(tokens) * self.two(tokens)
        return self.two(tokens) * F.gelu(self.one(tokens))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.product(self.patch(x).flatten(2).mT)).mean(1)


@pytest.mark.parametrize("kind", ["apart", "packed", "glu", "two inputs", "linear"])
@torch.no_grad()
def test_gates_are_those_whose_product_is_read(kind: str) -> None:
    model, x = Pair(kind).eval(), torch.randn(2, 3, 64, 64)
    name = "both" if kind in ("packed", "glu") else "one"
    info, value = found(model, name, x)
    if kind in ("two inputs", "linear"):
        assert info.input_of is None
        return
    assert info.input_of == "down"
    expected = model.product(model.patch(x).flatten(2).mT)
    torch.testing.assert_close(value, expected.mT.unflatten(2, (8, 8)))
    assert info.units == 9


class Changed(nn.Module):
    """What the first layer gives is changed afterwards, in one way or another."""

    def __init__(self, change: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.change = change
        self.conv1, self.conv2 = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, 2, 1)
        self.fc = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv1(x)
        self.change(y)
        return self.fc(torch.relu(self.conv2(y)).mean((2, 3)))


@pytest.mark.parametrize(
    "change",
    [
        lambda y: y[:, :4].zero_(), lambda y: y.__setitem__((slice(None), 3), 0.0),
        lambda y: y.data.clamp_(min=0), lambda y: y.add_(1), lambda y: y.view(-1)[::2].mul_(2),
    ],
)  # fmt: skip
@torch.no_grad()
def test_values_do_not_depend_on_what_else_is_read(change: Callable) -> None:
    model, x = Changed(change).eval(), torch.randn(2, 3, 64, 64)
    target, expected = load_target(model, preprocess=SMALL), model.conv1(x)
    for layers in (["conv1"], ["conv1", "conv2"], ["conv1", "conv2", "fc"]):
        with Capture(target, find_layers(target, layers)) as capture:
            torch.testing.assert_close(capture.run(x)["conv1"], expected)


def test_what_is_computed_beside_a_nonlinearity_does_not_hide_it() -> None:
    """A pooling token mixer: of pool(relu(x)) - relu(x) nothing but relu(x) is read."""

    class Pooling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool = nn.Conv2d(3, 16, 3, 2, 1), nn.AvgPool2d(3, 1, 1)
            self.around, self.fc = nn.Conv2d(16, 8, 1), nn.Linear(8, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.relu(self.conv(x))
            y = self.around(self.pool(y) - y)
            return self.fc((y * torch.tanh(y)).mean((2, 3)))

    target = load_target(Pooling(), preprocess=SMALL)
    conv, around = find_layers(target, ["conv", "around"])
    assert conv.nonlinearity == "relu"
    assert around.nonlinearity is None  # x tanh(x) has no name, and tanh(x) is a part of it


@pytest.mark.parametrize(
    "bend",
    [
        lambda x: torch.relu(x + x.new_zeros(1)), lambda x: x.mT.relu().mT,
        lambda x: torch.maximum(x, x.new_tensor(0.0)), lambda x: x.view_as(x).clamp(min=0),
        lambda x: torch.where(x > torch.zeros_like(x), x, x.new_zeros(()).expand_as(x)),
    ],
)  # fmt: skip
def test_asking_for_a_shape_or_a_type_is_no_reading(bend: Callable) -> None:
    class Bent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 16, 3, 2, 1), nn.Linear(16, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(bend(self.conv(x)).mean((2, 3)))

    target = load_target(Bent(), preprocess=SMALL)
    assert find_layers(target, ["conv"])[0].nonlinearity == "relu"
