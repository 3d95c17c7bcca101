"""Phrases that units can mean: what captions and people's descriptions of units say.

Captions give noun phrases and actions; people's descriptions give the way such things are said.
A phrase is kept when the encoder's joint space can see it: it ranks the photos whose captions
say it above the others, or every word of it is a word that the joint space sees.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from milanx.language.words import normalise_text, plural
from milanx.train.data.photos import PhotoFeatures

CAPTIONS_A_PHOTO = 3  # of which phrases are taken
MIN_PHOTOS = 12  # photos whose captions say a phrase
# What is no one thing: a list, or two things joined, which photos seldom show together.
LISTS = r"[,;:/&'()\"]|\b(pictures?|photos?|images?|and|or)\b"
MAX_WORDS = 5  # of a person's description that is taken as a phrase
MIN_GROUNDING = 0.75  # AUROC of a phrase's similarity for the photos whose captions say it
MIN_WORD_GROUNDING = 0.7  # the same for each word of a person's description
VAGUE_ADJECTIVES = frozenset({
    "several", "other", "many", "different", "same", "various", "such", "own", "next", "more",
    "few", "single", "similar", "certain", "first", "second", "last", "most", "much", "top",
    "front", "back", "left", "right", "side", "another", "nearby", "something", "someone", "one",
    "lot", "bunch", "group", "couple", "pair", "image", "picture", "photo", "view", "background",
    "foreground", "area", "thing", "way", "piece", "part", "kind", "type", "getting", "being",
    "having", "taking", "making", "trying", "using", "going", "doing", "preparing", "attempting",
    "wearing", "holding", "looking", "standing", "posing", "day", "time", "end", "set", "number",
})  # fmt: skip
# Words that say nothing alone but may stand in a person's description.
GENERIC = frozenset({
    "object", "objects", "thing", "things", "area", "areas", "item", "items", "part", "parts",
    "surface", "surfaces", "shape", "shapes", "and", "or", "of", "the", "a", "an", "with", "on",
    "in", "color", "colors", "colored", "pattern", "patterns", "lines", "line", "shaped", "dark",
    "light", "bright", "round", "long", "thin", "curved", "circular", "red", "green", "blue",
    "yellow", "orange", "pink", "purple", "brown", "black", "white", "gray", "grey", "that", "are",
    "is", "s", "edges", "edge", "corners", "sides", "tops", "top", "bottom",
})  # fmt: skip
VAGUE = frozenset({
    "object", "objects", "thing", "things", "area", "areas", "item", "items", "part", "parts",
    "and", "or", "of", "the", "a", "an", "with", "on", "in", "that", "are", "is", "s", "color",
    "colors", "colored", "light", "top", "bottom", "edge", "edges", "sides", "surface", "surfaces",
    "shape", "shapes", "shaped", "line", "lines", "pattern", "patterns", "corners", "tops",
})  # fmt: skip


def sentence_phrases(sentence: str) -> set[str]:
    """Return the noun phrases and actions of a sentence, without determiners.

    The part of speech comes from textblob's pattern tagger, whose lexicon is in its package.
    """
    from textblob.en import tag

    words = [(w.lower(), t) for w, t in tag(sentence) if re.fullmatch(r"[A-Za-z]+", w)]
    found: set[str] = set()
    for i, (word, kind) in enumerate(words):
        if word in VAGUE_ADJECTIVES or len(word) < 3:
            continue
        before = words[i - 1] if i else ("", "")
        after = [w for w in words[i + 1 : i + 4] if w[1] != "DT"]
        if kind in ("NN", "NNS"):
            found.add(word)
            if before[1] in ("JJ", "NN") and before[0] not in VAGUE_ADJECTIVES:
                found.add(f"{before[0]} {word}")
            if after and after[0][1] == "VBG" and after[0][0] not in VAGUE_ADJECTIVES:
                found.add(f"{word} {after[0][0]}")
        elif kind == "VBG":
            found.add(word)
            nouns = [w for w, t in after[:1] if t in ("NN", "NNS")]
            found |= {f"{word} {noun}" for noun in nouns if noun not in VAGUE_ADJECTIVES}
    return found


def caption_phrases(photos: PhotoFeatures, keep: np.ndarray) -> tuple[list[int], dict[str, set]]:
    """Return the captioned photos of ``keep``, and which of them say each frequent phrase.

    Returns:
        Indices of the captioned photos, and phrase -> places in that list.
    """
    captioned = [i for i in np.flatnonzero(keep).tolist() if photos.photos[i].captions]
    says: dict[str, set] = {}
    known: dict[str, set[str]] = {}
    for place, i in enumerate(captioned):
        for sentence in photos.photos[i].captions[:CAPTIONS_A_PHOTO]:
            if sentence not in known:
                known[sentence] = sentence_phrases(sentence)
            for phrase in known[sentence]:
                says.setdefault(phrase, set()).add(place)
    frequent = {p: s for p, s in says.items() if MIN_PHOTOS <= len(s) < 0.3 * len(captioned)}
    return captioned, frequent


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve of ``scores`` [n] for ``positive`` (bool [n]); .5 when undefined.

    The share of pairs of a positive and a negative that the scores order rightly (Mann and
    Whitney 1947).
    """
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return 0.5
    ranks = np.empty(len(scores))
    ranks[np.argsort(scores)] = np.arange(len(scores))
    return float((ranks[positive].sum() - n * (n - 1) / 2) / (n * m))


def person_phrases(descriptions: Iterable[str], seen: Iterable[str]) -> list[str]:
    """Return people's short descriptions all of whose words are seen or generic.

    Args:
        descriptions: of units, lower case.
        seen: words that the joint space sees.
    """
    seen = set(seen)
    counts: Counter[str] = Counter()
    for text in descriptions:
        if re.search(LISTS, text):
            continue
        folded = re.sub(r"^(a|an|the|some|contains?|shows?|images? of|pictures? of) ", "", text)
        words = normalise_text(folded).split()
        if not 1 <= len(words) <= MAX_WORDS or set(words) <= VAGUE:
            continue
        if all(word in GENERIC or word in seen for word in words):
            counts[" ".join(words)] += 1
    return sorted(counts, key=lambda text: (-counts[text], text))


def name_words(names: Sequence[str]) -> set[str]:
    """Return the words of names, singular and plural."""
    return {form for name in names for word in name.split() for form in (word, plural(word))}
