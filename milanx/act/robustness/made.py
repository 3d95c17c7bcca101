"""Corruptions made on the fly: from the views of clean images, the same whoever asks first."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from milanx.act.corruptions import CORRUPTIONS, SEVERITIES
from milanx.act.corruptions.makers import Makers
from milanx.act.data import EvalSet
from milanx.errors import InputError

HELD = 2**30  # bytes of views that stay in memory, so that they are decoded once: 7,000 of 224

Read = Callable[[int], np.ndarray]


def sampled(images: EvalSet, count: int | None, seed: int) -> EvalSet:
    """Return a seeded sample of images, in their own order; all when ``count`` is None.

    Raises:
        InputError: fewer than one.
    """
    if count is not None and count < 1:
        raise InputError(f"a sample of {count} images", "at least one is needed", "--sample 1000")
    if count is None or count >= len(images):
        return images
    chosen = np.random.default_rng(seed).choice(len(images), count, replace=False)
    return images.subset(np.sort(chosen).tolist())


def held(images: EvalSet) -> EvalSet:
    """Return the same images, whose first views stay in memory once they are made."""
    views: dict[int, np.ndarray] = {}
    lock, taken = threading.Lock(), 0

    def read(i: int) -> np.ndarray:
        nonlocal taken
        if i in views:
            return views[i]
        view = images.read(i)
        with lock:
            if i not in views and taken + view.nbytes <= HELD:
                views[i], taken = view, taken + view.nbytes
        return view

    return dataclasses.replace(images, read=read)


def view_keys(images: EvalSet, workers: int) -> tuple[str, ...]:
    """Return what each image is known by: 32 hex digits of its view's size and bytes."""

    def key(i: int) -> str:
        view = images.read(i)
        digest = hashlib.sha256(str(view.shape).encode())
        digest.update(np.ascontiguousarray(view).tobytes())
        return digest.hexdigest()[:32]

    with ThreadPoolExecutor(max(1, workers)) as pool:
        return tuple(pool.map(key, range(len(images))))


def corrupted(
    images: EvalSet,
    name: str,
    severity: int,
    keys: Sequence[str],
    seed: int = 0,
    makers: Makers | None = None,
) -> EvalSet:
    """Return images with one corruption, each made when its view is read.

    Args:
        images: clean ones.
        name: of the corruption.
        severity: 1 to 5.
        keys: of `view_keys`: with the seed, name and severity they decide every random draw, so
            neither order nor workers change a byte.
        seed: of the whole study.
        makers: that make them; here and with milanx's own ice when None.
    """
    makers = makers or Makers()

    def read(i: int) -> np.ndarray:
        return makers.make(images.read(i), name, severity, seed, keys[i])

    tags = (f"{name} {severity}",) * len(images)
    return dataclasses.replace(
        images, name=f"{images.name}, {name} {severity}", read=read, tags=tags, clean=images
    )


def mixed(images: EvalSet, seed: int = 0, workers: int = 2) -> EvalSet:
    """Return images with one corruption each, of all types and severities in equal shares.

    For choosing on corrupted images without seventy-five copies of each. Which one an image gets
    is drawn with the seed; its parts are the types.

    Args:
        images: clean ones.
        seed: of the draw and of the corruptions.
        workers: threads that look at the views.
    """
    views, makers = held(images), Makers()
    kinds = [(name, severity) for name in CORRUPTIONS for severity in SEVERITIES]
    order = np.random.default_rng(seed).permutation(len(views))
    chosen = [kinds[int(place) % len(kinds)] for place in order]
    keys = view_keys(views, workers)

    def read(i: int) -> np.ndarray:
        return makers.make(views.read(i), *chosen[i], seed, keys[i])

    return dataclasses.replace(
        images,
        name=f"{images.name}, corrupted",
        read=read,
        tags=tuple(f"{name} {severity}" for name, severity in chosen),
        parts=tuple(name for name, _ in chosen),
        clean=views,
    )
