"""Likeness of texts in meaning by small vectors, which pages and the terminal compare alike.

Words that people type have sentence vectors of all-MiniLM-L6-v2, projected on the directions in
which words and concepts differ most and kept as int8 (`milanx/assets/words/README.md`). What all
words have in common is taken off before vectors are compared: with it, words that are near to
everything come before those that are meant ("food" before "sea" for "water").
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from milanx.language.compare import Embed
from milanx.language.connectives import split
from milanx.language.words import either_number, normalise_text, singular

MOST = 127  # of int8, symmetric
WORDS, VECTORS = "words.txt", "vectors.safetensors"
# Cosine of these vectors, less what words have in common, from which a text is like a meaning.
# Chosen on the 632 texts of the default run and 12 words (water, sea, dog, text, person, sport,
# building, sky, car, red, plant, animal): above it stand kinds, kin and parts of what is meant
# (for "water": ocean water, bathing, swimming, ice; for "plant": potted plants, garden, flowers,
# fruit, trees), below it neighbours begin (bottles; leg; doorway; space).
ALIKE = 0.45
# Words of a query that have no meaning of their own; pages know the same.
SMALL = frozenset(
    [
        *("a", "an", "and", "at", "by", "for", "in", "of", "on", "or", "some", "something"),
        *("the", "thing", "things", "to", "with", "without"),
    ]
)


@dataclass(frozen=True)
class Vocabulary:
    """Words with their vectors, and what projects other vectors beside them.

    Attributes:
        words: single words, in the singular.
        vectors: int8 [words, d].
        basis: float32 [384, d]; its columns are orthonormal.
        step: of int8; vectors times it are the projections.
    """

    words: tuple[str, ...]
    vectors: np.ndarray
    basis: np.ndarray
    step: float

    def project(self, vectors: np.ndarray) -> np.ndarray:
        """Return sentence vectors [n, 384] as int8 [n, d]."""
        rounded = np.round(vectors @ self.basis / self.step)
        return np.clip(rounded, -MOST, MOST).astype(np.int8)

    @cached_property
    def centre(self) -> np.ndarray:
        """What all words have in common, in steps of int8: float [d] of three decimals."""
        return np.round(self.vectors.mean(0, np.float64), 3)

    def likeness(self, vectors: np.ndarray, wanted: Sequence[np.ndarray]) -> np.ndarray:
        """Return how like texts are to a query: cosines less what words have in common.

        Args:
            vectors: of the texts, int8 [n, d].
            wanted: of the query's words, or of all of it: [d] each.

        Returns:
            [n].
        """
        rows = vectors.astype(np.float64) - self.centre
        towards = np.sum([np.asarray(one, np.float64) - self.centre for one in wanted], axis=0)
        norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(towards)
        close: np.ndarray = rows @ towards / np.maximum(norms, 1e-9)
        return close

    def known(self, word: str) -> np.ndarray | None:
        """Return the vector of a word or of its singular; None without one."""
        forms = [word, *(re.sub(f"{end}$", other, word)
                         for end, other in (("s", ""), ("es", ""), ("ies", "y")))]  # fmt: skip
        place = next((self.places[form] for form in forms if form in self.places), None)
        return None if place is None else self.vectors[place]

    @cached_property
    def places(self) -> dict[str, int]:
        """Where each word is."""
        return {word: place for place, word in enumerate(self.words)}


@lru_cache(maxsize=1)
def vocabulary() -> Vocabulary:
    """Return the words that come with the package."""
    from safetensors.numpy import load_file

    import milanx.assets

    folder = Path(milanx.assets.__path__[0]) / "words"
    arrays = load_file(folder / VECTORS)
    words = tuple((folder / WORDS).read_text(encoding="utf-8").split())
    basis = arrays["basis"].astype(np.float32)
    return Vocabulary(words, arrays["vectors"], basis, float(arrays["step"][0]))


def parts(text: str) -> list[str]:
    """Return what a text names, each part of "A or B" and "A and B" alone; what is missing is none.

    Empty for an empty text.
    """
    found = split(normalise_text(text))
    if found is None:
        return [text] if text else []
    first, connective, second = found
    return parts(first) + ([] if connective == "without" else parts(second))


def forms(texts: Sequence[str]) -> dict[str, str]:
    """Return one form for the words of texts, one and many, as `milanx.language.compare.nouns` has.

    What is no such word stands for itself.
    """
    found = {word: either_number(word) for text in texts for word in normalise_text(text).split()}
    found |= {singular(word): form for word, form in found.items()}
    found |= {form: form for form in found.values()}
    return {word: form for word, form in found.items() if word != form}


def query_vectors(
    query: str, texts: Sequence[str], vectors: np.ndarray, embed: Embed
) -> list[np.ndarray]:
    """Return the vectors of a query, as a page finds them: of a text of the run, else of its words.

    Args:
        query: words.
        texts: of the run.
        vectors: of these, int8 [n, d].
        embed: texts to unit rows, for what the page does not know.
    """
    words = vocabulary()
    if query in texts:
        return [vectors[texts.index(query)]]
    said = [w for w in re.split(r"[^\w]+", query) if w and w not in SMALL]
    found = [vector for word in said if (vector := words.known(word)) is not None]
    if not found or len(found) < len(said):
        return list(words.project(embed([query])))
    return found
