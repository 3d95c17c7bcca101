"""A Hub is asked once whether it is there, before libraries ask it many times."""

from __future__ import annotations

import socket
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session
from transformers import GPT2Config, GPT2LMHeadModel

from milanx.describing.folder import WANTED
from milanx.errors import MilanxError, MissingWeights
from milanx.features.openclip import OpenClipSpec, load_clip
from milanx.hub import reach
from milanx.hub.address import Address
from milanx.hub.fetch import fetch
from milanx.hub.refusals import Silence
from milanx.language.gpt2 import load_gpt2, load_tokenizer
from milanx.scoring.simulator import OpenClip
from milanx.targets.zoo import load_target
from tests.hub.server import Fault, Hub

PATIENCE = 0.4  # seconds
SMALL = GPT2Config(vocab_size=11, n_positions=8, n_embd=4, n_layer=1, n_head=1, bos_token_id=0,
                   eos_token_id=0)  # fmt: skip


class Mute:
    """A server that accepts connections and says nothing; it counts them."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.held: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                self.held.append(self.socket.accept()[0])
            except OSError:  # closed
                return

    def close(self) -> None:
        for held in self.held:
            held.close()
        self.socket.close()


@pytest.fixture(autouse=True)
def asked_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Nothing is known of any server, no proxy stands between, and nothing is in the cache."""
    monkeypatch.setattr(reach, "_known", {})
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", PATIENCE)
    close_session()
    yield
    close_session()


@pytest.fixture
def mute(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mute]:
    made = Mute()
    point_at(monkeypatch, made.url)
    yield made
    made.close()
    close_session()  # or its connections wait on whichever server has the port next


def point_at(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def closed() -> str:
    """Return the address of a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return f"http://127.0.0.1:{found.getsockname()[1]}"


def load_dataset() -> object:
    from milanx.images.hf import open_hf

    pytest.importorskip("datasets")
    return open_hf("hf:owner/name:train", "it")


WAYS: dict[str, Callable[[], object]] = {
    "timm": lambda: load_target("resnet18"),
    "timm's hf-hub": lambda: load_target("hf-hub:timm/resnet18.a1_in1k"),
    "transformers": lambda: load_target("hf:owner/name"),
    "open_clip": lambda: load_target("clip:ViT-B-32/laion2b_s34b_b79k"),
    "an encoder": lambda: load_clip(OpenClipSpec(model="ViT-B-32", pretrained="laion2b_s34b_b79k",
                                                 grid=7, joint=512, edges=True, image_size=224)),
    "a simulator": lambda: OpenClip("ViT-B-32/laion2b_s34b_b79k"),
    "a GPT-2": lambda: load_gpt2("owner/gpt2"),
    "a tokenizer": lambda: load_tokenizer("owner/gpt2"),
    "a describer": lambda: fetch(Address("owner/name"), WANTED),
    "a data set": load_dataset,
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_who_is_silent_is_asked_once(
    way: str, mute: Mute, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MilanxError) as caught:
        WAYS[way]()
    assert f"{mute.url} does not answer (" in caught.value.why
    with pytest.raises(MilanxError):
        WAYS[way]()
    assert len(mute.held) == 1
    assert "downloading" not in capsys.readouterr().err
    assert constants.HF_HUB_OFFLINE is False


def test_a_closed_port_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    point_at(monkeypatch, url := closed())
    with pytest.raises(MissingWeights, match="Connection refused") as caught:
        load_target("resnet18")
    assert url in caught.value.why


def test_a_name_that_nobody_knows_is_waited_for_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Finding an address is bounded by no time-out of a library's."""
    ends = threading.Event()

    def look(*args: object, **kwargs: object) -> object:
        ends.wait(60)
        raise OSError("no such host")

    monkeypatch.setattr(socket, "getaddrinfo", look)
    point_at(monkeypatch, "http://hub.invalid")
    assert reach.silence() == f"http://hub.invalid does not answer (nothing in {PATIENCE} seconds)"
    ends.set()


def test_silence_is_believed_for_a_while_and_an_answer_for_good(
    monkeypatch: pytest.MonkeyPatch, mute: Mute, hub: Hub
) -> None:
    point_at(monkeypatch, mute.url)
    assert reach.silence() and reach.silence()
    assert len(mute.held) == 1
    monkeypatch.setattr(reach, "FORGOTTEN", 0.0)
    assert reach.silence()
    assert len(mute.held) == 2
    point_at(monkeypatch, hub.url)
    assert reach.silence() == reach.silence() == ""
    assert hub.log == ["HEAD /"]
    hub.close()
    assert reach.silence() == ""


def test_a_refusal_is_an_answer(hub: Hub) -> None:
    hub.faults.append(Fault("HEAD /$", lambda asked: asked.refuse(503, "busy")))
    assert reach.silence() == ""
    assert reach.silence(f"{hub.url}/weights.pth") == ""


def test_offline_nobody_is_asked(monkeypatch: pytest.MonkeyPatch, mute: Mute) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert reach.silence() == reach.silence(f"{mute.url}/file") == ""
    with pytest.raises(MissingWeights):
        load_target("resnet18")
    assert constants.HF_HUB_OFFLINE is True
    assert not mute.held


def test_a_proxy_is_asked_in_the_place_of_the_hub(
    monkeypatch: pytest.MonkeyPatch, hub: Hub, mute: Mute
) -> None:
    point_at(monkeypatch, "http://hub.invalid")
    monkeypatch.setenv("http_proxy", mute.url)
    assert "http://hub.invalid does not answer" in reach.silence()
    assert len(mute.held) == 1
    monkeypatch.setattr(reach, "_known", {})
    monkeypatch.setenv("http_proxy", hub.url)
    close_session()
    assert reach.silence() == ""
    assert [urllib.parse.urlsplit(line.split()[1]).netloc for line in hub.log] == ["hub.invalid"]


def test_files_elsewhere_are_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, mute: Mute, tmp_path: Path
) -> None:
    """torch.hub and open_clip would wait for their servers without end."""
    import open_clip
    import torch
    from torchvision.models import SqueezeNet1_1_Weights as Weights

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(Weights.DEFAULT.value, "url", f"{mute.url}/squeezenet.pth", raising=False)
    with pytest.raises(MissingWeights, match="does not answer"):
        load_target("torchvision:squeezenet1_1")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: {"url": f"{mute.url}/clip.pt"})
    with pytest.raises(MissingWeights, match="does not answer"):
        load_target("clip:RN50/yfcc15m")
    assert len(mute.held) == 1


def test_what_is_in_the_cache_serves_where_the_hub_is_silent(hub: Hub, tmp_path: Path) -> None:
    model = GPT2LMHeadModel(SMALL)
    model.save_pretrained(tmp_path / "gpt2")
    hub.put("owner/gpt2", {p.name: p.read_bytes() for p in (tmp_path / "gpt2").iterdir()})
    first = load_gpt2("owner/gpt2").transformer.wte.weight
    assert hub.seen("HEAD /$") == ["HEAD /"]
    assert hub.seen("model.safetensors")
    hub.close()
    close_session()  # its connections outlive the server
    reach._known.clear()
    assert reach.silence()
    assert load_gpt2("owner/gpt2").transformer.wte.weight.equal(first)
    with pytest.raises(MissingWeights, match="does not answer"):
        load_gpt2("owner/other")


def test_a_folder_asks_nobody(mute: Mute, tmp_path: Path) -> None:
    GPT2LMHeadModel(SMALL).save_pretrained(tmp_path)
    load_gpt2(tmp_path)
    assert not mute.held


def test_other_errors_stay_what_they_are(mute: Mute) -> None:
    with pytest.raises(ValueError, match="another"), reach.within_reach():
        raise ValueError("another")
    with pytest.raises(Silence, match="does not answer"), reach.within_reach():
        raise RuntimeError("LocalEntryNotFoundError: said in words alone")
    assert constants.HF_HUB_OFFLINE is False
