"""A training's state in one file: weights, best weights, the optimiser's moments, the history.

One safetensors file, replaced in one step, so that a reader finds the old state or the new and
never a half. No generator's state is in it: `milanx.train.engine.fit` seeds each batch by its
number.
"""

from __future__ import annotations

import hashlib
import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from milanx.errors import FormatError, InputError
from milanx.files import atomic_path, check_format

FORMAT = "milanx training checkpoint"
VERSION = 1
SAMPLED = 64  # elements of each parameter that tell one model from another


@dataclass
class History:
    """What a training has been through.

    Attributes:
        losses: of each step that is done.
        held_out: (steps done, value) of each check.
        best_step: the steps done at the lowest value; 0 before any.
        stopped: it ended before its last step, for want of progress.
        best: the weights at ``best_step``, on the CPU; empty before any check.
    """

    losses: list[float] = field(default_factory=list)
    held_out: list[tuple[int, float]] = field(default_factory=list)
    best_step: int = 0
    stopped: bool = False
    best: dict[str, torch.Tensor] = field(default_factory=dict)


def trained_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return what training changes: parameters with a gradient, and buffers that are saved."""
    found = {n: p for n, p in model.named_parameters() if p.requires_grad}
    saved = model.state_dict().keys()
    return found | {n: b for n, b in model.named_buffers() if n in saved}


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return copies of the trained tensors, on the CPU."""
    return {n: _copy(t) for n, t in trained_tensors(model).items()}


@torch.no_grad()
def restore(model: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Put the tensors of a `snapshot` back, in place."""
    for name, tensor in trained_tensors(model).items():
        tensor.copy_(tensors[name])


def digest(model: nn.Module) -> str:
    """Return 16 hex digits for a model's weights, frozen ones included.

    They stand for `SAMPLED` evenly spaced elements of each parameter: enough to tell a model of
    another base or seed, and no matter of seconds where the model is large.
    """
    found = hashlib.sha256()
    for name, parameter in model.named_parameters():
        flat = parameter.detach().flatten()
        some = flat[:: max(1, len(flat) // SAMPLED)].to("cpu").double()
        found.update(f"{name} {tuple(parameter.shape)} {parameter.requires_grad}".encode())
        found.update(some.numpy().tobytes())
    return found.hexdigest()[:16]


def write_checkpoint(
    path: Path,
    identity: dict[str, Any],
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    history: History,
    scaler: dict[str, Any] | None = None,
) -> None:
    """Write the state after the steps of ``history``, atomically.

    Args:
        path: the file; replaced when it is there.
        identity: what a training must share with this one to go on from here.
        model: its trained tensors are written.
        optimiser: its state is written by the names of the parameters.
        history: of the training so far, best weights included.
        scaler: state of fp16's gradient scaler.

    Raises:
        InputError: the place cannot be written.
    """
    tensors = {f"model.{n}": t for n, t in snapshot(model).items()}
    tensors |= {f"best.{n}": t for n, t in history.best.items()}
    numbers: dict[str, Any] = {}
    for name, parameter in _optimised(model, optimiser).items():
        for key, value in optimiser.state.get(parameter, {}).items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimiser.{key}.{name}"] = _copy(value)
            else:
                numbers[f"{key}.{name}"] = value
    state = {
        "identity": identity,
        "losses": history.losses,
        "held_out": history.held_out,
        "best_step": history.best_step,
        "stopped": history.stopped,
        "optimiser": numbers,
        "scaler": scaler,
    }
    metadata = {"format": FORMAT, "version": str(VERSION), "state": json.dumps(state)}
    with atomic_path(path) as temporary:
        # Not save_file: it writes by way of a file of its own, which a kill would leave behind.
        temporary.write_bytes(save(tensors, metadata))


def read_checkpoint(
    path: Path, identity: dict[str, Any], model: nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[History, dict[str, Any] | None]:
    """Put model and optimiser into the state of a checkpoint.

    Args:
        path: what `write_checkpoint` wrote.
        identity: of the training that wants to go on.
        model: gets the weights, in place.
        optimiser: gets its state.

    Returns:
        The history so far, and the state of fp16's gradient scaler if there was one.

    Raises:
        FormatError: damaged, or of another format.
        InputError: the checkpoint of another training.
    """
    state, tensors = _read(path)
    _check_identity(path, state["identity"], identity)
    restore(model, _under("model.", tensors))
    moments: dict[str, dict[str, Any]] = {}
    for prefixed, value in (_under("optimiser.", tensors) | state["optimiser"]).items():
        key, name = prefixed.split(".", 1)
        moments.setdefault(name, {})[key] = value
    optimised = _optimised(model, optimiser)
    optimiser.load_state_dict(
        {
            "state": {i: moments[n] for i, n in enumerate(optimised) if n in moments},
            "param_groups": optimiser.state_dict()["param_groups"],
        }
    )
    history = History(
        losses=state["losses"],
        held_out=[(int(step), value) for step, value in state["held_out"]],
        best_step=state["best_step"],
        stopped=state["stopped"],
        best=_under("best.", tensors),
    )
    return history, state["scaler"]


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the block is done, so that it never leaves half a step."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    caught: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: caught.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
    if caught and callable(before):
        before(*caught[0])


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


def _under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}


def _optimised(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, nn.Parameter]:
    """Return the optimiser's parameters by name, in its own order."""
    names = {id(p): n for n, p in model.named_parameters()}
    return {names[id(p)]: p for group in optimiser.param_groups for p in group["params"]}


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            found = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise FormatError(
            f"{path} cannot be read", str(error), "remove it to start the training anew"
        ) from error
    version = found.get("version", "")
    number = int(version) if version.isdigit() else None
    check_format(path, found.get("format"), number, FORMAT, VERSION)
    return json.loads(found["state"]), tensors


def _check_identity(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    wanted = json.loads(json.dumps(wanted))  # as the file would give it back
    different = [k for k in {**found, **wanted} if found.get(k) != wanted.get(k)]
    if different:
        told = ", ".join(f"{k} {found.get(k)} there, {wanted.get(k)} here" for k in different)
        raise InputError(
            f"{path} is the checkpoint of another training",
            told,
            ("remove it to start anew", "go on with what it was begun with"),
        )
