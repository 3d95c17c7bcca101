"""Every test has a cache of its own and no network; a run that several files look at."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from accelerate.state import AcceleratorState

if TYPE_CHECKING:
    import milanx

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


@pytest.fixture(scope="session")
def describer() -> milanx.Describer:
    """The bundled describer."""
    import milanx

    return milanx.Describer.load("builtin")


@pytest.fixture(scope="session")
def planted(describer: milanx.Describer, tmp_path_factory: pytest.TempPathFactory) -> milanx.Run:
    """Planted pixel units, through capture as any model, described by the bundled describer."""
    import milanx
    from milanx.exemplars.planted import PixelUnits
    from milanx.report.page import write_page

    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MILANX_CACHE", str(root / "cache"))
        made = milanx.describe(
            PixelUnits(), layers=["units"], images="builtin:probe", limit=240,
            out=root / "planted", describer=describer,
        )  # fmt: skip
        write_page(made)
    return made


@pytest.fixture
def views_encoded(planted: milanx.Run, own_cache: Path) -> None:
    """Let a test that is not about encoding find planted's views encoded, as describing left them.

    Encoding them takes eight seconds, and each test has a cache of its own.
    """
    shutil.copytree(planted.root.parent / "cache" / "views", own_cache / "views")
