"""Class-activation maps: where a logit comes from, in models that pool maps and apply one layer.

Where the logits are a linear layer of maps averaged over their places, each logit is the average of
a map of its own, the layer's row times the maps, plus its bias (Zhou et al. 2016,
https://arxiv.org/abs/1512.04150, section 2). That it is so is computed, never guessed.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import nn

from milanx.targets.probing import Probed, Seen
from milanx.targets.units import LayerInfo, to_maps

# Share of the largest logit within which both ways of computing logits must agree.
NEAR = {torch.float16: 2e-2, torch.bfloat16: 1e-1}
NEAR_FULL = 1e-4


@dataclass(frozen=True, eq=False)
class ClassMaps:
    """Computes the maps of logits from the maps that are pooled.

    Attributes:
        source: the layer whose maps are pooled.
        linear: the layer that gives the logits.
    """

    source: LayerInfo
    linear: nn.Linear

    def __call__(self, maps: torch.Tensor) -> torch.Tensor:
        """Compute [b, logits, h, w] from the source's maps [b, u, h, w], without the bias."""
        return torch.einsum("buhw,lu->blhw", maps.float(), self.linear.weight.detach().float())


def with_class_maps(probed: Probed, infos: list[LayerInfo]) -> list[LayerInfo]:
    """Return layers, with class maps those logits that are averages of one."""
    pooled = [
        info for info in reversed(infos)
        if info.refused is None and info.map_size != (1, 1) and not info.class_token
        and info.lens is None and info.input_of is None and info.module in probed.seen
        and probed.seen[info.module].calls == 1
    ]  # fmt: skip
    return [_with_maps(probed, info, pooled) if info.kind == "logits" else info for info in infos]


def _with_maps(probed: Probed, info: LayerInfo, pooled: list[LayerInfo]) -> LayerInfo:
    record = probed.seen[info.module]
    linear = _linear(probed, record)
    if linear is None or record.constant or info.groups > 1 or info.nonlinearity is not None:
        return info
    for source in pooled:
        if source.units == linear.in_features:
            made = ClassMaps(source, linear)
            if _gives(made, probed.seen[source.module].value, record.value):
                return dataclasses.replace(info, shown=source.map_size, cam=made)
    return info


def _linear(probed: Probed, record: Seen) -> nn.Linear | None:
    """Return the linear layer that gave what a module gave: itself, or one within it."""
    for other in reversed(probed.seen.values()):
        if isinstance(other.module, nn.Linear) and other.calls == 1 and (
            other is record or (other.name.startswith(f"{record.name}.")
                                and other.value.shape == record.value.shape
                                and torch.equal(other.value, record.value))
        ):  # fmt: skip
            return other.module
    return None


def _gives(made: ClassMaps, value: torch.Tensor, logits: torch.Tensor) -> bool:
    """Whether maps, averaged over their places, are logits [2, u] but for the bias."""
    maps = to_maps(value, made.source)
    maps = maps if made.source.consumed is None else made.source.consumed(maps)
    found = made(maps).mean((2, 3))
    if made.linear.bias is not None:
        found = found + made.linear.bias.detach().float()
    scale = float(logits.float().abs().amax())
    near = NEAR.get(logits.dtype, NEAR_FULL) * scale
    return bool(((found - logits.float()).abs() <= near).all())
