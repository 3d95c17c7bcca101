"""A generator: latents -> image, as a target whose units are described by what it makes itself."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from milanx.errors import InputError, MilanxError
from milanx.files import fingerprint
from milanx.images.preprocess import Preprocess
from milanx.targets.draws import ALONE, Latents, read_latents
from milanx.targets.given import original, running
from milanx.targets.units import first_tensor

LEVELS = 255  # of a channel of a picture
SLACK = 0.5 / LEVELS  # share of the range that rounds to its end
STEADY = 1 / LEVELS  # share of the range that two passes may differ by: a level
RANGES = "values=(-1, 1) after a tanh, values=(0, 1) after a sigmoid"


class Generator(nn.Module):
    """A module that makes images of latents, with the latents that it is shown.

    Its layers are named as the module's own ``named_modules()``, and it shares the module's
    weights. The forward pass takes the numbers of latents, [b, 1, 1, 1], and gives images
    [b, c, H, W] in the range ``values``. Image i is always made of latent i, so that resumed
    passes, views and images kept aside are exact; groups are single images.

    Args:
        module: what makes images; its layers are described.
        latents: (count, shape), drawn from the standard normal distribution by their number; or an
            array [n, ...], or an iterable of arrays, one a latent, or of dicts of them by keyword.
            Each is without the axis of the batch.
        values: (low, high), what black and white are in the images: (-1, 1) or (0, 1), say.
        call: what is called with a batch of latents instead of the module: ``vae.decode``, or a
            function that calls it with the rest filled in.
        to_image: makes images [b, 3 or 1, H, W] of what was returned; its first tensor when None.
        clamp: cut values that lie outside the range, which are refused otherwise.
        seed: of latents that are drawn.

    Raises:
        InputError: no module, no range, or latents that cannot be used.
    """

    module: nn.Module  # in no list of the modules, so that names and weights are its own

    def __init__(
        self,
        module: nn.Module,
        *,
        latents: Any,
        values: tuple[float, float],
        call: Callable[..., Any] | None = None,
        to_image: Callable[[Any], torch.Tensor] | None = None,
        clamp: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise InputError(
                f"no generator is a {type(module).__name__}",
                "its layers are those of a torch.nn.Module",
                "milanx.Generator(module, call=function) calls a function that uses the module",
            )
        module = original(module)
        held = self.__dict__
        held["module"] = module
        for name in ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"):
            held[name] = getattr(module, name)
        self.values = _range(values)
        self.latents: Latents = read_latents(latents, seed)
        self.call, self.to_image, self.clamp = call, to_image, clamp
        self.size: tuple[int, int] | None = None
        self._lock = threading.Lock()

    @property
    def training(self) -> bool:  # type: ignore[override]
        """The mode of the module."""
        module = self.__dict__.get("module")
        return bool(module.training) if module is not None else True

    @training.setter
    def training(self, mode: bool) -> None:
        if "module" in self.__dict__:
            self.module.training = mode

    def extra_repr(self) -> str:
        """Name the module's own class."""
        return type(self.module).__name__

    def numbers(self, indices: Sequence[int]) -> torch.Tensor:
        """Return the numbers of latents as the forward pass takes them, [b, 1, 1, 1]."""
        return torch.tensor([int(i) for i in indices]).reshape(-1, 1, 1, 1)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        """Make images of latents.

        Args:
            numbers: of the latents, int64 [b, 1, 1, 1].

        Returns:
            Images [b, c, H, W], as they come.

        Raises:
            InputError: the module fails on these latents, or gives no images.
        """
        which = numbers.flatten().tolist()
        like = next((t for t in (*self.parameters(), *self.buffers()) if t.is_floating_point()),
                    torch.zeros(0))  # fmt: skip
        given = self.latents.batch(which, like)
        alone = given.pop(ALONE, None)
        name = type(self.module).__name__
        try:
            made = (self.call or self.module)(*([] if alone is None else [alone]), **given)
            image = self.to_image(made) if self.to_image else first_tensor(made)
        except MilanxError:
            raise
        except Exception as error:  # whatever the user's code raises
            said = (str(error).strip().splitlines() or [""])[0]
            raise InputError(
                f"{name} fails on {len(which)} latents of {self.latents.shapes()}",
                f"{type(error).__name__}: {said}".rstrip(": "),
                ["does it take latents of that shape, by position or by these keywords? call=... "
                 "calls it with the rest filled in", "--debug shows where"],
            ) from error  # fmt: skip
        if not isinstance(image, torch.Tensor) or not image.is_floating_point() or not (
            image.ndim == 4 and image.shape[1] in (1, 3) and len(image) == len(which)
        ):  # fmt: skip
            shown = (list(image.shape) if isinstance(image, torch.Tensor)
                     else f"a {type(image if self.to_image else made).__name__}")  # fmt: skip
            raise InputError(
                f"{name} gives no images",
                f"{len(which)} latents gave {shown}, no floats [{len(which)}, 3 or 1, H, W]",
                "to_image=... makes images of what it returns",
            )
        return image

    @torch.inference_mode()
    def raw(self, which: Sequence[int]) -> torch.Tensor:
        """Make images of latents, where black is 0 and white 1, float32 [b, c, H, W]."""
        numbers = self.numbers(which)
        with self._lock, running(type(self.module).__name__, self, numbers):
            image = self(numbers).float()
        low, high = self.values
        return (image - low) / (high - low)

    def picture(self, number: int) -> np.ndarray:
        """Make the picture of one latent, by itself, uint8 [H, W, 3].

        Raises:
            InputError: values that are no numbers or lie outside the range; another size than the
                first picture's.
        """
        return self._pictures(self.raw([number]), [number])[0]

    def _pictures(self, raw: torch.Tensor, which: Sequence[int]) -> np.ndarray:
        name = type(self.module).__name__
        finite = torch.isfinite(raw).flatten(1).all(1)
        if not bool(finite.all()):
            raise InputError(
                f"{name} gives an image that holds NaN or infinite values",
                f"the first of them is that of latent {which[int((~finite).nonzero()[0])]}",
                ["--dtype float32", "leave that latent away"],
            )
        least, most = float(raw.min()), float(raw.max())
        if not self.clamp and (least < -SLACK or most > 1 + SLACK):
            low, high = self.values
            found = [round(low + x * (high - low), 3) for x in (least, most)]
            raise InputError(
                f"{name} gives values outside {low:g} to {high:g}",
                f"the image of latent {which[0]}{' or the next' if len(which) > 1 else ''} has "
                f"{found[0]:g} to {found[1]:g}",
                [f"state its range: {RANGES}", "clamp=True cuts what lies outside"],
            )
        size = (int(raw.shape[2]), int(raw.shape[3]))
        if self.size is not None and size != self.size:
            raise InputError(
                f"{name} gives images of several sizes",
                f"latent {which[0]} gives {size[0]} x {size[1]}, latent 0 gives "
                f"{self.size[0]} x {self.size[1]}",
                "give latents that all make images of one size",
            )
        levels = (raw.clamp(0, 1) * LEVELS).round().to(torch.uint8)
        return levels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()

    def opened(self) -> Preprocess:
        """Make the first pictures and see that each depends on its own latent alone.

        Returns:
            What makes views of the pictures: they stay as they are.

        Raises:
            InputError: pictures that cannot be used, or that are not the same each time.
        """
        name, self.size = type(self.module).__name__, None
        both = self.raw([0, 1])
        self._pictures(both, [0, 1])
        self.size = (int(both.shape[2]), int(both.shape[3]))
        if torch.equal(both[0], both[1]):
            raise InputError(f"{name} ignores its latents", "latents 0 and 1 give the same image",
                             "give latents that differ")  # fmt: skip
        if not _near(both, self.raw([0, 1])):
            raise InputError(
                f"{name} gives another image each time", "it draws random numbers as it runs",
                "fix its noise, so that an image follows from its latent alone",
            )  # fmt: skip
        if not all(_near(both[i : i + 1], self.raw([i])) for i in (0, 1)):
            raise InputError(
                f"the images of {name} depend on what else is in the batch",
                "latents 0 and 1 give other images alone than together",
                "give a module whose images follow from their own latents alone",
            )
        return Preprocess(self.size, None, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    def facts(self) -> dict[str, Any]:
        """Return what made the images, for ``run.json``."""
        return {"latents": self.latents.facts, "values": list(self.values), "clamp": self.clamp,
                "call": _source(self.call), "to_image": _source(self.to_image)}  # fmt: skip

    def key(self, weights: str) -> str:
        """Return the fingerprint of all images, given that of the weights."""
        return fingerprint(weights, self.facts())


def _range(values: Any) -> tuple[float, float]:
    try:
        low, high = (float(v) for v in values)
    except (TypeError, ValueError):
        low = high = 0.0
    if not low < high:
        raise InputError(
            f"no range of values is {values!r}", "milanx must know what black and white are", RANGES
        )
    return low, high


def _near(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and float((one - other).abs().max()) <= STEADY


def _source(function: Callable[..., Any] | None) -> str | None:
    """Return the digest of a function's own text; of its name where there is no text."""
    if function is None:
        return None
    try:
        return fingerprint(inspect.getsource(function))
    except (OSError, TypeError):
        return fingerprint(getattr(function, "__qualname__", type(function).__qualname__))
