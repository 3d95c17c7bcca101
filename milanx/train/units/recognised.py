"""What the encoder's own classifier recognises in photos: names, and kinds, that no label gives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

import numpy as np
import torch

from milanx.features.classes import ClassHead, class_head
from milanx.features.encoder import Encoder
from milanx.train.data.kinds import Kind
from milanx.train.data.photos import PhotoFeatures
from milanx.train.units.hypernyms import MOST, UNSAID, many_of
from milanx.train.units.meanings import MIN_POSITIVES, Meaning

SURE = 0.5  # probability from which on a class, or a kind above some, is recognised
MIN_CLASSES = 3  # below a kind
MAX_VIEWS = 60  # of one meaning, the surest
PHOTOS_AT_ONCE = 512


def recognised_meanings(
    encoder: Encoder,
    photos: PhotoFeatures,
    keep: np.ndarray,
    kinds: Sequence[Kind],
    known: Collection[str],
) -> list[Meaning]:
    """Make a meaning of every class, and kind above several, that is recognised in enough views.

    Args:
        encoder: with a classifier; without one there are none.
        photos: n views.
        keep: bool [n], those that may be trained on.
        kinds: what a dictionary says of the classes; without, there are classes alone.
        known: names that labels give already.

    Returns:
        Meanings without masks, which `milanx.train.units.grounded.locate` finds.
    """
    head = class_head(encoder)
    if head is None:
        return []
    usable = np.flatnonzero(keep)
    shares = probabilities(head, photos, usable)
    found = []
    for place, name in enumerate(head.names):
        if name not in known:
            found += _meaning(name, shares[:, place], usable, countable=True)
    for kind, members in _above(kinds, head.names).items():
        found += _meaning(many_of(kind), shares[:, members].sum(1), usable, countable=False)
    return found


@torch.inference_mode()
def probabilities(head: ClassHead, photos: PhotoFeatures, views: np.ndarray) -> np.ndarray:
    """Return the probability of each class in whole views: float32 [len(views), classes]."""
    channels = head.weight.shape[1]
    found = np.empty((len(views), len(head.names)), np.float32)
    for start in range(0, len(views), PHOTOS_AT_ONCE):
        part = views[start : start + PHOTOS_AT_ONCE]
        pooled = np.stack([photos.dense[i][:, :channels].astype(np.float32).mean(0) for i in part])
        logits = torch.from_numpy(pooled).to(head.weight) @ head.weight.T + head.bias
        found[start : start + len(part)] = logits.softmax(-1).cpu().numpy()
    return found


def _meaning(text: str, share: np.ndarray, usable: np.ndarray, *, countable: bool) -> list[Meaning]:
    """Make a meaning where it is recognised in enough of the views ``usable``."""
    surest = np.argsort(-share, kind="stable")[:MAX_VIEWS]
    surest = surest[share[surest] >= SURE]
    if len(surest) < MIN_POSITIVES:
        return []
    return [Meaning((text,), "recognised", np.sort(usable[surest]), countable=countable)]


def _above(kinds: Sequence[Kind], names: Sequence[str]) -> dict[str, list[int]]:
    """Return the kinds above several classes, and the places of these; of equal ones the nearest.

    Args:
        kinds: of a dictionary; those that it is not sure of are left out.
        names: of the classes, as the dictionary's first or further names.
    """
    by_name = {n.lower(): k for k in kinds if k.sure for n in (*k.lemmas, k.name)}
    members: dict[str, list[int]] = defaultdict(list)
    depth: dict[str, int] = {}
    for place, name in enumerate(names):
        for steps, above in enumerate(by_name[name].hypernyms if name in by_name else ()):
            members[above].append(place)
            depth[above] = min(steps, depth.get(above, steps))
    nearest: dict[tuple[int, ...], str] = {}
    for kind in sorted(members, key=lambda k: (depth[k], k)):
        few = MIN_CLASSES <= len(members[kind]) <= MOST * len(names)
        if few and kind not in UNSAID and not kind[0].isdigit():
            nearest.setdefault(tuple(members[kind]), kind)
    return {kind: list(places) for places, kind in nearest.items()}
