"""Cards: a head of yaml that the Hub reads, and text for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from milanx.errors import InputError

BEGIN, END = "<!-- from milanx push -->", "<!-- end of what is from milanx push -->"
TAGS = ("milanx", "interpretability")


@dataclass(frozen=True)
class Card:
    """The README.md of a repository.

    Attributes:
        head: what the Hub reads.
        body: markdown.
    """

    head: Mapping[str, Any] = field(default_factory=dict)
    body: str = ""

    @classmethod
    def read(cls, text: str, where: str) -> Card:
        """Read a card; one without a head has an empty one.

        Args:
            text: of README.md.
            where: it lies, for the error.

        Raises:
            InputError: its head is no yaml.
        """
        text = text.lstrip("\ufeff")
        if not text.startswith("---"):
            return cls({}, text)
        head, _, body = text.removeprefix("---").partition("\n---")
        try:
            found = yaml.safe_load(head) or {}
            if not isinstance(found, dict):
                raise ValueError("it holds no names with values")
        except (yaml.YAMLError, ValueError) as error:
            said = " ".join(str(error).split())
            raise InputError(f"the card {where} cannot be read", f"its head is no yaml: {said}",
                             "mend the lines between --- at its top") from error  # fmt: skip
        return cls(found, body.lstrip("\n"))

    def __str__(self) -> str:
        head = yaml.safe_dump(dict(self.head), sort_keys=False, allow_unicode=True, width=1000)
        return f"---\n{head}---\n\n{self.body.strip()}\n"

    def licensed(self, licence: str | None, where: str) -> Card:
        """Return the card under a licence: the one that is given, else its own.

        Raises:
            InputError: there is none.
        """
        found = licence or self.head.get("license")
        if not isinstance(found, str) or not found.strip():
            raise InputError(
                f"the card {where} names no licence",
                "nobody who finds it could know what may be done with it",
                [
                    "--license apache-2.0, cc-by-4.0, other, ...",
                    f"write `license: ...` into {where}",
                ],
            )
        return replace(self, head={**self.head, "license": found.strip()})

    def tagged(self) -> Card:
        """Return the card with what tells the Hub that milanx reads the repository."""
        tags = self.head.get("tags")
        known = [str(tag) for tag in tags] if isinstance(tags, list) else []
        return replace(self, head={**self.head, "library_name": "milanx",
                                   "tags": list(dict.fromkeys([*TAGS, *known]))})  # fmt: skip

    def with_part(self, text: str) -> Card:
        """Return the card with a part of milanx's own, before its first section.

        What an earlier push put there is replaced, the rest stays as somebody wrote it.
        """
        before, _, rest = self.body.partition(BEGIN)
        body = before.rstrip() + "\n\n" + rest.partition(END)[2].lstrip() if rest else self.body
        first, sign, sections = body.partition("\n## ")
        part = f"{BEGIN}\n{text.strip()}\n{END}"
        return replace(self, body=f"{first.rstrip()}\n\n{part}\n{sign}{sections}".strip())


def cell(text: object) -> str:
    """Return a text for a cell of a markdown table: one line, nothing of it markup."""
    line = " ".join(str(text).split())
    return "".join(f"&#{ord(c)};" if c in "<>&|[]`*_\\$!#" else c for c in line)
