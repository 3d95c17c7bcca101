"""Small targets and images that tests share."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from milanx.images.preprocess import Preprocess

PREPROCESS = Preprocess((32, 32), 32, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class Tiny(nn.Module):
    """A small network with a module and a functional nonlinearity, in place and not."""

    preprocess = PREPROCESS

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(3, 8, 3, 2, 1)
        self.bn1 = nn.BatchNorm2d(8)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(8, 12, 3, 2, 1)
        self.conv3 = nn.Conv2d(12, 12, 1)
        self.head = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act1(self.bn1(self.conv1(x)))
        x = F.relu6(self.conv2(x) * 1.0)
        y = F.gelu(self.conv3(x))
        y += x
        return self.head(y.mean((2, 3)))


def tiny() -> nn.Module:
    """Return the small network: ``tests.helpers:tiny``."""
    return Tiny()


class Sparse(nn.Module):
    """Rectified units of which some are seldom excited and one never; a linear layer behind."""

    preprocess = PREPROCESS

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 5, 4, 2)
        biases = torch.tensor([0.0, -99.0, -0.6, -0.37, -0.97, -1.2, -0.45, -0.9])
        self.conv.bias = nn.Parameter(biases)
        self.act = nn.ReLU()
        self.mix = nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mix(self.act(self.conv(x))).mean((2, 3))


def sparse() -> nn.Module:
    """Return the network of seldom excited units: ``tests.helpers:sparse``."""
    return Sparse()


def noise(count: int, side: int = 40, seed: int = 0) -> list[Image.Image]:
    """Smooth random pictures, all different."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    return [Image.fromarray(s).resize((side, side + 8), Image.Resampling.BICUBIC) for s in small]


def png(image: Image.Image, kind: str = "PNG") -> bytes:
    """Encode a picture."""
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def write_parquet(path: Path, images: list[Image.Image], **columns: list) -> Path:
    """Write pictures in the Hugging Face layout."""
    content = [{"bytes": png(image), "path": f"{i}.png"} for i, image in enumerate(images)]
    pq.write_table(pa.table({"image": content, **columns}), path, row_group_size=16)
    return path


def contents(*folders: Path) -> dict[str, bytes | None]:
    """Return every file below some folders with its bytes, and every folder with None."""
    return {str(p): p.read_bytes() if p.is_file() else None
            for folder in folders for p in sorted(folder.rglob("*"))}  # fmt: skip


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let the system refuse to make any file larger than ``size`` bytes, as a full disk does.

    The refusal comes from the kernel in the middle of the write, whatever library writes.
    """
    resource = pytest.importorskip("resource", reason="this platform limits no file's size")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TinyBlock(nn.Module):
    """A block of a transformer as timm builds it: pre-norm attention and MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        from timm.layers import Mlp
        from timm.models.vision_transformer import Attention

        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, num_heads=4, qkv_bias=True)
        self.mlp = Mlp(width, 2 * width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class TinyViT(nn.Module):
    """A transformer of two blocks over 4 x 4 patches and a class token; seeded."""

    preprocess = PREPROCESS

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patch = nn.Conv2d(3, width, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.place = nn.Parameter(torch.randn(1, 17, width))
        self.blocks = nn.ModuleList(TinyBlock(width) for _ in range(2))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def tiny_vit() -> nn.Module:
    """Return the small transformer: ``tests.helpers:tiny_vit``."""
    return TinyViT()


def write_sae(
    folder: Path, *, width: int, latents: int, hook: str = "", seed: int = 0,
    tensors: dict[str, torch.Tensor] | None = None,
) -> Path:  # fmt: skip
    """Write a standard autoencoder as SAELens does, and its tensors as ``plain.pt``."""
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    w = tensors or {
        "W_enc": torch.randn(width, latents, generator=generator),
        "b_enc": torch.randn(latents, generator=generator),
        "W_dec": torch.randn(latents, width, generator=generator),
        "b_dec": torch.randn(width, generator=generator),
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(w, folder / "sae_weights.safetensors")
    torch.save(w, folder.parent / f"{folder.name}-plain.pt")
    cfg = {"architecture": "standard", "d_in": width, "d_sae": latents, "dtype": "float32",
           "apply_b_dec_to_input": True, "normalize_activations": "none",
           "metadata": {"hook_name": hook or None}}  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(cfg))
    return folder


def write_directions(path: Path, rows: torch.Tensor, names: list[str] | None = None) -> Path:
    """Write directions [n, d] with their names."""
    from safetensors.torch import save_file

    save_file({"directions": rows}, path, {"names": json.dumps(names)} if names else None)
    return path
