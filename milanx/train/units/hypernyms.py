"""Kinds above classes, as a dictionary has them: musical instruments, birds of prey."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from milanx.language.words import plural
from milanx.train.data.kinds import Kind
from milanx.train.data.photos import PhotoFeatures
from milanx.train.units.meanings import MIN_POSITIVES, Meaning
from milanx.train.units.phrases import clean_name

MIN_CLASSES = 2  # below a kind
MOST = 0.6  # share of the classes up to which a kind says something
PER_CLASS = 25  # views of one class
# Kinds that nobody says of what is seen: too general, or a scholar's word.
UNSAID = frozenset({
    "abstraction", "agent", "anapsid", "anseriform bird", "anthozoan", "arachnid", "area",
    "arthropod", "article", "artifact", "attribute", "barrier", "beating-reed instrument", "bovid",
    "canine", "carnivore", "cartilaginous fish", "causal agent", "chelonian", "chicken", "chordate",
    "coelenterate", "commercial establishment", "commodity", "consumer goods", "conveyance",
    "covering", "craft", "crustacean", "decapod crustacean", "device", "diapsid",
    "dipterous insect", "durables", "echinoderm", "elasmobranch", "entity", "equipment",
    "establishment", "even-toed ungulate", "event", "flavorer", "fluid", "foodstuff", "furnishing",
    "gallinaceous bird", "game", "game equipment", "geological formation", "group",
    "hymenopterous insect", "implement", "ingredient", "instrument", "instrumentality",
    "invertebrate", "lepidopterous insect", "liquid", "living thing", "location", "machine",
    "matter", "mechanical device", "mechanism", "memorial", "mercantile establishment",
    "metatherian", "mollusk", "natural elevation", "natural object", "nutriment", "object",
    "obstruction", "odd-toed ungulate", "organism", "orthopterous insect", "oscine", "part",
    "passerine", "person", "phasianid", "physical entity", "piece", "piece of cloth",
    "place of business", "placental", "plant organ", "plant part", "procyonid", "produce",
    "protective covering", "psychological feature", "public transport", "region", "relation",
    "reproductive structure", "restraint", "ruminant", "saurian", "self-propelled vehicle",
    "skilled worker", "social group", "soft-finned fish", "solid", "solid food",
    "spiny-finned fish", "starches", "state", "structure", "substance", "support", "system",
    "teleost fish", "thing", "timer", "toiletry", "ungulate", "unit", "vertebrate", "vessel",
    "ware", "way", "white goods", "whole", "worker",
})  # fmt: skip


def hypernym_meanings(
    photos: PhotoFeatures, keep: np.ndarray, kinds: Sequence[Kind]
) -> list[Meaning]:
    """Make a meaning of every kind above the classes of the photos.

    Of kinds that hold the same classes the nearest is said. Classes are known by their WordNet
    ids, others by their names where the dictionary has one meaning of them.
    """
    views: dict[str, list[int]] = defaultdict(list)  # wnid -> views
    above = {k.wnid: k.hypernyms for k in kinds if k.sure}
    by_name = {n: k.wnid for k in kinds if k.sure for n in (k.name, *k.lemmas)}
    for i in np.flatnonzero(keep).tolist():
        photo = photos.photos[i]
        wnid = photo.wnid or by_name.get(clean_name(photo.name or ""), "")
        if wnid in above:
            views[wnid].append(i)
    members: dict[str, list[str]] = defaultdict(list)
    for wnid in sorted(views):
        for kind in above[wnid]:
            members[kind].append(wnid)
    depth = {kind: min(above[w].index(kind) for w in wnids) for kind, wnids in members.items()}
    nearest: dict[tuple[str, ...], str] = {}
    for kind in sorted(members, key=lambda k: (depth[k], k)):
        few = MIN_CLASSES <= len(members[kind]) <= MOST * len(views)
        if few and kind not in UNSAID and not kind[0].isdigit():
            nearest.setdefault(tuple(members[kind]), kind)
    found = []
    for wnids, kind in nearest.items():
        shown = np.array([i for w in wnids for i in views[w][:PER_CLASS]], np.int64)
        if len(shown) >= MIN_POSITIVES:
            found.append(Meaning((many_of(kind),), "hypernym", shown, countable=False))
    return found


def many_of(kind: str) -> str:
    """Return the plural of a kind, "birds of prey" of "bird of prey"."""
    head, of, rest = kind.partition(" of ")
    return f"{plural(head)}{of}{rest}"
