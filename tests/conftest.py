"""Every test has a cache of its own and no network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MILANX_CACHE", str(path))
    return path


@pytest.fixture(autouse=True)
def own_accelerator() -> Iterator[None]:
    """Let no test find the device and precision that another one settled."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
