"""Fetch a describer, a run or a table from the Hugging Face Hub."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from milanx.errors import MilanxError
from milanx.files import atomic_path
from milanx.files.replacing import check_place
from milanx.hub.address import Address, read_address
from milanx.hub.fetch import Access, NotOne, Wanted, fetch
from milanx.hub.refusals import NotThere, Unreachable
from milanx.progress import Reporter


@dataclass(frozen=True)
class Pulled:
    """What was fetched.

    Attributes:
        root: the folder, in milanx's cache or where it was asked for.
        kind: ``a describer``, ``a run`` or ``a table``.
        repo_id: ``owner/name``.
        commit: the state of the repository.
    """

    root: Path
    kind: str
    repo_id: str
    commit: str

    def to_dict(self) -> dict[str, str]:
        """Return it as json has it."""
        return {"root": str(self.root), "kind": self.kind, "repo_id": self.repo_id,
                "commit": self.commit}  # fmt: skip


def pull(
    repo_id: str,
    out: Path | str | None = None,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: Path | str | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    overwrite: bool = False,
    progress: Reporter | None = None,
) -> Pulled:
    """Fetch what `milanx push` sent.

    It lies in milanx's cache from then on, where ``owner/name`` finds it without a network too.

    Args:
        repo_id: ``owner/name`` or ``owner/name@revision``.
        out: a folder for a copy; none when None.
        revision: a branch, a tag or a commit.
        token: of the Hub; the one that ``hf auth login`` stored, or ``HF_TOKEN``, when None.
        cache_dir: where fetched folders lie; in milanx's cache when None.
        local_files_only: ask nothing of the network.
        force_download: fetch what is in the cache again.
        overwrite: replace what milanx wrote to ``out``.
        progress: told about the bytes.

    Raises:
        InputError: there is no such repository for this user, or ``out`` holds something else.
        FormatError: it is none of these, damaged, or of an unknown version.
        MilanxError: the Hub does not answer; the same call goes on where it stopped.
    """
    address = read_address(repo_id).at(revision)
    access = Access(token, cache_dir, local_files_only, force_download)
    wanted, folder = _first(address, _known(), access, progress)
    place = folder
    if out is not None:
        place = Path(out)
        check_place(place, wanted.kind, overwrite=overwrite)
        with atomic_path(place, wanted.kind if overwrite else None) as temporary:
            shutil.copytree(folder, temporary, copy_function=shutil.copyfile)
    return Pulled(place, wanted.kind.name, address.repo_id, folder.name)


def _known() -> tuple[Wanted, ...]:
    from milanx.describing.folder import WANTED as DESCRIBER
    from milanx.runs import WANTED as RUN
    from milanx.share.run import TABLE_WANTED

    return DESCRIBER, RUN, TABLE_WANTED


def _first(
    address: Address, kinds: Sequence[Wanted], access: Access, progress: Reporter | None
) -> tuple[Wanted, Path]:
    """Return what a repository is, and its folder."""
    errors: list[MilanxError] = []
    for wanted in kinds:
        try:
            return wanted, fetch(address, wanted, access, progress)
        except (NotThere, NotOne, Unreachable) as error:
            errors.append(error)
    told = [error for error in errors if not isinstance(error, NotThere)]
    raise (told or errors)[0]
