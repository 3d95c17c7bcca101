"""Lists of layers, kept in the cache: to list a library's model again, nothing is loaded or built.

A list is kept of what is named by timm's, torchvision's or the literature's names, with random
weights. It stands for the versions of all libraries that build and run the model, and for the code
of this folder. Neither torch nor timm is imported here.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milanx.errors import MilanxError
from milanx.files import cache_dir, fingerprint, fingerprint_file, read_json, write_json
from milanx.files.jsons import json_text
from milanx.files.room import make_room, used

FORMAT, VERSION = "milanx layers", 1
LIBRARIES = ("torch", "timm", "torchvision", "transformers", "milanx")
NAMED = "torchvision:"  # of what stands before a colon, what names a library's model alone


@dataclass(frozen=True)
class Listed:
    """A layer of a list that was kept; see `milanx.targets.units.LayerInfo`."""

    name: str
    kind: str
    units: int
    map_size: tuple[int, int]
    read: str
    linear: bool
    inert: bool | None
    better: str | None
    refused: str | None


@dataclass(frozen=True)
class Kept:
    """What is kept of a model's layers.

    Attributes:
        layers: of each what `milanx.targets.units.LayerInfo.to_dict` gives, ``refused`` with it.
        repository: of the Hugging Face Hub, where the model's own weights lie; "" for one that is
            not known to lie there.
    """

    layers: list[dict[str, Any]]
    repository: str = ""

    def listed(self) -> list[Listed]:
        """Return the layers as tables show them."""
        names = Listed.__dataclass_fields__
        return [Listed(**{name: value for name, value in row.items() if name in names})
                for row in self.layers]  # fmt: skip


def place(name: str) -> Path | None:
    """Return the file of a model's list; None for a model that no library's name stands for."""
    plain = name.removeprefix(NAMED)
    if ":" in plain or "/" in plain or Path(name).exists():
        return None
    versions = [_version(library) for library in LIBRARIES]
    code = [fingerprint_file(path) for path in sorted(Path(__file__).parent.glob("*.py"))]
    return cache_dir("layers", f"{fingerprint(name, versions, code)}.json")


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return ""


def kept(name: str) -> Kept | None:
    """Return what is kept of a model's layers; None where nothing is, or it is damaged."""
    path = place(name)
    if path is None:
        return None
    try:
        content = read_json(path, FORMAT, VERSION)
        found = Kept(content["layers"], content["repository"])
        found.listed()
        used(path)
    except (MilanxError, KeyError, TypeError, AttributeError):
        return None
    return found


def keep(name: str, layers: Sequence[dict[str, Any]], repository: str = "") -> None:
    """Keep a model's layers, as `Kept` says; not where the cache cannot be written."""
    path = place(name)
    if path is None:
        return
    content = {"layers": list(layers), "repository": repository}
    try:
        if make_room(len(json_text(content)), path):
            write_json(path, FORMAT, VERSION, content)
    except MilanxError:  # it is only a saving of time
        return


def out_of_reach(repository: str) -> bool:
    """Whether the weights of a repository are neither here nor to be had now."""
    from huggingface_hub import constants

    from milanx.hub.reach import silence

    here = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    return not here.exists() and (bool(constants.HF_HUB_OFFLINE) or bool(silence()))
