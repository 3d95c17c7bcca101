"""Trainings in processes of their own: to be killed, and to be two under accelerate's launcher."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import nn

from milanx.train.engine.fit import Fitted, Record, fit_model, share
from milanx.train.engine.losses import text_sums
from milanx.train.engine.schedule import FitSettings

KILLED = FitSettings(
    steps=60,
    learning_rate=1e-2,
    accumulate=2,
    check_every=5,
    checkpoint_every=3,
)


def network(seed: int = 0, dropout: float = 0.2) -> nn.Module:
    """A regression network with dropout, and with buffers that training changes."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(6, 24), nn.BatchNorm1d(24), nn.Tanh(), nn.Dropout(dropout), nn.Linear(24, 1)
    )


def batch(number: int, n: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng([7, number])
    x = torch.from_numpy(rng.normal(size=(n, 6)).astype(np.float32))
    return x, torch.sin(x.sum(1, keepdim=True))


def regression(model: nn.Module, number: int) -> torch.Tensor:
    x, y = batch(number)
    return (model(x) - y).pow(2).mean()


def regression_held_out(model: nn.Module) -> float:
    x, y = batch(10**6, 64)
    return float((model(x) - y).pow(2).mean())


def write_result(folder: Path, model: nn.Module, fitted: Fitted) -> None:
    save_file(model.state_dict(), folder / "weights.safetensors")
    (folder / "fitted.tmp").write_text(json.dumps(vars(fitted)))
    (folder / "fitted.tmp").replace(folder / "fitted.json")  # whole or not there


def life(folder: Path, slow: float = 0.0) -> None:
    """Train by `KILLED` from wherever the checkpoint stands, and write what came of it.

    Args:
        folder: of checkpoint and result.
        slow: seconds that each batch takes longer, so that there is time to be killed.
    """
    torch.set_num_threads(1)

    def loss_of(model: nn.Module, number: int) -> torch.Tensor:
        time.sleep(slow)
        return regression(model, number)

    def advance(step: int, loss: float) -> None:
        with (folder / "steps.txt").open("a") as file:
            file.write(f"{step}\n")

    model = network()
    fitted = fit_model(
        Accelerator(cpu=True),
        model,
        loss_of,
        KILLED,
        seed=3,
        record=Record(folder / "checkpoint.safetensors", advance=advance),
        held_out=regression_held_out,
    )
    write_result(folder, model, fitted)


def texts(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Seven texts [7, 9] that count upwards, of very unequal lengths, and their mask."""
    rng = np.random.default_rng([11, number])
    ids = torch.from_numpy(rng.integers(0, 40, (7, 1))) + torch.arange(1, 10)
    lengths = torch.tensor([9, 9, 8, 2, 1, 1, 2])
    return ids, torch.arange(9) < lengths[:, None]


@dataclass
class Output:
    logits: torch.Tensor


class Bigrams(nn.Module):
    """A language model that sees the last token alone: small, and quick to begin."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Embedding(50, 32), nn.Linear(32, 32), nn.Tanh())
        self.head = nn.Linear(32, 50)

    def forward(self, input_ids: torch.Tensor) -> Output:
        return Output(self.head(self.layers(input_ids)))


def language_model() -> nn.Module:
    torch.manual_seed(0)
    return Bigrams()


def together(folder: Path) -> None:
    """Train on texts of unequal length, then once more on, with as many processes as there are."""
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)

    def loss_of(model: nn.Module, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        ids, mask = texts(number)
        part = share(len(ids), accelerator)
        return text_sums(model, ids[part], mask[part], 0)

    def held_out(model: nn.Module) -> tuple[float, float]:
        ids, mask = texts(10**6)
        part = share(len(ids), accelerator)
        total, weight = text_sums(model, ids[part], mask[part], 0)
        return float(total), float(weight)

    model = language_model()
    settings = FitSettings(12, 1e-2, accumulate=2, check_every=4, checkpoint_every=5)
    path = folder / "checkpoint.safetensors"
    fit_model(accelerator, model, loss_of, settings, seed=0, record=Record(path), held_out=held_out)
    fitted = fit_model(  # from the finished checkpoint, on a model of its own
        accelerator,
        model := language_model(),
        loss_of,
        settings,
        seed=0,
        record=Record(path),
        held_out=held_out,
    )
    if accelerator.is_main_process:
        (folder / "processes.txt").write_text(str(accelerator.num_processes))
        write_result(folder, model, fitted)
    accelerator.end_training()


if __name__ == "__main__":
    together(Path(sys.argv[1]))
