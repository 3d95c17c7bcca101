"""Image towers of open_clip, each as a last feature map and a head into the joint space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from milanx.errors import InputError


class Vit:
    """open_clip's own ViT."""

    def __init__(self, visual: Any, way: str) -> None:
        self.visual = visual
        self.blocks = visual.transformer.resblocks
        if len(self.blocks) < 2:
            raise InputError("the image tower has a single block", "two are needed",
                             "choose another model")  # fmt: skip
        self.by_class = visual.attn_pool is None and visual.pool_type == "tok"
        self.normed = visual.attn_pool is None and not visual.final_ln_after_pool
        self.way = ("value" if self.by_class else "plain") if way == "auto" else way
        self.covered = visual.grid_size[0] * visual.patch_size[0]

    def _tokens(self, inputs: torch.Tensor, indices: Sequence[int]) -> list[torch.Tensor]:
        """Return the tokens [b, 1 + n, c] after the blocks ``indices`` (ascending)."""
        out = self.visual.forward_intermediates(
            inputs, indices=list(indices), stop_early=True, intermediates_only=True,
            output_fmt="NLC", output_extra_tokens=True,
        )  # fmt: skip
        parts = zip(out["image_intermediates_prefix"], out["image_intermediates"], strict=True)
        return [torch.cat(pair, dim=1) for pair in parts]

    def _norm(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.visual.ln_post(tokens) if self.normed else tokens

    def _alone(self, tokens: torch.Tensor) -> torch.Tensor:
        """Run the last block with each token attending to itself alone."""
        block = self.blocks[-1]
        length = tokens.shape[1]
        mask = torch.full((length, length), -math.inf, device=tokens.device)
        mask.fill_diagonal_(0)
        if self.way == "self":
            return block(tokens, attn_mask=mask)
        inner = block.ln_1(tokens)
        if hasattr(block, "attention"):
            return block.ls_1(block.attention(inner, attn_mask=mask))
        return block.ls_1(block.ln_attn(block.attn(inner, attn_mask=mask)))

    def maps(
        self, inputs: torch.Tensor, stages: Sequence[int]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the last features [b, c, g, g] and those of the stages."""
        last = len(self.blocks) - (1 if self.way == "plain" else 2)
        wanted = sorted({last, *stages})
        found = dict(zip(wanted, self._tokens(inputs, wanted), strict=True))
        tokens = found[last] if self.way == "plain" else self._alone(found[last])
        rows, columns = self.visual.grid_size
        first, *others = [
            t[:, 1:].transpose(1, 2).unflatten(2, (rows, columns))
            for t in (self._norm(tokens), *(found[s] for s in stages))
        ]
        return first, others

    def head(self, features: torch.Tensor) -> torch.Tensor:
        """Bring features [n, c] into the joint space [n, j]."""
        if not self.normed:
            features = self.visual._pool(features[:, None].expand(-1, 2, -1))[0]
        return features if self.visual.proj is None else features @ self.visual.proj

    def whole(self, inputs: torch.Tensor) -> torch.Tensor | None:
        """Return the image feature [b, c] that `head` takes, where it is one token's."""
        if not self.by_class:
            return None
        return self._norm(self._tokens(inputs, [len(self.blocks) - 1])[0][:, 0])

    def attended(self, inputs: torch.Tensor, share: torch.Tensor, depth: int) -> torch.Tensor:
        """Return the class token [n, c] that sees patches by their share [n, g * g]."""
        tokens = self._tokens(inputs, [len(self.blocks) - 1 - depth])[0]
        n, length, _ = tokens.shape
        bias = tokens.new_zeros(n, length, length)
        bias[:, 0, 1:] = share.log()
        heads = int(self.blocks[-1].attn.num_heads)
        for block in self.blocks[-depth:]:
            tokens = block(tokens, attn_mask=bias.repeat_interleave(heads, 0))
        return self._norm(tokens[:, 0])


class Timm:
    """A tower from timm: CNN or ViT.

    Whether its features are a sequence is found at the first `maps`.
    """

    covered: int | None = None

    def __init__(self, visual: Any, way: str) -> None:
        self.visual, self.trunk = visual, visual.trunk
        _only_plain(way, "towers from timm")
        self.prefix = int(getattr(self.trunk, "num_prefix_tokens", 0))
        self.last_axis = getattr(self.trunk, "output_fmt", "NCHW") == "NHWC"
        self.sequence = False
        patch = getattr(getattr(self.trunk, "patch_embed", None), "patch_size", None)
        if patch is not None and hasattr(self.trunk, "blocks"):
            size = visual.image_size[0]
            self.covered = size // int(patch[0]) * int(patch[0])

    def maps(
        self, inputs: torch.Tensor, stages: Sequence[int]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the last features [b, c, g, g] and those of the stages."""
        last, found = self.trunk.forward_intermediates(inputs, indices=sorted(set(stages)) or 1)
        by_index = dict(zip(sorted(set(stages)), found, strict=False))
        if last.ndim == 3:
            self.sequence = True
            side = math.isqrt(last.shape[1] - self.prefix)
            last = last[:, self.prefix :].transpose(1, 2).unflatten(2, (side, side))
        elif self.last_axis:
            last = last.permute(0, 3, 1, 2)
        return last, [by_index[s] for s in stages]

    def head(self, features: torch.Tensor) -> torch.Tensor:
        """Bring features [n, c] into the joint space [n, j]."""
        if self.sequence:
            shaped = features[:, None].expand(-1, self.prefix + 1, -1)
        elif self.last_axis:
            shaped = features[:, None, None]
        else:
            shaped = features[:, :, None, None]
        return self.visual.head(self.trunk.forward_head(shaped))

    def whole(self, inputs: torch.Tensor) -> torch.Tensor | None:
        """Return the image feature [b, c] that `head` takes, where it is one token's."""
        if self.sequence and getattr(self.trunk, "global_pool", "") == "token":
            return self.trunk.forward_features(inputs)[:, 0]
        return None


class ResNet:
    """CLIP's own ResNet, which ends in attention pooling."""

    covered: int | None = None

    def __init__(self, visual: Any, way: str) -> None:
        self.visual = visual
        _only_plain(way, "CLIP's ResNets")

    def maps(
        self, inputs: torch.Tensor, stages: Sequence[int]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the last features [b, c, g, g] and those of the stages."""
        wanted = sorted({4, *stages})
        found = self.visual.forward_intermediates(inputs, indices=wanted, intermediates_only=True)
        by_index = dict(zip(wanted, found["image_intermediates"], strict=True))
        return by_index[4], [by_index[s] for s in stages]

    def head(self, features: torch.Tensor) -> torch.Tensor:
        """Bring features [n, c] into the joint space [n, j], as attention to one place alone."""
        pooling = self.visual.attnpool
        return pooling.c_proj(pooling.v_proj(features))

    def whole(self, inputs: torch.Tensor) -> torch.Tensor | None:
        """Return None: attention pools the map, no one place is the image feature."""
        return None


def _only_plain(way: str, towers: str) -> None:
    if way not in ("auto", "plain"):
        raise InputError(
            f"encoder.dense={way} is not for {towers}",
            "it changes the last block of open_clip's own ViTs",
            "use auto or plain: joint() takes the value path of their pooling",
        )


def tower_of(visual: Any, way: str) -> Vit | Timm | ResNet:
    """Return the adapter of an image tower; ``way`` is explained in `milanx.features.openclip`.

    Raises:
        InputError: a tower of another kind, or a way that it does not know.
    """
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import VisionTransformer

    if isinstance(visual, VisionTransformer):
        return Vit(visual, way)
    if isinstance(visual, TimmModel):
        return Timm(visual, way)
    if isinstance(visual, ModifiedResNet):
        return ResNet(visual, way)
    raise InputError(
        f"the image tower {type(visual).__name__} cannot be used",
        "dense features are known for open_clip's ViT and ResNet and for towers from timm",
        "choose another model",
    )
