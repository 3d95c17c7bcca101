"""Streaming statistics against oracles that hold everything in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from milanx.errors import FormatError
from milanx.exemplars import histogram as bins
from milanx.exemplars import statistics as counting
from milanx.exemplars.histogram import Histogram
from milanx.exemplars.numbers import Numbers
from milanx.exemplars.statistics import LayerStatistics, Overflow, exact_statistics
from milanx.exemplars.topk import TopK


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


@pytest.mark.parametrize("rectified", [False, True])
def test_counts_are_the_plain_ones_whatever_the_threads_and_batches(
    rectified: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(3)
    maps = torch.randn(12, 5, 6, 6, generator=generator) * torch.logspace(-9, 5, 5)[:, None, None]
    maps[0, 0, 0, :3] = torch.tensor([torch.nan, torch.inf, -0.0])
    maps = maps.relu() if rectified else maps
    found = []
    for threads, split in ((1, 12), (3, 12), (2, 5), (1, 1)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        monkeypatch.setattr(bins, "SHARED", 10)
        histogram = Histogram(5, 36, rectified=rectified)
        histogram.scale = bins.scales(maps.nan_to_num(0, 0, 0).abs().amax((0, 2, 3)))
        for part in maps.split(split):
            histogram.update(part)
        found.append(histogram.counts.clone())
    edges = bins.bin_edges().numpy()
    for unit in range(5):
        values = maps[:, unit].flatten().double().numpy() / 2.0 ** int(histogram.scale[unit])
        plain = np.zeros(bins.BINS + 1, int)
        for value in values:
            if np.isnan(value):
                plain[-1] += 1
                continue
            # Bin HALF holds zero alone, and what is too small; others from an edge to the next.
            above = np.searchsorted(edges[bins.HALF + 1 :], abs(value), side="right")
            key = min(int(above), bins.HALF)
            plain[bins.HALF + (key if value >= 0 else -key)] += 1
        first = bins.HALF if rectified else 0
        assert found[0][unit].tolist() == plain[first:].tolist()
    for other in found[1:]:
        assert torch.equal(other, found[0])


def test_nothing_counted_is_an_error() -> None:
    with pytest.raises(ValueError, match="no values"):
        Histogram(1, 1).quantile(0.5)


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("factor", [1e-20, 1e-9, 1e-4, 1.0, 1e6, 1e25])
def test_units_of_any_scale_are_counted_and_kept(factor: float, rectified: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    maps = torch.randn(60, 3, 7, 7, generator=generator)
    maps = maps.relu() if rectified else maps
    maps[:, 1] *= factor  # beside two ordinary units
    layer = LayerStatistics(3, (7, 7), 5, ("+",), rectified=rectified)
    layer.calibrate(maps[:8])
    layer.update(maps, torch.arange(60), torch.ones(60, dtype=torch.bool))
    assert layer.histogram is not None
    for q in (0.5, 0.9, 0.99):
        found = layer.histogram.quantile(q)
        exact = torch.quantile(maps.transpose(0, 1).flatten(1), q, dim=1)
        size = torch.tensor([1.0, factor, 1.0])
        np.testing.assert_allclose(found / size, exact / size, rtol=0.02, atol=0.005)
    _, deviation = layer.histogram.mean_and_deviation()
    assert float(deviation[1]) == pytest.approx(float(maps[:, 1].double().std()), rel=0.01)
    top = layer.top["+"]
    kept = np.ldexp(top.maps.float().numpy(), top.scales.numpy()[..., None, None])
    wanted = maps[top.images[1], 1].numpy()
    np.testing.assert_allclose(kept[1], wanted, rtol=2e-3, atol=1e-4 * np.abs(wanted).max())
    assert (top.scales[[0, 2]] == 0).all()


def test_not_numbers_rank_last_and_are_counted() -> None:
    maps = draw_maps(30, False, 0)
    odd = maps.clone()
    odd[3, 0, 2, 1] = torch.nan
    odd[:, 1] = torch.nan
    clean, dirty = (LayerStatistics(4, (5, 3), 40, ("+", "-")) for _ in range(2))
    rows, every = torch.arange(30), torch.ones(30, dtype=torch.bool)
    clean.update(maps, rows, every)
    maximum, _ = dirty.update(odd, rows, every)
    assert dirty.nan.tolist() == [1, 30, 0, 0]
    assert torch.isnan(maximum[3, 0])
    assert dirty.constant().tolist() == [False, True, False, False]
    for sign in ("+", "-"):
        values = dirty.top[sign].values
        assert (values[0] > -torch.inf).sum() == 29
        assert not (values[1] > -torch.inf).any()
        assert 3 not in dirty.top[sign].images[0, :29].tolist()
        assert torch.equal(values[2:], clean.top[sign].values[2:])
        assert torch.isfinite(dirty.top[sign].maps).all()
    left = torch.cat([maps[:3, :1], maps[4:, :1]])
    alone = Histogram(1, 15)
    alone.update(left)
    assert dirty.histogram is not None
    seen = dirty.histogram.quantile(0.9)
    assert seen[2:].isfinite().all()
    assert torch.isnan(seen[1])
    assert float(seen[0]) == pytest.approx(float(alone.quantile(0.9)), abs=0.2)


def test_infinite_values_are_kept_and_rank_first_and_last() -> None:
    maps = draw_maps(30, False, 0)
    maps[4, 0, 0, 0], maps[9, 0, 1, 1] = torch.inf, -torch.inf
    layer = LayerStatistics(4, (5, 3), 5, ("+", "-"))
    layer.update(maps, torch.arange(30), torch.ones(30, dtype=torch.bool))
    assert layer.top["+"].images[0, 0] == 4
    assert layer.top["-"].images[0, 0] == 9
    assert layer.infinite.tolist() == [2, 0, 0, 0]
    assert torch.isfinite(layer.top["+"].maps.float()).all()
    assert not layer.constant().any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_what_half_precision_cannot_hold_is_no_value(dtype: torch.dtype, value: float) -> None:
    maps = draw_maps(4, False, 0).to(dtype)
    layer = LayerStatistics(4, (5, 3), 5, ("+",))
    layer.update(maps, torch.arange(4), torch.ones(4, dtype=torch.bool))
    maps[2, 1, 0, 0] = value
    with pytest.raises(Overflow):
        layer.update(maps, torch.arange(4), torch.ones(4, dtype=torch.bool))


def test_constant_units_are_told_exactly() -> None:
    """One value everywhere: whatever it is, and however near another unit's values lie."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(40, 6, 4, 4, generator=generator)
    maps[:, 0], maps[:, 1], maps[:, 2] = 0.37, -2.1, 0.0
    maps[:, 3] = 0.37 + 1e-6 * maps[:, 3]  # inside of one bin
    maps[:, 4] = 1.0
    maps[39, 4, 3, 3] = 0.5  # every maximum is the same
    for split in (1, 3):
        parts = [LayerStatistics(6, (4, 4), 3, ("+",)) for _ in range(split)]
        for rows, part in zip(torch.arange(40).chunk(split), parts, strict=True):
            for batch in rows.split(7):
                part.update(maps[batch], batch, torch.ones(len(batch), dtype=torch.bool))
        for other in parts[1:]:
            parts[0].merge(other)
        assert parts[0].constant().tolist() == [True, True, True, False, False, False]


def test_counts_are_the_same_in_blocks_and_whatever_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = torch.randn(64, 10, 3, 3)
    whole = Histogram(10, 9)
    whole.update(maps)
    monkeypatch.setattr(bins, "BLOCK", 3 * bins.BINS)
    for waiting in (0, 200, 10**9):
        monkeypatch.setattr(bins, "WAITING", waiting)
        other = Histogram(10, 9)
        for part in maps.split(3):
            other.update(part)
        other.settle()
        assert torch.equal(other.counts, whole.counts)
        assert torch.equal(other.quantile(0.9), whole.quantile(0.9))
        assert torch.equal(other.lowest(), whole.lowest())


class Held:
    """Values that are all in memory."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape = values, values.shape

    def columns(self, start: int, stop: int, rows: np.ndarray) -> np.ndarray:
        return self.values[rows, start:stop]


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 40), q=st.floats(0.01, 0.99), seed=st.integers(0, 1000))
def test_quantiles_of_exact_values_are_numpys_to_the_bit(n: int, q: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, 6)).astype(np.float32).round(1)
    values[:, 5] = np.inf
    found = exact_statistics(Held(values), np.arange(n), q)
    whole = values.astype(np.float64)
    with np.errstate(invalid="ignore"):
        expected = np.quantile(whole, [q, 1 - q, 0.5], axis=0).astype(np.float32)
    for name, row in zip(("quantile", "low_quantile", "median"), expected, strict=True):
        assert np.array_equal(found[name].numpy(), row, equal_nan=True), name
    assert np.array_equal(found["mean"][:5].numpy(), whole[:, :5].mean(0).astype(np.float32))


def test_blocks_of_units_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    values[3, 1] = np.nan
    whole = exact_statistics(Held(values), np.arange(1, 50), 0.9)
    monkeypatch.setattr(counting, "BLOCK_BYTES", 8 * 49 * 2)
    for name, row in exact_statistics(Held(values), np.arange(1, 50), 0.9).items():
        assert torch.equal(row, whole[name]), name


def test_numbers_are_written_in_rows_and_read_in_columns(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    path = tmp_path / "max.npy"
    Numbers.make(path, (9, 5))
    assert (np.load(path) == 0).all()
    numbers = Numbers(path, (9, 5))
    order = np.array([4, 5, 6, 1, 0, 2, 8, 3, 7])
    for some in (order[:4], order[4:4], order[4:]):
        numbers.write(some, values[some])
    numbers.flush()
    assert (np.load(path) == values).all()
    assert (numbers.columns(1, 4, [2, 7, 0]) == values[[2, 7, 0], 1:4]).all()
    numbers.close()
    for shape in ((9, 4), (8, 5)):
        with pytest.raises(FormatError, match=r"max\.npy"):
            Numbers(path, shape)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FormatError, match=r"max\.npy"):
        Numbers(path, (9, 5))


def test_units_without_positions_are_exact() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(50, 5)).astype(np.float32)
    values[3, 1], values[:, 2] = np.nan, np.nan
    eligible = rng.random(50) < 0.7
    found = exact_statistics(Held(values), np.flatnonzero(eligible), 0.9)
    part = values[eligible].astype(np.float64)
    for unit in (0, 1, 3, 4):
        column = part[:, unit][~np.isnan(part[:, unit])]
        assert float(found["quantile"][unit]) == pytest.approx(np.quantile(column, 0.9))
        assert float(found["low_quantile"][unit]) == pytest.approx(np.quantile(column, 0.1))
        assert float(found["mean"][unit]) == pytest.approx(column.mean())
        assert float(found["deviation"][unit]) == pytest.approx(column.std())
        assert float(found["minimum"][unit]) == pytest.approx(column.min())
        assert float(found["maximum"][unit]) == pytest.approx(column.max())
    assert found["maximum"][2] == found["minimum"][2] == -np.inf
