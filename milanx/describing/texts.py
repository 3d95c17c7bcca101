"""Texts as a describer compares them with units: vectors of the joint space, each made once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from milanx.describing.kept import keep_vectors, kept_vectors
from milanx.language.connectives import join_features, split, whole_of
from milanx.language.remembered import Remembered
from milanx.workers import ALONE, Workers

if TYPE_CHECKING:
    from milanx.describing.set_encoder import SetEncoder
    from milanx.features.encoder import Encoder
    from milanx.language.compare import Embed

MOST = 2**16  # texts whose vectors are remembered; of 384 numbers they take 100 MB


class TextSpace:
    """Texts in the joint space, and the phrases of a describer's vocabulary among them.

    Args:
        encoder: embeds texts.
        set_encoder: centres them on the vocabulary.
        vocabulary: phrases that can be retrieved, as the set encoder holds their vectors.
        key: stands for all that makes vectors; with one they are kept in the cache.
    """

    def __init__(
        self,
        encoder: Encoder,
        set_encoder: SetEncoder,
        vocabulary: Sequence[str],
        key: str = "",
    ) -> None:
        self.encoder, self.set_encoder, self.vocabulary = encoder, set_encoder, vocabulary
        self._place = {text: i for i, text in enumerate(vocabulary)}
        self._vectors: Remembered[torch.Tensor] = Remembered(MOST)
        self._key, self._on_disk = key, False
        self._fresh = 0  # texts that were embedded since the last `keep`
        self._one = threading.Lock()  # several threads compare units with texts

    def split(self, text: str) -> tuple[str, str, str] | None:
        """Divide a text at its connective (`milanx.language.connectives.split`).

        A phrase of the vocabulary is one thing.
        """
        return split(text, self._place)

    def prepare(self, texts: Sequence[str], workers: Workers = ALONE) -> None:
        """Embed texts, and what they join or are parts of, all of them together.

        Args:
            texts: that units will be compared with.
            workers: share out what is new.
        """
        divided = [found for found in map(self.split, texts) if found]
        parts = {part for found in divided for part in (found[0], found[2])}
        parts.update(filter(None, map(whole_of, texts)))
        missing = {found[2] for found in divided if found[1] == "without"}
        self.embedded(sorted({*texts, *parts.difference(self._place), *missing}), workers)

    def embedded(self, texts: Sequence[str], workers: Workers = ALONE) -> torch.Tensor:
        """Return the joint space's vectors of texts [t, j]."""

        def embed(new: Sequence[str]) -> list[torch.Tensor]:
            self._fresh += len(new)
            return [*self.encoder.texts(new, workers=workers)]

        with self._one:
            known = self._vectors.of(texts, embed)
        return torch.stack([known[text] for text in texts])

    def recall(self) -> None:
        """Take what the cache has of vectors, once."""
        if self._key and not self._on_disk:
            self._vectors.learn(self._kept())
        self._on_disk = True

    def forget(self) -> None:
        """Forget all vectors, and do without those of the cache."""
        self._vectors = Remembered(MOST)
        self._on_disk, self._fresh = True, 0

    def keep(self) -> None:
        """Put new vectors into the cache, beside those that other processes put there."""
        if self._key and self._fresh:
            self._vectors.learn(self._kept())
            keep_vectors(self._key, self._vectors.latest())
        self._fresh = 0

    def _kept(self) -> dict[str, torch.Tensor]:
        vectors = kept_vectors(self._key)
        return {text: vector.to(self.encoder.device) for text, vector in vectors.items()}

    def centred(self, texts: Sequence[str]) -> torch.Tensor:
        """Return texts' vectors as responses compare them: centred unit rows [t, j]."""
        known = self.set_encoder.vocabulary
        found = known.new_zeros(len(texts), self.set_encoder.spec.joint)
        inside = [i for i, text in enumerate(texts) if text in self._place]
        others = [i for i, text in enumerate(texts) if text not in self._place]
        found[inside] = known[[self._place[texts[i]] for i in inside]]
        if others:
            embedded = self.embedded([texts[i] for i in others])
            found[others] = self.set_encoder.centred_texts(embedded)
        return found

    def told(self, texts: Sequence[str]) -> torch.Tensor:
        """Return what the critic is told of texts [t, 2 j + 3]."""
        joins = join_features(texts, self.embedded, self._place)
        return self.set_encoder.told_texts(self.embedded(texts), joins)

    def retrieve(self, vectors: torch.Tensor, count: int) -> list[list[str]]:
        """Return the phrases of the vocabulary that agree most with exemplar sets, best first.

        Args:
            vectors: of the sets, [u, 2 j + 1]
                (`milanx.describing.set_encoder.SetEncoder.critic_vectors`).
            count: how many.
        """
        count = min(count, len(self.vocabulary))
        if not count:
            return [[] for _ in range(len(vectors))]
        nearest = self.set_encoder.word_scores(vectors).topk(count)
        return [[self.vocabulary[i] for i in row] for row in nearest.indices.tolist()]


def sentences(describer: object) -> Embed | None:
    """Return a describer's own all-MiniLM-L6-v2, which knows the texts that it told.

    None for one whose texts meet the views in another space.
    """
    from milanx.features.smallclip import SmallClipEncoder

    space = getattr(describer, "_texts", None)
    if not isinstance(space, TextSpace) or not isinstance(space.encoder, SmallClipEncoder):
        return None

    def embed(texts: Sequence[str]) -> np.ndarray:
        if not texts:
            return np.zeros((0, space.encoder.spec.joint), np.float32)
        return space.embedded(texts).cpu().numpy()

    return embed
