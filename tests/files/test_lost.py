"""Nothing of the user's is lost: kills anywhere, two processes, what is taken away meanwhile."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from milanx.cli import app
from torch import nn
from torch.nn import functional as F
from typer.testing import CliRunner

import milanx
import milanx.exemplars.job as passes
import milanx.runs
from milanx.describing.describer import Describer
from milanx.describing.parts import About
from milanx.describing.set_encoder import SetEncoder, SetEncoderSpec
from milanx.describing.settings import SearchSettings
from milanx.errors import FormatError, InputError
from milanx.exemplars.request import ExtractSettings
from milanx.exemplars.store import ExemplarStore
from milanx.features.encoder import EncoderSpec, on_grid, read_pixels, read_width
from milanx.files.digests import FILES
from milanx.files.lock import check_free, held
from milanx.files.replacing import beside
from milanx.language.gpt2 import build_gpt2, train_tokenizer
from milanx.language.prior import Prior
from milanx.progress import Silent
from milanx.report.check import check
from milanx.runs import open_run
from milanx.workers import ALONE, Workers
from tests.helpers import noise, tiny, write_parquet

ROOT = Path(__file__).parents[2]
PARTS = ("exemplars/index.json", "exemplars/conv2/max.npy", "exemplars/conv2/maps.safetensors",
         "views.parquet", "images.parquet", "units.parquet")  # fmt: skip
KILLS = 30


class Look(nn.Module):
    """An encoder that sees colours alone."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = EncoderSpec(image_size=32, grid=4, joint=8, edges=True)
        self.projection, self.last_channels, self.device = nn.Identity(), 3, torch.device("cpu")
        self.width = 3 + self.spec.pixel_channels
        self.axes = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))

    def fingerprint(self) -> str:
        return "look"

    @torch.inference_mode()
    def dense(self, views: torch.Tensor) -> torch.Tensor:
        pixels = views.float() / 255
        return on_grid([pixels], pixels, self.spec)

    def joint(self, features: torch.Tensor) -> torch.Tensor:
        return F.normalize((features[..., :3] - 0.5) @ self.axes, dim=-1)

    def texts(
        self, texts: Sequence[str], batch_size: int = 256, workers: Workers = ALONE
    ) -> torch.Tensor:
        rows = [torch.tensor([float(len(t) % (i + 2)) - 0.7 for i in range(8)]) for t in texts]
        return F.normalize(torch.stack(rows), dim=-1)


def describer(name: str = "mine", lam: float = 0.2) -> Describer:
    """A describer of small networks, the same each time."""
    torch.manual_seed(0)
    encoder = Look()
    tokenizer = train_tokenizer(["red dogs", "blue sky over water", "striped cats"] * 4, 300)
    decoder, prior = (build_gpt2(len(tokenizer), 1, 16, 2).eval() for _ in range(2))
    spec = SetEncoderSpec(read_width(encoder), 8, width=16, prefix=2, layers=1, heads=2, words=1,
                          pixels=read_pixels(encoder), components=2, critic=8)  # fmt: skip
    about = About(name, SearchSettings(lam=lam, beam=3, max_tokens=4))
    return Describer(encoder, SetEncoder(spec).eval(), decoder, Prior(prior, tokenizer),
                     about=about)  # fmt: skip


def describe(out: Path, photos: Path, made: Describer | None = None, **asked: object) -> milanx.Run:
    settings = ExtractSettings(k=3, batch_size=4, checkpoint_seconds=0)
    return milanx.describe(tiny(), layers=["conv2"], images=photos, out=out,
                           describer=made or describer(), settings=settings, device="cpu",
                           **asked)  # type: ignore[arg-type]  # fmt: skip


def content(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in PARTS}


class Said(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parquet(tmp_path_factory.mktemp("photos") / "p.parquet", noise(40))


# ------------------------------------------------------------------ kills

KILLED = """
import os, random, shutil, signal, sys, time
sys.path.insert(0, os.getcwd())
from pathlib import Path
import torch; torch.set_num_threads(1)
from tests.files.test_lost import KILLS, content, describe, describer
photos, root = Path(sys.argv[1]), Path(sys.argv[2])
made = describer()
describe(root / "warm", photos, made)
started = time.monotonic()
whole = content(describe(root / "clean", photos, made).root)
longest = time.monotonic() - started
rng, out, killed, ended = random.Random(0), root / "killed", 0, 0
while killed < KILLS and killed + ended < 4 * KILLS:
    started, wait = time.monotonic(), rng.uniform(0, longest)
    pid = os.fork()
    if pid == 0:
        describe(out, photos, made); os._exit(0)
    seen = 0
    while not seen and time.monotonic() - started < wait:
        time.sleep(0.001)
        seen, status = os.waitpid(pid, os.WNOHANG)
    if not seen:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        killed += 1
        continue
    assert status == 0 and content(out) == whole, "another result"  # ready before: begin again
    longest = max(0.9 * longest, 0.01)  # the machine is as fast as it is now
    shutil.rmtree(out); ended += 1
assert content(describe(out, photos, made).root) == whole, "another result after kills"
left = sorted(p.name for p in out.iterdir())
assert left == ["exemplars", "images.parquet", "log.txt", "run.json", "units.parquet",
                "views.parquet"], left
assert sorted(p.name for p in root.iterdir()) == ["clean", "killed", "warm"]
print(f"{killed} killed, {ended} ready before")
"""


def test_thirty_kills_anywhere_in_describing_change_no_byte(photos: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(photos), str(tmp_path / "r")], cwd=ROOT, timeout=540,
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[0]) >= KILLS / 2


def test_what_kills_left_under_temporary_names_goes(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    whole = content(describe(out, photos).root)
    mine = [beside(out / ".extract", "old"), beside(out / "exemplars", "tmp"),
            beside(out / "units.parquet", "tmp"), beside(out, "old")]  # fmt: skip
    others = [tmp_path / ".run.txt", tmp_path / ".runs.0123abcd.old"]
    for path in mine[:2]:
        (path / "inner").mkdir(parents=True)
    for path in (mine[0] / "inner" / "a", mine[2], mine[3] / "b", *others):
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    assert content(describe(out, photos).root) == whole
    assert not any(path.exists() for path in mine)
    assert all(path.exists() for path in others)


def test_a_kill_between_the_table_and_run_json_serves_no_other_texts(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = describer("one", 0.0), describer("two", 5.0)
    out = tmp_path / "run"
    texts = [u.description for u in describe(out, photos, one)]
    asked = open_run(out).settings["describer"]
    whole = content(out)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(milanx.runs, "write_settings", killed)
        describe(out, photos, two)
    assert content(out)["units.parquet"] != whole["units.parquet"]
    assert open_run(out).settings["describer"] == asked  # run.json is that of the first still
    with pytest.raises(FormatError, match="is not the table that"):
        len(open_run(out))
    assert "is not the table" in CliRunner().invoke(app, ["show", str(out)]).stderr
    said = Said()
    again = describe(out, photos, one, progress=said)
    assert [u.description for u in again] == texts and content(out) == whole
    assert any("described anew" in line for line in said.lines)


# ------------------------------------------------------------------ two at once


def test_a_second_process_is_told_who_makes_the_run(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    code = ("import os, sys, time; sys.path.insert(0, os.getcwd())\n"
            "from pathlib import Path\nfrom tests.files.test_lost import describe\n"
            "from milanx.exemplars.job import Pass\n"
            "Pass.take = lambda *a: time.sleep(600)\n"
            f"describe(Path({str(out)!r}), Path({str(photos)!r}))\n")  # fmt: skip
    first = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        until = time.monotonic() + 240
        arrays = out / ".extract" / "exemplars" / "conv2"
        while not all((arrays / name).exists() for name in ("max.npy", "mean.npy")):
            assert time.monotonic() < until and first.poll() is None
            time.sleep(0.05)
        before = sorted(str(p) for p in tmp_path.rglob("*"))
        ask = {"layers": ["conv2"], "images": photos, "out": out}
        for call in (lambda: describe(out, photos), lambda: describe(out, photos, overwrite=True),
                     lambda: milanx.extract(tiny(), **ask)):  # fmt: skip
            with pytest.raises(InputError, match="is being made by") as caught:
                call()
            assert f"process {first.pid} on {os.uname().nodename} (since " in caught.value.what
        assert sorted(str(p) for p in tmp_path.rglob("*")) == before
    finally:
        first.kill()
        first.wait()
    said = Said()
    describe(out, photos, progress=said)
    assert any(f"process {first.pid} on" in line and "was ended" in line for line in said.lines)
    assert [p.name for p in tmp_path.iterdir()] == ["run"] and not check(out).faults


def test_a_report_is_not_written_while_its_run_is_made(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from milanx.evaluate.protocols import PROTOCOLS, Asked, run_protocols

    out = describe(tmp_path / "run", photos).root
    monkeypatch.setitem(PROTOCOLS, "p1", lambda asked, progress: {"rows": {}})
    with held(out, print), pytest.raises(InputError, match="is being made by"):
        run_protocols(Asked(out, ("p1",)))

    def anew(asked: Asked, progress: object) -> dict[str, object]:
        describe(asked.run, photos, describer("two", 5.0))
        return {"rows": {}}

    monkeypatch.setitem(PROTOCOLS, "p1", anew)
    with pytest.raises(InputError, match="is not written into"):
        run_protocols(Asked(out, ("p1",)))
    assert not list(out.glob("evaluation-*"))


def test_locks_leave_nothing_and_are_looked_at_without_a_trace(tmp_path: Path) -> None:
    check_free(tmp_path / "deep" / "x")
    with held(tmp_path / "deep" / "x", print):
        with pytest.raises(InputError, match="is being made by process"):
            check_free(tmp_path / "deep" / "x")
        pid = os.fork()
        if pid == 0:
            try:
                check_free(tmp_path / "deep" / "x")
            except InputError:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        shutil.rmtree(tmp_path / "deep")  # whoever removes the folder takes the lock with it
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------ taken away meanwhile


def stop(monkeypatch: pytest.MonkeyPatch, at: int, act: object) -> None:
    """Do something when a pass takes its batch of this number."""
    take, seen = passes.Pass.take, []

    def taking(self: passes.Pass, *args: object) -> None:
        seen.append(1)
        if len(seen) == at:
            act()  # type: ignore[operator]
        take(self, *args)

    monkeypatch.setattr(passes.Pass, "take", taking)


@pytest.mark.parametrize("at", [2, 10])
@pytest.mark.parametrize("part", ["", ".extract", ".extract/exemplars"])
def test_a_run_that_is_removed_meanwhile_is_no_half_store(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, part: str
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop(patch, at, lambda: shutil.rmtree(out / part))
        with pytest.raises(InputError, match="was removed, or a part of it"):
            describe(out, photos)
    assert not (out / "exemplars").exists() and not (out / "run.json").exists()
    shutil.rmtree(out, ignore_errors=True)
    assert len(describe(out, photos)) and not check(out).faults


def test_photos_that_are_removed_meanwhile_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for i, image in enumerate(noise(30)):
        image.save(photos / f"{i:02}.png")
    with monkeypatch.context() as patch:
        stop(patch, 2, lambda: (photos / "29.png").unlink())
        with pytest.raises(InputError, match="cannot be read any more") as caught:
            describe(tmp_path / "run", photos)
    assert "29.png" in caught.value.what and "cannot write" not in caught.value.what


@pytest.mark.parametrize("most", [1_000, 9_000, 40_000])
def test_no_room_on_the_disk_is_said_wherever_it_shows(
    photos: Path, tmp_path: Path, most: int
) -> None:
    milanx.extract(tiny(), layers=["conv2"], images=photos, out=tmp_path / "warm")  # scans
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        with pytest.raises(InputError, match=r"cannot write .*run") as caught:
            describe(tmp_path / "run", photos)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.why == "a file may not grow so large there"
    whole = content(describe(tmp_path / "run", photos).root)
    assert whole == content(describe(tmp_path / "other", photos).root)


# ------------------------------------------------------------------ names


class Odd(nn.Module):
    """A model with layers of odd names."""

    NAMES = ("/abs/path", "a b", "%41", "..\\up", "x:y", "\x1b[31mred", "[bold]")

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        for name in self.NAMES:
            self.add_module(name, nn.Conv2d(3, 3, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for module in self.children():
            x = module(x)
        return x


def test_layers_lie_in_the_run_whatever_their_names(tmp_path: Path) -> None:
    from milanx.exemplars.reading import layer_path

    names = (*Odd.NAMES, "..", "../../etc", ".hidden", "", "blocks.6@class", "é", "a/", "nul\0")
    folders = [layer_path(tmp_path, name) for name in names]
    assert len({folder.name.lower() for folder in folders}) == len(names)
    assert layer_path(tmp_path, "blocks.6@class").name == "blocks.6@class"
    for folder in folders:
        assert folder.parent == tmp_path / "exemplars" and ".." not in folder.parts
        assert folder.resolve() == folder and folder.name.isprintable()


def test_names_are_shown_as_text(tmp_path: Path, photos: Path) -> None:
    out = describe(tmp_path / "run", photos).root
    rows = open_run(out).rows
    for row, text in zip(rows, ("[bold]a[/bold]", "\x1b[31mred\x07", ":cat: [link=x]y"),
                         strict=False):  # fmt: skip
        row["description"] = text
    milanx.rows.write_rows(out, rows, None, None)
    milanx.runs.write_settings(out, open_run(out).settings | {FILES: milanx.runs.tell_table(out)})
    shown = CliRunner().invoke(app, ["show", str(out)]).stdout
    assert "[bold]a[/bold]" in shown and r"\x1b[31mred\x07" in shown and ":cat: [link=x]y" in shown
    assert "\x1b[31m" not in shown
    one = CliRunner().invoke(app, ["show", str(out), "--unit", "conv2:1"]).stdout
    assert r"\x1b[31mred\x07" in one and "\x1b[31m" not in one
    told = CliRunner().invoke(app, ["show", str(out), "--json"]).stdout
    assert json.loads(told)[1]["description"] == "\x1b[31mred\x07" and "\x1b" not in told
    lost = CliRunner().invoke(app, ["show", "no\x1b[2J\u202esuch\nrun"]).stderr
    assert "\x1b" not in lost and "\u202e" not in lost and len(lost.splitlines()) == 3


def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for i, image in enumerate(noise(24)):
        image.save(os.fsencode(photos) + b"/caf\xe9-%02d.png" % i, "PNG")
    (photos / os.fsdecode(b"caf\xe9.png")).write_bytes(b"no image")
    run = describe(tmp_path / "run", photos)
    assert run.store.image_table()[0]["path"] == "caf\\xe9-00.png"
    assert run.settings["images"]["skipped"][0]["path"].startswith("caf")
    assert CliRunner().invoke(app, ["page", str(run.root)]).exit_code == 0
    assert CliRunner().invoke(app, ["check", str(run.root)]).exit_code == 0


def test_asked_for_what_cannot_be() -> None:
    base = ["exemplars", "tests.helpers:tiny", "-l", "conv2", "--images", "builtin:probe"]
    started = time.monotonic()
    for more in (["-k", "1000000"], ["--seed", "-1"], ["--device", "meta"],
                 ["--units", "0-9999999999"], ["--units", "9" * 5000], ["-l", ":foo"],
                 ["-l", "conv2:0-99999999999"]):  # fmt: skip
        result = CliRunner().invoke(app, [*base, *more])
        assert result.exit_code == 2, (more, result.output)
        assert len(result.stderr.splitlines()[-3:]) == 3 and "foresee" not in result.stderr, more
    assert time.monotonic() - started < 200
    for command in (["evaluate", "x"], ["prune", "x"], ["study", "make", "x"], ["analyze", "x"]):
        result = CliRunner().invoke(app, [*command, "--seed", "-1"])
        assert result.exit_code == 2


def test_a_cache_is_found_where_there_is_no_home(tmp_path: Path) -> None:
    code = ("from milanx.files import cache_dir, write_json\n"
            "write_json(cache_dir('a', 'b.json'), 'x', 1, {})\nprint(cache_dir('a'))")  # fmt: skip
    environment = {k: v for k, v in os.environ.items()
                   if k not in ("MILANX_CACHE", "XDG_CACHE_HOME")}  # fmt: skip
    for home in ("/dev/null", "/proc/nonexistent"):
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True,
                              text=True, env={**environment, "HOME": home,
                                              "TMPDIR": str(tmp_path)})  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(str(tmp_path)) and "MILANX_CACHE" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_an_array_of_another_shape_is_refused(photos: Path, tmp_path: Path) -> None:
    out = describe(tmp_path / "run", photos).root
    index = out / "exemplars" / "index.json"
    rest = json.loads(index.read_text())
    index.write_text(json.dumps({k: v for k, v in rest.items() if k not in (FILES, "seal")}))
    path = out / "exemplars" / "conv2" / "max.npy"
    array = np.load(path)
    for other in (array[:, :-1], array.astype(np.float64), np.asfortranarray(array), array[0]):
        np.save(path, other, allow_pickle=False)
        with pytest.raises(FormatError, match=r"max\.npy is damaged"):
            ExemplarStore.open(out).maxima("conv2")
    np.save(path, np.array([{}]), allow_pickle=True)
    with pytest.raises(FormatError, match=r"max\.npy is damaged"):
        ExemplarStore.open(out).maxima("conv2")
