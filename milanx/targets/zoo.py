"""Targets by name: timm, the names of the literature, checkpoints, and modules of one's own."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import itertools
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import nn

from milanx.errors import InputError, MilanxError, did_you_mean
from milanx.files import fingerprint
from milanx.hub.reach import silence, within_reach
from milanx.images.preprocess import Preprocess
from milanx.targets import huggingface
from milanx.targets.built import Built, missing
from milanx.targets.checkpoints import load_checkpoint
from milanx.targets.generator import Generator
from milanx.targets.given import check_readable, first_channels, original
from milanx.targets.listed import out_of_reach
from milanx.targets.weights import PACKAGES, package_state_dict

# Names of the literature, as timm calls them.
ALIASES: dict[str, str] = {
    "alexnet": "torchvision:alexnet",
    "vgg16": "vgg16.tv_in1k",
    "vgg19": "vgg19.tv_in1k",
    "resnet18": "resnet18.tv_in1k",
    "resnet34": "resnet34.tv_in1k",
    "resnet50": "resnet50.tv_in1k",
    "resnet101": "resnet101.tv_in1k",
    "resnet152": "resnet152.tv_in1k",
    "densenet121": "densenet121.tv_in1k",
    "densenet161": "densenet161.tv_in1k",
    "dino_vits8": "vit_small_patch8_224.dino",
    "dino_vits16": "vit_small_patch16_224.dino",
    "dino_vitb8": "vit_base_patch8_224.dino",
    "dino_vitb16": "vit_base_patch16_224.dino",
    "dinov2_vits14": "vit_small_patch14_dinov2.lvd142m",
    "dinov2_vitb14": "vit_base_patch14_dinov2.lvd142m",
    "clip_vitb16": "vit_base_patch16_clip_quickgelu_224.openai",
    "clip_vitb32": "vit_base_patch32_clip_quickgelu_224.openai",
    "clip_vitl14": "vit_large_patch14_clip_quickgelu_224.openai",
}
# What stands before names that other libraries know, by the file that loads them.
ROOMS = {"torchvision:": "torchvisions", "hf:": "huggingface", "clip:": "openclips"}


@dataclass
class Target:
    """A model whose units are described.

    Attributes:
        name: as it was asked for.
        model: in evaluation mode.
        preprocess: its own.
        fingerprint: 16 hex digits for architecture, weights and preprocessing.
        weights: where the weights came from, in words.
        random: whether they are random.
        channels: of its input: 3, or 1 for one that takes grey pictures.
        classes: the names of its logits, in their order; empty where they are not known.
        tokens: how many tokens stand before and behind the patches, where its source says so.
        place: as what it is found from any folder, where its name is a path.
    """

    name: str
    model: nn.Module
    preprocess: Preprocess
    fingerprint: str
    weights: str
    random: bool = False
    channels: int = 3
    classes: tuple[str, ...] = ()
    tokens: tuple[int, int] | None = None
    place: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return what is written down of it, by which it is found again and known."""
        place = {"place": self.place} if self.place not in ("", self.name) else {}
        return {"name": self.name, **place, "fingerprint": self.fingerprint,
                "weights": self.weights, "random": self.random,
                "preprocess": self.preprocess.to_dict()}  # fmt: skip

    def inputs(self, views: torch.Tensor) -> torch.Tensor:
        """Turn ``views`` uint8 [b, 3, H, W] into what the model takes, where it is.

        A model of one channel gets the views' luminance, with its own mean and deviation, or the
        average of three.

        Raises:
            InputError: the target is a generator, which takes no views.
        """
        if isinstance(self.model, Generator):
            raise InputError(
                f"{self.name} is a generator", "it makes images, and is shown none",
                "extract and describe show it its own latents",
            )  # fmt: skip
        held = itertools.chain(self.model.parameters(), self.model.buffers())
        like = next((t for t in held if t.is_floating_point()), torch.zeros(0))
        views, preprocess = views.to(like.device), self.preprocess
        if self.channels == 1:
            views = grey(views)
            preprocess = dataclasses.replace(
                preprocess, mean=(fmean(preprocess.mean),), std=(fmean(preprocess.std),)
            )
        return preprocess.normalise(views).to(like.dtype)


def grey(views: torch.Tensor) -> torch.Tensor:
    """Return the luminance of views [b, 3, H, W] as float [b, 1, H, W] (ITU-R BT.601, 2.5.1)."""
    weights = torch.tensor([0.299, 0.587, 0.114], device=views.device)
    return (views.float() * weights[:, None, None]).sum(1, keepdim=True)


def check_installation() -> None:
    """Turn a mismatch of torch and torchvision into a sentence.

    Raises:
        MilanxError: the two do not fit.
    """
    try:
        import torchvision  # noqa: F401
    except (RuntimeError, ImportError) as error:
        if "torchvision" in str(error) or "operator" in str(error):
            raise MilanxError(
                "torch and torchvision do not fit one another",
                f"torchvision says: {str(error).splitlines()[0]}",
                "install both anew from the same place: "
                "pip install --force-reinstall torch torchvision",
            ) from error
        raise


def check_name(spec: str) -> None:
    """Refuse a name that no library knows, before anything is loaded.

    Args:
        spec: as `load_target` takes it; of what has a colon in it nothing is said.

    Raises:
        InputError: neither timm nor the literature has such a model, and no folder is called so.
    """
    import timm

    known = ALIASES.get(spec, spec)
    if ":" in known or known.split(".")[0] in timm.list_models() or huggingface.is_folder(spec):
        return
    raise InputError(
        f"no model {spec!r}",
        "neither timm nor the table of aliases knows it",
        did_you_mean(spec, [*ALIASES, *timm.list_models()])
        or "package.module:function names one of your own",
    )


def check_weights(spec: str) -> None:
    """Refuse a timm model whose weights are neither here nor to be had, before it is built.

    Args:
        spec: as `load_target` takes it; of other libraries' models nothing is said.

    Raises:
        MissingWeights: its weights must be downloaded, and nobody answers.
    """
    import timm
    from huggingface_hub import constants

    known = ALIASES.get(spec, spec)
    named = ":" not in known and known.split(".")[0] in timm.list_models()
    installed = known in PACKAGES and importlib.util.find_spec(PACKAGES[known][0]) is not None
    config = timm.get_pretrained_cfg(known) if named and not installed else None
    if config is not None and config.hf_hub_id and out_of_reach(config.hf_hub_id):
        offline = "HF_HUB_OFFLINE is set, and they are not in the cache"
        raise missing(spec, OSError(offline if constants.HF_HUB_OFFLINE else silence()))


def load_target(
    spec: str | nn.Module,
    *,
    weights: Path | None = None,
    random_weights: bool = False,
    preprocess: Preprocess | None = None,
    device: str = "cpu",
    seed: int = 0,
) -> Target:
    """Load a target.

    Args:
        spec: a timm name, an alias, ``hf:FOLDER`` or ``hf:owner/name``, ``torchvision:NAME``,
            ``clip:NAME/TAG``, ``package.module:function``, or a module.
        weights: a checkpoint, ``.safetensors`` or ``.pth``.
        random_weights: use seeded random weights.
        preprocess: instead of the model's own.
        device: where it goes.
        seed: of random weights.

    Raises:
        InputError: an unknown name, or a checkpoint that does not fit.
        MissingWeights: weights that cannot be had here.
    """
    check_installation()
    torch.manual_seed(seed)
    built: Built | None = None
    own: Preprocess | None = None
    if isinstance(spec, nn.Module):
        model = original(spec)
        name, origin = type(model).__name__, "as they were given"
        own = getattr(spec, "preprocess", None) or getattr(model, "preprocess", None)
        if isinstance(model, Generator):
            name = type(model.module).__name__
    elif ":" in spec and not spec.startswith((*ROOMS, "hf-hub:", "local-dir:")):
        name, origin = spec, f"from {spec}"
        model, own = _own_module(spec)
    else:
        name = spec
        built = _named(spec, bare=weights is not None or random_weights)
        model, own, origin = built.model, built.preprocess, built.origin
    check_readable(model, name)
    if weights is not None:
        which = load_checkpoint(model, Path(weights), name)
        origin = f"checkpoint {Path(weights).name}{which}"
    elif random_weights and isinstance(spec, str):
        origin = f"random, seed {seed}"
    chosen = preprocess or own
    if not isinstance(chosen, Preprocess):
        chosen = Preprocess()
    model = model.eval().to(device)
    channels = 3
    if isinstance(model, Generator):
        chosen = model.opened()
    else:
        channels = _channels(model, chosen, name)
    return Target(
        name, model, chosen, _fingerprint(model, chosen), origin,
        random_weights and weights is None, channels,
        built.classes if built else (), built.tokens if built else None,
        built.place if built else "",
    )  # fmt: skip


def _channels(model: nn.Module, preprocess: Preprocess, name: str) -> int:
    """Return how many channels of an image a model takes.

    Raises:
        InputError: neither one nor three.
    """
    wanted = first_channels(model)
    stated = len(preprocess.mean)
    if wanted == 1 and (stated == 1 or not _runs(model, preprocess, 3)):
        return 1
    if wanted not in (None, 1, 3) and not _runs(model, preprocess, 3):
        raise InputError(
            f"{name} takes {wanted} channels",
            "images have three, or one where they are grey",
            "give a module that makes its channels of an RGB image first",
        )
    if wanted == 3 and stated == 1:
        raise InputError(
            f"{name} takes 3 channels", "its Preprocess has the mean of one",
            "Preprocess(mean=(r, g, b), std=(r, g, b))",
        )  # fmt: skip
    return 3


@torch.no_grad()
def _runs(model: nn.Module, preprocess: Preprocess, channels: int) -> bool:
    """Whether a model takes so many channels."""
    like = next(model.parameters(), torch.zeros(0))
    inputs = torch.zeros(2, channels, *preprocess.size, device=like.device, dtype=like.dtype)
    try:
        model(inputs)
    except Exception:  # whatever a model raises for what it does not take
        return False
    return True


def _fingerprint(model: nn.Module, preprocess: Preprocess) -> str:
    import hashlib

    digest = hashlib.sha256(str(model).encode())
    for key, value in model.state_dict().items():
        digest.update(key.encode())
        digest.update(
            value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return fingerprint(digest.hexdigest(), preprocess.to_dict())


def _own_module(spec: str) -> tuple[nn.Module, Preprocess | None]:
    """Call ``package.module:function``."""
    module_name, _, function_name = spec.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise InputError(
            f"cannot import {module_name!r}",
            str(error),
            "give package.module:function, importable from here",
        ) from error
    except Exception as error:  # whatever the user's file raises
        raise _own_error(f"importing {module_name!r} fails", error) from error
    build = getattr(module, function_name, None)
    if build is None:
        hint = did_you_mean(function_name, dir(module))
        raise InputError(
            f"cannot use {spec!r}", f"{module_name} has no {function_name!r}",
            hint or "name a function that returns a torch.nn.Module",
        )  # fmt: skip
    try:
        made = build if isinstance(build, nn.Module) else build()
    except Exception as error:  # whatever the user's function raises
        raise _own_error(f"{spec} fails", error) from error
    model, own = made if isinstance(made, tuple) else (made, getattr(made, "preprocess", None))
    model = original(model) if isinstance(model, nn.Module) else model
    if not isinstance(model, nn.Module):
        raise InputError(
            f"{spec} gave no module",
            f"it returned {type(model).__name__}",
            "return a torch.nn.Module, or (module, Preprocess)",
        )
    return model, own


def _own_error(what: str, error: Exception) -> InputError:
    """Put an error of the user's own code into ours; its traceback is the cause of it."""
    said = (str(error).strip().splitlines() or [""])[0]
    return InputError(what, f"{type(error).__name__}: {said}".rstrip(": "), "--debug shows where")


def _named(name: str, *, bare: bool) -> Built:
    """Build a model by name, with its weights unless it is to be bare."""
    known = ALIASES.get(name, name)
    for prefix, room in ROOMS.items():
        if known.startswith(prefix):
            load = importlib.import_module(f"milanx.targets.{room}").load
            built: Built = load(known.removeprefix(prefix), name, bare=bare)
            return built
    import timm

    check_name(name)
    if ":" not in known and known.split(".")[0] not in timm.list_models():
        return huggingface.load(name, name, bare=bare)
    package = None if bare else package_state_dict(known)
    fetched = not bare and package is None
    asking = within_reach() if fetched and not known.startswith("local-dir:") else nullcontext()
    try:
        with asking:
            model = timm.create_model(known, pretrained=fetched)
    except Exception as error:  # timm and the hub raise many kinds for "cannot be had"
        raise missing(name, error) from error
    if package is not None:
        model.load_state_dict(package)
    config = timm.data.resolve_model_data_config(model)
    origin = f"PyPI package {PACKAGES[known][0]}" if package else f"timm, {known}"
    kind, colon, folder = known.partition(":")
    place = f"{kind}:{Path(folder).absolute()}" if kind == "local-dir" and colon else ""
    return Built(model, timm_preprocess(config), origin, place=place)


def timm_preprocess(config: dict[str, Any]) -> Preprocess:
    """Read timm's data configuration as `timm.data.create_transform` does for evaluation."""
    height, width = config["input_size"][-2:]
    scale = config["crop_pct"]
    if config.get("crop_mode") == "squash" or height != width:
        resize: int | tuple[int, int] = (int(height / scale), int(width / scale))
    else:
        resize = int(height / scale)
    return Preprocess(
        (height, width),
        resize,
        config["interpolation"],
        tuple(config["mean"]),
        tuple(config["std"]),
    )
