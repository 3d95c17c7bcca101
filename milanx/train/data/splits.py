"""Meanings that are held out from training, by name; photos are held out by `milanx.images.splits`.

The lists are fixed before any training and never change with a seed.
"""

from __future__ import annotations

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
