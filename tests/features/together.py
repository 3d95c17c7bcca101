"""What several processes encode together; each writes what it has in the end, and what it did."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from milanx.environment import join_processes
from milanx.exemplars.store import ExemplarStore
from milanx.features.encoder import encode_views
from milanx.features.smallclip import SmallClipEncoder
from milanx.images.probe import open_images
from milanx.scoring import features as scoring
from milanx.scoring.simulator import Simulator, Where
from milanx.train.data import photos as training
from tests.helpers import PREPROCESS

VIEWS = 5  # of a run that are encoded at once
BATCH = 10  # images and photos: fewer than they would be, and so few are enough for three batches


def counted(encoder: Any) -> list[int]:
    """Note how many views an encoder is given from now on."""
    dense, seen = encoder.dense, []

    def noting(views: torch.Tensor) -> torch.Tensor:
        seen.append(len(views))
        return dense(views)

    encoder.dense = noting
    return seen


def encode(run: Path, photos: Path, out: Path) -> None:
    """Encode the views of a run, its images for the simulator, and training photos."""
    scoring.BATCH = training.BATCH = BATCH
    process = join_processes(cpu=True)
    store, encoder, simulator = ExemplarStore.open(run), SmallClipEncoder(), Simulator.load()
    seen = counted(encoder)
    views = encode_views(encoder, store, batch_size=VIEWS, process=process)
    done = [sum(seen)]
    images = open_images([photos])
    scored = counted(simulator.encoder)  # type: ignore[attr-defined]
    with simulator.at(Where(process=process)):
        wanted = [record.fingerprint for record in images.records]
        places = list(range(len(images)))
        features = scoring.image_features(simulator, PREPROCESS, wanted, lambda: (images, places))
    done.append(sum(scored))
    seen.clear()
    trained = training.photo_features(encoder, [training.PhotoSource(photos)], process=process)
    done.append(sum(seen))
    np.savez(
        out.with_name(f"{out.name}-{process.process_index}.npz"), done=np.array(done),
        indices=np.array(list(views)), views=np.stack([*views.values()]), features=features,
        trained=np.asarray(trained.dense), groups=np.array([p.group for p in trained.photos]),
    )  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    encode(*map(Path, sys.argv[1:]))
