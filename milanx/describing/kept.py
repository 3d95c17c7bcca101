"""Vectors of texts, kept in the cache for whoever describes with the same describer again."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import torch

from milanx.environment import note
from milanx.errors import InputError
from milanx.files import cache_dir
from milanx.files.arrays import keep_arrays, kept_arrays

TEXTS, VECTORS = "texts", "vectors"  # of the file: a list as json, and a row for each


def kept_vectors(key: str) -> dict[str, torch.Tensor]:
    """Return what is kept: text -> float32 [j], those that were asked for last behind the others.

    Args:
        key: stands for what made the vectors.
    """
    known = kept_arrays(cache_dir("texts", f"{key}.safetensors"))
    if known is None:
        return {}
    texts = json.loads(known[TEXTS].tobytes().decode())
    return dict(zip(texts, torch.from_numpy(known[VECTORS]), strict=True))


def keep_vectors(key: str, vectors: Mapping[str, torch.Tensor]) -> None:
    """Keep vectors in place of those that are there; a line says where that cannot be.

    Args:
        key: as of `kept_vectors`.
        vectors: of texts, likewise.
    """
    texts = np.frombuffer(json.dumps(list(vectors)).encode(), np.uint8)
    rows = torch.stack([*vectors.values()]).cpu().numpy()
    try:
        keep_arrays(cache_dir("texts", f"{key}.safetensors"), {TEXTS: texts, VECTORS: rows})
    except InputError as error:
        note(f"vectors of texts are not kept: {error.what}: {error.why}")
