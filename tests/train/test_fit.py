"""The training loop: exact after a kill, the same on two processes, the best weights at the end."""

import dataclasses
import json
import math
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from safetensors.torch import load_file
from torch import nn

from milanx.errors import FormatError, InputError
from milanx.language.gpt2 import build_gpt2
from milanx.progress import Silent, SilentStage
from milanx.train.engine.fit import Fitted, Record, fit_model, share
from milanx.train.engine.losses import prefix_sums, text_sums
from milanx.train.engine.schedule import FitSettings, learning_rate_at, small_network
from milanx.train.engine.track import (
    PACKAGES,
    JsonLines,
    Pace,
    check_tracker,
    clock_text,
    open_tracker,
)
from tests.train import fit_worker
from tests.train.fit_worker import (
    KILLED,
    language_model,
    network,
    regression,
    regression_held_out,
    texts,
)
from tests.train.tiny import launch

WORKER = Path(fit_worker.__file__)
QUICK = FitSettings(steps=12, learning_rate=1e-2)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small gain nothing from two, and wait for one another on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


def same(one: nn.Module, two: nn.Module) -> bool:
    other = two.state_dict()
    return all(torch.equal(tensor, other[name]) for name, tensor in one.state_dict().items())


def mean_loss(sums: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return sums[0] / sums[1]


def learned(losses: list[float]) -> bool:
    return sum(losses[-3:]) < sum(losses[:3])


# ------------------------------------------------------------------ what a step computes


def test_without_dropout_it_is_the_plain_loop(accelerator: Accelerator) -> None:
    model, plain = network(dropout=0), network(dropout=0)
    settings = FitSettings(steps=20, learning_rate=1e-2, clip=0.1, weight_decay=0.1)
    fitted = fit_model(accelerator, model, regression, settings, seed=0)
    optimiser = torch.optim.AdamW(plain.parameters(), 1e-2, (0.9, 0.98), weight_decay=0.1)
    losses = []
    for step in range(20):
        optimiser.param_groups[0]["lr"] = learning_rate_at(step, settings)
        loss = regression(plain.train(), step)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.1)
        optimiser.step()
        losses.append(float(loss.detach()))
    assert fitted.losses == losses
    assert same(model, plain)
    assert (fitted.best_step, fitted.stopped_early, fitted.held_out) == (20, False, [])
    assert not model.training


def test_learning_rate_rises_and_falls() -> None:
    settings = FitSettings(steps=100, learning_rate=2.0, warmup=0.1)
    rates = [learning_rate_at(step, settings) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == rates[9] == rates[10] == pytest.approx(2.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0.04 < rates[-1] < 0.05


def test_one_schedule_is_that_of_every_network() -> None:
    """The plain formulas that language models, critic and projection were trained by."""
    language = FitSettings(90, 3e-3)
    network, probe = small_network(90, 3e-3, warmup=20), small_network(90, 3e-3, warmup=0, floor=1)
    for step in range(90):
        cosine = 0.5 * (1 + math.cos(math.pi * step / 90))
        expected = 3e-3 * cosine * min(1, (step + 1) / 20)
        assert learning_rate_at(step, network) == pytest.approx(expected, rel=1e-12)
        after = 0.5 * (1 + math.cos(math.pi * (step - 4) / 87))
        expected = 3e-3 * ((step + 1) / 4 if step < 4 else 0.02 + 0.98 * after)
        assert learning_rate_at(step, language) == pytest.approx(expected, rel=1e-12)
        assert learning_rate_at(step, probe) == 3e-3
    short = [learning_rate_at(step, FitSettings(3, 1.0, warmup=9)) for step in range(3)]
    assert short == pytest.approx([1 / 9, 2 / 9, 3 / 9])  # a rise that the steps do not end


def test_accumulated_batches_are_one_large_batch(accelerator: Accelerator) -> None:
    """Also where batches weigh differently: texts of unequal length, cut at unequal places."""
    cuts = [slice(0, 3), slice(3, 4), slice(4, 7)]

    def part(model: nn.Module, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        ids, mask = texts(number // 3)
        rows = cuts[number % 3]
        return text_sums(model, ids[rows], mask[rows], 0)

    def whole(model: nn.Module, number: int) -> torch.Tensor:
        return mean_loss(text_sums(model, *texts(number), 0))

    one, three = language_model(), language_model()
    settings = FitSettings(steps=10, learning_rate=1e-2)
    expected = fit_model(accelerator, one, whole, settings, seed=0).losses
    found = fit_model(
        accelerator, three, part, dataclasses.replace(settings, accumulate=3), seed=0
    ).losses
    assert found == pytest.approx(expected, rel=1e-5)
    assert learned(expected)
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(three.state_dict()[name], tensor, rtol=1e-3, atol=1e-4)


def test_mean_losses_are_averaged_over_batches(accelerator: Accelerator) -> None:
    weight = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(weight.weight)
    settings = FitSettings(1, 0.1, accumulate=4, clip=0, weight_decay=0)
    seen: list[int] = []

    def loss_of(model: nn.Module, number: int) -> torch.Tensor:
        seen.append(number)
        return model(torch.ones(1, 1)).sum() + number

    assert fit_model(accelerator, weight, loss_of, settings, seed=0).losses == [1.5]
    assert seen == [0, 1, 2, 3]


def test_sums_of_texts_equal_the_plain_version() -> None:
    torch.manual_seed(0)
    model = build_gpt2(50, layers=1, width=32, heads=2, positions=16).eval()
    ids, mask = texts(0)
    prefix = torch.randn(7, 2, 32)
    alone, behind = text_sums(model, ids, mask, 0), prefix_sums(model, prefix, ids, mask, 0)
    for before, (total, tokens) in ((None, alone), (prefix, behind)):
        assert int(tokens) == 32
        expected = 0.0
        for row, length in enumerate(mask.sum(1).tolist()):
            for t in range(length):
                seen = torch.tensor([[0, *ids[row, :t].tolist()]])
                inputs = model.get_input_embeddings()(seen)
                if before is not None:
                    inputs = torch.cat([before[row : row + 1], inputs], 1)
                chance = model(inputs_embeds=inputs).logits[0, -1].log_softmax(0)
                expected -= float(chance[ids[row, t]].detach())
        assert float(total.detach()) == pytest.approx(expected, rel=1e-5)
    # What makes sums necessary: the mean of two parts' means is not the mean of all.
    cuts = slice(0, 3), slice(3, 7)
    halves = [mean_loss(text_sums(model, ids[rows], mask[rows], 0)) for rows in cuts]
    apart = (halves[0] + halves[1]) / 2 - mean_loss(text_sums(model, ids, mask, 0))
    assert abs(float(apart.detach())) > 1e-3


def test_bf16_trains_and_leaves_a_plain_model(accelerator: Accelerator) -> None:
    def plain(wrapped: nn.Module, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        return text_sums(wrapped, *texts(number), 0)

    settings = FitSettings(steps=12, learning_rate=1e-2)
    exact = fit_model(accelerator, language_model(), plain, settings, seed=0).losses
    assert learned(exact)
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        model = language_model()
        dtypes = set()

        def loss_of(wrapped: nn.Module, number: int) -> tuple[torch.Tensor, torch.Tensor]:
            product = torch.ones(2, 2) @ torch.ones(2, 2)
            dtypes.add(product.dtype)
            return plain(wrapped, number)

        mixed = Accelerator(cpu=True, mixed_precision="bf16")
        losses = fit_model(mixed, model, loss_of, settings, seed=0).losses
        assert dtypes == {torch.bfloat16}
        assert losses != exact
        assert losses == pytest.approx(exact, rel=0.02)  # bfloat16 has 8 bits
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert model(input_ids=texts(0)[0]).logits.dtype == torch.float32
        assert "forward" not in vars(model)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def test_small_networks_are_in_float32_at_any_precision(accelerator: Accelerator) -> None:
    settings = small_network(12, 1e-2, warmup=3)
    expected = fit_model(accelerator, network(), regression, settings, seed=0).losses
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        model = network()
        mixed = Accelerator(cpu=True, mixed_precision="bf16")
        assert fit_model(mixed, model, regression, settings, seed=0).losses == expected
        assert "forward" not in vars(model)
        half = dataclasses.replace(settings, mixed=True)
        assert fit_model(mixed, network(), regression, half, seed=0).losses != expected
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def test_dropout_follows_the_seed_and_the_caller_keeps_its_own(accelerator: Accelerator) -> None:
    def losses(seed: int, burn: int) -> list[float]:
        model = network(dropout=0.5)
        torch.rand(burn)
        before = torch.get_rng_state()
        found = fit_model(accelerator, model, regression, QUICK, seed=seed).losses
        assert torch.equal(before, torch.get_rng_state())
        return found

    assert losses(1, 0) == losses(1, 5) != losses(2, 0)


# ------------------------------------------------------------------ resume


def resumed_after(kind: type[BaseException], step: int, folder: Path) -> None:
    """Train by `KILLED`, ended by an exception after ``step`` steps, then to the end."""
    told: list[int] = []

    def advance(done: int, loss: float) -> None:
        told.append(done)
        if done + 1 == step and told.count(done) == 1 and not resumed:
            raise kind

    resumed = False

    def train(model: nn.Module) -> Fitted:
        return fit_model(
            Accelerator(cpu=True),
            model,
            regression,
            KILLED,
            seed=3,
            record=Record(folder / "checkpoint.safetensors", advance=advance),
            held_out=regression_held_out,
        )

    with pytest.raises(kind):
        train(network())
    resumed, last = True, told[-1]
    model = network()
    fitted = train(model)
    assert told[told.index(last) + 1] == (step if kind is KeyboardInterrupt else step // 3 * 3)
    fit_worker.write_result(folder, model, fitted)


def undisturbed() -> tuple[dict, dict[str, torch.Tensor]]:
    model = network()
    fitted = fit_model(
        Accelerator(cpu=True), model, regression, KILLED, seed=3, held_out=regression_held_out
    )
    return json.loads(json.dumps(vars(fitted))), model.state_dict()


def assert_same_result(folder: Path, expected: tuple[dict, dict[str, torch.Tensor]]) -> None:
    assert json.loads((folder / "fitted.json").read_text()) == expected[0]
    found = load_file(folder / "weights.safetensors")
    assert found.keys() == expected[1].keys()
    for name, tensor in expected[1].items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("step", [1, 5, 31])
def test_ctrl_c_keeps_every_step_and_a_crash_those_of_the_checkpoint(
    step: int, tmp_path: Path
) -> None:
    expected = undisturbed()
    for kind in (KeyboardInterrupt, OSError):
        folder = tmp_path / kind.__name__
        folder.mkdir()
        resumed_after(kind, step, folder)
        assert_same_result(folder, expected)


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_killed_at_random_moments(tmp_path: Path) -> None:
    """SIGKILL, again and again; losses, checks and weights are those of an undisturbed life."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.train.fit_worker", "torch._dynamo"])
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    calm.mkdir()
    killed.mkdir()
    first = context.Process(target=fit_worker.life, args=(calm,))
    first.start()
    first.join()
    assert first.exitcode == 0
    rng = random.Random(os.urandom(8))
    kills = 0
    steps = killed / "steps.txt"
    while not (killed / "fitted.json").exists():
        enough = lines(steps) + rng.randint(1, 12)
        process = context.Process(target=fit_worker.life, args=(killed, 0.005))
        process.start()
        while process.is_alive() and lines(steps) < enough:
            time.sleep(0.002)
        process.join(rng.uniform(0, 0.02))  # somewhere in a step, or in writing a checkpoint
        if process.is_alive():
            process.kill()
            process.join()
            assert process.exitcode == -signal.SIGKILL
            kills += 1
        else:
            assert process.exitcode == 0
    assert kills >= 2
    done = [int(line) for line in steps.read_text().split()]
    assert len(done) > KILLED.steps, "nothing had to be done twice: no kill hit a step"
    assert done.count(0) < kills, "no life went on from a checkpoint"
    expected = json.loads((calm / "fitted.json").read_text())
    assert_same_result(killed, (expected, load_file(calm / "weights.safetensors")))
    left = {path.name for path in killed.iterdir()}
    assert left == {"checkpoint.safetensors", "fitted.json", "steps.txt", "weights.safetensors"}


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C raises, also where tests run in the background and a shell told them to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_a_real_ctrl_c_during_the_update_waits_for_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = torch.optim.AdamW.step
    calls = []

    def interrupted(self: torch.optim.AdamW, *args: object, **kwargs: object) -> object:
        calls.append(0)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", interrupted)
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit_model(Accelerator(cpu=True), network(), regression, QUICK, seed=0, record=Record(path))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    monkeypatch.undo()
    model, calm, told = network(), network(), []
    fitted = fit_model(
        Accelerator(cpu=True),
        model,
        regression,
        QUICK,
        seed=0,
        record=Record(path, advance=lambda step, loss: told.append(step)),
    )
    assert told[0] == 4
    assert fitted == fit_model(Accelerator(cpu=True), calm, regression, QUICK, seed=0)
    assert same(model, calm)


def test_a_finished_training_is_not_repeated(accelerator: Accelerator, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    model, again = network(), network()
    fitted = fit_model(accelerator, model, regression, QUICK, seed=0, record=Record(path))
    written = path.stat().st_mtime_ns

    def never(model: nn.Module, number: int) -> torch.Tensor:
        raise AssertionError("a batch was drawn")

    assert fit_model(accelerator, again, never, QUICK, seed=0, record=Record(path)) == fitted
    assert same(model, again)
    assert path.stat().st_mtime_ns == written


def test_another_trainings_checkpoint_is_refused(accelerator: Accelerator, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    fit_model(accelerator, network(), regression, QUICK, seed=0, record=Record(path))

    def refused(model: nn.Module, settings: FitSettings, seed: int) -> str:
        before = path.read_bytes()
        with pytest.raises(InputError, match="checkpoint of another training") as caught:
            fit_model(accelerator, model, regression, settings, seed=seed, record=Record(path))
        assert path.read_bytes() == before
        return caught.value.why

    assert refused(network(), QUICK, 1) == "seed 0 there, 1 here"
    longer = dataclasses.replace(QUICK, steps=20)
    assert refused(network(), longer, 0) == "steps 12 there, 20 here"
    assert "model" in refused(network(seed=1), QUICK, 0)
    frozen = network()
    frozen.get_submodule("0").requires_grad_(False)
    assert "model" in refused(frozen, QUICK, 0)
    oftener = dataclasses.replace(QUICK, checkpoint_every=1)
    fit_model(accelerator, network(), regression, oftener, seed=0, record=Record(path))

    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FormatError, match="cannot be read"):
        fit_model(accelerator, network(), regression, QUICK, seed=0, record=Record(path))


# ------------------------------------------------------------------ early stopping


def rising(model: nn.Module, number: int) -> torch.Tensor:
    """Pulls the weight of `one_weight` upwards for ever."""
    return -model(torch.ones(1, 1)).sum()


def one_weight() -> nn.Linear:
    weight = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(weight.weight)
    return weight


def far_from_a_half(model: nn.Module) -> float:
    assert not model.training
    assert not torch.is_grad_enabled()
    return abs(float(model(torch.ones(1, 1))) - 0.5)


def test_the_best_weights_are_restored_not_the_last(accelerator: Accelerator) -> None:
    settings = FitSettings(40, 0.1, weight_decay=0, check_every=1)
    seen: dict[int, float] = {}
    model = one_weight()

    def held_out(checked: nn.Module) -> float:
        seen[len(seen) + 1] = float(model.weight.detach())
        return far_from_a_half(checked)

    fitted = fit_model(accelerator, model, rising, settings, seed=0, held_out=held_out)
    values = dict(fitted.held_out)
    assert list(values) == list(range(1, 41))
    assert fitted.best_step == min(values, key=values.__getitem__) < 20
    assert float(model.weight.detach()) == seen[fitted.best_step] != seen[40]
    assert far_from_a_half_of(model) < 0.06 < values[40]
    assert not fitted.stopped_early


def far_from_a_half_of(model: nn.Linear) -> float:
    return abs(float(model.weight.detach()) - 0.5)


def test_it_stops_when_patience_is_over(accelerator: Accelerator, tmp_path: Path) -> None:
    settings = FitSettings(40, 0.1, weight_decay=0, check_every=2, patience=3)
    path = tmp_path / "checkpoint.safetensors"
    model, again = one_weight(), one_weight()
    fitted = fit_model(
        accelerator, model, rising, settings, seed=0, held_out=far_from_a_half, record=Record(path)
    )
    assert fitted.stopped_early
    assert len(fitted.losses) == fitted.best_step + 6 < 40
    assert fitted.held_out[-1][0] == len(fitted.losses)
    assert far_from_a_half_of(model) < 0.11
    assert fit_model(
        accelerator, again, rising, settings, seed=0, held_out=far_from_a_half, record=Record(path)
    ) == fitted  # fmt: skip
    assert same(model, again)


def test_the_last_step_is_checked_and_nan_is_never_best(accelerator: Accelerator) -> None:
    found = iter([2.0, float("nan"), 3.0])
    settings = FitSettings(5, 0.1, check_every=2)
    fitted = fit_model(
        accelerator, one_weight(), rising, settings, seed=0, held_out=lambda model: next(found)
    )
    assert [step for step, _ in fitted.held_out] == [2, 4, 5]
    assert fitted.best_step == 2


def test_what_cannot_be_trained_is_said_at_once(accelerator: Accelerator) -> None:
    settings = FitSettings(0, -1.0, warmup=-1.0, optimiser="sgd", patience=2, accumulate=0, floor=2)
    with pytest.raises(InputError) as caught:
        fit_model(accelerator, one_weight(), rising, settings, seed=0)
    for part in ("steps", "learning_rate", "warmup", "optimiser", "patience needs", "accumulate",
                 "floor"):  # fmt: skip
        assert part in caught.value.why
    with pytest.raises(InputError, match="needs something held out"):
        fit_model(accelerator, one_weight(), rising, FitSettings(1, 1.0, check_every=1), seed=0)


def test_a_loss_that_is_not_finite_ends_it_and_spares_the_checkpoint(
    accelerator: Accelerator, tmp_path: Path
) -> None:
    def diverging(model: nn.Module, number: int) -> torch.Tensor:
        return rising(model, number) * (float("nan") if number == 7 else 1)

    path = tmp_path / "checkpoint.safetensors"
    settings = FitSettings(12, 0.1, checkpoint_every=2)
    with pytest.raises(InputError, match="loss is nan at step 7"):
        fit_model(accelerator, one_weight(), diverging, settings, seed=0, record=Record(path))
    assert all(t.isfinite().all() for t in load_file(path).values())


# ------------------------------------------------------------------ processes


def test_shares_cover_a_batch_once() -> None:
    class Place:
        num_processes = 3
        process_index = 0

    for n in (3, 7, 9):
        parts = []
        for index in range(3):
            Place.process_index = index
            parts.append(list(range(n))[share(n, Place)])  # type: ignore[arg-type]
        assert [row for part in parts for row in part] == list(range(n))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_two_processes_give_one_processs_curve(tmp_path: Path) -> None:
    alone, both = tmp_path / "1", tmp_path / "2"
    alone.mkdir()
    both.mkdir()
    fit_worker.together(alone)
    launch(WORKER, both)
    results = []
    for folder in (alone, both):
        fitted = json.loads((folder / "fitted.json").read_text())
        results.append((fitted, load_file(folder / "weights.safetensors")))
    assert [(f / "processes.txt").read_text() for f in (alone, both)] == ["1", "2"]
    (one, weights), (two, others) = results
    assert len(two["losses"]) == 12
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-5)
    assert learned(two["losses"])
    assert [s for s, _ in two["held_out"]] == [4, 8, 12]
    assert [v for _, v in two["held_out"]] == pytest.approx([v for _, v in one["held_out"]], 1e-4)
    for name, tensor in weights.items():
        torch.testing.assert_close(others[name], tensor, rtol=1e-3, atol=1e-4)


# ------------------------------------------------------------------ trackers and pace


def test_json_lines_go_on_after_a_resume(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    settings = FitSettings(9, 0.1, check_every=3, checkpoint_every=2)
    for ended in (True, False):
        tracker = open_tracker("jsonl", tmp_path, "small")

        def advance(step: int, loss: float, ended: bool = ended) -> None:
            if ended and step == 6:
                raise OSError

        try:
            fit_model(Accelerator(cpu=True), one_weight(), rising, settings, seed=0,
                      held_out=far_from_a_half,
                      record=Record(path, tracker, advance))  # fmt: skip
        except OSError:
            assert ended
            with (tmp_path / "small.jsonl").open("a") as file:
                file.write('{"step": 1, "half')
        tracker.finish()
    lines = [json.loads(line) for line in (tmp_path / "small.jsonl").read_text().splitlines()]
    losses = [line for line in lines if "loss" in line]
    assert [line["step"] for line in losses] == list(range(1, 10))
    assert [line["step"] for line in lines if "held_out" in line] == [3, 6, 9]
    assert losses[0].keys() == {"step", "loss", "learning_rate", "gradient_norm", "seconds"}
    assert losses[0]["loss"] == 0.0


@pytest.mark.parametrize("name", ["tensorboard", "trackio", "wandb"])
def test_trackers_of_other_packages(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in PACKAGES[name]:
        monkeypatch.setitem(sys.modules, package, None)  # as Python marks what cannot be had
    with pytest.raises(InputError, match=f"pip install {name}") as caught:
        open_tracker(name, tmp_path)
    assert caught.value.why == f"the package {name} is not installed"


def test_tensorboard_writes_events(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    PartialState()
    tracker = open_tracker("tensorboard", tmp_path, "small", {"decoder": {"steps": 3}})
    tracker.log({"loss": 1.0}, 1)
    tracker.finish()
    assert list((tmp_path / "small").rglob("events.*"))


def test_unknown_tracker() -> None:
    with pytest.raises(InputError, match="did you mean tensorboard"):
        check_tracker("tensorbord")


def test_lines_that_are_not_ours_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text('{"step": 1, "loss": 3}\n[]\n{"step": 2, "loss": 2}\n{"step": 5}\n')
    tracker = JsonLines(path)
    tracker.log({"loss": 1.0}, 3)
    tracker.finish()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]


def test_pace_says_rate_and_remaining_time() -> None:
    class Stage(SilentStage):
        placed: tuple[int, int | None] = (0, None)

        def at(self, done: int, total: int | None = None) -> None:
            self.placed = (done, total)

    class Reporter(Silent):
        def __init__(self) -> None:
            self.lines: list[str] = []

        def say(self, text: str) -> None:
            self.lines.append(text)

    now = [0.0]
    stage, reporter = Stage(), Reporter()
    pace = Pace(1000, stage, reporter, clock=lambda: now[0])
    for step in range(500, 600):  # resumed at 500; half a second a step
        now[0] += 0.5
        pace(step, 2.0)
    assert stage.placed == (600, 1000)
    assert reporter.lines == ["step 560 of 1000: loss 2.000, 2 steps/s, 3:40 min left"]
    assert [clock_text(s) for s in (5, 65, 7620)] == ["5 s", "1:05 min", "2:07 h"]
