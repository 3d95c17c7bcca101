"""Measures stability in a process of its own, which a test ends: FOLDER PHOTOS."""

from __future__ import annotations

import sys
from pathlib import Path

from milanx.describing.describer import Describer
from milanx.evaluate.stability.measure import measure_stability
from milanx.evaluate.stability.settings import StabilityAsked, read_axes


def asked(out: Path, photos: Path) -> StabilityAsked:
    return StabilityAsked(
        "tests.helpers:tiny", ("bn1",), (str(photos),), out, units=5,
        axes=read_axes(["k=4", "lam=0,0.6", "beam=1"]), device="cpu",
    )  # fmt: skip


if __name__ == "__main__":
    measure_stability(Describer.load(), asked(*map(Path, sys.argv[1:])))
