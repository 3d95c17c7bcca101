"""A run with both signs, odd texts, a dead and an unclear unit."""

from __future__ import annotations

import pytest

import milanx
from milanx.describing.candidates import Candidate, Description
from milanx.runs import write_settings, write_units
from tests.helpers import noise, write_parquet

TEXTS = ("=SUM(A1)", "-3", "'+x", 'a "dog", and\na cat', "@home", "\ttab", "été 犬", "plain")


@pytest.fixture(scope="session")
def odd(tmp_path_factory: pytest.TempPathFactory) -> milanx.Run:
    """The run: 12 + 5 units of two layers, each with both signs."""
    root = tmp_path_factory.mktemp("odd")
    photos = write_parquet(root / "p.parquet", noise(24))
    store = milanx.extract("tests.helpers:tiny", layers=["conv2", "head"], images=photos,
                           out=root / "run", signs=["+", "-"],
                           settings=milanx.ExtractSettings(k=5))  # fmt: skip
    found = []
    for layer in store.layers:
        for unit, sign in store.units(layer):
            status = {3: "dead", 4: "unclear"}.get(unit, "described")
            text = TEXTS[unit % len(TEXTS)] if status == "described" else ""
            options = (Candidate(text, 1.5, -2.0, -3.0, rank=-0.1), Candidate("b", 0.5, -2.5, -3.0))
            found.append(Description(layer, unit, sign, status, text, 1.5, -2.0, -3.0,
                                     options if text else (), rank=-0.1))  # fmt: skip
    write_units(root / "run", found, store)
    write_settings(root / "run", milanx.open_run(root / "run").settings)
    return milanx.open_run(root / "run")
