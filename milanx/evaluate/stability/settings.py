"""What is varied, and on what: one thing at a time, all else as it is by default."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from milanx.errors import InputError, did_you_mean

BASE = "base"
PROBE = "images"  # varied by naming other probe images, not by values
SHARE = "share"


@dataclass(frozen=True)
class Axis:
    """One thing that is varied.

    Attributes:
        title: what it is, in words.
        values: that it takes, by default.
        read: a value from the command line's words.
        search: whether exemplars stay, and the search alone is repeated.
    """

    title: str
    values: tuple[Any, ...]
    read: Callable[[str], Any]
    search: bool = False


# The values of protocols.md's stability, and what the paper (Hernandez et al. 2022) leaves open.
AXES: dict[str, Axis] = {
    "k": Axis("exemplars a unit", (5, 10, 15, 30), int),
    "quantile": Axis("quantile of the masks", (0.95, 0.99, 0.995), float),
    "seed": Axis("seed of the split", (0, 1, 2), int),
    SHARE: Axis("share of the probe images", (0.125, 0.25, 0.5, 1.0), float),
    PROBE: Axis("probe images", (), str),
    "lam": Axis("lambda", (0.0, 0.1, 0.2, 0.4, 0.6), float, search=True),
    "beam": Axis("beam", (1, 5, 20, 50, 100), int, search=True),
    "retrieved": Axis("phrases retrieved", (0, 4, 12, 24), int, search=True),
    "strategy": Axis("strategy", ("beam", "diverse", "nucleus"), str, search=True),
}


def read_axes(texts: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Read what is to be varied: ``k``, or ``k=5,15`` with values; every axis when empty.

    Raises:
        InputError: no such axis, or values that it cannot take.
    """
    if not texts:
        return {name: axis.values for name, axis in AXES.items()}
    found: dict[str, tuple[Any, ...]] = {}
    for text in texts:
        name, _, given = text.partition("=")
        if name not in AXES:
            hint = did_you_mean(name, AXES)
            raise InputError(f"nothing called {name!r} is varied", f"there are {', '.join(AXES)}",
                             hint or "--vary k --vary lam=0,0.2")  # fmt: skip
        axis = AXES[name]
        if name == PROBE and given:
            raise InputError("probe images are not varied by values", f"{given!r} was given",
                             "--probe FILE.parquet for each other set")  # fmt: skip
        try:
            found[name] = tuple(map(axis.read, given.split(","))) if given else axis.values
        except ValueError as error:
            usual = ",".join(map(str, axis.values))
            raise InputError(
                f"{axis.title} cannot be {given!r}", str(error), f"--vary {name}={usual}"
            ) from error
    return found


@dataclass(frozen=True)
class StabilityAsked:
    """Whose units are described again and again, and under what.

    Attributes:
        model: the target, by name.
        layers: of it.
        images: its probe images.
        out: the folder for runs, texts and the report; what is there is gone on with.
        units: the first ones of each layer.
        probes: other sets of probe images, one source each.
        depth: further layers, described under the defaults alone: which of them can be described?
        axes: name -> values, of `AXES`.
        weights: a checkpoint of the target's.
        limit: at most this many probe images.
        device: where to compute.

    Raises:
        InputError: nothing to describe, or two sets of probe images under one name.
    """

    model: str
    layers: tuple[str, ...]
    images: tuple[str, ...]
    out: Path
    units: int = 64
    probes: tuple[str, ...] = ()
    depth: tuple[str, ...] = ()
    axes: Mapping[str, tuple[Any, ...]] = field(default_factory=lambda: read_axes(()))
    weights: Path | None = None
    limit: int | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if not self.layers or not self.images:
            raise InputError("nothing to describe", "a layer and probe images are needed",
                             "--layer NAME --images FILE.parquet")  # fmt: skip
        if self.units < 2:
            raise InputError(
                f"{self.units} units of a layer", "descriptions of different units are compared",
                "--units 64",
            )  # fmt: skip
        names = [probe_name(probe) for probe in self.probes]
        if len(set(names)) < len(names):
            raise InputError("two sets of probe images have one name", ", ".join(names),
                             "name each once, or rename a file")  # fmt: skip

    def addressed(self, layers: Sequence[str]) -> list[str]:
        """Return layers with the units that are described."""
        return [f"{layer}:0-{self.units - 1}" for layer in layers]


def probe_name(spec: str) -> str:
    """Return what probe images are called in a table."""
    return spec if ":" in spec else Path(spec).stem
