"""What a dictionary says of classes, and words for what can be seen: tables beside the photos."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from milanx.errors import InputError


@dataclass(frozen=True)
class Kind:
    """A class and its place among kinds.

    Attributes:
        wnid: WordNet id.
        name: of the class, in lower case.
        lemmas: synonyms.
        hypernyms: kinds above it, from near to far.
        parts: of it.
        sure: whether the dictionary has one meaning alone that fits the class.
    """

    wnid: str
    name: str
    lemmas: tuple[str, ...]
    hypernyms: tuple[str, ...]
    parts: tuple[str, ...]
    sure: bool


def read_kinds(path: Path) -> tuple[Kind, ...]:
    """Read a table of kinds: wnid, name, lemmas, hypernyms, parts, candidates.

    ``lemmas``, ``hypernyms`` and ``parts`` are lists divided by ``|``; ``candidates`` says how many
    meanings of the dictionary fitted, one where the column is absent.

    Raises:
        InputError: no such file, or it lacks a column.
    """

    def listed(text: str) -> tuple[str, ...]:
        return tuple(filter(None, (word.strip().lower() for word in text.split("|"))))

    return tuple(
        Kind(row["wnid"], row["name"].lower(), listed(row["lemmas"]), listed(row["hypernyms"]),
             listed(row["parts"]), (row.get("candidates") or "1") == "1")
        for row in _rows(path, ("wnid", "name", "lemmas", "hypernyms", "parts"))
    )  # fmt: skip


def read_words(path: Path) -> list[str]:
    """Read words for what can be seen, a row each, of a column ``word``; those of letters alone.

    Raises:
        InputError: no such file, or it lacks the column.
    """
    words = (" ".join(row["word"].lower().split()) for row in _rows(path, ("word",)))
    return list(dict.fromkeys(w for w in words if w and w.replace(" ", "").isalpha()))


def _rows(path: Path, needed: tuple[str, ...]) -> Iterator[dict[str, str]]:
    if not path.is_file():
        raise InputError(f"{path} is missing", "the recipe names it under data",
                         "give the folder that holds it with data.root=FOLDER")  # fmt: skip
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        lacking = [name for name in needed if name not in (reader.fieldnames or ())]
        if lacking:
            raise InputError(f"{path} lacks the column {', '.join(lacking)}",
                             f"its columns are {', '.join(reader.fieldnames or ())}")  # fmt: skip
        yield from reader
