"""Threads of whole steps: results in order, faults told, torch left as it was."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from milanx import workers as under
from milanx.workers import ALONE, processors, workers

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def three_threads() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_steps_run_beside_one_another_and_come_in_order() -> None:
    meet = threading.Barrier(3, timeout=30)

    def step(number: int) -> tuple[int, int, bool]:
        meet.wait()  # none comes by unless three are there
        return number, torch.get_num_threads(), torch.is_inference_mode_enabled()

    with torch.inference_mode(), workers(CPU) as shared:
        found = list(shared.map(step, range(6)))
    assert found == [(number, 1, True) for number in range(6)]
    assert torch.get_num_threads() == 3


def test_one_thread_or_another_device_computes_in_the_thread_that_asks() -> None:
    here = threading.get_ident()
    with workers(torch.device("meta")) as shared:
        assert shared is ALONE and torch.get_num_threads() == 3
        assert set(shared.map(lambda _: threading.get_ident(), range(4))) == {here}
    torch.set_num_threads(1)
    with workers(CPU) as shared:
        assert shared is ALONE


def test_what_a_step_raises_is_raised_and_the_rest_is_not_begun() -> None:
    begun, go = [], threading.Event()

    def step(number: int) -> None:
        begun.append(number)
        if number == 0:
            raise ValueError("of step 0")
        go.wait(30)

    with pytest.raises(ValueError, match="of step 0"), workers(CPU) as shared:
        try:
            list(shared.map(step, range(100)))
        finally:
            go.set()
    assert len(begun) < 100
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize(
    ("told", "count"), [("max 100000", 64), ("150000 100000", 1), ("400000 100000", 4), ("?", 64)]
)
def test_a_quota_of_the_group_is_heeded(
    told: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(told + "\n")
    monkeypatch.setattr(under, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(under.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert processors() == count
