"""Search by meaning without a network: small vectors of common words and of a run's texts.

A page cannot run a language model, so it is given the vectors of the words that people type, and
looks them up. All are sentence vectors of all-MiniLM-L6-v2, projected on the directions in which
words and concepts differ most and kept as int8 with one scale, so that sums of products stay close
to cosines (`milanx/assets/words/README.md` says how close).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from milanx.files import atomic_path
from milanx.language.compare import Embed, Sentences
from milanx.language.connectives import split
from milanx.language.gpt2 import normalise_text
from milanx.language.words import singular

DIMENSIONS = 96
MOST = 127  # of int8, symmetric
SHORTEST = 3  # letters of a word that has a vector
WORDS, VECTORS = "words.txt", "vectors.safetensors"


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


def page_vectors(texts: Sequence[str], embed: Embed | None = None) -> dict[str, Any]:
    """Return what a page needs to search texts by meaning.

    Args:
        texts: all that are to be found; what they join is looked for in its parts.
        embed: texts to unit rows [n, 384]; all-MiniLM-L6-v2 when None.

    Returns:
        ``words`` and ``vectors`` of the vocabulary, ``texts`` and ``textVectors``, base64 of int8
        [n, ``dims``], and the ``step`` of them.
    """
    known = vocabulary()
    found = sorted({part for text in texts for part in parts(text)})
    vectors = known.project((embed or Sentences())(found))
    return {"words": " ".join(known.words), "vectors": _base64(known.vectors), "texts": found,
            "textVectors": _base64(vectors), "dims": DIMENSIONS, "step": known.step}  # fmt: skip


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode()


def common_words(concepts: Sequence[str], described: Sequence[str]) -> list[str]:
    """Choose the words that get vectors.

    Args:
        concepts: phrases; all their words are taken.
        described: words of a describer's texts; those that all-MiniLM-L6-v2 knows as one token
            are taken, which leaves out the rare and the misspelt.
    """
    from milanx.language.compare import tokens

    whole = tokens()
    words = {word for phrase in concepts for word in phrase.split()}
    words |= {word for word in described if word in whole}
    words = {word for word in words
             if len(word) >= SHORTEST and word.isascii() and word.isalpha()}  # fmt: skip
    return sorted(w for w in words if singular(w) == w or singular(w) not in words)


def make(folder: Path) -> None:
    """Write the words that come with the package anew; takes about a minute."""
    from safetensors.numpy import save_file

    import milanx.assets

    assets = Path(milanx.assets.__path__[0])
    concepts = (assets / "concepts.txt").read_text(encoding="utf-8").splitlines()
    known = json.loads((assets / "mini" / "words.json").read_text(encoding="utf-8"))
    words = common_words([*concepts, *known["vocabulary"]], known["words"])
    embed = Sentences()
    vectors = embed(words)
    spread = np.concatenate([vectors, embed(concepts)])
    _, values = np.linalg.eigh(spread.T @ spread)
    basis = np.ascontiguousarray(values[:, : -DIMENSIONS - 1 : -1], np.float32)
    basis = basis.astype(np.float16).astype(np.float32)
    step = float(np.abs(spread @ basis).max() / MOST)
    made = Vocabulary(tuple(words), np.zeros(0, np.int8), basis, step)
    with atomic_path(folder / VECTORS) as path:
        save_file({"vectors": made.project(vectors), "basis": basis.astype(np.float16),
                   "step": np.array([step], np.float32)}, path)  # fmt: skip
    with atomic_path(folder / WORDS) as path:
        path.write_text("\n".join(words) + "\n", encoding="utf-8")


if __name__ == "__main__":
    import milanx.assets

    make(Path(milanx.assets.__path__[0]) / "words")
