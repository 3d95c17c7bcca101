"""Files that become one commit of a repository.

One commit holds all of them: whoever fetches the repository meanwhile has the state before or the
one after. Large files go ahead of it, each known to the Hub by its digest, so that an upload that
was interrupted goes on with those that have not arrived.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from milanx.errors import InputError
from milanx.files.digests import regular
from milanx.files.kinds import Kind
from milanx.hub.address import Address
from milanx.hub.content import HOUSEHOLD, holds
from milanx.hub.fetch import TIMEOUT
from milanx.hub.reach import check_answers
from milanx.hub.refusals import in_words
from milanx.progress import Reporter, Silent

PULL_REQUEST = "refs/pr/"


@dataclass(frozen=True)
class Item:
    """A file of a parcel: its path in the repository, and the file or the bytes that it is."""

    name: str
    source: Path | bytes = field(repr=False)

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.source) if isinstance(self.source, bytes) else regular(self.source).st_size


@dataclass(frozen=True)
class Parcel:
    """What is sent.

    Attributes:
        kind: of the folder that it is.
        repo_type: ``model`` or ``dataset``.
        items: the files.
        message: of the commit, one line.
        own: paths beside the kind's parts that milanx sends, as beginnings: where such a file is
            in the repository and not in the parcel, an earlier one left it, and it is removed.
        notes: what the sender should know before, a sentence each.
    """

    kind: Kind
    repo_type: str
    items: tuple[Item, ...]
    message: str
    own: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(item.size for item in self.items)

    def to_dict(self) -> dict[str, Any]:
        """Return what is sent, as json has it."""
        return {"kind": self.kind.name, "repo_type": self.repo_type, "bytes": self.size,
                "notes": list(self.notes),
                "files": {item.name: item.size for item in self.items}}  # fmt: skip

    def owns(self, name: str) -> bool:
        """Whether a file of the repository is one that a parcel of this kind brings."""
        return self.kind.part(name) is not None or name.startswith(self.own)


@dataclass(frozen=True)
class Destination:
    """Where a parcel goes, in huggingface_hub's words.

    Attributes:
        address: of the repository; a branch that is not there is made.
        private: nobody but its owner sees the repository.
        create_pr: open a pull request against the main branch.
        token: the user's; the one that ``hf auth login`` stored, or ``HF_TOKEN``, when None.
        message: of the commit; the parcel's own when None.

    Raises:
        InputError: a pull request against a branch of its own.
    """

    address: Address
    private: bool = True
    create_pr: bool = False
    token: str | bool | None = field(default=None, repr=False)
    message: str | None = None

    def __post_init__(self) -> None:
        if self.create_pr and self.address.branch != "main":
            raise InputError(
                f"no pull request against {self.address}",
                "a new one is opened against the main branch",
                ["leave the revision out", "to go on with one that is open: --revision refs/pr/N "
                 "without --create-pr"],
            )  # fmt: skip


@dataclass(frozen=True)
class Sent:
    """What came of it.

    Attributes:
        url: of the repository.
        commit: the state of the repository that holds the parcel.
        pull_request: its page; None where none was opened.
        private: whether the repository is.
        files: how many were told.
        removed: files of an earlier parcel that were removed.
        bytes: of all files.
    """

    url: str
    commit: str
    pull_request: str | None
    private: bool
    files: int
    removed: int
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as json has it."""
        return asdict(self)


def send(parcel: Parcel, to: Destination, progress: Reporter | None = None) -> Sent:
    """Make a repository hold a parcel.

    Args:
        parcel: what is sent.
        to: where.
        progress: told about it.

    Raises:
        InputError: the Hub refuses, or the repository is public and the parcel is not.
        Unreachable: the Hub does not answer.
        MilanxError: somebody changes the repository meanwhile.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants

    progress, address = progress or Silent(), to.address
    what = f"{address} cannot be pushed to"
    if constants.HF_HUB_OFFLINE:
        raise InputError(what, "HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE")
    kind = parcel.repo_type
    with in_words(what, to.token), progress.stage("push", None):
        check_answers()
        api = HfApi(token=to.token, library_name="milanx")
        private = _ready(api, to, kind)
        if address.branch != "main" and not address.branch.startswith(PULL_REQUEST):
            api.create_branch(address.repo_id, branch=address.branch, repo_type=kind, exist_ok=True)
        stale = _stale(api, parcel, address)
        operations: list[Any] = [CommitOperationAdd(item.name, item.source)
                                 for item in parcel.items]  # fmt: skip
        operations += [CommitOperationDelete(name, is_folder=False) for name in stale]
        with warnings.catch_warnings():  # a describer holds a table of photos, and is a model
            warnings.filterwarnings("ignore", "It seems that you are about to commit a data file")
            made = api.create_commit(
                address.repo_id, operations, commit_message=to.message or parcel.message,
                repo_type=kind, revision=address.branch, create_pr=to.create_pr,
            )  # fmt: skip
    url = f"{constants.ENDPOINT}/{'datasets/' * (kind == 'dataset')}{address.repo_id}"
    return Sent(url, str(made.oid), made.pr_url, private, len(parcel.items), len(stale),
                parcel.size)  # fmt: skip


def _ready(api: Any, to: Destination, kind: str) -> bool:
    """Make the repository if it is not there; returns whether it is private.

    Raises:
        InputError: it was there before and can be seen by everybody, and that was not asked for.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    repo_id = to.address.repo_id
    try:
        private = bool(api.repo_info(repo_id, repo_type=kind, timeout=TIMEOUT).private)
    except RepositoryNotFoundError:  # or one that this user may not see: then nothing is made
        api.create_repo(repo_id, private=to.private, repo_type=kind)
        private = to.private
    if to.private and not private:
        raise InputError(
            f"{repo_id} is public, and nothing was pushed",
            "everybody would see it, and nobody said --public (private=False)",
            ["--public", "a repository of another name", "make it private: hf repos settings "
             f"{repo_id} --private"],
        )  # fmt: skip
    return private


def _stale(api: Any, parcel: Parcel, address: Address) -> list[str]:
    """Return the files that an earlier parcel of this kind left in the repository.

    Raises:
        InputError: it holds something else.
    """
    tree = api.list_repo_tree(address.repo_id, recursive=True, revision=address.branch,
                              repo_type=parcel.repo_type)  # fmt: skip
    names = {entry.path for entry in tree if hasattr(entry, "blob_id")}
    found, other = holds(names), sorted(names - set(HOUSEHOLD))
    if other and found is not parcel.kind:
        raise InputError(
            f"{address} cannot be pushed to",
            f"it holds {found.name if found else other[0]}, and {parcel.kind.name} would be mixed "
            "into it", "a repository of another name",
        )  # fmt: skip
    kept = {item.name for item in parcel.items}
    return sorted(name for name in names if name not in kept and parcel.owns(name))
