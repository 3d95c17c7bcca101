"""What is said before a download, and when nothing is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants

from milanx import environment


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, int]:
    """An empty cache, and the sizes of the files that the Hub has."""
    sizes: dict[str, int] = {}

    def metadata(url: str, **_: object) -> SimpleNamespace:
        return SimpleNamespace(
            size=sizes[url.split("huggingface.co/")[1].replace("resolve/main/", "")]
        )

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", metadata)
    return sizes


def test_a_download_is_said_with_its_size(
    hub: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    hub["owner/name/b"] = 548_105_171
    environment.announce_hub("owner/name", ("a", "b"), "the language model")
    line = "downloading the language model from owner/name on the Hugging Face Hub"
    assert capsys.readouterr().err == f"{line}: 548 MB\n"
    environment.announce_hub("owner/other", ("a", "b"), "the language model")
    assert "its size is not known" in capsys.readouterr().err


def test_open_clips_weights_are_named_by_model_and_tag(
    hub: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    hub["laion/CLIP-ViT-B-16-laion2B-s34B-b88K/open_clip_model.safetensors"] = 598_000_000
    environment.announce_clip("ViT-B-16", "laion2b_s34b_b88k")
    environment.announce_clip("hf-hub:laion/CLIP-ViT-B-16-laion2B-s34B-b88K", "")
    first, second = capsys.readouterr().err.splitlines()
    assert "the encoder ViT-B-16 (laion2b_s34b_b88k) from laion/CLIP-ViT-B-16" in first
    assert first.endswith(": 598 MB") and second.endswith(": 598 MB")


def test_nothing_is_said_where_nothing_is_downloaded(
    hub: dict[str, int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: "/there")
    environment.announce_hub("owner/name", ("a",), "it")
    monkeypatch.undo()
    environment.announce_hub("owner/name", ("a",), "it")  # offline, as all tests are
    (tmp_path / "weights").touch()
    environment.announce_url("https://localhost/weights", tmp_path / "weights", "it")
    assert capsys.readouterr().err == ""
    environment.announce_url("http://localhost:9/weights", tmp_path / "none", "it")
    assert "from http://localhost:9/weights: its size is not known" in capsys.readouterr().err


ALONE = """
import os, sys
from accelerate import PartialState
from milanx.environment import join_processes
for line in sys.stdin:
    names = dict(pair.split("=") for pair in line.split())
    os.environ |= names
    state = join_processes(cpu=True)
    kept = all(os.environ[name] == value for name, value in names.items())
    print(state.num_processes, state.process_index, kept)
    PartialState._reset_state()
    for name in names:
        del os.environ[name]
"""


def test_what_other_launchers_leave_behind_joins_nothing() -> None:
    cases = (
        "PMI_SIZE=2 PMI_RANK=0",
        "OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_LOCAL_RANK=0",
        "WORLD_SIZE=2 RANK=0 LOCAL_RANK=0 MASTER_ADDR=127.0.0.1 MASTER_PORT=29511",
        "WORLD_SIZE=1 RANK=0 LOCAL_RANK=0",
        "MV2_COMM_WORLD_SIZE=2 MV2_COMM_WORLD_RANK=1",
        "SLURM_PROCID=0 SLURM_NTASKS=4 SLURM_LOCALID=0",
        "ACCELERATE_USE_FSDP=true ACCELERATE_MIXED_PRECISION=fp16",
    )
    done = subprocess.run([sys.executable, "-c", ALONE], input="\n".join(cases), text=True,
                          capture_output=True, timeout=240, check=False)  # fmt: skip
    assert done.stdout.split("\n")[:-1] == ["1 0 True"] * len(cases), done.stderr[-2000:]
