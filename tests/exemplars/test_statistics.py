"""Streaming statistics against oracles that hold everything in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from milanx.exemplars.statistics import Histogram, LayerStatistics, TopK


def plain_top_k(values: np.ndarray, means: np.ndarray, k: int) -> list[int]:
    """The plainest top k of one unit: maximum down, mean down, index up."""
    return sorted(range(len(values)), key=lambda i: (-values[i], -means[i], i))[:k]


def draw_maps(n: int, saturated: bool, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(n, 4, 5, 3, generator=generator) * 4
    return maps.clamp(0, 6).round() if saturated else maps


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 60),
    batch=st.integers(1, 20),
    k=st.integers(1, 12),
    saturated=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_top_k_equals_the_oracle_with_ties(
    n: int, batch: int, k: int, saturated: bool, seed: int
) -> None:
    maps = draw_maps(n, saturated, seed)
    values, means = maps.amax((2, 3)), maps.mean((2, 3))
    top = TopK(4, k, (5, 3))
    for start in range(0, n, batch):
        rows = torch.arange(start, min(n, start + batch))
        top.update(maps[rows], values[rows], means[rows], rows)
    for unit in range(4):
        expected = plain_top_k(values[:, unit].numpy(), means[:, unit].numpy(), k)
        assert top.images[unit, : len(expected)].tolist() == expected
        kept = top.maps[unit, : len(expected)]
        assert torch.equal(kept, maps[expected, unit].half())
        assert torch.isinf(top.values[unit, len(expected) :]).all()


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 50), parts=st.integers(1, 4), seed=st.integers(0, 1000))
def test_merged_parts_equal_one_process(n: int, parts: int, seed: int) -> None:
    maps = draw_maps(n, True, seed)
    eligible = torch.ones(n, dtype=torch.bool)
    one = LayerStatistics(4, (5, 3), 5, ("+", "-"))
    one.update(maps, torch.arange(n), eligible)
    merged = LayerStatistics(4, (5, 3), 5, ("+", "-"))
    for rows in torch.arange(n).chunk(parts):
        part = LayerStatistics(4, (5, 3), 5, ("+", "-"))
        part.update(maps[rows], rows, eligible[rows])
        merged.merge(part)
    for name, value in one.state_dict().items():
        assert torch.equal(value, merged.state_dict()[name]), name


@pytest.mark.parametrize("kind", ["normal", "relu", "relu6", "heavy"])
@pytest.mark.parametrize("q", [0.01, 0.5, 0.99, 0.995])
def test_quantile_is_right_in_rank(kind: str, q: float) -> None:
    generator = torch.Generator().manual_seed(1)
    values = (
        torch.randn(400, 3, 14, 14, generator=generator)
        * torch.tensor([0.1, 1.0, 30.0])[:, None, None]
    )
    if kind == "relu":
        values = values.relu()
    elif kind == "relu6":
        values = values.clamp(0, 6)
    elif kind == "heavy":
        values = values.sign() * values.square()
    histogram = Histogram(3, 196)
    for part in values.split(64):
        histogram.update(part)
    found = histogram.quantile(q)
    for unit in range(3):
        flat = values[:, unit].flatten()
        below = float((flat < found[unit]).float().mean())
        not_above = float((flat <= found[unit]).float().mean())
        assert below - 0.001 <= q <= not_above + 0.001


def test_quantile_of_a_saturated_unit_is_its_maximum() -> None:
    histogram = Histogram(1, 4)
    histogram.update(torch.full((10, 1, 2, 2), 6.0))
    assert histogram.quantile(0.99)[0] >= 6.0


def test_large_maps_are_counted_at_the_same_positions_always() -> None:
    maps = torch.randn(20, 2, 40, 40)
    one, other = Histogram(2, 1600), Histogram(2, 1600)
    one.update(maps)
    other.update(maps[:7])
    other.update(maps[7:])
    assert torch.equal(one.counts, other.counts)
    assert int(one.counts[0].sum()) == 20 * 784


def test_nothing_counted_is_an_error() -> None:
    with pytest.raises(ValueError, match="no values"):
        Histogram(1, 1).quantile(0.5)
