"""Layers that are read through a lens, and lenses opened from files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from milanx.errors import InputError
from milanx.targets.lens import Lens
from milanx.targets.units import LayerInfo


def read_through(infos: Sequence[LayerInfo], lens: Lens) -> list[LayerInfo]:
    """Return layers as they are read through a lens.

    Raises:
        InputError: a layer of another width, or one that has a lens already.
    """
    made = []
    for info in infos:
        if info.lens is not None:
            raise InputError(f"{info.name} cannot be read through {lens.title}",
                             "its units are themselves computed from others",
                             f"name {info.module}")  # fmt: skip
        if info.units != lens.width:
            raise InputError(
                f"these {lens.title} do not fit {info.name}",
                f"they are made of {lens.width} units, and {info.name} has {info.units}",
                "name the layer that their file was made for",
            )
        made.append(dataclasses.replace(
            info, name=info.name + lens.suffix, kind=lens.kind, units=lens.units,
            read=f"{lens.title} of {info.read}", rectified=lens.rectified, upper=None,
            off=0.0 if lens.rectified else None, linear=lens.linear, better=None,
            through=lens.key, lens=lens, shown=(), cam=None,
        ))  # fmt: skip
    return made


def check_one(sae: Path | None, directions: Path | None) -> None:
    """Refuse two lenses at a time.

    Raises:
        InputError: both are given.
    """
    if sae is not None and directions is not None:
        raise InputError("an autoencoder and directions cannot both be asked for",
                         "a run reads its layers in one way",
                         ["leave --directions away", "leave --sae away"])  # fmt: skip


def open_lens(sae: Path | None, directions: Path | None) -> Lens | None:
    """Open the lens that is asked for, if any.

    Args:
        sae: folder or file of a sparse autoencoder.
        directions: file of directions.

    Raises:
        InputError: it cannot be read, or both are given.
    """
    check_one(sae, directions)
    if sae is not None:
        from milanx.targets.saereaders import open_autoencoder

        return open_autoencoder(sae)
    if directions is not None:
        from milanx.targets.directions import open_directions

        return open_directions(directions)
    return None


def reopen(known: Mapping[str, Any], path: Path | None = None) -> Lens:
    """Open the lens of a run again.

    Args:
        known: what `facts` gave, with the ``path`` that it had.
        path: where it is now; there when None.

    Raises:
        InputError: it is not there, or is another one.
    """
    where = path or Path(str(known.get("path", "")))
    made = open_lens(**{"sae": None, "directions": None, str(known.get("kind")): where})
    assert made is not None
    if made.key != known.get("fingerprint"):
        raise InputError(f"{where} is not what the run was made with",
                         f"its fingerprint is {made.key}, then {known.get('fingerprint')}",
                         "describe the model anew")  # fmt: skip
    return made
