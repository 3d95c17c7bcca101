"""Probe images: from folders, parquet files and the built-in ones to views, groups and the split.

In come sources (names, paths, pictures of a program's); out go `ImageRecord`s, views uint8
[H, W, 3], and which images are kept aside. ``sources`` opens what a user names: a ``folder``, a
parquet ``table``, ``shards`` of webdataset, data sets of the Hub's (``hf``, whose ``streams`` are
kept by their commit) or torchvision's (``vision``), ``pictures`` that are handed over, or the
``builtin`` ones, made of ``photos`` (each with its credit) and ``composed`` views; ``generated``
ones a target makes itself; ``item`` says what all of them give. ``decoding`` makes RGB of bytes,
``resizing`` and ``preprocess`` make views. ``scan`` looks at every image once, ``near`` brings
near-duplicates together, ``probe`` opens all as one sequence, ``splits`` holds groups out,
``regions`` says what is where.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from milanx import import_public

if TYPE_CHECKING:
    from milanx.images.decoding import decode
    from milanx.images.preprocess import Preprocess
    from milanx.images.probe import ImageRecord, ProbeImages, open_images

_PLACES = {
    "ImageRecord": "probe",
    "Preprocess": "preprocess",
    "ProbeImages": "probe",
    "decode": "decoding",
    "open_images": "probe",
}

__all__ = [
    "ImageRecord",
    "Preprocess",
    "ProbeImages",
    "decode",
    "open_images",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    return import_public(__name__, _PLACES, name)


def __dir__() -> list[str]:
    return sorted(__all__)
