"""How well the source of photos can be told: from features, and from what is said of them.

A describer that learned the source in place of the meaning says of blurred photos what blurred
training photos showed. That the features tell sources apart is no fault by itself; that the texts
for meanings which every source shows do is one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from milanx.describing.set_encoder import SetEncoder
from milanx.train.stages.conditioned import load_set_encoder
from milanx.train.stages.desk import Desk
from milanx.train.stages.projection import planted_views
from milanx.train.units.corpus import Corpus

ANYWHERE = frozenset({"pixel", "phrase", "channel"})  # kinds of meaning that any source can show
VIEWS = 3000  # that the features' classifier is fitted to, at most
UNITS = 1500  # units whose first text is looked at


def make_source_leak(desk: Desk) -> dict[str, Any]:
    """Ask how well the trained set encoder's features and texts tell sources."""
    course = desk.course
    set_encoder = load_set_encoder(desk, "decoder")
    found = told_apart(set_encoder, course.corpus(), course.corpus(check=True), course.vocabulary)
    names = list(dict.fromkeys(p.source for p in planted_views(desk).photos.photos))
    each = {names[number]: share for number, share in found.pop("each", {}).items()}
    return {**found, "each": each} if each else found


def told_apart(
    set_encoder: SetEncoder, corpus: Corpus, check: Corpus, vocabulary: list[str], seed: int = 0
) -> dict[str, Any]:
    """Fit logistic regressions for the source; return their balanced accuracy on checked photos.

    Args:
        set_encoder: reads features and retrieves the first text of a unit.
        corpus: the photos that the features' classifier is fitted to.
        check: the photos that it is asked of, and the units whose texts are looked at: those that
            are all of one source and mean what any source can show. Texts are bags of words; one
            half of the units is fitted to, the other asked.
        vocabulary: the phrases that are retrieved.
        seed: of what is drawn.

    Returns:
        ``sources``, ``chance``, ``from_features`` and ``from_texts``, shares right averaged over
        the sources, and ``each``, the share of each source by its number that features tell; empty
        where there are not two sources.
    """
    rng = np.random.default_rng([seed, 11])
    source = np.asarray(corpus.table.source)
    seen, asked = (np.unique(c.table.photo[c.rows]) for c in (corpus, check))
    known = np.intersect1d(source[seen], source[asked])
    if len(known) < 2:
        return {}
    seen, asked = (rng.permutation(v[np.isin(source[v], known)])[:VIEWS] for v in (seen, asked))
    found: dict[str, Any] = {"sources": len(known), "chance": round(1 / len(known), 3)}
    read = _read(set_encoder, corpus, seen), _read(set_encoder, corpus, asked)
    told = _told(read[0], source[seen], read[1])
    found["each"] = {int(s): round(float((told == s)[source[asked] == s].mean()), 3)
                     for s in np.unique(source[asked])}  # fmt: skip
    found["from_features"] = round(float(np.mean([*found["each"].values()])), 3)
    units = [check.unit(rng) for _ in range(UNITS)]
    units = [u for u in units if u.kind in ANYWHERE and len(u.senses) == 1]
    origin = [np.unique(source[check.table.photo[u.rows]]) for u in units]
    units = [u for u, o in zip(units, origin, strict=True) if len(o) == 1]
    labels = np.array([int(o[0]) for o in origin if len(o) == 1])
    if len(units) < 4 or len(set(labels[::2])) < 2:
        return found
    with torch.inference_mode():
        vectors = set_encoder.critic_vectors(check.evidence(units))
        first = set_encoder.word_scores(vectors).argmax(1).tolist()
    words = _bags([vocabulary[i] for i in first])
    found["units"] = len(units)
    right = _told(words[::2], labels[::2], words[1::2]) == labels[1::2]
    shares = [right[labels[1::2] == label].mean() for label in np.unique(labels[1::2])]
    found["from_texts"] = round(float(np.mean(shares)), 3)
    return found


def _read(set_encoder: SetEncoder, corpus: Corpus, views: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        rows = torch.from_numpy(corpus.table.whole[views].astype(np.float32))
        found: np.ndarray = set_encoder.read(rows).numpy()
    return found


def _bags(texts: list[str]) -> Any:
    from sklearn.feature_extraction.text import CountVectorizer

    return CountVectorizer(token_pattern=r"\S+").fit_transform(texts)


def _told(x: Any, y: np.ndarray, asked: Any) -> np.ndarray:
    """Fit a classifier, each label as important as the others, and ask it."""
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(max_iter=1000, class_weight="balanced").fit(x, y)
    found: np.ndarray = fitted.predict(asked)
    return found
