"""Small models for editing, each with the same edit written out by hand as its oracle."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from milanx.images.preprocess import Preprocess

Change = Callable[[torch.Tensor], torch.Tensor]
SIDE = 16
PREPROCESS = Preprocess((SIDE, SIDE), SIDE, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def same(x: torch.Tensor) -> torch.Tensor:
    return x


class Plain(nn.Module):
    """Every way in which a nonlinearity can follow; ``hand`` computes it with one value changed."""

    preprocess = PREPROCESS

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(3, 6, 3, 2, 1)
        self.bn1 = nn.BatchNorm2d(6)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(6, 6, 3, 1, 1)  # ReLU6 by function
        self.conv3 = nn.Conv2d(6, 8, 1, bias=False)
        self.norm3 = nn.GroupNorm(2, 8)  # SiLU by a method in place
        self.fc1 = nn.Linear(8, 10)  # GELU, and what is read is moved first
        self.act = nn.GELU()
        self.fc2 = nn.Linear(10, 8)
        self.head = nn.Linear(8, 5)
        with torch.no_grad():
            for p in self.parameters():
                p.add_(torch.randn_like(p) * 0.2)
            self.bn1.running_mean.normal_()
            self.bn1.running_var.uniform_(0.5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act1(self.bn1(self.conv1(x)))
        x = F.relu6(self.conv2(x)) + x
        x = F.silu(self.norm3(self.conv3(x)), inplace=True)
        tokens = x.flatten(2).transpose(1, 2)
        hidden = self.act(self.fc1(tokens).transpose(1, 2)).transpose(1, 2)
        tokens = tokens + self.fc2(hidden)
        return self.head(tokens.mean(1))

    def hand(self, x: torch.Tensor, layer: str, change: Change) -> torch.Tensor:
        """Compute the logits with ``change`` (in [b, u, h, w]) at one layer's value."""

        def at(name: str, value: torch.Tensor) -> torch.Tensor:
            return change(value) if name == layer else value

        def tokens_at(name: str, value: torch.Tensor) -> torch.Tensor:
            maps = value.transpose(1, 2).unflatten(2, (SIDE // 2, SIDE // 2))
            return at(name, maps).flatten(2).transpose(1, 2)

        x = at("conv1", self.conv1(x))
        x = at("bn1", self.bn1(x).clamp(min=0))
        x = at("conv2", self.conv2(x).clamp(0, 6)) + x
        x = at("conv3", self.conv3(x))
        x = self.norm3(x)
        x = at("norm3", x * torch.sigmoid(x))
        tokens = x.flatten(2).transpose(1, 2)
        hidden = tokens_at("fc1", F.gelu(self.fc1(tokens)))
        tokens = tokens + tokens_at("fc2", self.fc2(hidden))
        return at("head", self.head(tokens.mean(1))[:, :, None, None])[..., 0, 0]


class Gated(nn.Module):
    """A gated MLP on patches behind a class token."""

    preprocess = PREPROCESS

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.patch = nn.Conv2d(3, 6, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.mlp = GatedMLP()
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1)
        tokens = tokens + self.mlp(tokens)
        return self.head(self.norm(tokens).mean(1))

    def hand(self, x: torch.Tensor, change: Change) -> torch.Tensor:
        """Compute the logits with the down projection's inputs [b, tokens, units] changed."""
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1)
        inner = F.silu(self.mlp.gate_proj(tokens)) * self.mlp.up_proj(tokens)
        tokens = tokens + self.mlp.down_proj(change(inner))
        return self.head(self.norm(tokens).mean(1))


class GatedMLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(6, 9), nn.Linear(6, 9)
        self.down_proj = nn.Linear(9, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Changed(nn.Module):
    """Stands for a module and changes its output: an edit by hand in a model of any kind."""

    def __init__(self, inner: nn.Module, change: Change) -> None:
        super().__init__()
        self.inner, self.change = inner, change

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.change(self.inner(x))


def set_to(units: list[int], value: float | list[float], axis: int = 1) -> Change:
    """Return a change that sets units along ``axis`` to a value, or to one each."""

    def change(x: torch.Tensor) -> torch.Tensor:
        x = x.clone().movedim(axis, -1)
        x[..., units] = torch.tensor(value, dtype=x.dtype)
        return x.movedim(-1, axis)

    return change


def scaled(units: list[int], factor: float, axis: int = 1) -> Change:
    def change(x: torch.Tensor) -> torch.Tensor:
        x = x.clone().movedim(axis, -1)
        x[..., units] *= factor
        return x.movedim(-1, axis)

    return change


def plain() -> nn.Module:
    """Return it: ``tests.act.models:plain``."""
    return Plain()
