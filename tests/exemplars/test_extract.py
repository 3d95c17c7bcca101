"""Extraction: against an oracle that holds everything in memory, kills, shards, bad input."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import milanx
import milanx.exemplars.job as passes
from milanx.errors import InputError, Interrupted
from milanx.exemplars.estimate import estimate
from milanx.exemplars.extract import extract
from milanx.exemplars.inputs import open_inputs
from milanx.exemplars.request import ExtractSettings, Request
from milanx.exemplars.store import ExemplarStore
from milanx.images.probe import ProbeImages
from milanx.targets.zoo import Target
from tests.helpers import Tiny, noise, tiny, write_parquet

ROOT = Path(__file__).parents[2]
LAYERS = ("bn1", "conv2", "conv3", "head")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parquet(tmp_path_factory.mktemp("photos") / "p.parquet", noise(90))


def run(photos: Path, out: Path, **changes: object) -> tuple[ExemplarStore, Target, ProbeImages]:
    dtype = str(changes.pop("dtype", "float32"))
    settings = ExtractSettings(**{"k": 5, "batch_size": 7, **changes})
    request = Request(Tiny(), LAYERS, (photos,), signs=("+", "-"), settings=settings, dtype=dtype)
    inputs = open_inputs(request)
    return extract(inputs, out), inputs.target, inputs.images


def digest(root: Path) -> str:
    found = hashlib.sha256()
    for path in sorted([*(root / "exemplars").rglob("*"), root / "views.parquet"]):
        if path.is_file():
            found.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return found.hexdigest()


@torch.inference_mode()
def everything(target: Target, images: ProbeImages) -> torch.Tensor:
    """bn1 after its ReLU for every image, in one piece: [n, 8, 16, 16]."""
    views = np.stack([target.preprocess.view(images.read(i)) for i in range(len(images))])
    x = target.preprocess.normalise(torch.from_numpy(views).permute(0, 3, 1, 2))
    model = target.model
    return model.bn1(model.conv1(x)).relu()


def test_exemplars_equal_the_oracle(photos: Path, tmp_path: Path) -> None:
    store, target, images = run(photos, tmp_path / "run")
    maps = everything(target, images)
    allowed = np.flatnonzero(images.split())
    for unit in range(8):
        values = maps[:, unit].amax((1, 2)).numpy()
        found = store.get("bn1", unit)
        expected = np.sort(values[allowed])[::-1][:5]
        np.testing.assert_allclose(found.activations, expected, rtol=1e-4)
        np.testing.assert_allclose(values[found.images], expected, rtol=1e-4)
        flat = maps[allowed, unit].flatten()
        quantile = store.stats("bn1")["quantile"][unit]
        assert float((flat < quantile).float().mean()) - 0.001 <= 0.99
        assert float((flat <= quantile).float().mean()) + 0.001 >= 0.99
        up = F.interpolate(maps[found.images, unit][None].half().float(), (32, 32), mode="bilinear")
        mask = (up[0] > quantile).numpy()
        assert (found.masks == mask).mean() > 0.999
        lowest = store.get("bn1", unit, "-")
        below = (store.stats("bn1")["median"][unit]
                 - np.sort(maps[allowed, unit].amin((1, 2)).numpy())[:5])  # fmt: skip
        np.testing.assert_allclose(  # those that lie below the median at all
            np.sort(lowest.activations)[::-1], below[below > 0], atol=1e-4
        )
    np.testing.assert_allclose(store.maxima("bn1"), maps.amax((2, 3)), rtol=1e-4)
    np.testing.assert_allclose(store.means("bn1"), maps.mean((2, 3)), rtol=1e-3, atol=1e-5)


def test_store_content(photos: Path, tmp_path: Path) -> None:
    store, _, images = run(photos, tmp_path / "run")
    assert store.layers == list(LAYERS)
    assert not set(store.view_indices()) - set(np.flatnonzero(images.split()).tolist())
    for layer in LAYERS:
        rows = list(range(len(store.units(layer))))
        masks = store.masks(layer, rows)
        assert masks.flatten(2).any(2).all()
        weights = store.mask_weights(layer, rows, (8, 8))
        plain = masks.float().reshape(*masks.shape[:2], 8, 4, 8, 4).mean((3, 5))
        np.testing.assert_allclose(weights, plain, atol=1e-6)
    assert store.masks("head", [0]).all()
    table = store.image_table()
    assert [r["split"] == "exemplars" for r in table] == images.split().tolist()
    with pytest.raises(InputError, match="did you mean bn1"):
        store.get("bn", 0)


def test_saturated_units_have_masks_where_they_saturate() -> None:
    from milanx.exemplars.masks import LayerRecord, make_masks

    maps = torch.zeros(1, 2, 4, 4)
    maps[0, 0, :2] = 6.0
    maps[0, 1, 0, 0] = 3.0
    stats = {"quantile": 6.0, "low_quantile": 0.0, "median": 0.0, "maximum": 6.0, "minimum": 0.0}
    columns = {k: np.array([v], np.float32) for k, v in stats.items()}
    masks = make_masks(maps, columns, ["+"], LayerRecord("l", "conv", (4, 4), True, 6.0), (16, 16))
    assert masks[0, 0, :6].all()
    assert not masks[0, 0, 10:].any()
    assert 0 < masks[0, 1].sum() <= 16  # never empty: the peak


def test_other_batch_sizes_give_the_same_exemplars(photos: Path, tmp_path: Path) -> None:
    one, _, _ = run(photos, tmp_path / "a")
    other, _, _ = run(photos, tmp_path / "b", batch_size=32)
    for layer in LAYERS:
        np.testing.assert_allclose(one.activations(layer), other.activations(layer), rtol=1e-4)
        assert (one.images(layer) == other.images(layer)).mean() > 0.99


def test_same_inputs_are_reused_and_others_refused(photos: Path, tmp_path: Path) -> None:
    store, _, _ = run(photos, tmp_path / "run")
    stamp = (store.root / "views.parquet").stat().st_mtime_ns
    again, _, _ = run(photos, tmp_path / "run", workers=1)
    assert (again.root / "views.parquet").stat().st_mtime_ns == stamp
    with pytest.raises(InputError, match="holds another run"):
        run(photos, tmp_path / "run", k=4)


def test_another_dtype_is_another_run(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(photos, tmp_path / "run")
    with pytest.raises(InputError, match="holds another run"):
        run(photos, tmp_path / "run", dtype="bfloat16")
    # Nor does a pass that was ended in one go on in the other.
    take, seen = passes.Pass.take, []

    def stopping(self: passes.Pass, *args: object) -> None:
        if len(seen) == 4:
            raise KeyboardInterrupt
        seen.append(1)
        take(self, *args)

    monkeypatch.setattr(passes.Pass, "take", stopping)
    with pytest.raises(Interrupted):
        run(photos, tmp_path / "ended")
    monkeypatch.undo()
    ended = run(photos, tmp_path / "ended", dtype="bfloat16")[0]
    whole = run(photos, tmp_path / "whole", dtype="bfloat16")[0]
    assert digest(ended.root) == digest(whole.root)


def _child(photos: Path, out: Path) -> str:
    return (
        "import sys, os, time, signal, random; sys.path.insert(0, os.getcwd())\n"
        "from pathlib import Path\nimport torch; torch.set_num_threads(1)\n"
        "from tests.exemplars.test_extract import run\nfrom milanx.exemplars.job import Pass\n"
        f"photos, out = Path({str(photos)!r}), Path({str(out)!r})\n"
        "take = Pass.take\n"
        "def slow(self, *a):\n    take(self, *a); time.sleep(.004)\n"
        "Pass.take = slow\n"
        "rng = random.Random(0)\n"
        "for attempt in range(20):\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        run(photos, out, checkpoint_seconds=0); os._exit(0)\n"
        "    time.sleep(rng.uniform(.05, .5)); os.kill(pid, signal.SIGKILL); os.waitpid(pid, 0)\n"
        "run(photos, out, checkpoint_seconds=0)\n"
    )


def test_twenty_random_kills_change_no_byte(photos: Path, tmp_path: Path) -> None:
    clean = tmp_path / "clean"
    code = ("import sys, os; sys.path.insert(0, os.getcwd())\nfrom pathlib import Path\n"
            "import torch; torch.set_num_threads(1)\nfrom tests.exemplars.test_extract import run\n"
            f"run(Path({str(photos)!r}), Path({str(clean)!r}))\n")  # fmt: skip
    for script in (code, _child(photos, tmp_path / "killed")):
        subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=240)
    assert digest(clean) == digest(tmp_path / "killed")


def test_interrupt_keeps_a_checkpoint_and_says_how_to_go_on(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, seen = passes.Pass.take, []

    def stopping(self: passes.Pass, *args: object) -> None:
        if len(seen) == 4:
            raise KeyboardInterrupt
        seen.append(1)
        take(self, *args)

    monkeypatch.setattr(passes.Pass, "take", stopping)
    with pytest.raises(Interrupted, match="run the same command again"):
        run(photos, tmp_path / "run")
    taken: list[int] = []
    monkeypatch.setattr(passes.Pass, "take",
                        lambda self, *a: (taken.append(1), take(self, *a))[1])  # fmt: skip
    store, _, _ = run(photos, tmp_path / "run")
    assert len(taken) == 13 - 4
    assert digest(store.root) == digest(run(photos, tmp_path / "other")[0].root)


def test_two_processes_give_one_processs_exemplars(photos: Path, tmp_path: Path) -> None:
    one = tmp_path / "one"
    # With --cpu the launcher starts one process, whatever the number: hence the environment.
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu",
               "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no",
               "--dynamo_backend", "no",
               "--main_process_port", "29577",
               "-m", "milanx", "exemplars", "tests.helpers:tiny", "--images", str(photos), "-q",
               "--layer", "bn1", "--layer", "conv3", "-k", "5", "-b", "7", "--device", "cpu",
               "--out", str(tmp_path / "two")]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
                   "ACCELERATE_USE_CPU": "true"}  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True,
                          timeout=240)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    written = json.loads((tmp_path / "two" / "run.json").read_text())
    assert written["settings"]["processes"] == 2
    settings = ExtractSettings(k=5, batch_size=7)
    request = Request("tests.helpers:tiny", ("bn1", "conv3"), (photos,), settings=settings)
    extract(open_inputs(request), one)
    assert digest(one) == digest(tmp_path / "two")


def test_a_run_discovers_layers_once(photos: Path, tmp_path: Path) -> None:
    """Four passes probe, one has gradients; three estimate, one is for scales, one each batch."""
    model, passes_seen = Tiny(), []
    model.register_forward_pre_hook(lambda *_: passes_seen.append(torch.is_grad_enabled()))
    milanx.extract(model, layers=LAYERS, images=photos, out=tmp_path / "run",
                   settings=ExtractSettings(batch_size=30))  # fmt: skip
    assert passes_seen == [*[False] * 4, True, *[False] * 7]


def test_the_run_says_what_was_asked(photos: Path, tmp_path: Path) -> None:
    arguments = {"layers": "bn1:0-3", "images": photos, "limit": 40, "read": "raw", "signs": "-",
                 "out": tmp_path / "run", "device": "cpu", "dtype": "bfloat16"}  # fmt: skip
    settings = ExtractSettings(4, 0.9, 0.3, 5, 9, 1)
    milanx.extract(tiny(), settings=settings, **arguments)
    written = milanx.open_run(tmp_path / "run").settings["settings"]
    assert written == {
        "layers": ["bn1:0-3"], "units": None, "limit": 40, "read": "raw", "signs": ["-"],
        "k": 4, "quantile": 0.9, "aside": 0.3, "seed": 5, "batch_size": 9, "workers": 1,
        "dtype": "bfloat16", "device": "cpu", "processes": 1,
    }  # fmt: skip
    again = dataclasses.replace(settings, batch_size=3)
    milanx.extract(tiny(), settings=again, **arguments)  # is there: nothing was run in threes
    assert milanx.open_run(tmp_path / "run").settings["settings"] == written


def test_estimate_is_said_before(photos: Path) -> None:
    found = estimate(open_inputs(Request(Tiny(), LAYERS, (photos,))))
    assert found.seconds > 0
    assert "MiB on disk" in found.text


def test_a_full_disk_is_explained_and_leaves_no_half_run(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(passes, "write_layer", full)
    with pytest.raises(InputError, match="the disk is full"):
        run(photos, tmp_path / "run")
    assert not (tmp_path / "run" / "exemplars").exists()
    monkeypatch.undo()
    assert run(photos, tmp_path / "run")[0].layers == list(LAYERS)


@pytest.mark.skipif(not Path("/proc/mounts").exists(), reason="needs Linux's read-only /proc")
def test_a_folder_that_cannot_be_written_is_explained(photos: Path) -> None:
    with pytest.raises((InputError, OSError)) as caught:
        run(photos, Path("/proc/milanx-run"))
    assert "/proc/milanx-run" in str(caught.value)


def test_a_file_where_the_run_should_be(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        run(photos, tmp_path / "file")


@pytest.mark.parametrize("sign", ["+", "-"])
def test_shares_of_cells_are_those_of_the_masks(sign: str) -> None:
    from milanx.exemplars.masks import LayerRecord, make_masks, mask_shares

    maps = torch.randn(5, 4, 7, 7, generator=torch.Generator().manual_seed(0)).clamp_min(0)
    maps[1] = 0  # nothing above its quantile
    maps[2, 3] = 0.01  # one exemplar far below it
    maps[3] = maps[3].clamp_max(0.5)  # saturated
    flat = maps.flatten(1)
    stats = {
        "quantile": flat.quantile(0.9, 1),
        "low_quantile": flat.quantile(0.1, 1),
        "median": flat.median(1).values,
        "maximum": flat.amax(1),
        "minimum": flat.amin(1),
    }
    columns = {name: column.numpy() for name, column in stats.items()}  # fmt: skip
    record = LayerRecord("l", "conv", (7, 7), True, None)
    masks = make_masks(maps, columns, [sign] * 5, record, (56, 56))
    plain = masks.unflatten(3, (8, 7)).unflatten(2, (8, 7)).float().mean((3, 5))
    shares = mask_shares(maps, columns, [sign] * 5, record, (56, 56), (8, 8))
    torch.testing.assert_close(shares, plain)
