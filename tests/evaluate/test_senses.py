"""Planted units of one meaning and of two, and what is counted of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from milanx.errors import InputError
from milanx.evaluate.p2.photos import PlantedPhoto
from milanx.evaluate.p2.planted import K, SourcePool
from milanx.evaluate.p2.texts import phrase_table
from milanx.evaluate.senses.lists import CHOSEN, REPORTED
from milanx.evaluate.senses.planted import distant_pairs, double_units, single_units
from milanx.evaluate.senses.protocol import (
    DOUBLE,
    NOTHING,
    SINGLE,
    Asked,
    Planted,
    _shows,
    counted,
)
from milanx.exemplars.planted import MAP
from milanx.scoring.senses import Sense

THINGS = ("dog", "boat", "lamp", "tree", "bicycle", "sky")


def photos() -> list[PlantedPhoto]:
    """Each of 120 shows one of five things; every second one the sky, every third red."""
    found = []
    for i in range(120):
        half = np.zeros((MAP, MAP), np.float32)
        half[: MAP // 2] = 1
        atoms = {THINGS[i % 5]: half}
        atoms |= {"sky": 1 - half} if i % 2 else {}
        atoms |= {"red": half} if i % 3 == 0 else {}
        found.append(PlantedPhoto(np.zeros((8, 8, 3), np.uint8), atoms, "s", group=f"g{i}"))
    return found


def test_what_was_chosen_on_is_not_reported() -> None:
    assert not set(CHOSEN.seeds) & set(REPORTED.seeds)
    assert CHOSEN.side.meant("red") != REPORTED.side.meant("red")
    both = set(CHOSEN.files) & set(REPORTED.files)
    assert both == {"parts", "attributes"}  # divided by group
    with pytest.raises(InputError, match="calibrated"):
        Asked((Path("regions.parquet"),), Path("out"), chosen=True)
    with pytest.raises(InputError, match="reported"):
        Asked((Path("tiny_imagenet_val.parquet"),), Path("out"))


def test_distant_meanings_are_things_that_share_few_photos() -> None:
    pairs = distant_pairs(SourcePool(photos(), "s", 0))
    assert pairs
    named = {frozenset(m.atoms[0] for m in pair) for pair in pairs}
    assert not any({"red", "sky"} & pair for pair in named)


def test_units_of_two_meanings_show_both_and_answer_to_both() -> None:
    every, rng = photos(), np.random.default_rng(0)
    for unit in double_units(every, 10, rng):
        assert unit.meaning.connective == "or"
        shows = _shows(unit, every)
        counts = shows.sum(0)
        assert counts.min() >= 2
        assert len(set(unit.images[unit.images >= 0].tolist())) == len(shows) <= K
        answering = [unit.activations[i] for i, p in enumerate(every)
                     if set(unit.meaning.atoms) & p.atoms.keys()]  # fmt: skip
        assert min(answering) >= 0.9 - 1e-6


def test_units_of_one_meaning_show_it() -> None:
    every, rng = photos(), np.random.default_rng(0)
    units = single_units(every, 10, rng)
    assert {u.meaning.connective for u in units} == {"single"}
    assert min(_shows(u, every).mean() for u in units) >= 0.6
    with pytest.raises(InputError, match="too few photos"):
        single_units(every[:4], 1, rng)


def test_counts_of_what_was_split_found_and_named() -> None:
    every, rng = photos(), np.random.default_rng(1)
    one, two = single_units(every, 1, rng)[0], double_units(every, 1, rng)[0]
    shows = np.array([[True, False]] * 3 + [[False, True]] * 3)
    first, second = (Sense(f"{atom}s", 0.5, 0.1, (0, 1), places) for atom, places in
                     zip(two.meaning.atoms, ((0, 1, 2), (3, 4, 5)), strict=True))  # fmt: skip
    found = [
        Planted(SINGLE, one, np.ones((6, 1), bool), True, ()),
        Planted(SINGLE, one, np.ones((6, 1), bool), True, (first, second)),
        Planted(NOTHING, one, np.zeros((6, 1), bool), False, ()),
        Planted(DOUBLE, two, shows, True, (first, second)),
        Planted(DOUBLE, two, shows, True, (first, replace(second, text="red"))),
        Planted(DOUBLE, two, np.concatenate([shows, ~shows & False]), False, ()),
    ]
    rows = counted(found, phrase_table(set(THINGS)))
    assert rows[f"{SINGLE}: split"]["count"] == 1
    assert rows[f"{SINGLE}: split"]["n"] == 2
    assert rows[f"{NOTHING}: split"]["count"] == 0
    assert rows[f"{DOUBLE}: two senses or more"]["count"] == 2
    assert rows[f"{DOUBLE}: each named by a sense"]["count"] == 1
    assert rows["  purity below 0.85"] == {
        "n": 1,
        "count": 0,
        "estimate": 0.0,
        "interval": rows["  purity below 0.85"]["interval"],
    }
    assert rows[f"{DOUBLE}, where found: exemplars in the right sense"]["estimate"] == 1
