"""Latents of a generator: drawn by their number, or given one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import numpy as np
import torch

from milanx.errors import InputError
from milanx.files import fingerprint

ALONE = ""  # name of a latent that is given by its place, not by a keyword
LEAST = 2  # latents: what a layer is, is seen from two that differ
EXAMPLES = ["latents=(4000, 128): drawn from the normal distribution",
            "latents=array [n, ...], or a list of arrays, or of dicts of them"]  # fmt: skip
One = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Latents:
    """Latents by their number; image i is always made of latent i.

    Attributes:
        count: how many.
        facts: what they are, for ``run.json``.
        given: those that were handed over, one an entry; None where they are drawn.
        shape: of one that is drawn.
        seed: of the draws.
    """

    count: int
    facts: dict[str, Any]
    given: Sequence[One] | None = field(default=None, repr=False)
    shape: tuple[int, ...] = ()
    seed: int = 0

    def one(self, number: int) -> One:
        """Return one latent; a drawn one depends on its number and the seed alone."""
        if self.given is not None:
            return self.given[number]
        draw = np.random.default_rng([self.seed, number])
        return {ALONE: draw.standard_normal(self.shape, np.float32)}

    def batch(self, numbers: Sequence[int], like: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return latents [b, ...] by keyword, where ``like`` is; floats are of its type."""
        some = [self.one(number) for number in numbers]
        stacked = {k: torch.from_numpy(np.stack([one[k] for one in some])) for k in some[0]}
        return {k: v.to(like.device, like.dtype if v.is_floating_point() else v.dtype)
                for k, v in stacked.items()}  # fmt: skip

    def shapes(self) -> str:
        """Say in words what one latent is."""
        return ", ".join(f"{k}={list(v.shape)}" if k else str(list(v.shape))
                         for k, v in self.one(0).items())  # fmt: skip


def read_latents(given: Any, seed: int) -> Latents:
    """Read what a user calls latents.

    Args:
        given: (count, shape), drawn from the standard normal distribution; or an array [n, ...], or
            an iterable of arrays, one a latent, or of dicts of them by keyword.
        seed: of the draws.

    Raises:
        InputError: none of these, too few, of several shapes, or values that are no numbers.
    """
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], Integral):
        return _drawn(int(given[0]), given[1], seed)
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        raise InputError(
            f"no latents are a {type(given).__name__}",
            "a generator makes one image of each of many latents",
            EXAMPLES,
        )
    read = [_one(latent, number) for number, latent in enumerate(given)]
    _check_count(len(read))
    first = _form(read[0])
    for number, latent in enumerate(read):
        if _form(latent) != first:
            raise InputError(
                f"latent {number} has another shape than the first",
                f"it is {_said(latent)}, latent 0 is {_said(read[0])}",
                "give latents of one shape",
            )
    digest = hashlib.sha256()
    for latent in read:
        for key, value in sorted(latent.items()):
            digest.update(f"{key} {value.dtype} {value.shape}".encode() + value.tobytes())
    facts = {"kind": "given", "shapes": {k: list(v.shape) for k, v in read[0].items()},
             "fingerprint": fingerprint(digest.hexdigest())}  # fmt: skip
    return Latents(len(read), facts, read)


def _drawn(count: int, shape: Any, seed: int) -> Latents:
    sides = (shape,) if isinstance(shape, Integral) else tuple(shape)
    if not sides or not all(isinstance(n, Integral) and int(n) > 0 for n in sides):
        raise InputError(f"no latent has the shape {shape!r}",
                         "it is a number of values, or a tuple of them", EXAMPLES)  # fmt: skip
    _check_count(count)
    sides = tuple(int(n) for n in sides)
    facts = {"kind": "normal", "shape": list(sides), "seed": seed}
    return Latents(count, {**facts, "fingerprint": fingerprint(facts)}, None, sides, seed)


def _check_count(count: int) -> None:
    if count < LEAST:
        raise InputError(f"{count} latents are too few",
                         f"there must be {LEAST} to find layers, and some hundreds to describe",
                         EXAMPLES)  # fmt: skip


def _one(latent: Any, number: int) -> One:
    """Read one latent as arrays by keyword."""
    parts = latent if isinstance(latent, Mapping) else {ALONE: latent}
    read = {str(key): _array(value) for key, value in parts.items()}
    if not read or any(v.dtype.kind not in "fiub" for v in read.values()):
        raise InputError(f"latent {number} is no array of numbers",
                         f"it is a {type(latent).__name__}", EXAMPLES)  # fmt: skip
    if not all(bool(np.isfinite(v).all()) for v in read.values()):
        raise InputError(f"latent {number} holds values that are no numbers",
                         "NaN or infinite ones", "leave it away")  # fmt: skip
    return read


def _array(value: Any) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value
    try:
        made = np.ascontiguousarray(value)
    except ValueError:  # rows of several lengths
        return np.array(None)
    made = made.reshape(np.shape(value))  # a number by itself stays one
    return made.astype(np.float32) if made.dtype.kind == "f" else made


def _form(latent: One) -> dict[str, tuple[tuple[int, ...], str]]:
    return {key: (value.shape, value.dtype.kind) for key, value in latent.items()}


def _said(latent: One) -> str:
    return ", ".join(f"{k}={list(v.shape)}" if k else str(list(v.shape)) for k, v in latent.items())
