"""Encoded views, kept in the cache: describing again encodes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from milanx.environment import note
from milanx.errors import InputError
from milanx.features.encoder import Encoder, encode_views
from milanx.features.shares import agreed
from milanx.files import cache_dir, fingerprint
from milanx.files.arrays import keep_arrays, mapped_arrays

if TYPE_CHECKING:
    from accelerate import PartialState

    from milanx.exemplars.store import ExemplarStore

FEATURES = "features"  # of the kept file
VIEWS = "views.parquet"  # of a store
BATCH = {"cpu": 16}  # views of a forward pass: as fast there as 32, in less memory
BATCH_ELSEWHERE = 32


def encoded_views(
    encoder: Encoder,
    store: ExemplarStore,
    *,
    advance: Callable[[int], None] = lambda n: None,
    process: PartialState | None = None,
) -> dict[int, np.ndarray]:
    """Encode every view of a store, or take what the cache has of it, mapped into memory.

    Kept by the encoder, by what it computes on, and by the bytes of the store's views. Where the
    cache cannot be written a line says so.

    Args:
        encoder: what encodes.
        store: whose views.
        advance: as of `milanx.features.encoder.encode_views`.
        process: likewise.

    Returns:
        image index -> dense features float16 [g, g, d]; all of them in every process.
    """
    indices = [int(i) for i in store.view_indices()]
    size = BATCH.get(encoder.device.type, BATCH_ELSEWHERE)
    told = (store.listing.files or {}).get(VIEWS)
    if told is None or not indices:  # of an earlier milanx: nothing tells its views from others
        return encode_views(encoder, store, batch_size=size, advance=advance, process=process)
    key = fingerprint("views-1", encoder.fingerprint(), encoder.device.type, told.sha256, indices)
    path = cache_dir("views", f"{key}.safetensors")
    known = mapped_arrays(path)
    if not agreed(process, known is not None):
        features = encode_views(encoder, store, batch_size=size, advance=advance, process=process)
        if process is not None and not process.is_local_main_process:
            return features
        try:
            kept = keep_arrays(path, {FEATURES: np.stack([features[i] for i in indices])})
        except InputError as error:
            note(f"encoded views are not kept: {error.what}: {error.why}")
            return features
        known = mapped_arrays(path) if kept else None
        if known is None:
            return features
    else:
        advance(len(indices))
    assert known is not None
    return dict(zip(indices, known[FEATURES], strict=True))
