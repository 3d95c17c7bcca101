"""A module that is given to any of the applications comes back as it was, and so does chance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import milanx
from milanx.act.analyze import analyze
from milanx.act.audit.rules import Rule
from milanx.act.importance import ImportanceSettings
from milanx.act.pruned import PruneSettings
from milanx.errors import MilanxError
from milanx.targets.given import gives_back
from milanx.targets.zoo import load_target
from tests.act.runs import write_texts
from tests.act.voter import UNITS, Voter, colours

CLASSES = ["red", "green", "blue"]
FACES = Rule("faces", "warning", "It sees faces.", "Look.", words=("face",))


class Used(Voter):
    """In the middle of a training: modes, gradients, a hook, a buffer that every pass writes to."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))
        self.to(memory_format=torch.channels_last)
        self.train()
        self.act.eval()
        self.conv.weight.requires_grad_(False)
        self.calls: list[int] = []
        self.act.register_forward_hook(lambda module, args, output: self.calls.append(1))
        self(torch.rand(2, 3, 16, 16)).sum().backward()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += len(x)
        return super().forward(x)


def state(model: nn.Module) -> list[Any]:
    """Everything of a module that its owner would miss, and the state of chance."""
    hooks = [[*m._forward_hooks, *m._forward_pre_hooks, *m._backward_hooks]
             for m in model.modules()]  # fmt: skip
    tensors = [(n, p.data_ptr(), p.dtype, p.stride(), p.requires_grad, p.tolist(),
                None if p.grad is None else (p.grad.data_ptr(), p.grad.tolist()))
               for n, p in (*model.named_parameters(), *model.named_buffers())]  # fmt: skip
    own = [sorted(set(m.__dict__) - {"calls"}) for m in model.modules()]
    return [hooks, tensors, own, [m.training for m in model.modules()],
            torch.get_rng_state().tolist()]  # fmt: skip


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of a `Used` model, described by hand, and labelled images."""
    root = tmp_path_factory.mktemp("used")
    images = colours(root / "colours.parquet")
    model = Used()
    before = state(model)
    milanx.extract(model, layers=["conv"], images=str(images), out=root / "run", device="cpu")
    assert state(model) == before
    write_texts(
        root / "run", ["red faces", "green faces", "blue"] + ["walls"] * (UNITS - 3), "conv"
    )
    return root / "run", images


Ask = Callable[[Path, Path, nn.Module], Any]
ASKED: dict[str, Ask] = {
    "prune": lambda run, images, model: milanx.prune(
        run, units="conv:0-1", images=str(images), classes=CLASSES, model=model, device="cpu",
        settings=PruneSettings(draws=2, batch_size=16)),
    "audit": lambda run, images, model: milanx.audit(run, rules=[FACES], model=model),
    "analyze": lambda run, images, model: analyze(
        run, str(images), model=model, classes=CLASSES,
        settings=ImportanceSettings(step=0.2, most=0.2, orders=2, draws=50)),
    "robustness": lambda run, images, model: milanx.evaluate_robustness(
        model, str(images), kind="labelled", classes=CLASSES),
    "robustness of targets": lambda run, images, model: milanx.evaluate_robustness(
        {"a": load_target(model), "b": model}, str(images), kind="labelled", classes=CLASSES),
    "robustness, corrupted": lambda run, images, model: milanx.evaluate_robustness(
        {"a": model}, str(images), corruptions=["contrast"], severities=[1], sample=4,
        classes=CLASSES, workers=1),
}  # fmt: skip


@pytest.mark.parametrize("name", ASKED)
def test_a_module_comes_back(
    name: str, labelled: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILANX_CACHE", str(tmp_path))
    model = Used()
    if name == "robustness of targets":  # a target is in evaluation mode since it was loaded
        model.eval()
    seen = len(model.calls)
    before = state(model)
    ASKED[name](*labelled, model)
    assert len(model.calls) > seen  # it ran
    after = state(model)
    if name == "robustness of targets":
        after[-1] = before[-1]
    assert after == before


@pytest.mark.parametrize("name", ["prune", "analyze"])
def test_a_module_comes_back_after_an_error(
    name: str, labelled: tuple[Path, Path], tmp_path: Path
) -> None:
    model = Used()
    before = state(model)
    with pytest.raises(MilanxError):
        ASKED[name](labelled[0], tmp_path / "nothing", model)
    assert state(model) == before


def test_what_a_function_did_to_its_modules_is_undone() -> None:
    @gives_back
    def harm(models: dict[str, Any], *, other: nn.Module) -> None:
        for model in (models["target"].model, models["plain"], other):
            model.eval().double().requires_grad_(False)
            model.register_forward_hook(lambda *_: None)
            next(model.buffers()).fill_(9)
            model.zero_grad()
        torch.rand(3)

    target = load_target(Used())
    held = [target.model, Used(), Used()]
    before = [state(m) for m in held]
    harm({"target": target, "plain": held[1]}, other=held[2])
    assert [state(m) for m in held] == before
