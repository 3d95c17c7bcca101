"""The Python in README.md and docs/ runs as it stands there, page by page, on small runs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import milanx
from tests.act.liar import TEXTS, photos
from tests.act.runs import write_texts
from tests.helpers import noise
from tests.hub.fixtures import hub as hub
from tests.hub.server import Hub

TOP = Path(milanx.__file__).parents[1]
PAGES = {str(page.relative_to(TOP)): page.read_text(encoding="utf-8")
         for page in (TOP / "README.md", *sorted((TOP / "docs").glob("*.md")))}  # fmt: skip
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
WITH_CODE = [name for name, text in PAGES.items() if BLOCK.search(text)]
SHOWN = {"analyze", "audit", "audit_versus", "describe", "evaluate_robustness", "export_run",
         "extract", "import_run", "load_edited", "prune", "pull", "push"}  # fmt: skip


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what the pages speak of: photos, labelled photos and described runs."""
    root = tmp_path_factory.mktemp("desk")
    (root / "photos").mkdir()
    for i, picture in enumerate(noise(30)):
        picture.save(root / "photos" / f"{i:02d}.png")
    images = photos(60)
    assert images.labels is not None
    for i, label in enumerate(images.labels):
        path = root / "labelled" / f"class {label}" / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(images.read(i))).save(path)
    for name in ("mine", "plain", "blurred"):
        run = root / "runs" / name
        milanx.extract("tests.act.liar:liar", layers=["conv"], images=root / "labelled", out=run,
                       device="cpu")  # fmt: skip
        write_texts(run, list(TEXTS), "conv")
    return root


@pytest.mark.parametrize("page", WITH_CODE)
def test_the_code_of_a_page_runs(
    page: str, desk: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(desk, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    for block in BLOCK.finditer(PAGES[page]):
        above = PAGES[page].count("\n", 0, block.start(1))  # so that errors name the page's line
        exec(compile("\n" * above + block[1], TOP / page, "exec"), names)
    assert {"milanx"} <= names.keys()


def test_every_call_that_acts_is_shown() -> None:
    code = "".join(block for text in PAGES.values() for block in BLOCK.findall(text))
    called = set(re.findall(r"\bmilanx\.(\w+)\(", code))
    assert called >= SHOWN
    assert called <= set(milanx.__all__)


def test_no_python_stands_where_no_test_runs_it() -> None:
    for page, text in PAGES.items():
        rest = BLOCK.sub("", text)
        python = r"^ *(import \w+|from \S+ import .*)$|^ {4}\w+ = milanx\.|^``` *py"
        assert not re.search(python, rest, re.M), page
