"""Which atoms a text names, against those of a known meaning, and how it joins them."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import resources

from milanx.evaluate.common.names import accepted_names
from milanx.evaluate.p2.facts import fact_phrases, part_phrases
from milanx.evaluate.p2.photos import kinds_above
from milanx.exemplars.planted import Meaning
from milanx.language.compare import find_all, find_phrase, lemmas
from milanx.language.words import normalise_text

NEGATIONS = frozenset({"without", "no", "not", "but"})
Table = dict[str, list[list[str]]]  # atom -> phrases that name it, in lemmas


@lru_cache(maxsize=1)
def _class_names() -> dict[str, tuple[str, ...]]:
    """Return a class's own name -> all accepted names of the classes that are called so."""
    found: dict[str, tuple[str, ...]] = {}
    for names in accepted_names().values():
        found[names[0]] = (*found.get(names[0], ()), *names)
    return found


@lru_cache(maxsize=1)
def committed_phrases() -> dict[str, list[str]]:
    """Return atom -> accepted phrases, as they were written before any description was seen."""
    text = resources.files("milanx.evaluate.p2").joinpath("p2_phrases.json").read_text("utf-8")
    table: dict[str, list[str]] = json.loads(text)
    return table


def has_phrases(atom: str) -> bool:
    """Whether accepted phrases of an atom were written down; else it is only known by its name."""
    return atom in committed_phrases() | _fact_phrases() or atom in _class_names()


@lru_cache(maxsize=1)
def _fact_phrases() -> dict[str, list[str]]:
    """Return the phrases of parts and of facts about whole photos that no other table has."""
    known = fact_phrases()
    found = part_phrases() | known["material"] | known["scene"] | known["light"]
    return {a: phrases for a, phrases in found.items() if a not in committed_phrases()}


def phrase_table(atoms: set[str]) -> Table:
    """Return atom -> lemmatised phrases: from the committed table, the names of a class, itself."""
    known, classes = committed_phrases() | _fact_phrases(), _class_names()
    return {a: [lemmas(p) for p in known.get(a) or classes.get(a) or [a]] for a in atoms}


def find_atoms(text: str, table: Table) -> dict[str, bool]:
    """Find the atoms that a text names: atom -> whether it stands behind a negation.

    A phrase inside a longer one that is named too does not count ("car" in "sports car").
    """
    words = lemmas(text)
    negated = next((i for i, w in enumerate(normalise_text(text).split()) if w in NEGATIONS), None)
    spans = [(start, start + len(phrase), atom)
             for atom, phrases in table.items() for phrase in phrases
             for start in find_all(words, phrase)]  # fmt: skip
    outer = [s for s in spans if not any(
        o[0] <= s[0] and s[1] <= o[1] and o[1] - o[0] > s[1] - s[0] for o in spans)]  # fmt: skip
    found: dict[str, int] = {}
    for start, _, atom in outer:
        found[atom] = min(start, found.get(atom, start))
    return {atom: negated is not None and start > negated for atom, start in found.items()}


def attribute_f1(
    text: str, meaning: Meaning, table: Table, found: dict[str, bool] | None = None
) -> float:
    """F1 of the atoms found in a text with the right polarity, against those of a meaning.

    An atom that shares a found word with the meaning's own, or that one of them says anyway (the
    kind of a class), never counts against a text. ``found`` is what `find_atoms` gave, where it
    is known.
    """
    found = find_atoms(text, table) if found is None else found
    wanted = {
        atom: meaning.connective == "and-not" and i == 1 for i, atom in enumerate(meaning.atoms)
    }
    hits = sum(found.get(atom) == negative for atom, negative in wanted.items())
    if not hits:
        return 0.0
    said = {kind for kind, members in _members().items() if members & wanted.keys()}
    words = lemmas(text)
    own = [
        p for atom in (*wanted, *said) for p in table.get(atom, []) if find_phrase(words, p) >= 0
    ]
    false = 0
    for atom, negative in found.items():
        if atom in wanted:
            false += negative != wanted[atom]
        else:
            false += not any(p in own for p in table[atom])
    precision, recall = hits / (hits + false), hits / len(wanted)
    return 2 * precision * recall / (precision + recall)


@lru_cache(maxsize=1)
def _members() -> dict[str, set[str]]:
    """Return kind above classes -> the names of its classes."""
    names = accepted_names()
    return {kind: {names[w][0] for w in wnids} for kind, wnids in kinds_above().items()}


def connective_of(text: str) -> str:
    """Read the connective off a text."""
    words = normalise_text(text).split()
    if NEGATIONS & set(words):
        return "and-not"
    return "or" if "or" in words else "and" if "and" in words else "single"
