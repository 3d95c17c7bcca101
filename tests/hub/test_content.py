"""What of a repository is fetched, and what never is."""

from __future__ import annotations

import pytest

from milanx.errors import FormatError
from milanx.files.kinds import DESCRIBER, RUN, TABLE
from milanx.hub.content import fetched, holds

WHOLE = ["describer.json", "words.json", "encoder.safetensors", "decoder/adapter_config.json",
         "tokenizer/tokenizer.json", "README.md"]  # fmt: skip
BESIDE = [".gitattributes", "LICENSE", "config.json", "notes.ipynb", "sheets/01.jpg", "run.py"]


def test_parts_are_fetched_and_the_rest_is_passed_over() -> None:
    assert fetched("user/name", [*WHOLE, *BESIDE], DESCRIBER) == sorted(WHOLE)
    run = ["run.json", "exemplars/conv 1@x/max.npy", "page/index.html", "analysis/kinds.png"]
    beside = ["data/train.parquet", "README.md", ".extract/pass.json", "exemplars/a/b/max.npz"]
    assert fetched("user/name", [*run, *beside], RUN) == sorted(run)


@pytest.mark.parametrize("name", [
    "../describer.json", "decoder/../../x.json", "/etc/passwd", "C:/x.json", "c:x.json",
    "a\\b.json", "decoder/./x.json", "decoder//x.json", "x\n.json", "x\0.json", "..",
    "a/" * 20 + "x.json", "é" * 200 + ".json",
])  # fmt: skip
def test_a_path_that_leaves_the_folder_is_refused(name: str) -> None:
    with pytest.raises(FormatError, match="leaves the folder"):
        fetched("user/name", [*WHOLE, name], DESCRIBER)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "base/model.pt", "x.PKL", "a/b/c.joblib"])
def test_a_pickle_is_refused_wherever_it_lies(name: str) -> None:
    with pytest.raises(FormatError, match="run code when it is opened"):
        fetched("user/name", [*WHOLE, name], DESCRIBER)


def test_a_part_of_another_kind_of_file_is_refused() -> None:
    with pytest.raises(FormatError, match=r"milanx opens \.safetensors, \.json"):
        fetched("user/name", [*WHOLE, "tokenizer/chat_template.jinja"], DESCRIBER)


def test_what_a_repository_holds() -> None:
    assert holds(WHOLE) is DESCRIBER
    assert holds(["run.json", "units.parquet"]) is RUN
    assert holds(["units.parquet", "README.md"]) is TABLE
    assert holds(["model.safetensors"]) is None
