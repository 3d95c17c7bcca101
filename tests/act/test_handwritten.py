"""Edits where a nonlinearity is written out by hand: by what it gives, not by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from milanx.act.ablate import Edit, ablate, measured_means, read_places
from milanx.act.export import load_edited, write_edit
from milanx.errors import InputError
from milanx.targets.zoo import load_target
from tests.act.models import PREPROCESS, SIDE, scaled, set_to

Function = Callable[[torch.Tensor], torch.Tensor]


class Swish(torch.autograd.Function):
    """As memory-efficient ones are written."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return slopes[0] * s * (1 + x * (1 - s))


def in_place(x: torch.Tensor) -> torch.Tensor:
    x.mul_(torch.sigmoid(x))
    return x


FUNCTIONS: dict[str, Function] = {
    "swish": lambda x: x * torch.sigmoid(x),
    "swish, the other way round": lambda x: torch.sigmoid(x) * x,
    "swish in place": in_place,
    "swish of autograd's": Swish.apply,
    "mish": lambda x: x * torch.tanh(F.softplus(x)),
    "quickgelu": lambda x: x * torch.sigmoid(1.702 * x),
    "hardswish": lambda x: x * F.relu6(x + 3) / 6,
    "hardswish with a constant": lambda x: x * (F.relu6(x + x.new_tensor(3.0)) / 6),
    "gelu": lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)),
    "gelu by tanh": lambda x: 0.5 * x * (1 + torch.tanh(0.7978845608 * (x + 0.044715 * x**3))),
    "squared relu": lambda x: F.relu(x) ** 2,
    "maximum": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "where": lambda x: torch.where(x > 0, x, 0.1 * x),
    "clamp_min": lambda x: x.clamp_min(0),
    "relu of a copy": lambda x: F.relu(x * 1.0),
    "relu moved": lambda x: F.relu(x.flatten(2).mT * 1.0).mT.view(x.shape),
    "swish moved": lambda x: (x.permute(0, 2, 3, 1) * x.permute(0, 2, 3, 1).sigmoid()).permute(
        0, 3, 1, 2),
    "logsigmoid": lambda x: -F.softplus(-x),
}  # fmt: skip
KNOWN = [name for name in FUNCTIONS if name != "logsigmoid"]


class Net(nn.Module):
    """One convolution, a nonlinearity, a head."""

    preprocess = PREPROCESS

    def __init__(self, name: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.bend = FUNCTIONS[name]
        self.conv, self.head = nn.Conv2d(3, 6, 3, 2, 1), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.bend(self.conv(x)).mean((2, 3)))

    def hand(self, x: torch.Tensor, change: Function) -> torch.Tensor:
        return self.head(change(self.bend(self.conv(x))).mean((2, 3)))


def images() -> torch.Tensor:
    return torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", KNOWN)
@torch.no_grad()
def test_an_edit_is_made_where_the_unit_is_read(name: str) -> None:
    model, x = Net(name).eval(), images()
    target = load_target(model)
    infos = read_places(target, ["conv"])
    assert not infos["conv"].linear
    for edit, change in (
        (Edit("conv", (1, 4)), set_to([1, 4], 0.0)),
        (Edit("conv", (2,), "mean", values=(0.75,)), set_to([2], 0.75)),
        (Edit("conv", (3,), "scale", factor=-2.0), scaled([3], -2.0)),
    ):
        with ablate(target, [edit], infos):
            found = model(x)
        assert not torch.allclose(found, model(x))
        torch.testing.assert_close(found, model.hand(x, change))
    means = measured_means(target, infos["conv"], [0, 5], iter([x]))
    expected = model.bend(model.conv(x)).mean((0, 2, 3))
    torch.testing.assert_close(torch.tensor(means), expected[[0, 5]])


@torch.no_grad()
def test_several_edits_and_the_second_reader() -> None:
    """Two edits of one layer meet one value; the value that is read twice is replaced twice."""
    model, x = Net("swish").eval(), images()
    target = load_target(model)
    with ablate(target, [Edit("conv", (1,)), Edit("conv", (2,), "scale", factor=0.5)]):
        found = model(x)
    torch.testing.assert_close(
        found, model.hand(x, lambda v: scaled([2], 0.5)(set_to([1], 0.0)(v)))
    )


def test_gradients_flow_through_it() -> None:
    model = Net("mish").eval()
    target, x, y = load_target(model), images().requires_grad_(True), images().requires_grad_(True)
    with ablate(target, [Edit("conv", (1,))]):
        model(x)[:, 0].sum().backward()
    model.hand(y, set_to([1], 0.0))[:, 0].sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


class Wandering(Net):
    """Computes another function than that by which its layer was found to be read."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value = self.conv(x)
        bent = self.bend(value) if self.training else value + 1
        return self.head(bent.mean((2, 3)))


@torch.no_grad()
def test_what_is_not_met_is_refused_by_every_way() -> None:
    model, x = Wandering("swish"), images()
    target = load_target(model)
    target.model.train()
    infos = read_places(target, ["conv"])
    target.model.eval()
    with (
        pytest.raises(InputError, match="silu of what conv gave"),
        ablate(target, [Edit("conv", (1,))], infos),
    ):
        model(x)
    with pytest.raises(InputError, match="did not take place"):
        measured_means(target, infos["conv"], [0], iter([x]))


@torch.no_grad()
def test_a_function_that_has_no_name_is_read_and_edited_before_it() -> None:
    model, x = Net("logsigmoid").eval(), images()
    target = load_target(model)
    infos = read_places(target, ["conv"])
    assert infos["conv"].nonlinearity is None
    with ablate(target, [Edit("conv", (1,))], infos):
        found = model(x)
    before = set_to([1], 0.0)(model.conv(x))
    torch.testing.assert_close(found, model.head(model.bend(before).mean((2, 3))))


@torch.no_grad()
def test_a_stored_edit_acts_or_is_refused(tmp_path: Path) -> None:
    """What is read again knows the function's name alone."""
    model, x = Net("quickgelu").eval(), images()
    target, edits = load_target(model), [Edit("conv", (1, 3), "mean", values=(0.5, 0.25))]
    infos = read_places(target, ["conv"])
    write_edit(tmp_path / "edit", target, edits, infos)
    edited = load_edited(tmp_path / "edit", model)
    torch.testing.assert_close(edited(x), model.hand(x, set_to([1, 3], [0.5, 0.25])))
    edited.bend = lambda value: value + 1
    with pytest.raises(InputError, match="did not take place"):
        edited(x)


@torch.no_grad()
def test_units_that_come_first_in_a_sequence() -> None:
    class Row(nn.Module):
        """[b, u, n], by Conv1d."""

        preprocess = PREPROCESS

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.patch, self.mix, self.head = (
                nn.Conv2d(3, 6, 4, 4), nn.Conv1d(6, 9, 1), nn.Linear(9, 4))  # fmt: skip

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.mix(self.patch(x).flatten(2)).relu().mean(2))

    model, x = Row().eval(), images()
    target = load_target(model)
    for edit, change in (
        (Edit("mix", (1, 8)), set_to([1, 8], 0.0)),
        (Edit("mix", (2,), "mean", values=(0.5,)), set_to([2], 0.5)),
    ):
        with ablate(target, [edit]):
            found = model(x)
        hidden = change(model.mix(model.patch(x).flatten(2)).relu())
        torch.testing.assert_close(found, model.head(hidden.mean(2)))
