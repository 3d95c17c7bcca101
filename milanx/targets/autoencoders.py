"""Latents of sparse autoencoders as units.

Whatever file it came from (`saereaders`), an autoencoder's encoder is one computation: activations
are normalised, a bias is subtracted, a matrix applied, a bias added, and an activation kept sparse.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

EPSILON = 1e-5  # of the layer norm of SAELens and ViT-Prisma
NORMS = ("none", "layer_norm", "constant_norm_rescale")


@dataclass(frozen=True, eq=False)
class Activation:
    """What keeps latents sparse.

    Attributes:
        name: ``relu``, ``tanh-relu``, ``topk``, ``threshold`` or ``gated``.
        k: of a top k: how many latents of a position are kept.
        signed: a top k keeps values below zero, too.
        threshold: float32 [n] or [], above which a value is kept, after a ReLU.
        reached: a value that equals its threshold is kept.
        gate: float32 [n], bias of a gate; the bias of the encoder is added to the magnitude alone.
        stretch: float32 [n], factor of the magnitude.
    """

    name: str
    k: int = 0
    signed: bool = False
    threshold: torch.Tensor | None = None
    reached: bool = False
    gate: torch.Tensor | None = None
    stretch: torch.Tensor | None = None

    def __call__(self, linear: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Return latents [..., n].

        Args:
            linear: [..., n], of the encoder's matrix.
            bias: [n], of the encoder.
        """
        if self.gate is not None and self.stretch is not None:
            magnitude = torch.relu(linear * self.stretch.to(linear) + bias)
            return magnitude * (linear + self.gate.to(linear) > 0)
        before = linear + bias
        if self.name == "topk":
            best = before.topk(min(self.k, before.shape[-1]), dim=-1)
            values = best.values if self.signed else best.values.relu()
            return torch.zeros_like(before).scatter_(-1, best.indices, values)
        if self.threshold is not None:
            limit = self.threshold.to(before)
            kept = before >= limit if self.reached else before > limit
            return before.relu() * kept
        return before.relu().tanh() if self.name == "tanh-relu" else before.relu()


@dataclass(frozen=True, eq=False)
class Autoencoder:
    """The encoder of a sparse autoencoder: a lens.

    Attributes:
        weight: float32 [d, n].
        bias: float32 [n].
        activation: of the latents.
        before: float32 [d], subtracted from the activations; None for nothing.
        norm: one of `NORMS`: of the activations, before that.
        origin: what file it came from: format, architecture, path.
        hook: where it was trained, in its own words; "" where the file does not say.
        class_only: it was trained on class tokens alone.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    activation: Activation
    before: torch.Tensor | None = None
    norm: str = "none"
    origin: dict[str, str] = field(default_factory=dict)
    hook: str = ""
    class_only: bool = False

    kind = "latents"
    suffix = "@sae"
    title = "latents"
    linear = False

    @property
    def width(self) -> int:
        """Units of the layer that it reads."""
        return self.weight.shape[0]

    @property
    def units(self) -> int:
        """How many latents it has."""
        return self.weight.shape[1]

    @property
    def rectified(self) -> bool:
        """Whether no latent is below zero."""
        return not self.activation.signed

    def tensors(self) -> dict[str, torch.Tensor | None]:
        """Return all that it computes with, by name."""
        own = {"weight": self.weight, "bias": self.bias, "before": self.before}
        return own | {n: getattr(self.activation, n) for n in ("threshold", "gate", "stretch")}

    @cached_property
    def key(self) -> str:
        """Fingerprint of all that latents depend on, whatever file they are written in."""
        done = self.activation
        digest = hashlib.sha256(
            repr((self.norm, done.name, done.k, done.signed, done.reached)).encode()
        )
        for name, tensor in self.tensors().items():
            if tensor is not None:
                digest.update(f"{name}{list(tensor.shape)}".encode())
                digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def __call__(self, maps: torch.Tensor) -> torch.Tensor:
        """Compute latents [b, n, h, w] from a layer's units [b, d, h, w], in float32."""
        x = maps.movedim(1, -1).float()
        if self.norm == "layer_norm":
            x = x - x.mean(-1, keepdim=True)
            x = x / (x.std(-1, keepdim=True) + EPSILON)
        elif self.norm == "constant_norm_rescale":
            x = x * self.width**0.5 / x.norm(dim=-1, keepdim=True)
        if self.before is not None:
            x = x - self.before.to(x)
        return self.activation(x @ self.weight.to(x), self.bias.to(x)).movedim(-1, 1)

    def facts(self) -> dict[str, Any]:
        """Return what is to be known of it, for json."""
        return {
            "kind": "sae", **self.origin, "activation": self.activation.name, "norm": self.norm,
            "width": self.width, "latents": self.units, "trained_on": self.hook,
            "fingerprint": self.key,
        }  # fmt: skip

    def notes(self, module: str, at_map: bool) -> list[str]:
        """Say where a layer is not the place that it was trained on, as far as names tell."""
        said = []
        if self.hook and not agrees(self.hook, module):
            said.append(f"note: the autoencoder says that it was trained on {self.hook}; "
                        f"{module} seems to be another place")  # fmt: skip
        if self.class_only and at_map:
            said.append("note: the autoencoder was trained on class tokens alone; "
                        f"{module}@class reads those")  # fmt: skip
        return said


# Places within a block as TransformerLens and ViT-Prisma name them, by what the name of a module
# holds there; "" stands for the block itself.
SITES = {"hook_resid_post": ("",), "hook_resid_pre": ("",), "hook_mlp_out": ("mlp", "ffn"),
         "hook_attn_out": ("attn", "attention")}  # fmt: skip


def agrees(hook: str, module: str) -> bool:
    """Whether a hook point and a module may be one place, by the number of the block and its part.

    Args:
        hook: ``blocks.6.hook_resid_post``, or a module's own name.
        module: ``blocks.6``, ``vision_model.encoder.layers.6.mlp``, ...
    """
    if hook == module:
        return True
    (number, part), (own, inside) = _block(hook), _block(module)
    if number is None:  # in words of its own, of which nothing is known
        return True
    if own is None:
        return False
    sites = SITES.get(part)
    if sites is None:
        return number == own
    before = part == "hook_resid_pre"  # what the block before gives
    return own == number - before and (
        inside == "" if sites == ("",) else any(site in inside for site in sites)
    )


def _block(name: str) -> tuple[int | None, str]:
    """Return the first number in a name, and what stands behind it."""
    found = re.search(r"(?:^|\.)(\d+)(?:\.|$)", name)
    return (int(found[1]), name[found.end() :]) if found else (None, "")
