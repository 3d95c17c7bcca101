"""Corrupted pictures made by processes of their own, since threads wait for Python's one lock.

A process is this file run by itself: nothing of the caller's is imported there or forked, and only
sizes, names and pixels pass through its pipes. Which process makes a picture changes no byte of
it, and where a process cannot be started or has ended, the picture is made by the caller.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

import milanx
from milanx.act.corruptions import corrupt, generator_for, read_frost
from milanx.act.corruptions.shared import Pixels

# Pictures from which processes are worth their start: each takes as long as some 150 pictures.
WORTH = 300
PATIENCE = 5  # seconds that an idle process has to end


class Makers:
    """Makes corrupted pictures; a context manager.

    Args:
        workers: processes, each started when it is first needed; none below two. As many threads
            may call `make` at a time.
        frost: folder of pictures of ice; milanx's own when None.

    Raises:
        InputError: no pictures of ice there.
    """

    def __init__(self, workers: int = 1, frost: Path | None = None) -> None:
        self._ice = None if frost is None else read_frost(frost)
        self._workers = [_Worker(frost) for _ in range(workers if workers > 1 else 0)]
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)

    def __enter__(self) -> Makers:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._workers:
            worker.end()

    def make(self, image: Pixels, name: str, severity: int, seed: int, key: str) -> Pixels:
        """Return what `corrupt` makes of a picture with the draws of `generator_for`."""
        found = None
        if self._workers:
            worker = self._idle.get()
            try:
                found = worker.make(image, name, severity, seed, key)
            finally:
                self._idle.put(worker)
        if found is not None:
            return found
        return corrupt(image, name, severity, generator_for(seed, key, name, severity), self._ice)


class _Worker:
    """One process, and its pipes."""

    def __init__(self, frost: Path | None) -> None:
        self._frost, self._ended = frost, False
        self._process: subprocess.Popen[bytes] | None = None

    def make(self, image: Pixels, name: str, severity: int, seed: int, key: str) -> Pixels | None:
        """Return a corrupted picture; None where the process cannot make it."""
        if self._ended:
            return None
        asked = {"shape": image.shape, "name": name, "severity": severity, "seed": seed, "key": key}
        try:
            if self._process is None:
                self._process = self._start()
            to, back = self._process.stdin, self._process.stdout
            assert to is not None and back is not None
            to.write(json.dumps(asked).encode() + b"\n" + image.tobytes())
            to.flush()
            raw = back.read(image.nbytes)
        except OSError:
            raw = b""
        if len(raw) < image.nbytes:  # it ended, or never began
            self._ended = True
            return None
        return np.frombuffer(bytearray(raw), np.uint8).reshape(image.shape)

    def _start(self) -> subprocess.Popen[bytes]:
        root = str(Path(milanx.__file__).parents[1])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        threads = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
        return subprocess.Popen(
            # -P: nothing is imported from the folder that one happens to be in
            [sys.executable, "-P", "-m", __name__, *([str(self._frost)] if self._frost else [])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**os.environ, **threads, "PYTHONPATH": os.pathsep.join(paths)},
        )  # fmt: skip

    def end(self) -> None:
        """Let the process end; it does when nobody asks any more."""
        if self._process is None:
            return
        self._ended = True
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def serve(frost: Path | None) -> None:
    """Answer what `_Worker` asks, until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller's Ctrl-C ends it by its pipes
    ice = None if frost is None else read_frost(frost)
    while line := sys.stdin.buffer.readline():
        asked: dict[str, Any] = json.loads(line)
        shape = asked.pop("shape")
        raw = sys.stdin.buffer.read(int(np.prod(shape)))
        image = np.frombuffer(raw, np.uint8).reshape(shape)
        made = corrupt(image, asked["name"], asked["severity"], generator_for(**asked), ice)
        sys.stdout.buffer.write(made.tobytes())
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    serve(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
