"""Small labelled photos of which an experiment of spurious text is made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from milanx.act.shortcut.make import MakeSettings
from tests.helpers import noise, write_parquet

NAMES = ("bee", "golden retriever", "teapot")
EACH = 20  # photos of a class, two of a group
SETTINGS = MakeSettings((10, 50), seed=3, side=32, describe=0.2, validation=0.2, test=0.2)


def photos(path: Path, each: int = EACH, seed: int = 0) -> Path:
    """Three classes of different pictures; the class tints them, so that there is much to learn."""
    pictures = []
    for i, picture in enumerate(noise(len(NAMES) * each, 40, seed)):
        tint = np.zeros(3)
        tint[i % len(NAMES)] = 90
        tinted = np.clip(np.asarray(picture) * 0.5 + tint, 0, 255).astype(np.uint8)
        pictures.append(Image.fromarray(tinted))
    label = [i % len(NAMES) for i in range(len(pictures))]
    group = [f"{n}-{i // (2 * len(NAMES))}" for i, n in enumerate(label)]
    return write_parquet(path, pictures, label=label, name=[NAMES[n] for n in label], group=group)
