"""What lies in the folder of a sparse autoencoder: weights, and what is said of them.

Nothing that could run code is read. What the names mean, `saereaders` knows.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from milanx.errors import InputError
from milanx.targets.autoencoders import NORMS

CONFIGS = ("cfg.json", "config.json")
WEIGHTS = (".safetensors", ".pt", ".pth", ".bin")
PICKLES = (".pkl", ".gz", ".pickle")
FIRST_LINE = 2**20  # bytes within which saev's line of json ends
FORMATS = "SAELens, ViT-Prisma, saev, dictionary_learning and Overcomplete"


@dataclass(frozen=True, eq=False)
class Files:
    """What lies in an autoencoder's place.

    Attributes:
        path: of the weights.
        tensors: float32, by name.
        config: beside them; {} for none.
        named: of the config's file.
    """

    path: Path
    tensors: dict[str, torch.Tensor]
    config: dict[str, Any]
    named: str = "config.json"

    def take(self, name: str, *shape: int) -> torch.Tensor:
        """Return a tensor of a shape.

        Raises:
            InputError: there is none, or it has another.
        """
        if name not in self.tensors:
            raise InputError(f"{self.path} lacks {name}",
                             f"it holds {', '.join(sorted(self.tensors)[:8])}",
                             "save the whole state dict")  # fmt: skip
        found = self.tensors[name]
        if shape and tuple(found.shape) != shape:
            raise InputError(f"{self.path} does not fit itself",
                             f"{name} is {list(found.shape)}, not {list(shape)}",
                             "save the state dict of one autoencoder")  # fmt: skip
        return found

    def matrix(self, name: str, *, transposed: bool = False) -> torch.Tensor:
        """Return a matrix, [d, n]."""
        found = self.take(name)
        if found.ndim != 2:
            raise InputError(f"{self.path} does not fit itself", f"{name} is {list(found.shape)}, "
                             "no matrix", "save the state dict of one autoencoder")  # fmt: skip
        return found.T.contiguous() if transposed else found

    def says(self, *names: str, default: Any = None) -> Any:
        """Return the first value that the config has under some names."""
        return next((self.config[n] for n in names if self.config.get(n) is not None), default)

    def refuse(self, what: str, value: object, known: str) -> InputError:
        """Make the error of something that is not known."""
        return InputError(f"{self.path.parent} has the {what} {value!r}, which is not read",
                          f"known are {known}", "name an autoencoder of one of these")  # fmt: skip

    def origin(self, kind: str, architecture: str) -> dict[str, str]:
        """Return what is to be known of the file."""
        return {"format": kind, "architecture": architecture, "path": str(self.path.resolve())}


def weights_of(folder: Path) -> Path:
    """Return the one file of weights in a folder.

    Raises:
        InputError: none, or several of which none is plainly meant.
    """
    there = sorted(p for p in folder.iterdir() if p.is_file())
    found = [p for p in there if p.suffix.lower() in WEIGHTS and p.name != "sparsity.safetensors"]
    usual = [p for p in found if p.name in ("sae_weights.safetensors", "ae.pt", "sae.pt")]
    found = usual if len(usual) == 1 else found
    if len(found) == 1:
        return found[0]
    pickles = [p for p in there if p.name.endswith(PICKLES)]
    if not found and pickles:
        return pickles[0]
    names = ", ".join(p.name for p in (found or there)[:6])
    raise InputError(
        f"{folder} holds {'several files' if found else 'no file'} of weights",
        f"there are {names}" if names else "it is empty",
        f"--sae {folder / found[0].name}" if found else f"{FORMATS} are read",
    )


def config_beside(weights: Path) -> tuple[dict[str, Any], str]:
    """Read the config beside the weights, if there is one."""
    for name in CONFIGS:
        path = weights.parent / name
        if not path.is_file():
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, OSError, RecursionError) as error:
            raise InputError(f"{path} cannot be read", str(error).splitlines()[0],
                             "it is damaged: fetch it anew") from error  # fmt: skip
        if isinstance(content, dict):
            return content, name
    return {}, CONFIGS[1]


def floats(path: Path, state: Any) -> dict[str, torch.Tensor]:
    """Return the tensors of a state dict as float32 on the CPU; whole numbers stay so.

    Raises:
        InputError: it is no state dict.
    """
    if not isinstance(state, Mapping):
        raise InputError(f"{path} is no state dict", f"it holds a {type(state).__name__}",
                         "save the autoencoder's state_dict()")  # fmt: skip
    return {str(k): v.detach().float() if v.is_floating_point() else v.detach()
            for k, v in state.items() if isinstance(v, torch.Tensor)}  # fmt: skip


def read_saev(path: Path) -> tuple[dict[str, Any] | None, Any]:
    """Read saev's file: one line of json, then torch's; (None, None) for any other."""
    if path.suffix.lower() == ".safetensors":  # whose first byte may be any
        return None, None
    with path.open("rb") as file:
        if file.read(1) != b"{":
            return None, None
        file.seek(0)
        line = file.readline(FIRST_LINE)
        rest = file.read()
    try:
        header = json.loads(line)
        state = torch.load(io.BytesIO(rest), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise whatever the reader stumbles over
        raise InputError(f"{path} cannot be read", str(error).splitlines()[0],
                         "it is damaged, or holds more than tensors") from error  # fmt: skip
    if not isinstance(header, dict):
        raise InputError(f"{path} is no autoencoder that is known",
                         "its first line is no object of json", f"{FORMATS} are read")  # fmt: skip
    return header, state


def whole(files: Files, value: object, name: str) -> int:
    """Return a number of latents.

    Raises:
        InputError: it is none.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or value != int(value)
        or (value < 1)
    ):
        raise InputError(f"{files.path.parent} does not say {name}",
                         f"it is {value!r}, and should be a whole number",
                         f"write it into {files.named}")  # fmt: skip
    return int(value)


def known_norm(files: Files, name: object) -> str:
    """Return how activations are normalised.

    Raises:
        InputError: in a way that is not known, or by a number that the folder does not hold.
    """
    if name == "expected_average_only_in":
        raise InputError(
            f"{files.path.parent} scales activations by their average norm in training",
            "which its files do not hold",
            "fold it into the weights first (fold_activation_norm_scaling_factor) and save anew",
        )
    if name not in NORMS:
        raise files.refuse("normalisation", name, ", ".join(NORMS))
    return str(name)
