"""Texts of pixels and places: what masks cover is told cell by cell, and ranked so."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import milanx
from milanx.describing.ranker import Hypothesis, Ranker
from milanx.describing.settings import RankSettings
from milanx.describing.where import (
    FEW,
    FEW_UNITS,
    Located,
    cell_correlations,
    cell_maps,
    located,
    located_texts,
    usual_cells,
)
from milanx.features.pixels import PLACES, SHOWN, TONES, place_cells, place_texts, shown_texts

SIDE = 4
TEXTS = located_texts()


def maps_of(*columns: int, cells: np.ndarray | None = None) -> np.ndarray:
    """A view [g, g, shown] of which these maps show something in some cells, else everywhere."""
    shown = np.zeros((SIDE * SIDE, SHOWN), np.float32)
    shown[:, list(columns)] = 1 if cells is None else cells[:, None]
    return shown.reshape(SIDE, SIDE, SHOWN)


def gatherer(maps: list[np.ndarray], masks: np.ndarray, photos: list[int]) -> Any:
    """What a layer of one unit gives, whose exemplars are views 0, 1, ... under these masks."""
    store = SimpleNamespace(
        photos=np.array(photos), images=lambda layer: np.arange(len(maps))[None]
    )
    return SimpleNamespace(
        maps=dict(enumerate(maps)), store=store, layer="layer", weights=lambda rows: masks[None]
    )


def test_each_text_is_told_by_one_map() -> None:
    maps = cell_maps(np.zeros((1, SIDE * SIDE, SHOWN), np.float32))
    assert len(set(TEXTS.values())) == len(TEXTS) < maps.shape[-1]
    assert max(TEXTS.values()) < maps.shape[-1]
    assert {"bright areas", "red areas", "top of the image", "bright areas at the top",
            "vertical lines on the left"} <= TEXTS.keys()  # fmt: skip
    assert not any("center" in text or "busy" in text for text in TEXTS)


def test_places_divide_a_view() -> None:
    cells = place_cells(8)
    assert set(cells) == set(PLACES)
    grid = {name: inside.reshape(8, 8) for name, inside in cells.items()}
    assert grid["at the top"][:2].all() and not grid["at the top"][2:].any()
    assert (grid["on the left"] == grid["at the top"].T).all()
    assert (grid["at the bottom"] == grid["at the top"][::-1]).all()
    border = grid["at the edges"]
    assert border[0].all() and border[:, -1].all() and not border[1:-1, 1:-1].any()
    assert grid["in the center"][3, 3] and not (grid["in the center"] & border).any()
    assert grid["in the corners"].sum() == 16 and grid["in the corners"][0, 0]


def test_maps_are_tones_places_and_both() -> None:
    bright = next(i for i, ways in enumerate(shown_texts()) if "bright areas" in ways)
    left = place_cells(SIDE)["on the left"]
    maps = cell_maps(maps_of(bright).reshape(1, SIDE * SIDE, SHOWN))[0]
    assert (maps[:, TEXTS["bright areas"]] == 1).all()
    assert (maps[:, TEXTS["bright areas on the left"]] == left).all()
    assert (maps[:, TEXTS["left side of the image"]] == left).all()
    assert not maps[:, TEXTS["dark areas on the left"]].any()
    assert bright < TONES


def test_correlations_are_those_over_cells() -> None:
    rng = np.random.default_rng(0)
    weights, maps = rng.random((5, 16)), (rng.random((5, 16, 7)) > 0.5).astype(float)
    maps[:, :, 0] = 1  # the same all over: it tells nothing
    weights[1] = 0.3
    found = cell_correlations(weights, maps)
    expected = np.zeros(7)
    for k in (0, 2, 3, 4):
        for t in range(1, 7):
            if maps[k, :, t].std() > 0:
                expected[t] += np.corrcoef(weights[k], maps[k, :, t])[0, 1] / 5
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_few_photographs_say_little() -> None:
    top = place_cells(SIDE)["at the top"]
    masks = np.stack([top.reshape(SIDE, SIDE).astype(np.float32)] * 6)
    views = [maps_of() for _ in range(6)]
    many = located(gatherer(views, masks, [0, 1, 2, 3, 4, 5]), [0])[0]
    few = located(gatherer(views, masks, [0, 0, 0, 1, 1, 1]), [0])[0]
    place = TEXTS["top of the image"]
    assert many[place] == pytest.approx(6 / (6 + FEW))
    assert few[place] == pytest.approx(2 / (2 + FEW))
    assert many.argmax() == place


def test_a_single_unit_is_not_its_own_measure() -> None:
    top = place_cells(SIDE)["at the top"]
    masks = np.stack([top.reshape(SIDE, SIDE).astype(np.float32)] * 6)
    one = gatherer([maps_of() for _ in range(6)], masks, [0, 1, 2, 3, 4, 5])
    place = TEXTS["top of the image"]
    told = located(one, [0])[0, place]
    assert usual_cells(one, [0])[place] == pytest.approx(float(told) / (1 + FEW_UNITS))


def test_a_unit_that_looks_at_white_wherever_it_lies_is_told_so() -> None:
    rng = np.random.default_rng(1)
    white = next(i for i, ways in enumerate(shown_texts()) if "white areas" in ways)
    views, masks = [], []
    for _ in range(8):
        cells = rng.random(SIDE * SIDE) > 0.6
        views.append(maps_of(white, cells=cells.astype(np.float32)))
        masks.append(cells.reshape(SIDE, SIDE).astype(np.float32))
    found = Located(located(gatherer(views, np.stack(masks), list(range(8))), [0]))
    assert found.best(1) == [["white areas"]]
    told, values = found.of(["dogs", "white areas", "top of the image"])
    assert told == [1, 2]
    assert values[0, 0] > values[0, 1]
    assert found.best(0) == [[]]


class Says:
    """Evidence of one unit: what responses are, and what of them cells tell."""

    def __init__(self, responses: dict[str, float], cells: dict[str, float]) -> None:
        self.responses, self.told = responses, cells

    def agreement(self, texts: Any) -> list[float]:
        return [0.0] * len(texts)

    def response(self, texts: Any) -> list[float]:
        return [self.responses[t] for t in texts]

    def cells(self, texts: Any) -> list[float]:
        return [self.told.get(t, 0.0) for t in texts]

    def absent(self, texts: Any) -> list[float]:
        return [0.0] * len(texts)


def ranked(likeliest: float, **settings: Any) -> list[Any]:
    texts = {"sky": 0.2, "top of the image": 0.4}
    found = [Hypothesis("sky", likeliest, 0.0, 2), Hypothesis("top of the image", -6.0, 0.0, 4)]
    how = RankSettings(**{"lam": 0.0, "response": 100.0, "dim": 0.01, "cells": 1.0} | settings)
    return list(Ranker().rank(found, how, Says(texts, {"top of the image": 0.4})))


def test_what_cells_tell_counts_less_where_the_describer_is_sure_what_is_there() -> None:
    assert ranked(-3.0)[0].text == "top of the image"
    assert ranked(-0.5, least=0.8, least_cells=0.0)[0].text == "sky"
    place = next(c for c in ranked(-0.5, least=0.8, least_cells=0.0) if "top" in c.text)
    terms = {t.name: t for t in place.terms}
    assert terms["response"].added + terms["cells"].added == pytest.approx(
        100 * 0.04 * 0.4**3 / (0.4**2 + 0.01**2))  # fmt: skip
    sky = {t.name: t.added for t in ranked(-0.5)[0].terms}
    assert sky["cells"] == 0


def test_a_place_alone_costs() -> None:
    assert ranked(-3.0, place=5.0)[0].text == "top of the image"
    assert ranked(-3.0, place=30.0)[0].text == "sky"
    cost = next(t for t in ranked(-3.0, place=5.0)[0].terms if t.name == "place")
    assert (cost.value, cost.added) == (1.0, -5.0)
    assert place_texts() >= {"top of the image", "middle of the image"}


def test_the_bundled_describer_names_the_side_that_units_look_at(
    describer: milanx.Describer, tmp_path: Path
) -> None:
    """Units of noise pictures that look at one side whatever it shows, beside those that do not."""
    from milanx.exemplars.planted import plant

    rng = np.random.default_rng(0)
    count, size = 60, 224
    pictures = [np.kron(rng.integers(0, 255, (7, 7, 3), dtype=np.uint8),
                        np.ones((32, 32, 1), np.uint8)) for _ in range(count)]  # fmt: skip
    maps, images = [], []
    for unit in range(8):
        own = rng.permutation(count)[:15]
        grid = np.zeros((15, 14, 14), np.float32)
        for k in range(15):
            if unit == 0:
                grid[k, :, 11:] = 1
            else:
                row, column = rng.integers(0, 10, 2)
                grid[k, row : row + 4, column : column + 4] = 1
        maps.append(grid)
        images.append(own)
    assert pictures[0].shape == (size, size, 3)
    table = [{"index": i, "split": "exemplars", "source": "noise", "group": f"g{i}"}
             for i in range(count)]  # fmt: skip
    activations = rng.random((count, 8)).astype(np.float32)
    store = plant(tmp_path / "run", images, maps, enumerate(pictures), table,
                  activations=activations)  # fmt: skip
    found = describer.describe(store)
    texts = [c.text for c in found[0].candidates]
    assert "right side of the image" in texts
    value = {c.text: c.response for c in found[0].candidates}["right side of the image"]
    assert value is not None and value > 0.5
    assert torch.isfinite(torch.tensor(value))
