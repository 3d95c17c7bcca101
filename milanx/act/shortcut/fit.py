"""Training the network of an experiment: by accelerate, seeded, resumed where it stood.

Each batch is drawn from (seed, epoch) and each shift from (seed, step), so a training that was
stopped goes on as if nothing had happened: no generator's state is kept.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from milanx.act.shortcut.folder import Images
from milanx.act.shortcut.network import WIDTHS, SmallResNet, preprocess
from milanx.environment import join_processes
from milanx.errors import FormatError, InputError
from milanx.files import atomic_path, fingerprint
from milanx.progress import Reporter, Silent

if TYPE_CHECKING:
    from accelerate import Accelerator

FORMAT, VERSION = "milanx-shortcut-training", 1
WARM = 0.2  # share of the steps in which the learning rate rises; then half a cosine
BATCH = 250  # images of a forward pass without gradients


@dataclass(frozen=True)
class FitSettings:
    """How a network is trained.

    Attributes:
        epochs: passes over the training images.
        batch: images of a step.
        rate: highest learning rate, of SGD with Nesterov's momentum .9.
        decay: of weights.
        shift: pixels by which a batch is shifted at most; no mirror, since letters have none.
        seed: of first weights, order and shifts.
    """

    epochs: int = 12
    batch: int = 32
    rate: float = 0.1
    decay: float = 5e-4
    shift: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "rate"):
            if getattr(self, name) <= 0:
                raise InputError(f"no training with {name} {getattr(self, name)}",
                                 "it is above 0")  # fmt: skip
        if self.seed < 0:
            raise InputError(f"no seed {self.seed}", "a seed is 0 or more", "--seeds 10")


def learning_rate(step: int, steps: int, highest: float) -> float:
    """Return the learning rate of a step: up in a line, down in half a cosine."""
    at = step / steps
    if at < WARM:
        return highest * max(at / WARM, 1e-2)
    return highest * 0.5 * (1 + math.cos(math.pi * (at - WARM) / (1 - WARM)))


def fit(
    images: Images, classes: int, settings: FitSettings, path: Path,
    *, device: str = "cpu", progress: Reporter | None = None,
) -> SmallResNet:  # fmt: skip
    """Train a network, or read it where it was trained before.

    Args:
        images: to train on.
        classes: how many.
        settings: how.
        path: safetensors file that takes the state after each epoch, and the weights at the end.
        device: ``cpu``, ``cuda`` or ``mps``.
        progress: told about epochs.

    Returns:
        The network in evaluation mode, on the device.

    Raises:
        InputError: several processes, or a loss that is no number.
        FormatError: ``path`` is of another training.
    """
    from accelerate import Accelerator

    join_processes(cpu=device == "cpu")
    accelerator = Accelerator(cpu=device == "cpu")
    if accelerator.num_processes > 1:
        raise InputError(
            "the experiment runs in one process", f"there are {accelerator.num_processes}",
            "start it without accelerate launch; a network takes a minute",
        )  # fmt: skip
    bare = _new(classes, images.views.shape[-1], settings.seed).to(accelerator.device)
    optimiser: torch.optim.Optimizer = torch.optim.SGD(
        bare.parameters(), settings.rate, 0.9, weight_decay=settings.decay, nesterov=True
    )
    digest = _digest(images, classes, settings)
    done = _read(path, digest, bare, optimiser) if path.exists() else 0
    model, optimiser = accelerator.prepare(bare, optimiser)
    with (progress or Silent()).stage("train", settings.epochs) as bar:
        bar.at(done, settings.epochs)
        for epoch in range(done, settings.epochs):
            _epoch(accelerator, model, optimiser, images, settings, epoch)
            _write(path, digest, epoch + 1, bare, optimiser)
            bar.at(epoch + 1, settings.epochs)
    return bare.eval()


def _new(classes: int, side: int, seed: int) -> SmallResNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SmallResNet(classes, side).to(memory_format=torch.channels_last)


def _epoch(
    accelerator: Accelerator, model: nn.Module, optimiser: torch.optim.Optimizer, images: Images,
    settings: FitSettings, epoch: int,
) -> None:  # fmt: skip
    model.train()
    order = torch.randperm(len(images), generator=_generator(settings.seed, 0, epoch))
    batches = [b for b in order.split(settings.batch) if len(b) > 1] or [order]
    for number, batch in enumerate(batches):
        step = epoch * len(batches) + number
        rate = learning_rate(step, settings.epochs * len(batches), settings.rate)
        for group in optimiser.param_groups:
            group["lr"] = rate
        views = _shifted(images.views[batch], settings.shift, _generator(settings.seed, 1, step))
        inputs = model_inputs(images.views.shape[-1], views.to(accelerator.device))
        loss = F.cross_entropy(model(inputs), images.labels[batch].to(accelerator.device))
        if not math.isfinite(loss.item()):
            raise InputError(f"the loss of step {step} is no number", "the training diverged",
                             f"a lower rate than {settings.rate}")  # fmt: skip
        optimiser.zero_grad()
        accelerator.backward(loss)
        optimiser.step()


def _generator(seed: int, what: int, number: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(fingerprint(seed, what, number)[:12], 16))


def _shifted(views: torch.Tensor, by: int, generator: torch.Generator) -> torch.Tensor:
    """Shift a batch uint8 [b, 3, H, W]; what comes in at an edge is mirrored."""
    if not by:
        return views
    down, across = torch.randint(0, 2 * by + 1, (2,), generator=generator).tolist()
    padded = F.pad(views.float(), (by,) * 4, mode="reflect").to(torch.uint8)
    return padded[..., down : down + views.shape[2], across : across + views.shape[3]]


def model_inputs(side: int, views: torch.Tensor) -> torch.Tensor:
    """Turn views uint8 [b, 3, side, side] into what the network takes, channels last."""
    return preprocess(side).normalise(views).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def predict(model: nn.Module, views: torch.Tensor) -> torch.Tensor:
    """Return the predicted class int64 [n] of views uint8 [n, 3, H, W]."""
    device = next(model.parameters()).device
    parts = [model(model_inputs(views.shape[-1], part.to(device))).argmax(1).cpu()
             for part in views.split(BATCH)]  # fmt: skip
    return torch.cat(parts)


def _digest(images: Images, classes: int, settings: FitSettings) -> str:
    import hashlib

    data = hashlib.sha256(images.views.contiguous().numpy().tobytes())
    data.update(images.labels.numpy().tobytes())
    return fingerprint(data.hexdigest(), classes, WIDTHS, asdict(settings))


def _write(
    path: Path, digest: str, epochs: int, model: nn.Module, optimiser: torch.optim.Optimizer
) -> None:
    """Write weights and momentum, in one step."""
    from safetensors.torch import save_file

    tensors = {f"model.{n}": t.detach().cpu() for n, t in model.state_dict().items()}
    state = optimiser.state
    tensors |= {f"momentum.{n}": state[p]["momentum_buffer"].cpu()
                for n, p in model.named_parameters()}  # fmt: skip
    metadata = {"format": FORMAT, "version": str(VERSION), "epochs": str(epochs), "digest": digest}
    with atomic_path(path) as temporary:
        save_file({n: t.contiguous() for n, t in tensors.items()}, temporary, metadata)


def _read(path: Path, digest: str, model: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Put weights and momentum back; returns the epochs that are done.

    Raises:
        FormatError: the file is damaged or of another training.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{path} cannot be read", str(error), f"remove {path}") from error
    if metadata.get("digest") != digest or metadata.get("format") != FORMAT:
        raise FormatError(
            f"{path} is of another training", "the images or the settings are others",
            "choose another output folder, or remove the file",
        )  # fmt: skip
    model.load_state_dict({n.removeprefix("model."): t for n, t in tensors.items()
                           if n.startswith("model.")})  # fmt: skip
    for name, parameter in model.named_parameters():
        momentum = tensors[f"momentum.{name}"].to(parameter)
        optimiser.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(momentum)
    return int(metadata["epochs"])
