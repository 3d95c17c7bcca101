"""What is an address of a repository, and what a path."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub.utils import HFValidationError, validate_repo_id

from milanx.errors import InputError
from milanx.hub.address import Address, address_of, read_address

GOOD = ["user/name", "a/b", "My-Org_1/x.y-z_2", "user/0", "u/" + "n" * 96]
BAD = [
    "name",
    "a/b/c",
    "/a/b",
    "a/",
    "../a",
    "./a",
    "a/..",
    "a--b/c",
    "a/b--c",
    "a/b..c",
    "a/b.git",
    "a/-b",
    "a/b-",
    ".a/b",
    "a b/c",
    "a/b\n",
    "~/x",
    "u/" + "n" * 97,
    "",
    "a\\b",
    "http://a/b",
]


@pytest.mark.parametrize("text", GOOD)
def test_names_of_repositories(text: str) -> None:
    validate_repo_id(text)
    assert address_of(text) == read_address(text) == Address(text)
    assert str(address_of(Path(text))) == text


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_repository(text: str) -> None:
    if text.count("/") == 1 and "\n" not in text:
        with pytest.raises(HFValidationError):
            validate_repo_id(text)
    assert address_of(text) is None
    with pytest.raises(InputError, match="no repository"):
        read_address(text)


@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/3", "feature/x", "0" * 40, "a1b2c"])
def test_revisions(revision: str) -> None:
    address = address_of(f"user/name@{revision}")
    assert address == Address("user/name", revision)
    assert str(address) == f"user/name@{revision}"
    assert read_address("user/name").at(revision) == address
    assert address.at(None) == address.at(revision) == address
    with pytest.raises(InputError, match="two revisions"):
        address.at("other")


@pytest.mark.parametrize("revision", ["a b", "a..b", "a~1", "^a", "a:b", "*", "/a", "a/", "a//b"])
def test_what_is_no_revision(revision: str) -> None:
    with pytest.raises(InputError, match="no revision"):
        read_address(f"user/name@{revision}")
    assert address_of(f"user/name@{revision}") is None


def test_a_path_that_is_there_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert address_of("runs/mine") == Address("runs/mine")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to("nowhere")
    assert address_of("runs/mine") is None
