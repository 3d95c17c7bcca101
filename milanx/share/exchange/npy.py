"""Arrays of numpy's own format, written a part at a time and read as they are asked for."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np

from milanx.files import explained, reading
from milanx.files.digests import regular


class NpyFile:
    """An array that is written along its first axis; what is skipped is zero.

    Args:
        path: the file.
        shape: of the whole array.
        kind: of its numbers.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], kind: type) -> None:
        self.path, self.shape, self.kind = path, shape, np.dtype(kind)
        self._row = int(np.prod(shape[1:], dtype=np.int64)) * self.kind.itemsize

    def __enter__(self) -> NpyFile:
        self._file = self.path.open("wb")
        head = {"descr": np.lib.format.dtype_to_descr(self.kind), "fortran_order": False,
                "shape": self.shape}  # fmt: skip
        np.lib.format.write_array_header_1_0(self._file, head)
        self._end = self._file.tell() + self._row * self.shape[0]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        with explained(self.path), self._file:
            if kind is None:
                self._file.truncate(self._end)

    def add(self, rows: np.ndarray) -> None:
        """Write some rows."""
        with explained(self.path):
            self._file.write(np.ascontiguousarray(rows, self.kind).tobytes())

    def skip(self, count: int) -> None:
        """Leave some rows zero; disks that can keep them without taking room."""
        self._file.seek(self._row * count, 1)


def read_npy(path: Path) -> np.ndarray:
    """Map an array; objects, which would be code, are refused.

    Raises:
        FormatError: it is damaged, or no array.
    """
    regular(path)
    with reading(path):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("it is an archive of several arrays")
    return array
