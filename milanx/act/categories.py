"""What kinds of things the words of a description name.

By our lexicon first (``lexicon.yaml``: whole words and phrases, one and many alike), by similarity
second: a word that the lexicon lacks goes to the kind that a logistic regression on sentence
embeddings of the lexicon's own words gives it, where that is sure enough; else it counts as unsure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from milanx.files import cache_dir, fingerprint
from milanx.files.arrays import keep_arrays, kept_arrays
from milanx.language.compare import Embed, Sentences, lemma
from milanx.language.words import normalise_text

KINDS = ("colour", "texture", "pattern", "shape", "part", "object", "scene", "material", "text",
         "people", "animal", "action", "place")  # fmt: skip
GENERIC = "generic"
UNSURE = "unsure"
# Of single words held out of the lexicon with all phrases that share a word with them (five folds,
# `held_out`), .57 are given a kind at this probability, and .89 of those the one that the lexicon
# gives them; at .5 it is .70 and .85, at .7 .44 and .92. Rare words that the tokenizer breaks up
# fare worse: of ten ("ocelot", "zither", "vermilion" ...) seven were given a kind, three rightly.
SURE = 0.6
REGULARISATION = 3.0  # sklearn's C; at 10, .71 and .85
FOLDS = 5
NEGATION = "without"

# Parts of speech that are counted, by the first letters of the Penn treebank's tags.
PARTS = {"NN": "noun", "VB": "verb", "JJ": "adjective", "IN": "preposition"}
PARTS_OF_SPEECH = tuple(PARTS.values())
# The tagger's dictionary knows these as verb or noun, and before a noun they say how it looks.
BEFORE_NOUNS = frozenset({"left", "right", "round", "light"})


@dataclass(frozen=True)
class Named:
    """A word or phrase of a description, and what it names.

    Attributes:
        words: as they stand in the folded text.
        kind: of `KINDS`, `GENERIC` (says that something is there, and nothing of what), or
            `UNSURE`.
        way: ``lexicon`` or ``similarity``.
        probability: of the kind, where similarity gave it.
    """

    words: str
    kind: str
    way: str = "lexicon"
    probability: float = 1.0


class Lexicon:
    """Words and phrases by kind.

    Args:
        kinds: kind -> words; the first that names a word keeps it.
    """

    def __init__(self, kinds: Mapping[str, Sequence[str]]) -> None:
        self.kinds = {kind: tuple(words) for kind, words in kinds.items()}
        self._said: dict[tuple[str, ...], str] = {}
        self._forms: dict[tuple[str, ...], str] = {}
        for kind, words in self.kinds.items():
            for word in words:
                folded = tuple(normalise_text(word).split())
                self._said.setdefault(folded, kind)
        for folded, kind in self._said.items():
            form = tuple(map(lemma, folded))
            # What is said so ("fish") goes before what only shares its form ("fishing").
            if form == folded or form not in self._said:
                self._forms.setdefault(form, kind)
        self.longest = max(map(len, self._said))

    def __len__(self) -> int:
        return len(self._said)

    @classmethod
    @lru_cache(maxsize=1)
    def load(cls) -> Lexicon:
        """Read the lexicon of the package."""
        import yaml

        content = yaml.safe_load(Path(__file__).with_name("lexicon.yaml").read_text("utf-8"))
        return cls({k: [w.strip() for w in v.split(",")] for k, v in content.items()})

    def find(self, words: Sequence[str]) -> list[tuple[str, str | None]]:
        """Divide a folded text into phrases, the longest known first, from left to right.

        Args:
            words: of the text.

        Returns:
            Each phrase with its kind, None for a word that the lexicon lacks.
        """
        found: list[tuple[str, str | None]] = []
        place = 0
        while place < len(words):
            for size in range(min(self.longest, len(words) - place), 0, -1):
                said = tuple(words[place : place + size])
                kind = self._said.get(said) or self._forms.get(tuple(map(lemma, said)))
                if kind is not None or size == 1:
                    found.append((" ".join(said), kind))
                    place += size
                    break
        return found


class Categories:
    """Says what kinds of things descriptions name.

    Args:
        lexicon: the package's when None.
        embed: texts to unit rows [n, d]; all-MiniLM-L6-v2 when None.
    """

    def __init__(self, lexicon: Lexicon | None = None, embed: Embed | None = None) -> None:
        self.lexicon = lexicon or Lexicon.load()
        self.embed = embed or Sentences()
        self._own = embed is not None

    @cached_property
    def _model(self) -> _Kinds:
        """What tells kinds; kept in the cache, for embedding the lexicon takes some seconds."""
        texts, kinds = training_words(self.lexicon)
        if self._own:
            return _Kinds.fit(self.embed(texts), kinds)
        key = fingerprint("kinds-1 of all-MiniLM-L6-v2", texts, kinds, REGULARISATION)
        path = cache_dir("kinds", f"{key}.safetensors")
        known = kept_arrays(path)
        if known is None:
            fitted = _Kinds.fit(self.embed(texts), kinds).weights
            known = {"weights": np.ascontiguousarray(fitted)}  # as it is read: sums round alike
            keep_arrays(path, known)
        return _Kinds(tuple(sorted(set(kinds))), known["weights"])

    def __call__(self, texts: Sequence[str]) -> list[tuple[Named, ...]]:
        """Return what each description names, in its order; what follows "without" is left out."""
        divided = [self.lexicon.find(affirmed(text).split()) for text in texts]
        unknown = sorted({
            phrase for text, phrases in zip(texts, divided, strict=True) for phrase, kind in phrases
            if kind is None and phrase in _content(affirmed(text))
        })  # fmt: skip
        known: dict[str, Named] = {}
        if unknown:
            kinds, sure = self._model.predict(self.embed(unknown))
            for phrase, kind, probability in zip(unknown, kinds, sure, strict=True):
                given = kind if probability >= SURE else UNSURE
                known[phrase] = Named(phrase, given, "similarity", float(probability))
        return [
            tuple(Named(phrase, kind) if kind else known[phrase] for phrase, kind in phrases
                  if kind or phrase in known)
            for phrases in divided
        ]  # fmt: skip


@dataclass(frozen=True)
class _Kinds:
    """Tells the kind of an embedded word: a logistic regression.

    Attributes:
        names: the kinds.
        weights: float64 [kinds, d + 1], the last column the bias.
    """

    names: tuple[str, ...]
    weights: np.ndarray

    @classmethod
    def fit(cls, rows: np.ndarray, kinds: Sequence[str]) -> _Kinds:
        """Learn from embedded words [n, d] and their kinds."""
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=REGULARISATION, max_iter=500).fit(rows, kinds)
        weights = np.column_stack([model.coef_, model.intercept_]).astype(np.float64)
        return cls(tuple(map(str, model.classes_)), weights)

    def predict(self, rows: np.ndarray) -> tuple[list[str], np.ndarray]:
        """Return the likeliest kind of each row, and its probability [n]."""
        from scipy.special import softmax

        given = softmax(rows @ self.weights[:, :-1].T + self.weights[:, -1], axis=1)
        return [self.names[i] for i in given.argmax(1)], given.max(1)


def training_words(lexicon: Lexicon) -> tuple[list[str], list[str]]:
    """Return the words of a lexicon and their kinds; generic ones teach no kind."""
    pairs = [(w, k) for k, words in lexicon.kinds.items() if k != GENERIC for w in words]
    return [w for w, _ in pairs], [k for _, k in pairs]


def held_out(lexicon: Lexicon, embed: Embed, seed: int = 0) -> list[tuple[str, str, str, float]]:
    """Tell the kinds of the lexicon's single words from words that share none with them.

    Returns:
        Word, its kind, the likeliest kind and its probability, of every single word.
    """
    texts, kinds = training_words(lexicon)
    rows, names = embed(texts), np.array(kinds)
    forms = [frozenset(map(lemma, normalise_text(text).split())) for text in texts]
    single = np.array([len(form) == 1 for form in forms])
    fold = np.random.default_rng(seed).permutation(len(texts)) % FOLDS
    found: list[tuple[str, str, str, float]] = []
    for number in range(FOLDS):
        inside = np.flatnonzero((fold == number) & single)
        asked = frozenset().union(*(forms[i] for i in inside))
        others = [i for i in np.flatnonzero(fold != number) if forms[i].isdisjoint(asked)]
        given, sure = _Kinds.fit(rows[others], names[others].tolist()).predict(rows[inside])
        for place, kind, probability in zip(inside, given, sure, strict=True):
            found.append((texts[place], kinds[place], kind, float(probability)))
    return found


def affirmed(text: str) -> str:
    """Return a description, folded, without what it says is missing ("objects without people")."""
    words = normalise_text(text).split()
    return " ".join(words[: words.index(NEGATION)] if NEGATION in words else words)


@lru_cache(maxsize=65536)
def _content(text: str) -> frozenset[str]:
    """Return the words of a folded text that are nouns, verbs or adjectives."""
    return frozenset(w for w, p in parts_of_speech(text) if p in ("noun", "verb", "adjective"))


@lru_cache(maxsize=65536)
def parts_of_speech(text: str) -> tuple[tuple[str, str | None], ...]:
    """Tag the words of a description: noun, verb, adjective, preposition, or None for others.

    By textblob's pattern tagger, whose dictionary and rules are in its package, and one rule for
    short descriptions: the words of `BEFORE_NOUNS` are adjectives before a noun or adjective. Of
    the 222 words of sixty descriptions tagged by hand the tagger has 214 right, with the rule,
    which was made on them, 220.
    """
    from textblob.en import tag

    tagged = [(w, PARTS.get(t[:2])) for w, t in tag(normalise_text(text))]
    for place, (word, part) in enumerate(tagged):
        after = tagged[place + 1][1] if place + 1 < len(tagged) else None
        if word in BEFORE_NOUNS and part != "adjective" and after in ("noun", "adjective"):
            tagged[place] = (word, "adjective")
    return tuple(tagged)
