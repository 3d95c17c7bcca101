"""Arrays of the cache: within a limit, whole or not there, whoever else writes them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from milanx.errors import InputError
from milanx.files import cache_dir
from milanx.files.arrays import keep_arrays, kept_arrays, mapped_arrays
from milanx.files.lock import held
from milanx.files.room import LIMIT, MONTH, STALE, forget_unused, limit, make_room, sizes

# Writes two arrays in turns under one name, each of numbers that are all the same.
WRITER = """
import sys
import numpy as np
from milanx.files import cache_dir
from milanx.files.arrays import keep_arrays
path, numbers = cache_dir("views", "a.safetensors"), [float(n) for n in sys.argv[1:]]
for turn in range(10**6):
    keep_arrays(path, {"x": np.full((20, 1000), numbers[turn % 2], np.float16)})
    if not turn:
        print("written", flush=True)
"""


def place(name: str) -> Path:
    return cache_dir("views", f"{name}.safetensors")


def keep(name: str, kilobytes: int, age: float = 0.0) -> None:
    assert keep_arrays(place(name), {"x": np.full(kilobytes * 1000, 7, np.uint8)})
    if age:
        os.utime(place(name), (time.time() - age, time.time() - age))


def test_what_was_not_used_for_the_longest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT, "0.0005")  # 500 kB
    for name, age in (("a", 300), ("b", 200), ("c", 100)):
        keep(name, 150, age)
    assert kept_arrays(place("a")) is not None  # a use
    keep("d", 150)
    assert [n for n in "abcd" if place(n).is_file()] == ["a", "c", "d"]
    assert mapped_arrays(place("c")) is not None
    keep("e", 300)
    assert [n for n in "acde" if place(n).is_file()] == ["c", "e"]
    assert sizes()["views"] <= 500_000


def test_a_file_that_is_mapped_stays_until_it_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    keep("a", 400)
    mapped = mapped_arrays(place("a"))
    assert mapped is not None
    monkeypatch.setenv(LIMIT, "0.0005")
    keep("b", 400)
    assert place("a").exists()
    assert int(mapped["x"].sum(dtype=np.int64)) == 7 * 400_000
    del mapped
    keep("c", 50)
    assert not place("a").exists() and place("b").exists()


SHELVED = {
    "digests": "a.json", "layers": "a.json", "scans": "a.json", "streams": "a.parquet",
    "texts": "a.safetensors",
}  # fmt: skip
# Has one file open and another mapped until it is told to end.
READER = """
import sys, mmap
one, other = (open(path, "rb") for path in sys.argv[1:])
mapped = mmap.mmap(other.fileno(), 0, access=mmap.ACCESS_READ)
other.close()
print("reading", flush=True)
sys.stdin.read()
"""


def put(shelf: str, name: str, age: float) -> Path:
    """Put 100 kB of a kind into the cache; returns the file."""
    path = cache_dir(shelf, name + SHELVED.get(shelf, "a/dense.npy")[1:])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(100_000))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


@pytest.mark.parametrize("shelf", SHELVED)
def test_every_kind_is_bounded_and_what_a_process_reads_stays(
    shelf: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, mapped, old, young = (put(shelf, name, age) for name, age in
                                  (("o", 900), ("m", 800), ("p", 700), ("q", 10)))  # fmt: skip
    other = cache_dir("train", "state.json")
    other.parent.mkdir(exist_ok=True)
    other.write_bytes(bytes(100_000))  # what the limit is not for
    monkeypatch.setenv(LIMIT, "0.00035")
    with subprocess.Popen(
        [sys.executable, "-c", READER, str(opened), str(mapped)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as reader:  # fmt: skip
        assert reader.stdout is not None and reader.stdout.readline() == b"reading\n"
        assert make_room(50_000, place("new"))
        assert [p.exists() for p in (opened, mapped, old, young)] == [True, True, False, True]
        assert make_room(300_000, place("new"))
        assert [p.exists() for p in (opened, mapped, young)] == [True, True, False]
        reader.communicate()
    assert make_room(250_000, place("new"))
    assert [p.exists() for p in (opened, mapped, other)] == [False, True, True]


def test_encoded_photos_give_way_to_nothing_else_and_go_when_nobody_used_them_for_a_month(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old, young = put("photos", "a", 2 * MONTH), put("photos", "b", MONTH / 2)
    monkeypatch.setenv(LIMIT, "0.00012")
    assert make_room(100_000, place("new")) and old.exists() and young.exists()
    with held(old.parent, print):
        forget_unused("photos")
        assert old.exists()  # it is being made
    with old.open("rb"):
        forget_unused("photos")
        assert old.exists()
    forget_unused("photos")
    assert not old.parent.exists() and young.exists()


def test_what_is_above_the_limit_alone_is_not_kept_and_nothing_goes_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep("a", 100)
    monkeypatch.setenv(LIMIT, "0.0002")
    assert not keep_arrays(place("b"), {"x": np.zeros(300_000, np.uint8)})
    assert place("a").is_file() and not place("b").exists()
    monkeypatch.setenv(LIMIT, "0")
    assert not keep_arrays(place("c"), {"x": np.zeros(1, np.uint8)})


@pytest.mark.parametrize("told", ["much", "-1", "inf", "nan"])
def test_a_limit_that_none_can_be_is_refused(told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT, told)
    with pytest.raises(InputError, match=LIMIT):
        limit()


def test_arrays_outside_the_cache_are_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep("a", 100)
    monkeypatch.setenv(LIMIT, "0.0001")
    assert keep_arrays(tmp_path / "elsewhere.safetensors", {"x": np.zeros(10**6, np.uint8)})
    assert place("a").is_file()


def test_damage_anywhere_makes_a_file_that_is_not_there() -> None:
    keep("a", 1)
    content = place("a").read_bytes()
    for at in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[at] ^= 1
        place("a").write_bytes(damaged)
        for found in (kept_arrays(place("a")), mapped_arrays(place("a"))):
            assert found is None or (found["x"] == 7).all()
        place("a").write_bytes(content[:at])
        assert kept_arrays(place("a")) is None and mapped_arrays(place("a")) is None


def test_killed_or_beside_another_no_writer_leaves_a_half(own_cache: Path) -> None:
    """Two processes write one file, and are killed at any moment."""
    random.seed(0)
    environment = {**os.environ, "MILANX_CACHE": str(own_cache)}
    seen = set()
    for _ in range(2):
        writers = [
            subprocess.Popen([sys.executable, "-c", WRITER, *numbers], env=environment,
                             stdout=subprocess.PIPE)
            for numbers in (("1", "2"), ("3", "4"))
        ]  # fmt: skip
        try:
            for writer in writers:
                assert writer.stdout is not None and writer.stdout.readline() == b"written\n"
            until = time.monotonic() + 0.3 + random.random()
            while time.monotonic() < until:
                time.sleep(0.005)  # and let them write
                for read in (kept_arrays, mapped_arrays):
                    found = read(place("a"))
                    if found is not None:
                        assert len(np.unique(found["x"])) == 1
                        seen.add(float(found["x"][0, 0]))
        finally:
            for writer in writers:
                writer.send_signal(signal.SIGKILL)
                writer.communicate()
        found = kept_arrays(place("a"))
        assert found is not None and len(np.unique(found["x"])) == 1
    assert len(seen) > 1


def test_what_killed_processes_left_goes_after_a_day() -> None:
    folder = place("a").parent
    folder.mkdir(parents=True)
    left, written = (folder / f".b.safetensors.0000000{n}.tmp" for n in (1, 2))
    for path in (left, written):
        path.write_bytes(b"half")
    old = time.time() - 2 * STALE
    os.utime(left, (old, old))
    assert make_room(1, place("a"))
    assert not left.exists() and written.exists()
