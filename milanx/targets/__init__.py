"""Targets: a model by name or module, its weights, its layers, and how its units are read.

In comes a name or a `torch.nn.Module`; out go a `Target`, `LayerInfo`s and maps [b, u, h, w].
``zoo`` loads by name, with ``huggingface``, ``kinds`` and ``processors`` for transformers,
``torchvisions`` and ``openclips``, each of which gives what ``built`` holds; ``weights`` and
``checkpoints`` read weights, ``given`` keeps a module as its owner gave it, ``layers`` discovers
(``probing``, ``layout``, ``watch``, ``gates``, ``inert`` each answer one question of it, and
``effects`` of a ``generator``, whose latents, its ``draws``, become the images that ``generated``
opens), ``functions`` names nonlinearities, ``operations`` says what torch's do, ``units`` names and
shapes units, ``capture`` reads them by hooks; ``listed`` keeps lists of layers.

Units may be computed from a layer's own: ``lens`` says what such a computation is, ``through``
opens one and reads layers through it. There are ``autoencoders`` (``saefiles`` and ``saereaders``
read their files), ``directions``, and ``heads`` of attention.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from milanx import import_public

if TYPE_CHECKING:
    from milanx.targets.capture import Capture, find_layers, list_layers, refused_layers
    from milanx.targets.units import LayerInfo
    from milanx.targets.zoo import Target, load_target

_PLACES = {
    "Capture": "capture",
    "LayerInfo": "units",
    "Target": "zoo",
    "find_layers": "capture",
    "list_layers": "capture",
    "load_target": "zoo",
    "refused_layers": "capture",
}

__all__ = [
    "Capture",
    "LayerInfo",
    "Target",
    "find_layers",
    "list_layers",
    "load_target",
    "refused_layers",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    return import_public(__name__, _PLACES, name)


def __dir__() -> list[str]:
    return sorted(__all__)
