"""What the Hub refuses, and what breaks on the way: three lines, and nothing half."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import milanx
from milanx.errors import FormatError, MilanxError
from milanx.hub.address import Address
from milanx.hub.fetch import Access
from milanx.hub.send import Destination
from milanx.report.check import seal
from tests.cli.commands import refused, run
from tests.hub.server import READER, TOKEN, Fault, Handler, Hub, cut, hang, status

NAME = "user/little"
BY_HTTP = "HF_HUB_DISABLE_XET"


@pytest.fixture
def licensed(little: Path, tmp_path: Path) -> Path:
    root = Path(shutil.copytree(little, tmp_path / "little"))
    (root / "README.md").write_text("---\nlicense: mit\n---\n\n# little\n")
    return root


def environment(hub: Hub, home: Path, token: str = TOKEN) -> dict[str, str]:
    """Return what a process of its own needs to speak to the server."""
    kept = {n: v for n, v in os.environ.items() if n != "HF_HUB_OFFLINE"}
    return {**kept, "HF_ENDPOINT": hub.url, "HF_TOKEN": token, BY_HTTP: "1", "COLUMNS": "200",
            "HF_HOME": str(home / "hf"), "MILANX_CACHE": str(home / "cache")}  # fmt: skip


def test_401(hub: Hub, licensed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_stale")
    for said in (refused("push", licensed, NAME), refused("pull", NAME)):
        assert "(401)" in said and "hf auth login" in said and "hf_stale" not in said
    monkeypatch.delenv("HF_TOKEN")
    assert "(401)" in refused("push", licensed, NAME)
    hub.put(NAME, {"describer.json": b"{}"})
    assert "private and you are not logged in" in refused("pull", NAME)


def test_403(hub: Hub, licensed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", READER)
    said = refused("push", licensed, "owner/little")
    assert "(403)" in said and "may write" in said and "YOU/NAME" in said
    assert ("model", "owner/little") not in hub.repos
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    milanx.push(licensed, NAME)
    monkeypatch.setenv("HF_TOKEN", READER)
    shutil.copy(licensed / "set_encoder.safetensors", licensed / "probe.safetensors")
    seal(licensed)
    before = hub.files(NAME)
    assert "(403)" in refused("push", licensed, NAME)
    assert hub.files(NAME) == before
    hub.faults = [
        Fault(r"GET /api/models/user/little", status(403, "gated", X_Error_Code="GatedRepo"))
    ]
    assert "lets people in one by one" in refused("pull", NAME)


def test_404(hub: Hub, licensed: Path) -> None:
    for what in ("user/none", "user/none@v1"):
        said = refused("pull", what)
        assert "no such repository for you (404)" in said and f"{what} cannot be fetched" in said
    milanx.push(licensed, NAME)
    assert "it has no such revision (404)" in refused("pull", f"{NAME}@v9")
    said = refused("describe", "tests.helpers:tiny", "-l", "conv1", "--describer", "user/none")
    assert "no such repository for you (404)" in said
    assert "no such repository for you (404)" in refused("show", "user/none")


def test_429_tells_how_long_to_wait_and_is_not_asked_for_ever(hub: Hub, licensed: Path) -> None:
    hub.faults = [Fault("/api/(repos/create|models)", status(429, Retry_After="77"))]
    for said in (refused("push", licensed, NAME), refused("pull", NAME)):
        assert "asked too often (429)" in said and "wait 77 seconds" in said
    # A pull asks for a describer, a run and a table.
    assert len(hub.seen("/api/(models|datasets)/")) == 1 + 3
    hub.faults = [Fault("objects/batch", status(429, RateLimit='"api";r=0;t=0'))]
    asked = len(hub.log)
    said = refused("push", licensed, NAME)
    assert "asked too often (429)" in said and "asks to wait 0 seconds" in said
    assert len([line for line in hub.log[asked:] if "batch" in line]) == 6


def test_a_hub_at_fault_and_one_that_is_changed(hub: Hub, licensed: Path) -> None:
    hub.faults = [Fault("/api/models", status(500, "out of order"))]
    assert "the Hub is at fault (500): out of order" in refused("pull", NAME)
    hub.faults = [Fault("POST .*/commit/", status(412, "the branch has moved"))]
    assert "somebody has just changed it (412)" in refused("push", licensed, NAME)
    assert set(hub.files(NAME)) == {".gitattributes"}
    hub.faults = [Fault("validate-yaml", status(418, "teapot"))]
    assert "the Hub says 418: teapot" in refused("push", licensed, NAME)


def test_a_head_that_the_hub_does_not_take(hub: Hub, licensed: Path) -> None:
    answer = b'{"errors": [{"message": "pipeline_tag is none"}], "warnings": []}'
    hub.faults = [Fault("validate-yaml", lambda asked: (asked.body(), asked.say(400, answer))[1])]
    said = refused("push", licensed, NAME)
    assert "does not take the head of the card" in said and "pipeline_tag is none" in said


def test_no_network(hub: Hub, licensed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    began = time.monotonic()
    for said in (refused("push", licensed, NAME), refused("pull", NAME)):
        assert "http://127.0.0.1:9 does not answer" in said and "HF_ENDPOINT" in said
    assert time.monotonic() - began < 30


def test_a_hub_that_says_nothing_is_not_waited_for_for_ever(
    hub: Hub, licensed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.faults = [Fault("/api/models", hang)]
    for module in ("fetch", "send"):
        monkeypatch.setattr(f"milanx.hub.{module}.TIMEOUT", 0.5)
    began = time.monotonic()
    for said in (refused("push", licensed, NAME), refused("pull", NAME)):
        assert "does not answer" in said
    assert time.monotonic() - began < 30


def test_a_pull_that_broke_goes_on_and_leaves_nothing_half(
    hub: Hub, licensed: Path, own_cache: Path, tmp_path: Path
) -> None:
    milanx.push(licensed, NAME)
    hub.faults = [Fault("GET .*/resolve/.*/set_encoder.safetensors", cut)]
    with pytest.raises(MilanxError, match="cannot be fetched"):
        milanx.pull(NAME, tmp_path / "copy")
    shelf = own_cache / "hub" / "models--user--little"
    assert not (tmp_path / "copy").exists()
    assert {path.name for path in shelf.iterdir() if not path.name.startswith(".")} == set()
    got = {line.rpartition("/")[2] for line in hub.seen("^GET .*/resolve/")}
    (shelf / f".{'0' * 40}.part").mkdir()  # of an older state
    asked, hub.faults = len(hub.log), []
    root = milanx.pull(NAME, tmp_path / "copy").root
    milanx.check(root).require()
    again = {line.rpartition("/")[2] for line in hub.log[asked:] if line.startswith("GET /user")}
    assert "set_encoder.safetensors" in again and again < got | again
    assert len(again) < len(hub.files(NAME)) / 2
    assert {path.name for path in shelf.iterdir()} == {".lock", "refs", root_commit(hub)}


def test_two_who_pull_at_once_fetch_once(hub: Hub, licensed: Path) -> None:
    milanx.push(licensed, NAME)
    found: list[Path] = []
    pulls = [threading.Thread(target=lambda: found.append(milanx.pull(NAME).root))
             for _ in range(3)]  # fmt: skip
    for pull in pulls:
        pull.start()
    for pull in pulls:
        pull.join()
    assert len(found) == 3 and len(set(found)) == 1
    got = hub.seen("^GET .*/resolve/")
    assert len(got) == len(set(got)) == 13


def root_commit(hub: Hub) -> str:
    return hub.repos["model", NAME].refs["main"]


@pytest.mark.parametrize("name", ["words.json", "set_encoder.safetensors"])
def test_bytes_that_changed_on_the_way_are_noticed(
    hub: Hub, licensed: Path, own_cache: Path, name: str
) -> None:
    milanx.push(licensed, NAME)
    whole = hub.files(NAME)[name]
    other = whole[:-1] + bytes([whole[-1] ^ 1])
    hub.faults = [Fault(f"GET .*/resolve/.*/{name}", lambda asked: asked.say(200, other))]
    with pytest.raises(FormatError, match=f"{name} has not the digest"):
        milanx.pull(NAME)
    assert not list(own_cache.rglob("refs/*"))
    hub.faults = []
    milanx.check(milanx.pull(NAME).root).require()


def test_an_upload_that_broke_goes_on(hub: Hub, licensed: Path, tmp_path: Path) -> None:
    """The process is killed while it sends: what has arrived is not sent again."""
    waiting, go = threading.Event(), threading.Event()

    def stop(asked: Handler) -> None:
        asked.body()
        waiting.set()
        go.wait(60)
        asked.close_connection = True

    hub.faults = [Fault("^PUT", stop, after=2)]
    command = [sys.executable, "-m", "milanx", "push", str(licensed), NAME]
    process = subprocess.Popen(command, env=environment(hub, tmp_path), stderr=subprocess.PIPE)
    try:
        assert waiting.wait(100), process.communicate()
        time.sleep(0.5)  # those beside it arrive
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finally:
        process.kill()
        go.set()
    assert set(hub.files(NAME)) == {".gitattributes"}  # nobody sees half of it
    arrived, hub.faults = set(hub.stored), []
    assert 1 <= len(arrived) < 4
    asked = len(hub.log)
    assert run("push", licensed, NAME)[0] == 0
    sent = {line.rpartition("/")[2] for line in hub.log[asked:] if line.startswith("PUT")}
    assert sent and not sent & arrived and sent | arrived == set(hub.stored)
    milanx.check(milanx.pull(NAME).root).require()


def test_no_token_is_ever_shown_or_kept(hub: Hub, licensed: Path, tmp_path: Path) -> None:
    """A whole process each: what it prints, and every file that it leaves, holds no token."""
    echo = status(403, f"Bearer {TOKEN} may not do that")
    said = []
    for command, fault, code in (
        (["push", licensed, NAME], None, 0),
        (["pull", NAME, "--out", tmp_path / "copy"], None, 0),
        (["push", licensed, NAME], Fault("/preupload/", echo), 2),
        (["pull", "user/none", "--debug"], None, 1),
        (["pull", NAME], Fault("/api/models", echo), 2),
    ):
        hub.faults = [fault] if fault else []
        done = subprocess.run(
            [sys.executable, "-m", "milanx", *map(str, command)], capture_output=True, text=True,
            env={**environment(hub, tmp_path), "HF_DEBUG": "0"}, timeout=200,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        said.append(done.stdout + done.stderr)
    assert TOKEN in hub.tokens  # it was sent
    assert "(403)" in said[2] and "*** may not do that" in said[2]
    assert not [text for text in said if TOKEN in text or TOKEN[3:] in text]
    canary, looked = TOKEN[3:].encode(), 0
    for path in tmp_path.rglob("*"):
        if path.is_file():
            looked += 1
            assert canary not in path.read_bytes(), path
    assert looked > 30
    assert not [name for name, content in hub.files(NAME).items() if canary in content]
    assert TOKEN not in repr([Access(TOKEN), Destination(Address(NAME), token=TOKEN)])


def test_offline_asks_nothing(hub: Hub, licensed: Path, tmp_path: Path) -> None:
    """A process that was told so asks the server nothing, not even what huggingface_hub would."""
    settings = environment(hub, tmp_path)
    for offline, code, asks in (("0", 0, True), ("1", 0, False)):
        if offline == "0":
            milanx.push(licensed, NAME)
        asked = len(hub.log)
        done = subprocess.run([sys.executable, "-m", "milanx", "pull", NAME, "--json"],
                              env={**settings, "HF_HUB_OFFLINE": offline}, capture_output=True,
                              text=True, timeout=200)  # fmt: skip
        assert done.returncode == code, done.stderr
        assert (len(hub.log) > asked) == asks
