"""The words of MILAN's networks, by number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from milanx.language.words import normalise_text

END, BEGIN, UNKNOWN = 0, 1, 2
SPECIAL = 3  # numbers that no word has


@dataclass(frozen=True)
class Vocabulary:
    """Words, each a token, as MILAN's are; nothing is cut off by rarity.

    Attributes:
        words: folded, sorted, none twice; the first has the number `SPECIAL`.
    """

    words: tuple[str, ...]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Vocabulary:
        """Collect the words of texts."""
        return cls(tuple(sorted({word for text in texts for word in normalise_text(text).split()})))

    def __len__(self) -> int:
        """How many numbers there are, those of no word included."""
        return SPECIAL + len(self.words)

    @cached_property
    def _place(self) -> dict[str, int]:
        return {word: SPECIAL + i for i, word in enumerate(self.words)}

    def encode(self, texts: Sequence[str], longest: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Number the words of texts.

        Args:
            texts: n of them; words beyond what there is room for are left out.
            longest: most tokens of a text, its end token included.

        Returns:
            int64 [n, t], each text with its end token, and bool [n, t], which of them are its own.
        """
        split = (normalise_text(text).split()[: longest - 1] for text in texts)
        return padded([[self._place.get(word, UNKNOWN) for word in words] for words in split])

    def decode(self, tokens: Iterable[int]) -> str:
        """Write numbers of words, without an end token, as a text."""
        return " ".join(self.words[token - SPECIAL] for token in tokens)


def padded(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Put texts, as numbers of words, beside one another: `Vocabulary.encode` says how."""
    width = 1 + max(map(len, rows), default=0)
    ids = torch.full((len(rows), width), END)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row, dtype=torch.int64)
        mask[i, : len(row) + 1] = True
    return ids, mask
