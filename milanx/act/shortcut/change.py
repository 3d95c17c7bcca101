"""How much lettering changes each unit: the truth beside what descriptions say.

Two versions of an image differ in nothing but the letters, so what differs between a unit's values
is what the letters did.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from milanx.act.shortcut.fit import predict
from milanx.act.shortcut.folder import LYING, PLAIN, Experiment


def change_by_text(network: nn.Module, layer: str, experiment: Experiment) -> np.ndarray:
    """Return the mean absolute change of each unit by lettering, float64 [units].

    Measured on validation images without and with text, as means over positions (what the head
    of the network reads), in standard deviations over the images without text.

    Args:
        network: a `SmallResNet`.
        layer: whose units.
        experiment: the images.
    """
    plain = _means(network, layer, experiment.load("validation", PLAIN).views)
    lying = _means(network, layer, experiment.load("validation", LYING).views)
    spread = plain.std(0)
    change: np.ndarray = np.abs(lying - plain).mean(0) / np.where(spread > 0, spread, 1.0)
    return change


def _means(network: nn.Module, layer: str, views: torch.Tensor) -> np.ndarray:
    """Return the means of a layer's maps over positions, float64 [images, units]."""
    parts: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        parts.append(output.double().mean((2, 3)).cpu())

    handle = network.get_submodule(layer).register_forward_hook(keep)
    try:
        predict(network, views)
    finally:
        handle.remove()
    return torch.cat(parts).numpy()
