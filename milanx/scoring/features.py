"""Images as a simulator's features, kept in the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from milanx.features.shares import Shares, agreed
from milanx.files import cache_dir, fingerprint
from milanx.files.arrays import keep_arrays, kept_arrays
from milanx.scoring.simulator import Simulator

if TYPE_CHECKING:
    from milanx.images.preprocess import Preprocess
    from milanx.images.probe import ProbeImages

BATCH = 32
FEATURES = "features"  # of the kept file
Places = tuple["ProbeImages", Sequence[int]]


def image_features(
    simulator: Simulator,
    preprocess: Preprocess,
    wanted: Sequence[str],
    find: Callable[[], Places],
    advance: Callable[[int], None] = lambda n: None,
) -> np.ndarray:
    """Encode images as a target saw them, float16 [n, c].

    Of several processes (``simulator.process``) each encodes its share, and has all in the end.

    Kept in the cache by the images, the target's preprocessing and the simulator's features.

    Args:
        simulator: what encodes.
        preprocess: the target's.
        wanted: fingerprints of the images.
        find: gives the images and the place of each that is wanted; not called where the cache has
            them all.
        advance: told how many more are done.
    """
    key = fingerprint(simulator.key, [preprocess.size, preprocess.resize,
                                      preprocess.interpolation], wanted)  # fmt: skip
    path = cache_dir("simulator", f"{key}.safetensors")
    known, process = kept_arrays(path), simulator.process
    if agreed(process, known is not None):
        assert known is not None
        advance(len(wanted))
        return known[FEATURES]
    images, places = find()
    shares = Shares(places, BATCH, process)
    own = images.iterate([place for batch in shares.own for place in batch], preprocess, BATCH)
    parts = []
    for batch, encoded in shares.gathered(simulator.encode(views) for views, _ in own):
        parts.append(encoded.numpy().astype(np.float16))
        advance(len(batch))
    made = np.concatenate(parts)
    if process is None or process.is_local_main_process:
        keep_arrays(path, {FEATURES: made})
    return made
