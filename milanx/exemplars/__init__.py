"""Exemplars: one pass over the images, streaming statistics, top k, masks, the store.

In comes a `Request`; out goes an `ExemplarStore` on disk. ``request`` is what is asked for,
``differences`` says how it differs from what a folder holds, ``inputs`` opens the target, layers
and images that it names, ``feeding`` gives the target its inputs, ``estimate`` says what a pass
needs, ``extract`` is the pass, ``job`` what of it resumes and merges, ``statistics`` the counts,
``topk`` the best of them, ``histogram`` the bins of values, ``numbers`` maxima and means being
written, ``masks`` where a unit peaks, ``store`` the files, ``reading`` what is looked at when they
are read, ``planted`` units whose meaning is known, ``divided`` parts of exemplar sets as units.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from milanx import import_public

if TYPE_CHECKING:
    from milanx.exemplars.request import ExtractSettings, Request
    from milanx.exemplars.store import ExemplarSet, ExemplarStore

_PLACES = {
    "ExemplarSet": "store",
    "ExemplarStore": "store",
    "ExtractSettings": "request",
    "Request": "request",
}

__all__ = [
    "ExemplarSet",
    "ExemplarStore",
    "ExtractSettings",
    "Request",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    return import_public(__name__, _PLACES, name)


def __dir__() -> list[str]:
    return sorted(__all__)
