"""``max.npy`` and ``mean.npy`` while they are made: rows are written, columns are read.

Neither is mapped into memory: what is touched of a mapped file counts as memory of the process, and
with many units these files are larger than that.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from milanx.files import atomic_path, reading

FLOAT = np.dtype("<f4")


class Numbers:
    """A file of float32 [images, units] in NumPy's format.

    Args:
        path: of a file that `make` made.
        shape: that it has.

    Raises:
        FormatError: it is none, or has another shape.
    """

    def __init__(self, path: Path, shape: tuple[int, int]) -> None:
        self.path, self.shape = path, shape
        with reading(path):
            self._file = path.open("r+b", buffering=0)
            np.lib.format.read_magic(self._file)  # type: ignore[no-untyped-call]
            found, by_column, dtype = np.lib.format.read_array_header_1_0(self._file)  # type: ignore[no-untyped-call]
            self._start = self._file.tell()
            size = self._file.seek(0, os.SEEK_END)
            wanted = self._start + FLOAT.itemsize * shape[0] * shape[1]
            if (found, by_column, dtype, size) != (shape, False, FLOAT, wanted):
                raise ValueError(f"it holds {dtype} {found} in {size} bytes")

    @staticmethod
    def make(path: Path, shape: tuple[int, int]) -> None:
        """Make a file of zeros; its room on the disk is taken, so that a full one shows here."""
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {  # type: ignore[no-untyped-call]
                "descr": FLOAT.str, "fortran_order": False, "shape": shape})  # fmt: skip
            size = FLOAT.itemsize * shape[0] * shape[1]
            if hasattr(os, "posix_fallocate") and size:
                file.flush()
                os.posix_fallocate(file.fileno(), file.tell(), size)
                return
            zeros = np.zeros(shape[1], FLOAT).tobytes()
            for _ in range(shape[0]):
                file.write(zeros)

    def write(self, images: np.ndarray, values: np.ndarray) -> None:
        """Write rows.

        Args:
            images: int64 [b], which.
            values: float32 [b, units].
        """
        breaks = np.flatnonzero(np.diff(images) != 1) + 1
        for run, rows in zip(np.split(images, breaks), np.split(values, breaks), strict=True):
            if len(run):
                self._seek(int(run[0]), 0)
                left = np.ascontiguousarray(rows, FLOAT).data.cast("B")
                while left:
                    left = left[self._file.write(left) :]

    def columns(self, start: int, stop: int, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Read some units on some images, float32 [rows, stop - start]."""
        found = np.empty((len(rows), stop - start), FLOAT)
        with reading(self.path):
            for place, row in enumerate(rows):
                self._seek(int(row), start)
                part = found[place].data.cast("B")
                if self._file.readinto(part) != len(part):  # type: ignore[attr-defined]
                    raise ValueError("it ends too early")
        return found

    def _seek(self, row: int, column: int) -> None:
        self._file.seek(self._start + FLOAT.itemsize * (row * self.shape[1] + column))

    def flush(self) -> None:
        """Bring what was written to the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
