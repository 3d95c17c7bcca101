"""Arrays of a cache: what is damaged, or was written by halves, is not there."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from milanx.errors import FormatError
from milanx.files import atomic_path, reading

DIGEST = "sha256"  # of the arrays, in the file's metadata


def keep_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as safetensors with a digest of all of them, atomically."""
    from safetensors.numpy import save_file

    kept = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with atomic_path(path) as temporary:
        save_file(kept, temporary, metadata={DIGEST: _digest(kept)})


def kept_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """Read what `keep_arrays` wrote; None where there is no such file, or it is damaged."""
    from safetensors import safe_open

    if not path.is_file():
        return None
    with contextlib.suppress(FormatError), reading(path), safe_open(path, "numpy") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if (file.metadata() or {}).get(DIGEST) == _digest(found):
            return found
    return None


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    told = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        told.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        told.update(array.tobytes())
    return told.hexdigest()
