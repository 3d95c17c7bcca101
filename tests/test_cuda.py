"""What a GPU computes is what the CPU computes; skipped where there is none."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

import milanx
from milanx.exemplars.planted import PixelUnits
from milanx.exemplars.statistics import LayerStatistics
from milanx.language.gpt2 import build_gpt2, log_probabilities
from milanx.scoring.simulator import Simulator, Where
from milanx.train.loop import train
from tests.helpers import PREPROCESS, noise, tiny, write_parquet

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here")
DEVICES = ("cpu", "cuda")


def test_statistics_are_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    found = {d: LayerStatistics(6, (5, 5), 4, ("+", "-"), d) for d in DEVICES}
    for start in range(0, 40, 8):
        maps = torch.randn(8, 6, 5, 5, generator=generator).half().float()
        images, eligible = torch.arange(start, start + 8), torch.rand(8, generator=generator) < 0.8
        for device, statistics in found.items():
            statistics.update(maps.to(device), images, eligible)
    states = [found[d].state_dict() for d in DEVICES]
    for name in ("counts", "largest", "+.values", "+.images", "+.maps", "-.images", "-.maps"):
        assert torch.equal(states[0][name], states[1][name]), name
    assert torch.equal(*(found[d].histogram.quantile(0.9) for d in DEVICES))


def test_exemplars_are_the_same(tmp_path: Path) -> None:
    photos = write_parquet(tmp_path / "photos.parquet", noise(60))
    stores = [
        milanx.extract(tiny(), layers=["conv2"], images=[photos], out=tmp_path / device,
                       preprocess=PREPROCESS, device=device)
        for device in DEVICES
    ]  # fmt: skip
    images = [store.images("conv2") for store in stores]
    assert np.mean(images[0] == images[1]) > 0.95
    np.testing.assert_allclose(stores[0].maxima("conv2"), stores[1].maxima("conv2"), atol=2e-3)


def test_log_probabilities_are_the_same() -> None:
    torch.manual_seed(0)
    model = build_gpt2(200, 2, 32, 4).eval()
    ids, mask = torch.randint(1, 200, (9, 7)), torch.ones(9, 7, dtype=torch.bool)
    prefix = torch.randn(9, 3, 32)
    expected = log_probabilities(model, ids, mask, prefix)
    found = log_probabilities(model.cuda(), ids, mask, prefix.cuda())
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


def test_the_simulator_gives_the_same_and_leaves_the_gpu() -> None:
    judge, texts = Simulator.load(), ["a red thing", "grass"]
    views = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    here = judge.encode(views)
    table = judge.similarity(texts, here.numpy())
    with judge.at(Where(torch.device("cuda", 0))):
        assert all(p.is_cuda for model in judge.models() for p in model.parameters())
        there = judge.encode(views)
        np.testing.assert_allclose(judge.similarity(texts, there.numpy()), table, atol=1e-3)
    assert not any(p.is_cuda for model in judge.models() for p in model.parameters())
    torch.testing.assert_close(there, here, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("method", ["describer", "concepts", "nearest"])
def test_texts_are_the_same(tmp_path: Path, method: str) -> None:
    texts = []
    for device in DEVICES:
        run = milanx.describe(
            PixelUnits(), layers=["units"], images="builtin:probe", limit=150, method=method,
            out=tmp_path / device, device=device,
        )  # fmt: skip
        texts.append([row["description"] for row in run.rows])
    assert np.mean([a == b for a, b in zip(*texts, strict=True)]) >= 0.85, texts


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_training_in_half_precision_gives_a_describer(tmp_path: Path, precision: str) -> None:
    photos = noise(60)
    names = [["grass", "lake", "wall"][i % 3] for i in range(60)]
    (tmp_path / "data").mkdir()
    with gzip.open(tmp_path / "data" / "captions.txt.gz", "wt") as file:
        file.writelines(f"{a} near {b} number {i}\n" for i in range(30) for a in names[:3]
                        for b in ("a dog", "some people"))  # fmt: skip
    write_parquet(tmp_path / "data" / "photos.parquet", photos, name=names)
    chosen = [f"data.root={tmp_path / 'data'}", "data.descriptions=''", f"precision={precision}"]
    out = train("smoke", chosen, out=tmp_path / "made")
    describer = milanx.Describer.load(out, "cuda")
    assert len(describer.prior(["grass", "a lake"])) == 2
