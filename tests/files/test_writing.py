"""Files are written whole or not at all, and what the system refuses is said in words."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from milanx.errors import FormatError, InputError
from milanx.files import (
    atomic_files,
    atomic_path,
    explained,
    read_json,
    write_json,
    write_table,
    write_text,
)
from tests.helpers import contents, files_of_at_most

PIXELS = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)


def in_numpy(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, PIXELS, allow_pickle=False)


@pytest.mark.parametrize("write", [
    in_numpy,
    lambda path: save_file({"a": torch.from_numpy(PIXELS)}, path),
    lambda path: Image.fromarray(PIXELS).save(path, "PNG"),
    lambda path: path.write_bytes(PIXELS.tobytes()),
], ids=["numpy", "safetensors", "pillow", "python"])  # fmt: skip
def test_what_every_library_says_of_a_full_disk_is_told_in_words(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    place = tmp_path / "new" / "deep" / "file"
    with (
        pytest.raises(InputError, match=f"cannot write {place}") as error,
        files_of_at_most(30_000),
        atomic_path(place) as temporary,
    ):
        write(temporary)
    assert "grow so large" in error.value.why or "the disk is full" in error.value.why
    assert "--out" in error.value.ways_out[0]
    assert not contents(tmp_path)


def test_a_table_that_does_not_fit(tmp_path: Path) -> None:
    table = pa.table({"a": np.random.default_rng(0).random(10_000)})
    with pytest.raises(InputError, match="cannot write"), files_of_at_most(30_000):
        write_table(tmp_path / "t.parquet", table, "milanx-test", 1)
    assert not contents(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_device_without_space_is_a_full_disk() -> None:
    with pytest.raises(InputError, match="cannot write out") as error, explained(Path("out")):
        Path("/dev/full").write_text("x")
    assert error.value.why == "the disk is full"


def test_what_does_not_fit_in_the_cache_is_no_matter_of_the_output(own_cache: Path) -> None:
    with pytest.raises(InputError) as error, files_of_at_most(100):
        write_text(own_cache / "kinds" / "x.txt", "x" * 1000)
    assert "MILANX_CACHE" in error.value.ways_out[0] and "--out" not in error.value.ways_out[0]


def test_other_errors_are_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="not this"), explained(tmp_path):
        raise OSError("not this")


def test_files_of_one_report_stand_together_or_not_at_all(tmp_path: Path) -> None:
    places = (tmp_path / "report" / "a.json", tmp_path / "report" / "b.txt")
    with atomic_files(*places) as (first, second):
        write_json(first, "milanx-test", 1, {})
        second.write_text("b")
        assert not any(p.exists() for p in places)
    before = contents(tmp_path)
    assert list(before) == [str(p) for p in (places[0].parent, *places)]
    with (
        pytest.raises(InputError, match=f"cannot write {places[1]}"),
        files_of_at_most(1_000),
        atomic_files(*places) as (first, second),
    ):
        write_json(first, "milanx-test", 1, {"new": True})
        write_text(second, "b" * 2_000)
    assert contents(tmp_path) == before


def test_folders_that_hold_other_things_stay(tmp_path: Path) -> None:
    place = tmp_path / "new" / "deep" / "file"
    with pytest.raises(ZeroDivisionError), atomic_path(place):
        (tmp_path / "new" / "other.txt").write_text("x")
        raise ZeroDivisionError
    assert list(contents(tmp_path)) == [str(tmp_path / "new"), str(tmp_path / "new" / "other.txt")]


@pytest.mark.parametrize("place", range(4))
def test_a_seal_whose_own_name_was_damaged_is_a_seal(place: int, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, "thing", 1, {"digest": "f" * 64})
    changed = bytearray(path.read_bytes())
    changed[changed.index(b'"seal"') + 1 + place] ^= 1
    path.write_bytes(changed)
    with pytest.raises(FormatError, match="is damaged"):
        read_json(path, "thing", 1)
    unsealed = path.read_text().rpartition(",")[0] + "}"
    path.write_text(unsealed)  # taken out on purpose
    assert read_json(path, "thing", 1)["digest"] == "f" * 64


MODES = """
import os, stat, sys
from pathlib import Path
os.umask(int(sys.argv[2], 8))
import numpy as np
from safetensors.numpy import save_file
from milanx.files import atomic_path, write_json
root = Path(sys.argv[1])
with atomic_path(root / "one.safetensors") as temporary:
    save_file({"a": np.zeros(3)}, temporary)
with atomic_path(root / "folder") as temporary:
    (temporary / "deep").mkdir(parents=True)
    save_file({"a": np.zeros(3)}, temporary / "deep" / "two.safetensors")
write_json(root / "three.json", "a test", 1, {})
print(*sorted({oct(p.stat().st_mode & 0o777) for p in root.rglob("*") if p.is_file()}))
"""


@pytest.mark.parametrize(("umask", "mode"), [("022", "0o644"), ("027", "0o640"), ("077", "0o600")])
def test_files_of_every_library_are_read_by_whom_the_umask_lets(
    umask: str, mode: str, tmp_path: Path
) -> None:
    done = subprocess.run([sys.executable, "-c", MODES, str(tmp_path), umask],
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout.split() == [mode]
