"""A folder in which people act on a run, as the commands find it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from milanx.targets.zoo import load_target
from tests.act.liar import make_run, photos
from tests.cli.commands import LIAR


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run in its usual place and labelled photos, half of them marked."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "milanx-runs" / "old" / "a", texts=("a",) * 6)
    make_run(tmp_path / "milanx-runs" / "liar" / "conv", load_target(LIAR))
    images = photos(60)
    assert images.labels is not None
    for i, label in enumerate(images.labels):
        folder = tmp_path / "photos" / f"class{label}"
        folder.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(np.asarray(images.read(i)))
        picture.save(folder / f"{i:02d}.png")
    return tmp_path
