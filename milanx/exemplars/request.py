"""What is asked of an extraction: one object that checks itself when it is made."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from torch import nn

from milanx.errors import InputError, did_you_mean
from milanx.images.item import Source
from milanx.images.preprocess import Preprocess
from milanx.targets.capture import check_read
from milanx.targets.through import check_one
from milanx.targets.units import Address, parse_address, parse_units

DEFAULT_BATCH = 32
DEFAULT_DTYPE = "float32"
DTYPES = (DEFAULT_DTYPE, "bfloat16", "float16")
SIGNS = ("+", "-")
SECONDS_BETWEEN_CHECKPOINTS = 20.0
MOST_EXEMPLARS = 1000  # a unit's; each is a map in memory
MOST_SEED = 2**63 - 1  # of torch's generators
HOW_FAST = ("batch_size", "workers", "checkpoint_seconds")  # settings that choose no exemplar


@dataclass(frozen=True)
class ExtractSettings:
    """How exemplars are chosen.

    Attributes:
        k: exemplars a unit.
        quantile: of all positions, above which the mask lies.
        aside: share of the images, by group, that never become exemplars.
        seed: of the split.
        batch_size: images of a forward pass; `DEFAULT_BATCH` when None.
        workers: threads that decode images.
        checkpoint_seconds: least time between two checkpoints; 0: after every batch.

    Raises:
        InputError: a value that cannot be.
    """

    k: int = 15
    quantile: float = 0.99
    aside: float = 0.2
    seed: int = 0
    batch_size: int | None = None
    workers: int = 2
    checkpoint_seconds: float = SECONDS_BETWEEN_CHECKPOINTS

    def __post_init__(self) -> None:
        _check_whole("k, the exemplars of a unit,", self.k, 1, "-k 15", MOST_EXEMPLARS)
        _check_real("the quantile", self.quantile, "between 0 and 1, and neither",
                    lambda q: 0 < q < 1, "--quantile 0.99")  # fmt: skip
        _check_real("the share kept aside", self.aside, "from 0 to below 1",
                    lambda share: 0 <= share < 1, "--aside 0.2")  # fmt: skip
        _check_whole("the seed", self.seed, 0, "--seed 0", MOST_SEED)
        if self.batch_size is not None:
            _check_whole("the batch size", self.batch_size, 1, f"--batch-size {DEFAULT_BATCH}")
        _check_whole("the number of workers", self.workers, 1, "--workers 2")
        _check_real("the time between checkpoints", self.checkpoint_seconds, "0 or more",
                    lambda seconds: seconds >= 0, "checkpoint_seconds=20")  # fmt: skip

    @property
    def batch(self) -> int:
        """Images of a forward pass."""
        return self.batch_size or DEFAULT_BATCH

    def choosing(self) -> dict[str, Any]:
        """Return the settings that the exemplars depend on."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in HOW_FAST}


@dataclass(frozen=True)
class Request:
    """What is asked of an extraction; all that its result depends on.

    Attributes:
        target: a timm name, an alias of the literature, ``package.module:function``, or a module.
        layers: names, shell patterns or addresses (``blocks.6:0-63``, ``LAYER:-17``).
        images: sources of probe images.
        units: a range of units for every layer, such as ``0-63``; all when None.
        limit: at most this many images.
        weights: a checkpoint of the target's.
        random_weights: use random weights.
        preprocess: instead of the target's own.
        read: ``auto``: units after their own nonlinearity; ``raw``: before it.
        sae: folder or file of a sparse autoencoder, whose latents are the units.
        directions: file of directions, the projections on which are the units.
        signs: ``+``, ``-`` or both. Addresses of the sign ``-`` add it, and stand for it alone
            where there are no others.
        settings: how exemplars are chosen.
        device: ``auto``, or a device of torch's.
        dtype: of the target, one of `DTYPES`.

    Raises:
        InputError: something that cannot be, whatever the target and the images are.
    """

    target: str | nn.Module
    layers: tuple[str, ...]
    images: tuple[str | Path | Source, ...]
    units: str | None = None
    limit: int | None = None
    weights: Path | None = None
    random_weights: bool = False
    preprocess: Preprocess | None = None
    read: str = "auto"
    sae: Path | None = None
    directions: Path | None = None
    signs: tuple[str, ...] = ("+",)
    settings: ExtractSettings = field(default_factory=ExtractSettings)
    device: str = "auto"
    dtype: str = DEFAULT_DTYPE

    def __post_init__(self) -> None:
        if not isinstance(self.target, str | nn.Module):
            raise InputError(
                f"no target is a {type(self.target).__name__}",
                "a target is a name or a torch.nn.Module",
                "milanx layers MODEL shows what a name stands for",
            )
        if not self.layers:
            raise InputError(
                "no layers", "none was named", "--layer NAME; milanx layers MODEL lists them"
            )
        if not self.images:
            raise InputError("no probe images", "no source was given", "--images builtin:probe")
        if self.units is not None:
            parse_units(self.units)
        if self.limit is not None:
            _check_whole("the limit", self.limit, 1, "--limit 1000")
        self._check_weights()
        check_read(self.read)
        check_one(self.sae, self.directions)
        for sign in self.signs:
            _check_one_of("sign", sign, SIGNS, "--sign -")
        if not self.signs:
            raise InputError("no sign", "units have a side or two", "--sign + is the rule")
        _check_one_of("dtype", self.dtype, DTYPES, f"--dtype {DEFAULT_DTYPE}")
        object.__setattr__(self, "signs", self._all_signs())

    def _check_weights(self) -> None:
        if self.weights is not None and self.random_weights:
            raise InputError(
                "a checkpoint and random weights cannot both be used",
                f"{self.weights} would be loaded over them",
                ["leave --random-weights away", "leave --weights away"],
            )
        if self.preprocess is not None and not isinstance(self.preprocess, Preprocess):
            raise InputError(
                f"a {type(self.preprocess).__name__} is no preprocessing",
                "milanx must know size, resize, interpolation, mean and std",
                "milanx.Preprocess(size=(224, 224), ...)",
            )

    @property
    def addresses(self) -> list[Address]:
        """What the layers name, read."""
        return [parse_address(text) for text in self.layers]

    def _all_signs(self) -> tuple[str, ...]:
        """The signs asked for, by themselves and by addresses, each once."""
        named = [address.sign for address in self.addresses]
        if set(named) == {"-"}:
            return ("-",)
        return tuple(dict.fromkeys([*self.signs, *(sign for sign in named if sign == "-")]))

    def to_dict(self) -> dict[str, Any]:
        """Return what is written of it into ``run.json``; target and images say more themselves."""
        return {
            "layers": list(self.layers),
            "units": self.units,
            "limit": self.limit,
            "read": self.read,
            **{
                name: str(path)
                for name in ("sae", "directions")
                if (path := getattr(self, name)) is not None
            },
            "signs": list(self.signs),
            **self.settings.choosing(),
            "batch_size": self.settings.batch,
            "workers": self.settings.workers,
            "dtype": self.dtype,
        }


def check_units(asked: Sequence[int], layer: str, count: int) -> None:
    """Refuse units that a layer of ``count`` does not have.

    Raises:
        InputError: one of them is beyond its end.
    """
    beyond = [unit for unit in asked if not 0 <= unit < count]
    if beyond:
        raise InputError(
            f"{layer} has no unit {beyond[0]}",
            f"its units are 0 to {count - 1}",
            f"choose among them, for example --units 0-{min(63, count - 1)}",
        )


def _check_whole(
    what: str, value: object, least: int, example: str, most: int | None = None
) -> None:
    """Refuse what is no whole number of at least ``least``, and at most ``most``."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or int(value) < least or int(value) > (most or int(value)):  # type: ignore[call-overload]
        range_ = f"{least} or more" if most is None else f"{least} to {most}"
        raise InputError(f"{what} cannot be {value!r}", f"it is a whole number, {range_}", example)


def _check_real(
    what: str, value: object, where: str, inside: Callable[[float], bool], example: str
) -> None:
    """Refuse what is no number inside a range; nan lies in none."""
    if not isinstance(value, Real) or not inside(float(value)):
        raise InputError(f"{what} cannot be {value!r}", f"it is a number {where}", example)


def _check_one_of(what: str, value: str, known: Collection[str], example: str) -> None:
    """Refuse a word that is not known."""
    if value not in known:
        hint = did_you_mean(str(value), known)
        raise InputError(f"no {what} {value!r}", f"there are {', '.join(known)}", hint or example)
