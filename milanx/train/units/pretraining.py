"""Text for pretraining: captions and human descriptions, without what is held out."""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from milanx.images.splits import held_out
from milanx.language.people import says_colour_of_people
from milanx.language.words import normalise_text
from milanx.train.data.photos import PhotoFeatures
from milanx.train.units.phrases import mentions, whole_words

MAX_JACCARD = 0.8  # a sentence that shares this much of its words with a held-out one is left out
HELD_OUT_UNITS = 0.1
MAX_WORDS = 24
REPEAT_DESCRIPTIONS = 3  # short human descriptions are few beside captions


def clean(text: str) -> str:
    """Lower case, single spaces, no full stop at the end."""
    return re.sub(r"\s+", " ", text.lower()).strip(" .,;\"'")


def near_duplicates(sentences: Sequence[str], held: Sequence[str]) -> np.ndarray:
    """Return which ``sentences`` equal a held-out one or share most of its words, bool [n].

    Compared after normalisation, by the Jaccard index of their distinct words.
    """
    from scipy.sparse import csr_matrix

    vocabulary: dict[str, int] = {}

    def rows(texts: Sequence[str]) -> tuple[list[int], list[int]]:
        starts, columns = [0], []
        for text in texts:
            words = sorted(set(normalise_text(text).split()))
            columns += [vocabulary.setdefault(word, len(vocabulary)) for word in words]
            starts.append(len(columns))
        return starts, columns

    held_rows, all_rows = rows(held), rows(sentences)
    found = np.zeros(len(sentences), bool)
    if not held:
        return found

    def matrix(table: tuple[list[int], list[int]]) -> csr_matrix:
        ones = np.ones(len(table[1]), np.float32)
        return csr_matrix((ones, table[1], table[0]), shape=(len(table[0]) - 1, len(vocabulary)))

    against, everything = matrix(held_rows), matrix(all_rows)
    held_sizes = np.asarray(against.sum(1)).ravel()
    for start in range(0, len(sentences), 2000):
        block = everything[start : start + 2000]
        shared = (block @ against.T).toarray()
        union = np.asarray(block.sum(1)) + held_sizes[None] - shared
        found[start : start + 2000] = (shared >= MAX_JACCARD * np.maximum(union, 1)).any(1)
    return found


def pretraining_texts(
    root: Path,
    sentences: str,
    descriptions: str,
    photos: PhotoFeatures,
    keep: np.ndarray,
    names: Sequence[str],
) -> list[str]:
    """Collect captions and human descriptions; nothing held out is among them.

    A file whose name is empty is left out; ``names`` are those of held-out meanings.
    """
    people = human_descriptions(root / descriptions, names) if descriptions else []
    if not sentences:
        return people
    with gzip.open(root / sentences, "rt", encoding="utf-8") as file:
        captions = [clean(line) for line in file]
    words = whole_words(names)
    held = [c for i in np.flatnonzero(~keep) for c in photos.photos[i].captions]
    near = near_duplicates(captions, sorted(set(held)))
    texts = [
        text
        for text, left_out in zip(captions, near, strict=True)
        if not left_out and _is_of_use(text, words)
    ]
    return texts + REPEAT_DESCRIPTIONS * people


def human_descriptions(path: Path, names: Sequence[str], *, held: bool = False) -> list[str]:
    """Read people's descriptions of units that say none of ``names``; a tenth is held out."""
    words = whole_words(names)
    found = []
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            unit = f"{row['model']} {row['layer']} {row['unit']}"
            if row["kind"] == "human" and held_out(unit, HELD_OUT_UNITS) == held:
                text = clean(row["description"])
                if _is_of_use(text, words):
                    found.append(text)
    return found


def _is_of_use(text: str, held: re.Pattern[str]) -> bool:
    """Whether a text may be learned: not too long, of nothing held out, no people by a colour."""
    short = 0 < len(text.split()) <= MAX_WORDS
    return short and not mentions(text, held) and not says_colour_of_people(text)
