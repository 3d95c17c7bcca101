"""What is said before a download, and when nothing is."""

from __future__ import annotations

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
