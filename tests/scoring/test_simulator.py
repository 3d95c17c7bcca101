"""Where a simulator computes, and that it is back afterwards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn

from milanx.scoring.simulator import CPU, Simulating, Simulator, Where

VIEWS = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8,
                      generator=torch.Generator().manual_seed(0))  # fmt: skip


class Linear(Simulator):
    """One matrix for pictures; it notes where and as what it computes."""

    name, shared, features_key, fingerprint = "linear", (), "linear", "linear"

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.tower = None
        self.image = nn.Linear(192, 6).requires_grad_(False)
        self.seen: list[tuple[torch.device, torch.dtype]] = []

    def models(self) -> Sequence[nn.Module]:
        return (self.image,)

    def features(self, views: torch.Tensor) -> torch.Tensor:
        made = self.image(views.flatten(1).to(self.device) / 255)
        self.seen.append((self.image.weight.device, made.dtype))
        return made

    def project(self, features: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(features, dim=-1)

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        return nn.functional.normalize(torch.ones(len(texts), 6, device=self.device), dim=-1)


def test_it_computes_as_it_is_told_and_is_back_afterwards() -> None:
    judge = Linear()
    whole = judge.encode(VIEWS)
    assert judge.key == "linear"
    with judge.at(Where(CPU, torch.bfloat16)) as told:
        assert told is judge
        half, key = judge.encode(VIEWS), judge.key
    assert [dtype for _, dtype in judge.seen] == [torch.float32, torch.bfloat16]
    assert half.dtype == whole.dtype == torch.float32
    assert not torch.equal(half, whole)
    torch.testing.assert_close(half, whole, atol=2e-2, rtol=2e-2)
    assert key not in (judge.key, "linear")  # its features are kept by themselves
    assert (judge.device, judge.dtype, judge.key) == (CPU, torch.float32, "linear")
    with pytest.raises(RuntimeError, match="ended"), judge.at(Where(CPU, torch.bfloat16)):
        raise RuntimeError("ended")
    assert judge.dtype == torch.float32


def test_one_that_was_given_stays_where_its_owner_has_it() -> None:
    judge = Linear()
    with judge.at(Where(CPU, torch.bfloat16)):
        with Simulating.of(judge).opened() as same:
            assert same is judge and judge.dtype == torch.bfloat16
        with Simulating(judge, Where()).opened():
            assert judge.dtype == torch.float32
        assert judge.dtype == torch.bfloat16
    assert judge.dtype == torch.float32


def test_the_bundled_one_is_the_same_afterwards() -> None:
    judge = Simulator.load()
    (model,) = judge.models()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with judge.at(Where(CPU, torch.bfloat16)):
        similar = judge.similarity(["a red thing", ""], judge.encode(VIEWS).numpy())
    assert similar.dtype == np.float32 and np.isnan(similar[1]).all()
    assert np.isfinite(similar[0]).all()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
