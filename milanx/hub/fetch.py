"""A repository's files, as a folder of milanx's own cache.

The Hub's own cache makes snapshots of links, and milanx reads through no link: a describer whose
files stand elsewhere can change under it. So files are downloaded into a folder beside their final
place (`huggingface_hub.hf_hub_download` with ``local_dir``, which keeps whole files when a download
breaks), compared with the digests that the Hub tells, looked at by whoever asked, and given their
name, the commit's, in one step. What stands under that name is whole, and never changes.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from milanx.environment import announce, note
from milanx.errors import FormatError, InputError, MilanxError
from milanx.files import cache_dir, explained, write_text
from milanx.files.digests import AGAIN
from milanx.files.kinds import Kind
from milanx.files.replacing import beside, discard
from milanx.hub.address import Address
from milanx.hub.content import fetched
from milanx.hub.reach import check_answers
from milanx.hub.refusals import Unreachable, in_words, offline
from milanx.progress import Reporter, Silent

COMMIT = re.compile(r"[0-9a-f]{40}")
SHELF = re.compile(r"(?:model|dataset)s--(.+?)--(.+)")  # the name of a repository's folder
AT_ONCE = 4  # files
NOTHING_STAYS = "nothing of it stays here; tell its owner"
TIMEOUT = 20.0  # seconds that the Hub has to say what is in a repository


class NotOne(FormatError):
    """A repository that holds something else than was asked for."""


@dataclass(frozen=True)
class Access:
    """How a repository is reached, in huggingface_hub's words.

    Attributes:
        token: the user's; the one that ``hf auth login`` stored, or ``HF_TOKEN``, when None.
        cache_dir: where fetched folders lie; ``hub`` in milanx's cache when None.
        local_files_only: ask nothing of the network.
        force_download: fetch what is in the cache again.
    """

    token: str | bool | None = field(default=None, repr=False)
    cache_dir: Path | str | None = None
    local_files_only: bool = False
    force_download: bool = False

    @property
    def offline(self) -> bool:
        """Whether nothing may be asked of the network."""
        from huggingface_hub import constants

        return self.local_files_only or bool(constants.HF_HUB_OFFLINE)


@dataclass(frozen=True)
class Wanted:
    """What a repository should hold.

    Attributes:
        kind: of folder.
        repo_type: ``model`` or ``dataset``.
        check: raises a `FormatError` for a folder that is none, or of an unknown version.
    """

    kind: Kind
    repo_type: str
    check: Callable[[Path], object]


@dataclass(frozen=True)
class _Listed:
    """A file as the Hub tells it: its size, and the digest of its bytes or of its git blob."""

    name: str
    size: int
    sha256: str | None
    blob: str

    def is_in(self, path: Path) -> bool:
        """Whether a file has these bytes."""
        if path.stat().st_size != self.size:
            return False
        if self.sha256 is None:
            content = path.read_bytes()
            return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == self.blob
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256


class _Shelf:
    """Where the fetched states of one repository lie."""

    def __init__(self, root: Path, address: Address, wanted: Wanted) -> None:
        self.root = root / f"{wanted.repo_type}s--{address.repo_id.replace('/', '--')}"
        self.address, self.marker = address, wanted.kind.markers[0]

    @property
    def _note(self) -> Path:
        return self.root / "refs" / quote(self.address.branch, safe="")

    def commit(self) -> str | None:
        """Return the commit that the address stood for when it was last asked."""
        if COMMIT.fullmatch(self.address.branch):
            return self.address.branch
        with contextlib.suppress(OSError):
            told = self._note.read_text(encoding="ascii").strip()
            return told if COMMIT.fullmatch(told) else None
        return None

    def known(self) -> Path | None:
        """Return the folder that the address last stood for, if it is here, and of the kind."""
        commit = self.commit()
        return self.at(commit) if commit and (self.at(commit) / self.marker).is_file() else None

    def at(self, commit: str) -> Path:
        """Return the folder of a commit, there or not."""
        return self.root / commit

    def note(self, commit: str) -> None:
        """Remember what the address stands for."""
        if self.commit() != commit:
            write_text(self._note, commit)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Let one process at a time fetch; the others wait and find what it fetched."""
        from filelock import FileLock

        with explained(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / ".lock"):
            yield


def fetched_from(root: Path) -> Address | None:
    """Return what a folder was fetched of, its commit with it; None for a folder of the user's."""
    root = root.absolute()
    found = SHELF.fullmatch(root.parent.name)
    if found is None or not COMMIT.fullmatch(root.name):
        return None
    return Address("/".join(found.groups()), root.name)


@contextlib.contextmanager
def way_out_of(root: Path) -> Iterator[None]:
    """Let the way out of damage in a folder that was fetched be to fetch it again.

    Raises:
        FormatError: what the block raised, with that way out.
    """
    try:
        yield
    except FormatError as error:
        address = fetched_from(root)
        if address is None or AGAIN not in error.ways_out:
            raise
        way = f"milanx pull {address} --force-download"
        raise FormatError(error.what, error.why, way) from error


def fetch(
    address: Address, wanted: Wanted, access: Access | None = None, progress: Reporter | None = None
) -> Path:
    """Return a folder that holds what a repository holds.

    Where the Hub does not answer, the state that was last fetched serves, and a line says so; an
    address that is a commit's asks nothing once it is here.

    Args:
        address: of the repository.
        wanted: what it should hold.
        access: how it is reached.
        progress: told about the bytes.

    Raises:
        InputError: there is no such repository for this user, or it may not be asked for.
        Unreachable: the Hub does not answer and nothing was fetched before.
        FormatError: it holds something else, a file that is never opened, or files that are not
            those that the Hub tells.
    """
    access, progress = access or Access(), progress or Silent()
    shelf = _Shelf(Path(access.cache_dir or cache_dir("hub")), address, wanted)
    here, what = shelf.known(), f"{address} cannot be fetched"
    fixed = COMMIT.fullmatch(address.branch) is not None
    if here is not None and (access.offline or fixed) and not access.force_download:
        return here
    if access.offline:
        raise offline(what)
    try:
        with in_words(what, access.token):
            check_answers()
            commit, files = _ask(address, wanted, access)
    except Unreachable as error:
        if here is None or access.force_download:
            raise
        note(f"{error.why}: taking {address} as it was last fetched ({here.name[:7]})")
        return here
    if access.force_download or not shelf.at(commit).is_dir():
        with shelf.alone():
            if access.force_download or not shelf.at(commit).is_dir():
                _download(shelf, commit, files, wanted, access, progress)
    shelf.note(commit)
    return shelf.at(commit)


def _ask(address: Address, wanted: Wanted, access: Access) -> tuple[str, list[_Listed]]:
    """Ask for the commit of an address, and for the files that it holds and that are fetched."""
    from huggingface_hub import HfApi

    api, kind = HfApi(token=access.token), wanted.repo_type
    info = api.repo_info(address.repo_id, revision=address.branch, repo_type=kind, timeout=TIMEOUT)
    commit = str(info.sha)
    if not COMMIT.fullmatch(commit):
        raise FormatError(f"{address} has no commit", f"the Hub says {commit[:50]!r}")
    tree = api.list_repo_tree(address.repo_id, recursive=True, revision=commit, repo_type=kind)
    told: dict[str, Any] = {entry.path: entry for entry in tree if hasattr(entry, "blob_id")}
    names = fetched(str(address), told, wanted.kind)
    if wanted.kind.markers[0] not in names:
        held = ", ".join(sorted(told)[:5]) or "nothing"
        raise NotOne(
            f"{address} is not {wanted.kind.name}",
            f"there is no {wanted.kind.markers[0]} in it; it holds {held}",
            "look at OWNER/NAME: milanx pull takes what milanx push sent",
        )
    files = [_Listed(name, entry.size, entry.lfs.sha256 if entry.lfs else None, entry.blob_id)
             for name in names for entry in (told[name],)]  # fmt: skip
    return commit, files


def _download(
    shelf: _Shelf,
    commit: str,
    files: list[_Listed],
    wanted: Wanted,
    access: Access,
    progress: Reporter,
) -> None:
    """Download files into a hidden folder, look at them, and give it the commit's name."""
    address, hidden = shelf.address, shelf.root / f".{commit}.part"
    total = sum(file.size for file in files)
    count = f"{len(files)} file{'s' * (len(files) != 1)}"
    announce(f"{wanted.kind.name} ({count})", f"{address} on the Hugging Face Hub", total)
    if access.force_download:
        shutil.rmtree(hidden, ignore_errors=True)
    with explained(shelf.root), in_words(f"{address} cannot be fetched", access.token):
        with progress.stage("pull", total) as bar:
            for file in _get_all(hidden, address, commit, files, wanted, access):
                bar.advance(file.size)
        _look(hidden, address, files, wanted)
        shutil.rmtree(hidden / ".cache", ignore_errors=True)  # huggingface_hub's notes
        _put_aside(shelf.at(commit), wanted.kind)
        hidden.rename(shelf.at(commit))
        for left in shelf.root.glob(".*.part"):  # of a state that was never whole here
            shutil.rmtree(left, ignore_errors=True)


def _look(hidden: Path, address: Address, files: list[_Listed], wanted: Wanted) -> None:
    """Refuse files that are not those of the Hub, or make no whole folder of the kind.

    Raises:
        FormatError: such a file, which is removed, or such a folder, of which nothing stays.
    """
    bad = [file.name for file in files if not file.is_in(hidden / file.name)]
    for name in bad:
        (hidden / name).unlink()
    if bad:
        raise FormatError(
            f"{address} arrived damaged", f"{bad[0]} has not the digest that the Hub tells",
            "run the same command again: the other files are kept",
        )  # fmt: skip
    try:
        wanted.check(hidden)
    except MilanxError as error:
        shutil.rmtree(hidden, ignore_errors=True)
        ways = [way for way in error.ways_out if way != AGAIN]  # whoever fetches did not make it
        told = [text.replace(str(hidden), str(address))
                for text in (error.what, error.why, *(ways or [NOTHING_STAYS]))]  # fmt: skip
        raise FormatError(told[0], told[1], told[2:]) from error


def _put_aside(path: Path, kind: Kind) -> None:
    """Remove a folder that is fetched again; one that somebody put files into is only renamed."""
    if path.exists():
        try:
            discard(path, kind)
        except InputError:
            path.rename(beside(path, "old"))


def _get_all(
    hidden: Path,
    address: Address,
    commit: str,
    files: list[_Listed],
    wanted: Wanted,
    access: Access,
) -> Iterator[_Listed]:
    """Get the files that are not there yet, some at once; yields each."""
    from huggingface_hub import hf_hub_download

    def get(file: _Listed) -> _Listed:
        hf_hub_download(
            address.repo_id, file.name, revision=commit, repo_type=wanted.repo_type,
            local_dir=hidden, token=access.token, library_name="milanx",
        )  # fmt: skip
        return file

    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            yield from pool.map(get, files)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
