"""Addresses of repositories: ``owner/name`` and ``owner/name@revision``."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace

from milanx.errors import InputError

# What the Hub takes for a name: huggingface_hub.utils.validate_repo_id says the same.
_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
REPOSITORY = re.compile(rf"{_NAME}/{_NAME}")
LONGEST = 96  # characters of a name
# What git takes for the name of a branch or a tag (git-check-ref-format), a commit's digits aside.
REVISION = re.compile(r"(?!/)(?!.*(?:\.\.|//|@\{))[^\x00-\x20\x7f~^:?*\[\\]+(?<![/.])")


@dataclass(frozen=True)
class Address:
    """A repository, and which of its states.

    Attributes:
        repo_id: ``owner/name``.
        revision: a branch, a tag, a commit or ``refs/pr/3``; None for the main branch.
    """

    repo_id: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.repo_id}@{self.revision}" if self.revision else self.repo_id

    @property
    def branch(self) -> str:
        """The revision, the main branch's name where none was named."""
        return self.revision or "main"

    def at(self, revision: str | None) -> Address:
        """Return this repository's address at a revision that was named beside it, if one was.

        Raises:
            InputError: the address names another one, or it is no revision.
        """
        if revision is None or revision == self.revision:
            return self
        if self.revision is not None:
            raise InputError(
                f"{self} and the revision {revision!r}", "two revisions are named", "name one"
            )
        if not REVISION.fullmatch(revision):
            raise InputError(f"no revision {revision!r}", "no branch, tag or commit has that name",
                             "--revision main")  # fmt: skip
        return replace(self, revision=revision)


def address_of(spec: str | os.PathLike[str]) -> Address | None:
    """Return the repository that a text means, None for a path.

    A path that exists wins, and what does not look like ``owner/name`` is one too.
    """
    text = os.fspath(spec)
    repo_id, _, revision = text.partition("@")
    if os.path.lexists(text) or not _is_id(repo_id):
        return None
    if revision and not REVISION.fullmatch(revision):
        return None
    return Address(repo_id, revision or None)


def read_address(spec: str) -> Address:
    """Return the repository that a text names.

    Raises:
        InputError: it names none.
    """
    repo_id, sign, revision = spec.partition("@")
    if not _is_id(repo_id):
        raise InputError(
            f"no repository {spec!r}",
            f"a repository is OWNER/NAME: letters, digits, '-', '_' and '.', at most {LONGEST}",
            "name yours: YOU/my-describer",
        )
    return Address(repo_id).at(revision if sign else None)


def _is_id(text: str) -> bool:
    odd = "--" in text or ".." in text or text.endswith(".git")
    return bool(REPOSITORY.fullmatch(text)) and not odd and len(text.partition("/")[2]) <= LONGEST
