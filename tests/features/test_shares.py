"""Views and photos that several processes encode in shares."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import milanx
from milanx.exemplars.request import ExtractSettings
from milanx.features.shares import Shares
from tests.features.together import BATCH, VIEWS, encode
from tests.helpers import noise, sparse, write_parquet

ROOT = Path(__file__).parents[2]
PHOTOS = 28  # three batches, the last not full


def launch(port: int, *command: str) -> None:
    """Run a module in two processes of one thread, over gloo."""
    # With --cpu the launcher starts one process, whatever the number: hence the environment.
    launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
                "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
                "--main_process_port", str(port)]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
                   "ACCELERATE_USE_CPU": "true"}  # fmt: skip
    done = subprocess.run([sys.executable, *launcher, "-m", *command], cwd=ROOT, env=environment,
                          capture_output=True, text=True, timeout=400)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(("items", "batch", "ranks"), [
    (0, 4, 2), (3, 4, 3), (8, 4, 2), (9, 4, 2), (21, 4, 3), (5, 1, 4),
])  # fmt: skip
def test_every_batch_is_somebodys_and_comes_in_order(items: int, batch: int, ranks: int) -> None:
    """The processes stand side by side here; what they exchange is laid together by hand."""
    states = [SimpleNamespace(num_processes=ranks, process_index=rank) for rank in range(ranks)]
    shares = [Shares(range(items), batch, state) for state in states]  # type: ignore[arg-type]
    rounds = {len(share.own) for share in shares}
    assert len(rounds) == 1  # or they would wait for one another
    results = [[torch.tensor(own)[:, None] * 10.0 for own in share.own] for share in shares]
    for share in shares:
        turns = iter(range(len(share.own)))

        def laid(process: object, made: torch.Tensor, turns: object = turns) -> torch.Tensor:
            turn = next(turns)  # type: ignore[call-overload]
            whole = torch.full((ranks, batch, 1), torch.nan)
            for rank, its in enumerate(results):
                whole[rank, : len(its[turn])] = its[turn]
            return whole

        share._gather = laid  # type: ignore[method-assign, assignment]
        found = list(share.gathered(results[0]))
        assert [item for own, _ in found for item in own] == list(range(items))
        assert [float(v) for _, made in found for v in made] == [10.0 * i for i in range(items)]
    alone = Shares(range(items), batch)
    assert [item for own in alone.own for item in own] == list(range(items))


def test_two_processes_encode_shares_of_what_one_encodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("milanx.scoring.features.BATCH", BATCH)  # and so it is given back
    monkeypatch.setattr("milanx.train.data.photos.BATCH", BATCH)
    photos = write_parquet(tmp_path / "p.parquet", noise(PHOTOS))
    milanx.extract(sparse(), layers="conv", images=photos, out=tmp_path / "run",
                   settings=ExtractSettings(k=5))  # fmt: skip
    launch(29583, "tests.features.together", str(tmp_path / "run"), str(photos),
           str(tmp_path / "two"))  # fmt: skip
    monkeypatch.setenv("MILANX_CACHE", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        encode(tmp_path / "run", photos, tmp_path / "one")
    finally:
        torch.set_num_threads(threads)
    one, first, second = (np.load(tmp_path / f"{n}.npz") for n in ("one-0", "two-0", "two-1"))
    for name in ("indices", "views", "features", "trained", "groups"):
        for two in (first, second):
            assert np.array_equal(one[name], two[name]), name  # to the bit: batches are the same
    views = len(one["indices"])
    assert one["done"].tolist() == [views, PHOTOS, PHOTOS]
    assert -(-views // VIEWS) == 3  # batches, and as many of the others: the last is made twice
    assert first["done"].tolist() == [views - VIEWS, PHOTOS - BATCH, PHOTOS - BATCH]
    assert second["done"].tolist() == first["done"].tolist()


@pytest.mark.parametrize("method", ["describer", "concepts"])
def test_two_processes_describe_as_one(
    tmp_path: Path, describer: milanx.Describer, method: str
) -> None:
    photos = write_parquet(tmp_path / "p.parquet", noise(300))
    launch(29585, "milanx", "describe", "tests.helpers:sparse", "--images", str(photos), "-q",
           "--layer", "conv:0-3", "-k", "5", "--device", "cpu", "--method", method, "--out",
           str(tmp_path / "two"))  # fmt: skip
    alone = milanx.describe("tests.helpers:sparse", layers="conv:0-3", images=photos, device="cpu",
                            settings=ExtractSettings(k=5), describer=describer, method=method,
                            out=tmp_path / "one")  # fmt: skip
    together = pq.read_table(tmp_path / "two" / "units.parquet").to_pylist()
    for one, two in zip(alone.rows, together, strict=True):
        assert (one["description"], one["images"]) == (two["description"], two["images"])
        for name in ("pmi", "agreement", "response", "score"):
            assert one[name] == pytest.approx(two[name], abs=1e-4), name
    # What the describer says of noise, cells tell, and then there is no score.
    assert any(row["score"] is not None for row in together) == (method == "concepts")
