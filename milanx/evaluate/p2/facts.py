"""P2's atoms of files that say more: parts of things, materials, scenes and light.

Such a file brings a column ``group`` of its own, and often one ``source``. What its photos show is
complete within one source alone, so units are planted source by source.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np

from milanx.exemplars.planted import MAP
from milanx.images.splits import held_out, photo_group

HELD_OUT = 0.2  # share of the groups of such a file that no training reads (docs/own-describer.md)
CENTRE = 0.35  # of the side: radius of what is at the centre, where a photo's name says a material


@lru_cache(maxsize=1)
def fact_phrases() -> dict[str, dict[str, list[str]]]:
    """Return kind -> atom -> accepted phrases, as they were written before any description."""
    text = resources.files("milanx.evaluate.p2").joinpath("p2_facts.json").read_text("utf-8")
    table: dict[str, dict[str, list[str]]] = json.loads(text)
    return table


@lru_cache(maxsize=1)
def part_phrases() -> dict[str, list[str]]:
    """Return part, alone or of a thing -> accepted phrases: to name the part is enough."""
    found: dict[str, list[str]] = {}
    parts = fact_phrases()["part"]
    for part, phrases in parts.items():
        found[part] = phrases
        for thing in fact_phrases()["thing"]:
            own = [f"{thing} {part}", f"{part} of a {thing}", f"{part} of {thing}"]
            found[f"{thing} {part}"] = [*own, *phrases]
    return found


def for_choosing(group: str) -> bool:
    """Whether a photograph is for choosing and calibrating; else it is for reports."""
    digest = hashlib.blake2b(f"photograph {group}".encode(), digest_size=1).digest()
    return digest[0] % 2 == 0


def is_for(row: Mapping[str, Any], *, reports: bool) -> bool:
    """Whether a photo of such a file is for reports, or for choosing what they report on.

    A fixed fifth of the groups that no training reads is halved between the two.
    """
    group = photo_group(row["image"]["path"] or "", str(row["group"]))
    return held_out(group, HELD_OUT) and for_choosing(group) != reports


def part_atoms(regions: Mapping[str, np.ndarray], owners: Mapping[str, str]) -> dict[str, str]:
    """Say which named regions are parts: region -> the part alone, "ear" of "dog ear".

    Args:
        regions: by name.
        owners: region -> the thing that it is a part of, where the file says so.
    """
    known = fact_phrases()["part"]
    found = {}
    for name in regions:
        thing = owners.get(name) or next((t for t in fact_phrases()["thing"]
                                          if name.startswith(f"{t} ")), "")  # fmt: skip
        part = name.removeprefix(f"{thing} ") if thing else name
        if part in known:
            found[name] = part
    return found


def with_parts(
    atoms: dict[str, np.ndarray], owners: Mapping[str, str]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Add the parts alone to a photo's regions; return these and the kinds of all parts."""
    parts, found = part_atoms(atoms, owners), dict(atoms)
    for name, part in parts.items():
        found[part] = np.maximum(found.get(part, 0), atoms[name])
    return found, dict.fromkeys([*parts, *parts.values()], "part")


def fact_of(name: str) -> tuple[str, str, np.ndarray] | None:
    """Return atom, kind and map float32 [14, 14] of a photo so called; None where it is no fact."""
    for kind in ("material", "scene", "light"):
        for atom, phrases in fact_phrases()[kind].items():
            if name.lower() in (atom, *phrases):
                whole = np.ones((MAP, MAP), np.float32)
                return atom, kind, _centre() if kind == "material" else whole
    return None


def _centre() -> np.ndarray:
    along = (np.arange(MAP) + 0.5) / MAP - 0.5
    away: np.ndarray = np.hypot(along[:, None], along[None])
    return (away < CENTRE).astype(np.float32)
