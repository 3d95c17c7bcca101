"""Where runs go."""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers

import milanx
from milanx.describing.ways import METHODS
from milanx.extraction import OWN_METHOD, default_out
from milanx.language.compare import Sentences, _minilm
from milanx.progress import Silent
from tests.helpers import noise, write_parquet

TINY = "tests.helpers:tiny"


def test_no_method_replaces_what_another_wrote(
    describer: milanx.Describer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photos = write_parquet(tmp_path / "photos.parquet", noise(12))
    words = tmp_path / "words.txt"
    words.write_text("sky\ngrass\nwater\n")
    made = {
        method: milanx.describe(
            TINY, layers="bn1:0-1", images=photos, describer=describer, method=method,
            concepts=words, score=False,
        )
        for method in ("concepts", "nearest")
    }  # fmt: skip
    folder = tmp_path / "milanx-runs" / "tests.helpers-tiny"
    assert {method: run.root.absolute() for method, run in made.items()} == {
        method: folder / f"bn1+photos+{method}" for method in made
    }
    for method, run in made.items():
        assert milanx.open_run(run.root).settings["describer"]["method"] == method


def test_loading_says_nothing_of_its_own(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    photos = write_parquet(tmp_path / "photos.parquet", noise(12))
    milanx.describe(TINY, layers="bn1:0-0", images=photos, out=tmp_path / "run", method="nearest",
                    score=False)  # fmt: skip
    _minilm.cache_clear()
    Sentences()(["a text that nobody compared before"])
    assert capfd.readouterr().err == ""
    assert [str(w.message) for w in recwarn if issubclass(w.category, FutureWarning)] == []
    assert transformers.utils.logging.is_progress_bar_enabled()  # the caller's bars are as before


def test_default_folders_name_every_method_but_the_usual_one() -> None:
    assert METHODS[0] == OWN_METHOD
    assert default_out("m", ["a"], ["x/photos"]) == Path("milanx-runs/m/a+photos")
    for layers in (["a"], ["a" * 200]):  # also where a long name is cut
        names = {default_out("m", layers, ["photos"], method).name for method in METHODS}
        assert len(names) == len(METHODS)
        assert sum(name.endswith(f"+{m}") for m in METHODS for name in names) == len(METHODS) - 1


class Lines(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_of_a_finished_extraction_no_time_is_foretold(tmp_path: Path) -> None:
    photos = write_parquet(tmp_path / "photos.parquet", noise(12))
    told = []
    for _ in range(2):
        lines = Lines()
        milanx.extract(TINY, layers="bn1", images=photos, out=tmp_path / "run", progress=lines)
        told.append([line for line in lines.lines if line.startswith("extraction alone")])
    assert [len(lines) for lines in told] == [1, 0]
