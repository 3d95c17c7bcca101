"""What is held out from training, by a rule that anybody can repeat.

Photos are held out by group: all views of one photograph fall on one side. Meanings are held out
by name. The lists are fixed before any training and never change with a seed.
"""

from __future__ import annotations

import hashlib
import re

# Chosen over the whole alphabet, before any training, among the classes that no other training
# file names (the cougar is held out in both).
HELD_OUT_CALTECH = (
    "anchor", "bonsai", "cougar_body", "cougar_face", "dollar_bill", "euphonium", "ferry",
    "gramophone", "hedgehog", "inline_skate", "llama", "metronome", "okapi", "platypus", "wrench",
)  # fmt: skip
HELD_OUT_TINY = (
    "n01443537", "n01742172", "n01855672", "n01945685", "n02094433", "n02125311", "n02236044",
    "n02279972", "n02415577", "n02074367", "n02669723", "n02793495", "n02843684", "n02927161",
    "n03255030", "n03404251", "n03617480", "n03814639", "n04067472", "n04596742",
)  # fmt: skip


def held_out(group: str, share: float) -> bool:
    """Whether a group of photos is held out, for a share between 0 and 1."""
    digest = hashlib.sha256(group.encode()).hexdigest()
    return int(digest[:8], 16) / 2**32 < share


_COCO = re.compile(r"(?:^|_)(\d{12})\.")
_CAMVID = re.compile(r"^camvid_([^_]+)_")


def photo_group(path: str, fingerprint: str) -> str:
    """Return the group of a training photo: one photograph in several files, one video's frames.

    Args:
        path: the file's name in its source.
        fingerprint: of the file's bytes, for sources whose names say nothing.
    """
    name = path.rsplit("/", 1)[-1]
    if match := _COCO.search(name):
        return f"coco:{match[1]}"
    if match := _CAMVID.match(name):
        return f"camvid:{match[1]}"
    return fingerprint
