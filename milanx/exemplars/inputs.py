"""A request with all that it names opened: the target, its layers, the probe images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from milanx.environment import pick_device
from milanx.errors import InputError
from milanx.exemplars.request import DEFAULT_DTYPE, Request, check_units
from milanx.exemplars.store import FORMAT, VERSION
from milanx.files import fingerprint
from milanx.images.item import one_line
from milanx.images.probe import ProbeImages, open_images
from milanx.images.sources import BUILTIN, open_sources
from milanx.progress import Reporter, Silent
from milanx.targets.capture import find_addressed
from milanx.targets.generated import generated_images
from milanx.targets.generator import Generator
from milanx.targets.lens import Lens
from milanx.targets.through import open_lens
from milanx.targets.units import Address, LayerInfo, matches, parse_units
from milanx.targets.zoo import Target, load_target

OWN = "generator:latents"  # in place of sources, for a target that makes its images itself


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a pass reads.

    Attributes:
        request: what was asked for.
        target: the model, on its device.
        layers: of it, in the order of the forward pass.
        images: the probe images.
        units: which units of a layer are asked for; all where a layer is absent.
        device: where the target is.
        lens: what the layers are read through; None for their own units.
    """

    request: Request
    target: Target
    layers: tuple[LayerInfo, ...]
    images: ProbeImages
    units: dict[str, list[int]]
    device: str
    lens: Lens | None = None

    @property
    def key(self) -> str:
        """Fingerprint of all that the exemplars depend on."""
        request = self.request
        parts = [
            FORMAT, VERSION, self.target.fingerprint, self.images.fingerprint,
            [info.to_dict() for info in self.layers],
            request.settings.choosing() | {"signs": request.signs}, self.units,
        ]  # fmt: skip
        if request.dtype != DEFAULT_DTYPE:  # which stands for itself: keys do not change by it
            parts.append(request.dtype)
        kind = self.device.partition(":")[0]
        if kind != "cpu":  # likewise: other devices round otherwise
            parts.append(kind)
        return fingerprint(*parts)


def open_inputs(request: Request, progress: Reporter | None = None) -> Inputs:
    """Load the target, find its layers, open the images.

    Args:
        request: what is asked for.
        progress: told about the stages, and what the user should know of layers and images.

    Raises:
        MilanxError: a target, a layer, a unit, images or a device that cannot be used.
    """
    progress = progress or Silent()
    device = pick_device(request.device)
    lens = open_lens(request.sae, request.directions)
    sources = open_sources(request.images)  # what is wrong with them is said before the long work
    with progress.stage("load target", None):
        target = load_target(
            request.target,
            weights=request.weights,
            random_weights=request.random_weights,
            preprocess=request.preprocess,
            device=device,
        )
        if request.dtype != DEFAULT_DTYPE:
            target.model.to(getattr(torch, request.dtype))
        found, addresses = find_addressed(target, request.layers, read=request.read, lens=lens)
        layers = tuple(found)
    units = select_units(request.units, addresses, layers)
    _tell_layers(layers, request.signs, progress)
    with progress.stage("open images", None):
        if isinstance(target.model, Generator):
            request = made_itself(request)
            images = generated_images(target, request.limit)
        else:
            images = open_images(sources, limit=request.limit)
    for note in images.notes:
        progress.say(note)
    return Inputs(request, target, layers, images, units, device, lens)


def made_itself(request: Request) -> Request:
    """Return what is asked of a generator, whose images are its own.

    Raises:
        InputError: images or a preprocessing were given beside.
    """
    if request.images not in ((BUILTIN,), (OWN,)):
        raise InputError(
            f"a generator is not shown {one_line(str(request.images[0]))}",
            "its exemplars are images that it makes itself, of its latents",
            "leave --images away",
        )
    if request.preprocess is not None:
        raise InputError(
            "a generator takes no preprocessing", "its pictures are shown as it makes them",
            "leave it away",
        )  # fmt: skip
    return dataclasses.replace(request, images=(OWN,))


def _tell_layers(layers: Sequence[LayerInfo], signs: tuple[str, ...], progress: Reporter) -> None:
    """Say what of the layers may surprise."""
    for info in layers:
        for note in info.lens.notes(info.module, info.map_size != (1, 1)) if info.lens else ():
            progress.say(note)
        if info.inert:
            progress.say(f"warning: {info.name} is inert here: nothing of it reaches the output")
        if info.inert is None:
            progress.say(f"note: whether {info.name} reaches the output cannot be told: the model "
                         "keeps no gradients")  # fmt: skip
        if info.linear and signs == ("+",):
            better = f"; {info.better} reads clearer" if info.better else ""
            progress.say(
                f"note: {info.name} is linear: its units have a second side (--sign -){better}"
            )


def select_units(
    units: str | None, addresses: Sequence[Address], layers: Sequence[LayerInfo]
) -> dict[str, list[int]]:
    """Return which units of each layer are asked for; a layer that is absent means all of them.

    Args:
        units: of every layer; all when None.
        addresses: what may name units of some.
        layers: those that were found.

    Raises:
        InputError: a unit that a layer does not have.
    """
    asked: dict[str, list[int]] = {}
    everywhere = list(parse_units(units)) if units is not None else None
    for info in layers:
        wanted = everywhere
        for address in addresses:
            if address.units is not None and matches(info.name, address.layer):
                wanted = [*(wanted or []), *address.units]
        if wanted is None:
            continue
        check_units(wanted, info.name, info.units)
        asked[info.name] = sorted(set(wanted))
    return asked
