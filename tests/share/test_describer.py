"""A describer goes to the Hub and comes back the same."""

from __future__ import annotations

import json
import shutil
import stat
import warnings
from pathlib import Path

import pytest
import torch
import yaml

import milanx
from milanx.describing.describer import Describer
from milanx.errors import FormatError, InputError, MilanxError
from milanx.report.check import seal
from milanx.runs import write_settings
from tests.cli.commands import refused, run
from tests.hub.server import READER, Hub

NAME = "user/mini"
SETS = "set_encoder.safetensors"


@pytest.fixture
def licensed(little: Path, tmp_path: Path) -> Path:
    """A tiny describer with a card, which loads but for its encoder."""
    root = Path(shutil.copytree(little, tmp_path / "little"))
    (root / "README.md").write_text("---\nlicense: mit\n---\n\n# little\n\n## Data\n\nMine.\n")
    return root


@pytest.mark.usefixtures("views_encoded")
def test_the_pulled_describer_is_the_pushed_one(
    hub: Hub, planted: milanx.Run, describer: Describer
) -> None:
    sent = describer.push_to_hub(NAME)
    assert sent.url == f"{hub.url}/{NAME}" and sent.private and sent.pull_request is None
    pulled = Describer.from_pretrained(NAME)
    assert pulled.fingerprint == describer.fingerprint
    assert pulled.root is not None and pulled.root.name == sent.commit
    units = {"units": [(unit, "+") for unit in (0, 7)]}
    first, second = (d.describe(planted.store, units=units) for d in (describer, pulled))
    assert [d.text for d in first] == [d.text for d in second] != ["", ""]
    for one, two in zip(first, second, strict=True):
        assert [c.text for c in one.candidates] == [c.text for c in two.candidates]
        assert one.rank == pytest.approx(two.rank, abs=1e-4)  # float32 sums
    assert milanx.check(pulled.root).files == milanx.check("builtin").files > 0


def test_what_lies_in_the_repository(hub: Hub, describer: Describer) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        milanx.push("builtin", NAME)
    files = hub.files(NAME)
    assert describer.root is not None
    for path in describer.root.rglob("*"):
        if path.is_file() and path.name != "README.md":
            assert files[path.relative_to(describer.root).as_posix()] == path.read_bytes()
    assert json.loads(files["config.json"])["fingerprint"] == describer.fingerprint
    _, head, body = files["README.md"].decode().split("---\n", 2)
    told = yaml.safe_load(head)
    assert told["library_name"] == "milanx" and told["license"] == "other"
    for part in ("--describer user/mini", "## Data and its terms", "## Procedure", "## Measured",
                 "milanx train mini", "## Known failures", describer.fingerprint):  # fmt: skip
        assert part in body
    assert str(Path.home()) not in body


def test_peft_reads_the_adapters(hub: Hub, describer: Describer) -> None:
    from peft import PeftModel
    from transformers import GPT2LMHeadModel

    milanx.push("builtin", NAME)
    root = milanx.pull(NAME).root
    base = GPT2LMHeadModel.from_pretrained(root / "base", dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, root / "decoder").eval()
    ids, merged = torch.tensor([[1, 2, 3]]), describer.decoder
    with torch.inference_mode():
        assert torch.allclose(adapted(ids).logits, merged(ids).logits, atol=1e-4)


def test_ten_units_of_a_run_stand_in_the_card(hub: Hub, planted: milanx.Run) -> None:
    milanx.push("builtin", NAME, examples=planted.root)
    files = hub.files(NAME)
    card = files["README.md"].decode()
    assert card.count('<img src="sheets/') == 10
    assert all(files[f"sheets/{i:02d}.jpg"].startswith(b"\xff\xd8") for i in range(10))
    assert milanx.pull(NAME).kind == "a describer"
    milanx.push("builtin", NAME)  # without: the pictures go
    assert not [name for name in hub.files(NAME) if name.startswith("sheets/")]


def test_a_run_of_built_in_images_is_shown_unasked_and_no_other(
    hub: Hub, planted: milanx.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "milanx-runs" / "pixels" / "units"
    shutil.copytree(planted.root, place)
    milanx.push("builtin", NAME)
    assert "sheets/09.jpg" in hub.files(NAME)
    settings = {n: v for n, v in milanx.open_run(place).settings.items() if n != "seal"}
    settings["images"]["sources"][0]["kind"] = "folder"  # of one's own
    write_settings(place, settings)
    milanx.push("builtin", NAME)
    assert "sheets/09.jpg" not in hub.files(NAME)
    assert "## Ten units" not in hub.files(NAME)["README.md"].decode()


def test_examples_of_another_describer_are_refused(hub: Hub, licensed: Path, made: Path) -> None:
    with pytest.raises(InputError, match="is no example of"):
        milanx.push(licensed, NAME, examples=made)
    with pytest.raises(InputError, match="takes no examples"):
        milanx.push(made, NAME, examples=made)
    assert not hub.repos


def test_what_is_pulled_is_whole_and_real_and_readable(hub: Hub, licensed: Path) -> None:
    (licensed / "set_encoder.safetensors").chmod(0o600)  # as safetensors writes it
    milanx.push(licensed, NAME)
    pulled = milanx.pull(NAME)
    copied = milanx.pull(NAME, licensed.parent / "copy").root
    for root in (pulled.root, copied):
        paths = [path for path in root.rglob("*") if not path.is_dir()]
        assert len(paths) == 13
        for path in paths:
            mode = path.lstat().st_mode
            assert stat.S_ISREG(mode) and mode & 0o444 == 0o444, path
    milanx.check(copied).require()
    milanx.pull(NAME, copied, overwrite=True)
    with pytest.raises(InputError, match="is there already"):
        milanx.pull(NAME, copied)
    (copied / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"it holds 'thesis\.txt'"):
        milanx.pull(NAME, copied, overwrite=True)
    assert (copied / "thesis.txt").read_text() == "mine"


def test_the_network_is_not_asked_for_what_is_here(
    hub: Hub, licensed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    from milanx.describing.folder import describer_root

    commit = milanx.push(licensed, NAME).commit
    root = milanx.pull(NAME).root
    asked = len(hub.log)
    monkeypatch.chdir(licensed.parent)
    shutil.copytree(licensed, Path(NAME))
    assert describer_root(NAME) == Path(NAME)  # a folder that is there
    shutil.rmtree("user")
    assert milanx.pull(f"{NAME}@{commit}").root == root  # a state never changes
    assert milanx.pull(NAME, local_files_only=True).root == root
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert milanx.pull(NAME).root == root
    for what in (f"{NAME}@other", "user/other"):
        with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
            milanx.pull(what)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        milanx.push(licensed, NAME)
    assert len(hub.log) == asked


def test_without_a_network_the_last_state_serves(
    hub: Hub, licensed: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    milanx.push(licensed, NAME)
    root = milanx.pull(NAME).root
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert milanx.pull(NAME).root == root
    assert "as it was last fetched" in capfd.readouterr().err
    with pytest.raises(MilanxError, match="does not answer"):
        milanx.pull(NAME, force_download=True)


def test_a_new_state_is_fetched_and_the_old_one_stays(hub: Hub, licensed: Path) -> None:
    first = milanx.push(licensed, NAME)
    old = milanx.pull(NAME).root
    (licensed / "probe.safetensors").write_bytes(
        (licensed / "set_encoder.safetensors").read_bytes()
    )
    seal(licensed)
    asked = len(hub.seen("^PUT"))
    second = milanx.push(licensed, NAME)
    assert len(hub.seen("^PUT")) == asked  # these bytes are there already
    assert second.commit != first.commit and second.removed == 0
    new = milanx.pull(NAME).root
    assert (new / "probe.safetensors").is_file() and not (old / "probe.safetensors").exists()
    (licensed / "probe.safetensors").unlink()
    seal(licensed)
    assert milanx.push(licensed, NAME).removed == 1
    assert "probe.safetensors" not in hub.files(NAME)
    assert milanx.pull(f"{NAME}@{first.commit}").root == old


def test_pushing_the_same_again_makes_no_commit(hub: Hub, licensed: Path) -> None:
    first = milanx.push(licensed, NAME)
    asked = len(hub.seen("^PUT|/commit/"))
    assert milanx.push(licensed, NAME).commit == first.commit
    assert len(hub.seen("^PUT|/commit/")) == asked


def test_a_dry_run_sends_nothing(hub: Hub, licensed: Path) -> None:
    code, out, _ = run("push", licensed, NAME, "--dry-run")
    assert code == 0 and not hub.log
    assert "14 files" in out and "set_encoder.safetensors" in out and "nothing was sent" in out
    code, out, _ = run("push", licensed, NAME, "--dry-run", "--json")
    told = json.loads(out)
    assert told["bytes"] == sum(told["files"].values()) > 10_000 and "config.json" in told["files"]
    assert not hub.log


def test_private_unless_public_is_typed(hub: Hub, licensed: Path) -> None:
    code, out, _ = run("push", licensed, "user/a")
    assert code == 0 and "private" in out and hub.repos["model", "user/a"].private
    assert run("push", licensed, "user/b", "--public")[0] == 0
    assert not hub.repos["model", "user/b"].private
    before = hub.files("user/b")
    said = refused("push", licensed, "user/b")
    assert "user/b is public" in said and "--public" in said
    assert hub.files("user/b") == before
    assert "private" in run("push", licensed, "user/a", "--public")[1]  # it stays so


def test_branches_and_pull_requests(
    hub: Hub, licensed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    milanx.push(licensed, NAME)
    main = hub.files(NAME)
    (licensed / "words.json").write_text((licensed / "words.json").read_text() + "\n")
    seal(licensed)
    milanx.push(licensed, NAME, revision="trial")
    assert hub.files(NAME) == main != hub.files(NAME, ref="trial")
    assert milanx.pull(f"{NAME}@trial").root != milanx.pull(NAME).root
    monkeypatch.setenv("HF_TOKEN", READER)  # may propose, not write
    code, out, _ = run("push", licensed, NAME, "--create-pr", "--json")
    assert code == 0 and json.loads(out)["pull_request"].endswith("/discussions/1")
    assert hub.files(NAME) == main and "words.json" in hub.files(NAME, ref="refs/pr/1")
    assert "a new one is opened against the main branch" in refused(
        "push", licensed, NAME, "--create-pr", "--revision", "trial")  # fmt: skip


@pytest.mark.parametrize("named", ["../clip", "/home/me/clip", "local-dir:clip"])
def test_a_describer_that_needs_a_folder_beside_it_is_not_pushed(
    hub: Hub, licensed: Path, named: str
) -> None:
    path = licensed / "describer.json"
    content = json.loads(path.read_text())
    content["encoder"] = {"kind": "open_clip", "model": named}
    del content["seal"]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"encoder\.model lies beside it"):
        milanx.push(licensed, NAME)
    assert not hub.log


def test_what_is_not_pushed(hub: Hub, licensed: Path, tmp_path: Path) -> None:
    (licensed / "README.md").write_text("# little\n")
    assert "names no licence" in refused("push", licensed, NAME)
    assert run("push", licensed, NAME, "--license", "mit", "--dry-run")[0] == 0
    assert "it is no describer, run or table" in refused("push", tmp_path, NAME)
    assert "there is no such path" in refused("push", tmp_path / "none", NAME)
    assert "no repository 'mine'" in refused("push", licensed, "mine")
    content = (licensed / "words.json").read_bytes()
    (licensed / "words.json").write_bytes(content[:-1] + b" ")
    assert "is damaged" in refused("push", licensed, NAME, "--license", "mit")
    (licensed / "words.json").unlink()
    (licensed / "words.json").symlink_to("/etc/hostname")
    assert "is a link" in refused("push", licensed, NAME, "--license", "mit")
    assert not hub.log


def test_a_repository_of_something_else_is_not_mixed_with(hub: Hub, licensed: Path) -> None:
    hub.put(NAME, {"README.md": b"# Mine", "model.safetensors": b"x"})
    assert "it holds model.safetensors" in refused("push", licensed, NAME)
    assert set(hub.files(NAME)) == {"README.md", "model.safetensors"}


def broken(little: Path, **changes: bytes | None) -> dict[str, bytes]:
    """Return the files of a describer, some of them others or gone."""
    files = {p.relative_to(little).as_posix(): p.read_bytes() for p in little.rglob("*")
             if p.is_file()}  # fmt: skip
    for name, content in changes.items():
        path = name.replace("__", "/") + ".json"
        if content is None:
            del files[path]
        else:
            files[path] = content
    return files


def test_repositories_that_are_refused(
    hub: Hub, little: Path, own_cache: Path, tmp_path: Path
) -> None:
    index = json.loads((little / "describer.json").read_text())
    newer = json.dumps({**index, "version": 99, "seal": None}).encode()
    cases = {
        "none": ({"model.safetensors": b"x", "README.md": b"# x"}, "is not a describer"),
        "newer": (broken(little, describer=newer), "has version 99"),
        "sealed": (broken(little, describer=json.dumps({**index, "name": "x"}).encode()), "seal"),
        "text": (broken(little, describer=b"{"), "cannot be read"),
        "pickle": ({**broken(little), "pytorch_model.bin": b"\x80\x04."}, "can run code"),
        "leaves": ({**broken(little), "../x.json": b"{}"}, "leaves the folder"),
        "cut": (broken(little) | {SETS: (little / SETS).read_bytes()[:-7]}, "is damaged"),
    }
    ways = {"newer": "pip install --upgrade milanx", "text": "tell its owner",
            "cut": "tell its owner"}  # fmt: skip
    for name, (files, said) in cases.items():
        hub.put(f"user/{name}", files)
        asked = len(hub.log)
        with pytest.raises(FormatError) as caught:
            milanx.pull(f"user/{name}", tmp_path / name)
        assert said in str(caught.value), caught.value
        assert ways.get(name, "") in str(caught.value), caught.value
        assert str(own_cache) not in str(caught.value)
        if name in ("none", "pickle", "leaves"):
            assert not [line for line in hub.log[asked:] if "/resolve/" in line]
        assert not (tmp_path / name).exists()
        with pytest.raises(MilanxError):
            Describer.load(f"user/{name}")
    assert not list(own_cache.rglob("describer.json")) and not (tmp_path / "x.json").exists()


def test_a_pulled_describer_is_loaded_like_any_other(hub: Hub, little: Path) -> None:
    """What lies in the cache is looked at too: links, pickles in other clothes, damage."""
    hub.put("user/a", {**broken(little), SETS: b"\x80\x04\x95cos\nsystem\n"})
    with pytest.raises(FormatError, match="is damaged"):
        Describer.load("user/a")
    hub.put("user/b", broken(little))
    root = milanx.pull("user/b").root
    whole = (root / SETS).read_bytes()
    (root / SETS).write_bytes(whole[:-7])
    with pytest.raises(FormatError, match=rf"milanx pull user/b@{root.name} --force-download"):
        Describer.load("user/b")
    (root / SETS).write_bytes(whole)
    (root / "words.json").unlink()
    (root / "words.json").symlink_to("/etc/hostname")
    with pytest.raises(FormatError, match="is a link"):
        Describer.load("user/b")
    assert milanx.pull("user/b", force_download=True).root == root
