"""Any number of layers in one forward pass: hooks that are gone after any exit."""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from milanx.errors import InputError, did_you_mean
from milanx.targets.given import PREFIXES, Enough, running
from milanx.targets.heads import gathered, is_torch_attention, named_heads
from milanx.targets.layers import discover
from milanx.targets.lens import LENSES, Lens
from milanx.targets.through import read_through, reopen
from milanx.targets.units import (
    HEAD,
    Address,
    LayerInfo,
    first_tensor,
    matches,
    parse_address,
    tensors_of,
    to_maps,
)
from milanx.targets.zoo import Target

PATTERN = frozenset("*?[")
READS = ("auto", "raw")
Key = tuple[str, str | None]


def list_layers(target: Target) -> list[LayerInfo]:
    """List every layer that can be described, in the order of the forward pass."""
    return [info for info in discover(target) if info.refused is None]


def refused_layers(target: Target) -> list[LayerInfo]:
    """List every layer that cannot be described, each with its reason (``refused``)."""
    return [info for info in discover(target) if info.refused is not None]


def check_read(read: str) -> None:
    """Refuse a way to read units that is none.

    Raises:
        InputError: neither ``auto`` nor ``raw``.
    """
    if read not in READS:
        raise InputError(f"cannot read units {read!r}", "--read is auto or raw", "leave it away")


def find_layers(
    target: Target, patterns: Sequence[str], *, read: str = "auto", lens: Lens | None = None
) -> list[LayerInfo]:
    """Find the layers that addresses or shell patterns name.

    Args:
        target: the model.
        patterns: ``blocks.6``, ``blocks.6@class``, ``blocks.*.mlp.fc1``.
        read: ``auto``: after the layer's own nonlinearity; ``raw``: the module's own output.
        lens: what computes units from those of each layer.

    Raises:
        InputError: a pattern that matches nothing, a layer that the lens does not fit, or a value
            of ``read`` that is not known.
    """
    return find_addressed(target, patterns, read=read, addresses=False, lens=lens)[0]


def find_addressed(
    target: Target,
    texts: Sequence[str],
    *,
    read: str = "auto",
    addresses: bool = True,
    lens: Lens | None = None,
) -> tuple[list[LayerInfo], list[Address]]:
    """Find the layers that addresses name, and read the addresses with their names in mind.

    Args:
        target: the model.
        texts: ``blocks.6``, ``blocks.6:0-63``, ``blocks.*.mlp.fc1:-17``.
        read: ``auto`` or ``raw``.
        addresses: whether units may be named; otherwise each text is a layer or a pattern.
        lens: what computes units from those of each layer; the names of both have its suffix.

    Raises:
        InputError: an address that matches nothing, a layer that the lens does not fit, or a value
            of ``read`` that is not known.
    """
    check_read(read)
    known = {info.name: info for info in discover(target)}
    asked = [parse_address(t, known) if addresses else Address(t) for t in texts]
    known = named_heads(known, [address.layer for address in asked])
    suffix = "" if lens is None else lens.suffix
    chosen: set[str] = set()
    found = []
    for address in asked:
        layer = address.layer.removesuffix(suffix) if suffix else address.layer
        names = match_layers(target, known, layer)
        chosen.update(names)
        plain = layer if any(matches(n, layer) for n in names) else names[0]
        found.append(dataclasses.replace(address, layer=plain + suffix))
    infos = [info for name, info in known.items() if name in chosen]
    infos = [_raw(i) for i in infos] if read == "raw" else infos
    return infos if lens is None else read_through(infos, lens), found


def find_again(
    target: Target, known: Mapping[str, Any], lens: Mapping[str, Any] | None
) -> LayerInfo:
    """Find a layer of a run again, with what it was read through.

    Args:
        target: the run's.
        known: what `LayerInfo.to_dict` gave of the layer.
        lens: what `Lens.facts` gave of the run's; None where it had none.

    Raises:
        InputError: the layer is not there, or what it was read through is not, or is another.
    """
    read = "raw" if str(known["read"]).split()[-1] == "raw" else "auto"
    through = reopen(lens) if lens and known.get("through") else None
    return find_layers(target, [str(known["name"])], read=read, lens=through)[0]


def match_layers(target: Target, known: Mapping[str, LayerInfo], pattern: str) -> list[str]:
    """Return the layers that an address or a shell pattern names.

    A name that is one as it stands is that layer's, whatever signs it holds; the names that
    modules have inside a wrapper, such as torch.compile's, stand for those of the original. A
    pattern passes over layers that cannot be described, and over heads that it does not name.

    Raises:
        InputError: none, or none that can be described.
    """
    ways = [pattern, *(pattern.removeprefix(p) for p in PREFIXES if pattern.startswith(p))]
    found = next(([way] for way in ways if way in known), None) or next(
        (names for way in ways if (names := [n for n in known if _meant(n, way)])), []
    )
    described = [name for name in found if known[name].refused is None]
    if found and not described:
        raise InputError(
            f"{target.name}: {found[0]} cannot be described", str(known[found[0]].refused),
            f"milanx layers {target.name} lists those that can",
        )  # fmt: skip
    if not described:
        raise _unknown(target, pattern, {n: i for n, i in known.items() if i.refused is None})
    return described


def _meant(name: str, pattern: str) -> bool:
    """Whether a pattern means a layer; heads only where it says so."""
    return fnmatch.fnmatchcase(name, pattern) and (HEAD in pattern or HEAD not in name)


def _raw(info: LayerInfo) -> LayerInfo:
    if info.lens is not None:
        return info
    if info.nonlinearity is None and info.input_of is None:
        return info
    return dataclasses.replace(info, read="raw", rectified=False, upper=None, off=None,
                               linear=True, nonlinearity=None, input_of=None,
                               consumed=None)  # fmt: skip


def _unknown(target: Target, pattern: str, known: Mapping[str, LayerInfo]) -> InputError:
    modules = {name for name, _ in target.model.named_modules()}
    suffix = next((s for s in LENSES if pattern.endswith(s)), None)
    if suffix:
        why = f"layers are read as {suffix} through a file, and none was given"
        return InputError(f"{target.name} has no layer {pattern!r} of its own", why,
                          f"name the layer without {suffix}, and {LENSES[suffix]}")  # fmt: skip
    if pattern in modules:
        why = "that module gives no tensor, or one forward pass does not reach it"
    elif PATTERN & set(pattern):
        why = "no layer matches the pattern"
    elif ":" in pattern:
        units = pattern.rpartition(":")[2]
        why = f"there is no such layer, and {units!r} is no list of units, such as 0-63"
    else:
        why = "there is no such layer"
    hint = did_you_mean(pattern, known)
    return InputError(f"{target.name} has no layer {pattern!r} to describe", why,
                      hint or f"milanx layers {target.name} lists them")  # fmt: skip


class Capture:
    """Reads layers of a model; a context manager.

    Args:
        target: the model.
        infos: the layers, as `find_layers` gives them.

    Inside the context `run` gives the maps of a batch, and leaves in ``shown`` the maps of logits
    that show where these come from. Nothing stays on the model afterwards.

    Raises:
        ValueError: a layer that was not discovered here, but rebuilt from what is written of it.
    """

    def __init__(self, target: Target, infos: Sequence[LayerInfo]) -> None:
        self.target = target
        self.model = target.model
        self.infos = list(infos)
        for info in infos:
            if info.refused:
                raise InputError(f"{info.name} cannot be described", info.refused)
            if info.nonlinearity and info.consumed is None:
                raise ValueError(f"{info.name} does not carry its {info.nonlinearity}")
            if info.through and info.lens is None:
                raise ValueError(f"{info.name} does not carry what it is read through")
        self._handles: list[Any] = []
        # By module, and by the module whose input is read instead of its output.
        self._raw: dict[Key, torch.Tensor] = {}
        self._read = [*infos, *(i.cam.source for i in infos if i.cam is not None)]
        self._wanted = {_key(i) for i in self._read}
        self.shown: dict[str, torch.Tensor] = {}

    def __enter__(self) -> Capture:
        for name, down in sorted(self._wanted, key=str):
            module = self.model.get_submodule(down or name)
            keep = self._keep((name, down))
            owner = self.model.get_submodule(name)
            if down and is_torch_attention(owner):
                self._handles.append(owner.register_forward_hook(_gathering(keep),
                                                                 with_kwargs=True))  # fmt: skip
            elif down:
                self._handles.append(module.register_forward_pre_hook(keep, with_kwargs=True))
            else:
                self._handles.append(module.register_forward_hook(keep))
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._raw.clear()
        self.shown = {}

    def _keep(self, key: Key) -> Callable[..., None]:
        """Make the hook of one module: the value is fixed before anything can change it."""
        raw, here, name = self._raw, [i for i in self._read if _key(i) == key], key[0]
        apply, into = here[0].consumed, here[0].input_of is not None
        copied = any(i.changed for i in here) or into
        total = len(self._wanted)

        def hook(module: nn.Module, args: Any, output: Any) -> None:
            """Keep what a module gives; before it runs, ``output`` is what it got by keyword."""
            tensor = next(tensors_of((args, output)), None) if into else first_tensor(output)
            if tensor is None:
                raise InputError(f"{name} gave no tensor", f"it gave {type(output).__name__}")
            if apply is not None:
                tensor = apply(tensor)
            elif copied:
                tensor = tensor.clone()
            raw[key] = tensor
            if len(raw) == total:
                raise Enough

        return hook

    @torch.inference_mode()
    def run(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Run the model on ``inputs`` [b, c, H, W] as far as is needed.

        Returns:
            The maps [b, u, h, w] of each layer, by its name.

        Raises:
            InputError: a layer that this forward pass did not reach, or whose rows are not those
                of the images; an error of the model's own.
        """
        try:
            maps = self._maps(inputs)
        except InputError:
            if len(inputs) > 1:
                raise
            maps = {}
        if len(inputs) == 1 and any(not _fits(maps.get(i.name), i, 1) for i in self.infos):
            # Some models drop the axis of a batch of one: they are shown the image twice.
            maps = {n: m[:1] for n, m in self._maps(inputs.repeat(2, 1, 1, 1)).items()}
            self.shown = {n: m[:1] for n, m in self.shown.items()}
        for info in self.infos:
            if not _fits(maps.get(info.name), info, len(inputs)):
                raise InputError(
                    f"{info.name} gave another shape than when layers were found",
                    f"{len(inputs)} images gave {_shape(maps.get(info.name))}, not "
                    f"{[len(inputs), info.units, *info.map_size]}",
                )
        return maps

    def _maps(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Run the model once; a map that cannot be made is absent."""
        self._raw.clear()
        with running(self.target.name, self.model, inputs), contextlib.suppress(Enough):
            self.model(inputs)
        self.shown = {}
        missing = [i.name for i in self._read if _key(i) not in self._raw]
        if missing:
            raise InputError(f"{missing[0]} did not run", "this forward pass did not reach it")
        maps = {}
        for info in self.infos:
            with contextlib.suppress(RuntimeError, IndexError):
                own = to_maps(self._raw[_key(info)], info)
                maps[info.name] = own if info.lens is None else info.lens(own)
            if info.cam is not None:
                source = info.cam.source
                self.shown[info.name] = info.cam(to_maps(self._raw[_key(source)], source))
        self._raw.clear()
        return maps


def _gathering(keep: Callable[..., None]) -> Callable[..., None]:
    """Make a hook of torch's own attention that keeps the input of its output projection."""

    def hook(module: nn.MultiheadAttention, args: Any, kwargs: Any, output: Any) -> None:
        keep(module, gathered(module, args, kwargs), None)

    return hook


def _key(info: LayerInfo) -> Key:
    return info.module, info.input_of


def _fits(value: torch.Tensor | None, info: LayerInfo, images: int) -> bool:
    return value is not None and value.shape == (images, info.units, *info.map_size)


def _shape(value: torch.Tensor | None) -> object:
    return "no map" if value is None else list(value.shape)
