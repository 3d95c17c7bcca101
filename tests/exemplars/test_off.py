"""Images on which a unit is off are none of its exemplars, wherever exemplars are read."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import milanx
import milanx.exemplars.job as passes
from milanx.errors import Interrupted
from milanx.exemplars.extract import extract
from milanx.exemplars.inputs import Inputs, open_inputs
from milanx.exemplars.request import ExtractSettings, Request
from milanx.exemplars.statistics import LayerStatistics
from milanx.exemplars.store import ExemplarStore
from milanx.targets.capture import find_layers
from milanx.targets.zoo import load_target
from tests.exemplars.test_extract import digest
from tests.helpers import PREPROCESS, Sparse, noise, write_parquet

ROOT = Path(__file__).parents[2]
K = 5
LAYERS = ("relu", "relu6", "swish", "clamp", "tanh", "gelu", "leaky", "last")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parquet(tmp_path_factory.mktemp("photos") / "p.parquet", noise(90))


def opened(photos: Path, signs: tuple[str, ...] = ("+",), **changes: object) -> Inputs:
    chosen = ExtractSettings(**{"k": K, "batch_size": 7, **changes})  # type: ignore[arg-type]
    return open_inputs(Request(Sparse(), ("conv", "mix"), (photos,), signs=signs, settings=chosen))


def activations(inputs: Inputs) -> np.ndarray:
    """Rectified maxima of every image, in one piece: [n, 8]."""
    images, preprocess = inputs.images, inputs.target.preprocess
    views = np.stack([preprocess.view(images.read(i)) for i in range(len(images))])
    pixels = preprocess.normalise(torch.from_numpy(views).permute(0, 3, 1, 2))
    with torch.inference_mode():
        return inputs.target.model.conv(pixels).relu().amax((2, 3)).numpy()


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 50), batch=st.integers(1, 20), parts=st.integers(1, 4),
    off=st.sampled_from([0.0, 1.0, -1.0]), seed=st.integers(0, 1000),
)  # fmt: skip
def test_what_is_off_never_enters(n: int, batch: int, parts: int, off: float, seed: int) -> None:
    """Whatever the batches and parts: the plain top k of the images that excite a unit."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(n, 4, 3, 2, generator=generator).round() - torch.arange(4)[:, None, None]
    maps = maps.clamp_min(off)
    rows, every = torch.arange(n), torch.ones(n, dtype=torch.bool)
    merged = LayerStatistics(4, (3, 2), K, ("+",), off=off)
    for part in rows.chunk(parts):
        one = LayerStatistics(4, (3, 2), K, ("+",), off=off)
        for some in part.split(batch):
            one.update(maps[some], some, every[some])
        merged.merge(one)
    top = merged.top["+"]
    values, means = maps.amax((2, 3)), maps.mean((2, 3))
    for unit in range(4):
        excited = [i for i in range(n) if values[i, unit] > off]
        excited.sort(key=lambda i: (-float(values[i, unit]), -float(means[i, unit]), i))
        found = top.images[unit][top.values[unit] > -torch.inf].tolist()
        assert found == excited[:K]
        assert torch.equal(top.maps[unit, : len(found)].float(), maps[found, unit])
        assert not top.maps[unit, len(found) :].any()


class Bounded(nn.Module):
    """One layer behind each of the nonlinearities that have a value of being off, or none."""

    preprocess = PREPROCESS

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        for name in LAYERS:
            self.add_module(name, nn.Conv2d(3, 3, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.relu(x * 4))
        x = F.relu6(self.relu6(x))
        x = F.hardswish(self.swish(x - 3))
        x = F.hardtanh(self.clamp(x * 4), -0.5, 2.0)
        x = torch.tanh(self.tanh(x))
        x = F.gelu(self.gelu(x))
        x = F.leaky_relu(self.leaky(x), 0.1)
        return self.last(x).mean((2, 3))


def test_which_layers_have_a_value_of_being_off() -> None:
    target = load_target(Bounded())
    off = {i.name: i.off for i in find_layers(target, LAYERS)}
    assert off == {"relu": 0, "relu6": 0, "swish": 0, "clamp": -0.5,
                   "tanh": None, "gelu": None, "leaky": None, "last": None}  # fmt: skip
    assert {i.off for i in find_layers(target, LAYERS, read="raw")} == {None}


def test_sets_hold_what_excites_the_unit_and_full_ones_are_as_before(
    photos: Path, tmp_path: Path
) -> None:
    inputs = opened(photos)
    store = extract(inputs, tmp_path / "run")
    everything = [dataclasses.replace(info, off=None) for info in inputs.layers]
    before = extract(dataclasses.replace(inputs, layers=tuple(everything)), tmp_path / "before")
    values, allowed = activations(inputs), inputs.images.split()
    sizes = [int(((values[:, u] > 0) & allowed).sum()) for u in range(8)]
    assert sizes[1] == 0 and min(sizes[u] for u in (0, 2, 6)) > K
    assert all(0 < sizes[u] < K for u in (3, 4, 5, 7))
    for unit, size in enumerate(sizes):
        images = store.images("conv")[unit]
        assert (images >= 0).tolist() == [rank < size for rank in range(K)]
        assert np.isnan(store.activations("conv")[unit]).tolist() == (images < 0).tolist()
        found = store.get("conv", unit)
        assert (values[found.images, unit] > 0).all()
        assert len(found.images) == len(found.views) == len(found.masks) == min(size, K)
        kept = slice(0, size)
        assert (images[kept] == before.images("conv")[unit][kept]).all()
        assert (store.maps("conv")[unit][kept] == before.maps("conv")[unit][kept]).all()
        assert (store.activations("conv")[unit][kept]
                == before.activations("conv")[unit][kept]).all()  # fmt: skip
    assert store.status("conv") == ["dead" if not size else "alive" for size in sizes]
    # Of a layer without such a value nothing changes, to the byte.
    for name in ("index.parquet", "maps.safetensors", "stats.safetensors", "max.npy", "mean.npy"):
        assert ((store.root / "exemplars" / "mix" / name).read_bytes()
                == (before.root / "exemplars" / "mix" / name).read_bytes()), name  # fmt: skip
    full = pq.read_table(store.root / "exemplars" / "conv" / "index.parquet").to_pylist()
    old = pq.read_table(before.root / "exemplars" / "conv" / "index.parquet").to_pylist()
    assert [r for r in full if r["unit"] in (0, 2, 6)] == [r for r in old if r["unit"] in (0, 2, 6)]
    assert store.fingerprint != before.fingerprint


def test_few_images_make_short_sets(photos: Path, tmp_path: Path) -> None:
    few = write_parquet(tmp_path / "few.parquet", noise(3))
    store = extract(opened(few, aside=0.0), tmp_path / "run")
    values = activations(opened(few, aside=0.0))
    assert (store.images("conv") >= 0).sum(1).tolist() == (values > 0).sum(0).tolist()
    assert ((store.images("mix") >= 0).sum(1) == 3).all()


def test_the_low_side_of_a_unit_that_is_mostly_off_has_no_exemplars(
    photos: Path, tmp_path: Path
) -> None:
    """The median of such a unit is 0, its lowest value: nothing lies below."""
    store = extract(opened(photos, ("+", "-")), tmp_path / "run")
    units, status = store.units("conv"), store.status("conv")
    medians = store.stats("conv")["median"]
    for row, (_, sign) in enumerate(units):
        if sign == "-":
            found = store.activations("conv")[row]
            assert (found[store.images("conv")[row] >= 0] > 0).all()
            assert (status[row] == "dead") == (not medians[row] > 0)
    low = [row for row, (_, sign) in enumerate(units) if sign == "-" and status[row] == "alive"]
    assert 0 < len(low) < 8
    mix = [row for row, (_, sign) in enumerate(store.units("mix")) if sign == "-"]
    assert (store.images("mix")[mix] >= 0).all()


def test_a_pass_that_goes_on_and_two_processes_give_the_same(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, seen = passes.Pass.take, []

    def stopping(self: passes.Pass, *args: object) -> None:
        if len(seen) == 6:
            raise KeyboardInterrupt
        seen.append(1)
        take(self, *args)

    monkeypatch.setattr(passes.Pass, "take", stopping)
    with pytest.raises(Interrupted):
        extract(opened(photos), tmp_path / "ended")
    monkeypatch.undo()
    ended = extract(opened(photos), tmp_path / "ended")
    whole = extract(opened(photos), tmp_path / "whole")
    assert digest(ended.root) == digest(whole.root)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu",
               "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no",
               "--dynamo_backend", "no", "--main_process_port", "29581",
               "-m", "milanx", "exemplars", "tests.helpers:sparse", "--images", str(photos), "-q",
               "--layer", "conv", "--layer", "mix", "-k", str(K), "-b", "7", "--device", "cpu",
               "--out", str(tmp_path / "two")]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
                   "ACCELERATE_USE_CPU": "true"}  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True,
                          timeout=240)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    two = ExemplarStore.open(tmp_path / "two")
    for layer in ("conv", "mix"):
        assert (two.images(layer) == whole.images(layer)).all()
        assert (two.maps(layer) == whole.maps(layer)).all()
    assert f"; 4 have fewer than {K}, 1 none" in done.stdout


def test_short_sets_are_described_and_said(
    photos: Path, tmp_path: Path, describer: milanx.Describer, capsys: pytest.CaptureFixture[str]
) -> None:
    from milanx.report.page import write_page
    from milanx.report.terminal import print_run
    from milanx.report.unit import print_unit

    run = milanx.describe(Sparse(), layers="conv", images=photos, out=tmp_path / "run",
                          describer=describer, settings=ExtractSettings(k=K))  # fmt: skip
    rows = pq.read_table(run.root / "units.parquet").to_pylist()
    sizes = [len(row["images"]) for row in rows]
    assert [len(row["activations"]) for row in rows] == sizes
    assert all(activation > 0 for row in rows for activation in row["activations"])
    assert sizes[1] == 0 and sorted(sizes)[:5][-1] < K == max(sizes)
    assert [row["status"] == "dead" for row in rows] == [size == 0 for size in sizes]
    assert [bool(row["description"]) for row in rows] == [size > 0 for size in sizes]
    # Alone, a unit of few exemplars has the text that it has beside units of many.
    alone = describer.describe(run.store, units={"conv": [(3, "+")]})
    assert alone[0].text == rows[3]["description"]
    assert alone[0].pmi == pytest.approx(rows[3]["pmi"], abs=1e-4)
    print_run(run, None)
    assert f"4 with fewer than {K} exemplars" in capsys.readouterr().out
    print_unit(run, run["conv", 3])
    assert f"exemplars ({sizes[3]} of {K}): " in capsys.readouterr().out
    print_unit(run, run["conv", 1])
    assert "exemplars: none" in capsys.readouterr().out
    page = write_page(run).read_text()
    found = json.loads(page.split('type="application/json">')[1].split("</script>")[0])
    assert [unit["n"] for unit in found["units"]] == sizes
    assert found["k"] == K
