"""Arrays of a cache: what is damaged, or was written by halves, is not there."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from milanx.errors import FormatError
from milanx.files import atomic_path, cache_dir, reading
from milanx.files.room import make_room, used

DIGEST = "sha256"  # of the arrays, in the file's metadata
HEAD = 8  # bytes of a safetensors file that say how long its header is


def keep_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> bool:
    """Write arrays as safetensors with a digest of all of them, atomically.

    In the cache room is made for them (`milanx.files.room`).

    Returns:
        Whether they were written: not where they alone are above the cache's limit.
    """
    from safetensors.numpy import save_file

    kept = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    size = sum(array.nbytes for array in kept.values())
    if path.is_relative_to(cache_dir()) and not make_room(size, path):
        return False
    with atomic_path(path) as temporary:
        save_file(kept, temporary, metadata={DIGEST: _digest(kept)})
    return True


def kept_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """Read what `keep_arrays` wrote; None where there is no such file, or it is damaged."""
    from safetensors import safe_open

    if not path.is_file():
        return None
    with contextlib.suppress(FormatError), reading(path), safe_open(path, "numpy") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if (file.metadata() or {}).get(DIGEST) == _digest(found):
            used(path)
            return found
    return None


def mapped_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """Map what `keep_arrays` wrote into memory; None as of `kept_arrays`.

    Every byte is looked at once, for the digest; after that the system drops and reads pages as it
    needs them, so that arrays may be larger than the memory.
    """
    from safetensors import safe_open

    if not path.is_file():
        return None
    with contextlib.suppress(FormatError), reading(path):
        with safe_open(path, "numpy") as file:  # which checks the header
            told = (file.metadata() or {}).get(DIGEST)
            types = {name: file.get_slice(name)[:0].dtype for name in file.keys()}  # noqa: SIM118
        with path.open("rb") as plain:
            length = int.from_bytes(plain.read(HEAD), "little")
            header = json.loads(plain.read(length))
        found: dict[str, np.ndarray] = {}
        for name, kind in types.items():
            shape, begin = tuple(header[name]["shape"]), header[name]["data_offsets"][0]
            # What is changed in memory is changed there alone; torch warns of what is read-only.
            mapped = np.memmap(path, kind, "c", HEAD + length + begin, shape)
            found[name] = np.asarray(mapped)
        if told == _digest(found):
            used(path)
            return found
    return None


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    told = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        told.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        told.update(array.reshape(-1).view(np.uint8).data)
    return told.hexdigest()
