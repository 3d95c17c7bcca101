"""What a page is given to search by meaning without a network.

A page cannot run a language model, so it has the vectors of common words and of a run's texts
(`milanx.language.meanings`), and looks up what is typed.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from milanx.files import atomic_path
from milanx.language.compare import Embed, Sentences
from milanx.language.meanings import (
    ALIKE,
    MOST,
    SMALL,
    VECTORS,
    WORDS,
    Vocabulary,
    forms,
    parts,
    vocabulary,
)
from milanx.language.words import singular

DIMENSIONS = 96
SHORTEST = 3  # letters of a word that has a vector


def page_vectors(
    texts: Sequence[str], embed: Embed | None = None, others: Sequence[str] = ()
) -> dict[str, Any]:
    """Return what a page needs to search texts by word and by meaning, as `milanx find` does.

    Args:
        texts: all that are to be found; what they join is looked for in its parts.
        others: texts that are found by their words alone.
        embed: texts to unit rows [n, 384]; all-MiniLM-L6-v2 when None.

    Returns:
        ``words`` and ``vectors`` of the vocabulary, ``texts`` and ``textVectors``, base64 of int8
        [n, ``dims``]; the ``centre`` of words, the likeness from which a text is ``alike``, words
        that are left out, and the ``forms`` of the texts' words.
    """
    known = vocabulary()
    found = sorted({part for text in texts for part in parts(text)})
    vectors = known.project((embed or Sentences())(found))
    return {"words": " ".join(known.words), "vectors": _base64(known.vectors), "texts": found,
            "textVectors": _base64(vectors), "dims": DIMENSIONS, "alike": ALIKE,
            "centre": known.centre.tolist(), "small": sorted(SMALL),
            "forms": forms([*texts, *others])}  # fmt: skip


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
