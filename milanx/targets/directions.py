"""Directions of one's own as units: how far activations lie along each."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from milanx.errors import InputError

TENSOR, NAMES = "directions", "names"


@dataclass(frozen=True, eq=False)
class Directions:
    """Projections on directions of unit length: a lens.

    Attributes:
        matrix: float32 [n, d], each row of length one.
        path: of the file.
        names: of the directions, [n]; () for none.
    """

    matrix: torch.Tensor
    path: str
    names: tuple[str, ...] = ()

    kind = "directions"
    suffix = "@directions"
    title = "projections"
    rectified = False
    linear = True

    @property
    def width(self) -> int:
        """Units of the layer that it reads."""
        return self.matrix.shape[1]

    @property
    def units(self) -> int:
        """How many directions there are."""
        return self.matrix.shape[0]

    @cached_property
    def key(self) -> str:
        """Fingerprint of the directions; their names change no value."""
        digest = hashlib.sha256(f"directions{list(self.matrix.shape)}".encode())
        digest.update(self.matrix.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def __call__(self, maps: torch.Tensor) -> torch.Tensor:
        """Compute projections [b, n, h, w] of a layer's units [b, d, h, w], in float32."""
        x = maps.movedim(1, -1).float()
        return (x @ self.matrix.to(x).T).movedim(-1, 1)

    def facts(self) -> dict[str, Any]:
        """Return what is to be known of them, for json."""
        return {"kind": "directions", "path": self.path, "width": self.width,
                "directions": self.units, "names": list(self.names),
                "fingerprint": self.key}  # fmt: skip

    def notes(self, module: str, at_map: bool) -> list[str]:
        """Say nothing: a file of directions does not say where they are from."""
        return []


def open_directions(path: Path) -> Directions:
    """Read directions: the tensor ``directions`` [n, d] of a safetensors file.

    Its metadata may have their ``names``, as json: a list of n texts.

    Raises:
        InputError: no such file, another kind of file or tensor, or directions that cannot be.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no directions {path}", "there is no such file", "check --directions")
    metadata, tensors = _read(path)
    if set(tensors) != {TENSOR}:
        raise InputError(
            f"{path} holds no directions",
            f"it holds {', '.join(sorted(tensors)[:6]) or 'nothing'}, and should hold one tensor "
            f"named {TENSOR!r}",
            f'safetensors.torch.save_file({{"{TENSOR}": tensor}}, path), with a row a direction',
        )
    matrix = tensors[TENSOR]
    if matrix.ndim != 2 or not matrix.numel() or not matrix.is_floating_point():
        raise InputError(f"{path} holds no directions", f"{TENSOR!r} is {list(matrix.shape)} of "
                         f"{str(matrix.dtype).removeprefix('torch.')}",
                         "save floating-point numbers [n, d], a row a direction")  # fmt: skip
    matrix = matrix.float()
    length = matrix.norm(dim=1)
    bad = (~torch.isfinite(length) | (length == 0)).nonzero().flatten().tolist()
    if bad:
        raise InputError(f"{path} holds what is no direction",
                         f"row {bad[0]} has the length {float(length[bad[0]])}",
                         "leave such rows away")  # fmt: skip
    return Directions(matrix / length[:, None], str(path.resolve()),
                      _names(path, metadata, len(matrix)))  # fmt: skip


def _read(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            return metadata, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except Exception as error:  # the reader has no one kind of error for other files
        raise InputError(f"{path} cannot be read", str(error).splitlines()[0],
                         "save directions as .safetensors") from error  # fmt: skip


def _names(path: Path, metadata: dict[str, str], count: int) -> tuple[str, ...]:
    """Read the names of directions.

    Raises:
        InputError: they are no list of one text a direction.
    """
    if NAMES not in metadata:
        return ()
    try:
        names = json.loads(metadata[NAMES])
    except (ValueError, RecursionError):
        names = None
    if (
        not isinstance(names, list)
        or len(names) != count
        or not all(isinstance(n, str) for n in names)
    ):
        raise InputError(f"{path} has names that do not fit",
                         f"its metadata has {metadata[NAMES][:60]!r} for {count} directions",
                         f'metadata={{"{NAMES}": json.dumps([...])}}, a text a row')  # fmt: skip
    return tuple(names)
