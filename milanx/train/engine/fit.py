"""The steps that all trainings share, on accelerate."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from milanx.errors import InputError
from milanx.files.replacing import remove_leftovers
from milanx.train.engine.checkpoint import (
    History,
    digest,
    read_checkpoint,
    restore,
    snapshot,
    uninterrupted,
    write_checkpoint,
)
from milanx.train.engine.schedule import FitSettings, learning_rate_at, make_optimiser
from milanx.train.engine.track import Tracker

# The loss of a batch: its mean, or its sum over tokens and how many these are (`share` says why).
Loss = torch.Tensor | tuple[torch.Tensor, torch.Tensor | float]
LossOf = Callable[[nn.Module, int], Loss]
HeldOut = Callable[[nn.Module], float | tuple[float, float]]


@dataclass(frozen=True)
class Record:
    """Where a training is written down.

    Attributes:
        checkpoint: a file, removed by the caller when it needs it no more. When it is there, and
            settings, seed, processes, precision and the model at its beginning are the same,
            training goes on from it (or is found finished); otherwise it is refused.
        tracker: told loss, learning rate, gradient norm and held-out values.
        advance: called after each step of this process with its number (from 0) and loss.
    """

    checkpoint: Path | None = None
    tracker: Tracker | None = None
    advance: Callable[[int, float], None] = lambda step, loss: None


@dataclass
class Fitted:
    """What a training gave.

    Attributes:
        losses: of each step, over all batches and processes of it.
        held_out: (steps done, held-out value) of each check.
        best_step: steps done at the lowest held-out value: the weights that the model now has.
            All steps when nothing was checked.
        stopped_early: it ended for want of progress.
    """

    losses: list[float]
    held_out: list[tuple[int, float]]
    best_step: int
    stopped_early: bool


def share(n: int, accelerator: Accelerator) -> slice:
    """Return which of a batch's ``n`` rows this process computes.

    The parts are contiguous, in the order of the processes, and differ by one row at most. All
    processes draw the same batch and each computes its part. The step then equals that of one
    process on the whole batch:

    - for a loss that is a mean: when ``n`` is a multiple of the processes and each row weighs the
      same, since the mean of equal parts' means is the mean of all;
    - for a loss given as (sum, weight), such as `milanx.train.engine.losses.text_sums`: always.
      `fit_model` divides the sum over all batches and processes of the step by the weight over
      all of them, so texts of unequal length count by their tokens wherever they were computed.
    """
    index, count = accelerator.process_index, accelerator.num_processes
    return slice(n * index // count, n * (index + 1) // count)


def fit_model(
    accelerator: Accelerator,
    model: nn.Module,
    loss_of: LossOf,
    settings: FitSettings,
    *,
    seed: int,
    held_out: HeldOut | None = None,
    record: Record | None = None,
) -> Fitted:
    """Train ``model`` with AdamW, a short warm-up and a cosine; go on from a checkpoint.

    Before each batch torch is seeded by (seed, batch, process), so that dropout is the same when
    a training is resumed, and no generator's state need be kept; the caller's generators are as
    they were afterwards. A resumed training gives the losses and weights of an undisturbed one,
    bit for bit on one machine with the same threads. Ctrl-C writes a checkpoint and goes on up.

    Args:
        accelerator: brings device, precision and processes, and is freed of what it prepared at
            the end. Its own accumulation must be 1: `FitSettings.accumulate` says how much.
        model: its parameters that require a gradient are trained, in place. It is left in eval
            mode, with the best weights when there were checks, else with the last.
        loss_of: the loss of a batch by its number (step * accumulate + i), which it draws from
            the seed and that number alone; `share` says how processes divide it.
        settings: steps, rates, checks.
        seed: of dropout.
        held_out: what training should make low, of the model in eval mode without gradients: a
            value, or (sum, weight), each over all processes as for the loss.
        record: checkpoint, tracker, and who is told of each step.

    Raises:
        InputError: settings that are wrong, a checkpoint of another training, or a loss that is
            no longer finite.
        FormatError: a checkpoint that cannot be read.
    """
    wrong = settings.errors()
    if settings.check_every and held_out is None:
        wrong.append("check_every needs something held out")
    if accelerator.gradient_accumulation_steps != 1:
        wrong.append("gradient_accumulation_steps of the accelerator must be 1")
    if wrong:
        raise InputError("these settings cannot be trained with", "; ".join(wrong))
    own_forward = "forward" in vars(model)
    cuda = [torch.cuda.current_device()] if accelerator.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        loop = _Loop(accelerator, model, loss_of, settings, seed, held_out, record or Record())
        try:
            loop.run()
        finally:
            accelerator.unwrap_model(loop.wrapped, keep_fp32_wrapper=False)
            if not own_forward:  # accelerate leaves one that is bound to this very model
                vars(model).pop("forward", None)
            accelerator.free_memory()
            model.eval()
    history = loop.history
    best = history.best_step if history.best else len(history.losses)
    return Fitted(history.losses, history.held_out, best, history.stopped)


class _Loop:
    """One training: what its steps share."""

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        loss_of: LossOf,
        settings: FitSettings,
        seed: int,
        held_out: HeldOut | None,
        record: Record,
    ) -> None:
        self.accelerator, self.model, self.loss_of = accelerator, model, loss_of
        self.settings, self.seed, self.held_out = settings, seed, held_out
        self.checkpoint, self.advance = record.checkpoint, record.advance
        self.tracker = record.tracker if accelerator.is_main_process else None
        self.identity = _identity(accelerator, model, settings, seed)
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.raw = make_optimiser(self.trained, settings, accelerator.device)
        self.wrapped, self.optimiser = accelerator.prepare(model, self.raw)
        if not settings.mixed:
            accelerator.unwrap_model(self.wrapped, keep_fp32_wrapper=False)
        self.history = History()
        self.saved = (-1, -1)  # steps and checks of the last checkpoint

    def run(self) -> None:
        """Train from where the checkpoint stands to the end."""
        self._resume()
        self.wrapped.train()
        settings, history = self.settings, self.history
        try:
            while True:
                step = len(history.losses)
                if self._check_is_due(step):
                    self._check(step)
                if step >= settings.steps or history.stopped:
                    break
                if settings.checkpoint_every and step and step % settings.checkpoint_every == 0:
                    self._save()
                self._step(step)
                self.advance(step, history.losses[-1])
        except KeyboardInterrupt:
            self._save()
            raise
        self._save()
        if history.best:
            restore(self.model, history.best)

    def _resume(self) -> None:
        if self.checkpoint is None:
            return
        if self.accelerator.is_main_process:
            remove_leftovers(self.checkpoint)
        self.accelerator.wait_for_everyone()
        if not self.checkpoint.exists():
            return
        self.history, scaler = read_checkpoint(self.checkpoint, self.identity, self.model, self.raw)
        if scaler and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(scaler)
        self.accelerator.wait_for_everyone()  # all have read before the main one writes
        self.saved = self._stands_at()

    def _save(self) -> None:
        """Write a checkpoint; the state is whole at any time but within `uninterrupted`."""
        if self.checkpoint is None or not self.accelerator.is_main_process:
            return
        if self.saved == self._stands_at():
            return
        scaler = self.accelerator.scaler
        write_checkpoint(
            self.checkpoint,
            self.identity,
            self.model,
            self.raw,
            self.history,
            None if scaler is None else scaler.state_dict(),
        )
        self.saved = self._stands_at()

    def _stands_at(self) -> tuple[int, int]:
        return len(self.history.losses), len(self.history.held_out)

    def _check_is_due(self, step: int) -> bool:
        every = self.settings.check_every
        if not every or not step or self.history.stopped:
            return False
        checked = self.history.held_out[-1][0] if self.history.held_out else 0
        return checked < step and (step % every == 0 or step == self.settings.steps)

    def _check(self, step: int) -> None:
        """Compute the held-out value; keep the weights if it is the best, or stop."""
        assert self.held_out is not None
        self.wrapped.eval()
        self._seed(step, -1)
        with torch.no_grad():
            found = self.held_out(self.model)
        self.wrapped.train()
        total = self._reduced(*(found if isinstance(found, tuple) else (found, 1.0)))
        value = float(total[0] / total[1])
        history = self.history
        lowest = min((v for _, v in history.held_out if not math.isnan(v)), default=math.inf)
        with uninterrupted():
            history.held_out.append((step, value))
            if value < lowest:
                history.best_step, history.best = step, snapshot(self.model)
            since = sum(s > history.best_step for s, _ in history.held_out)
            history.stopped = 0 < self.settings.patience <= since
        if self.tracker:
            self.tracker.log({"held_out": value}, step)

    def _step(self, step: int) -> None:
        """Take one optimiser step, of all its batches, and note its loss."""
        started = time.perf_counter()
        loss = self._gradients(step)
        if not math.isfinite(loss):
            raise InputError(
                f"the loss is {loss} at step {step}",
                "training has diverged",
                "lower the learning rate, or train in another precision",
            )
        norm = None
        if self.settings.clip:
            norm = self.accelerator.clip_grad_norm_(self.trained, self.settings.clip)
        rate = learning_rate_at(step, self.settings)
        with uninterrupted():
            for group in self.raw.param_groups:
                group["lr"] = rate
            self.optimiser.step()
            self.history.losses.append(loss)
        self.optimiser.zero_grad()
        if self.tracker:
            values = {"loss": loss, "learning_rate": rate}
            if norm is not None:
                values["gradient_norm"] = float(norm)
            values["seconds"] = time.perf_counter() - started
            self.tracker.log(values, step + 1)

    def _gradients(self, step: int) -> float:
        """Leave the gradient of the step's loss in the parameters; return that loss.

        With s_i and w_i the sums and weights of all batches on all processes, the loss is
        sum(s_i) / sum(w_i). The whole weight is known only after the last batch, so sums are
        divided by the first batch's weight, which keeps them of a size that fp16 can hold, and
        the gradients are put right at the end. DDP takes the mean over processes, hence the
        factor of their number.
        """
        count, processes = self.settings.accumulate, self.accelerator.num_processes
        whole = first = torch.zeros(2, device=self.accelerator.device)
        for i in range(count):
            number = step * count + i
            self._seed(number, self.accelerator.process_index)
            last = i == count - 1
            with nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                with self.accelerator.autocast() if self.settings.mixed else nullcontext():
                    loss = self.loss_of(self.wrapped, number)
                total, weight = loss if isinstance(loss, tuple) else (loss, 1.0)
                sums = self._reduced(total.detach(), weight)
                if i == 0:
                    first = torch.where(sums[1] > 0, sums[1], 1.0)
                self.accelerator.backward(total / (first / processes))
            whole = sums if i == 0 else whole + sums
        if count > 1:
            gradients = [p.grad for p in self.trained if p.grad is not None]
            torch._foreach_mul_(gradients, first / whole[1])
        return float(whole[0] / whole[1])

    def _reduced(self, total: torch.Tensor | float, weight: torch.Tensor | float) -> torch.Tensor:
        """Return sum and weight [2] over all processes."""
        device = self.accelerator.device
        pair = torch.stack(
            [
                torch.as_tensor(total, dtype=torch.float32, device=device),
                torch.as_tensor(weight, dtype=torch.float32, device=device),
            ]
        )
        if self.accelerator.num_processes == 1:
            return pair
        return self.accelerator.reduce(pair, "sum")

    def _seed(self, number: int, process: int) -> None:
        entropy = np.random.SeedSequence([self.seed, number, process + 1])
        seed = int(entropy.generate_state(1, np.uint64)[0] >> np.uint64(1))
        if self.accelerator.device.type == "cpu":
            # torch.manual_seed notes the whole stack for a GPU that may come later: a millisecond.
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)


def _identity(
    accelerator: Accelerator, model: nn.Module, settings: FitSettings, seed: int
) -> dict[str, Any]:
    """Return what a training must share with another to go on from its checkpoint."""
    chosen = asdict(settings)
    del chosen["checkpoint_every"]
    return {
        **chosen,
        "seed": seed,
        "processes": accelerator.num_processes,
        "precision": accelerator.mixed_precision,
        "model": digest(model),
    }
