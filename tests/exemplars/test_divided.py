"""Parts of exemplar sets as units: what they hold, and what they are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from milanx.exemplars.divided import DividedStore, Part
from milanx.exemplars.planted import LAYER, MAP, plant
from milanx.exemplars.store import ExemplarStore

COUNT, K = 20, 4


def store(tmp_path: Path) -> ExemplarStore:
    """Three units of four exemplars each."""
    rng = np.random.default_rng(0)
    answers = rng.random((COUNT, 3)).astype(np.float32)
    chosen = [np.argsort(-answers[:, unit])[:K] for unit in range(3)]
    maps = [rng.random((K, MAP, MAP)) for _ in chosen]
    used = sorted({int(i) for images in chosen for i in images})
    view = np.zeros((224, 224, 3), np.uint8)
    records = [{"index": i, "split": "exemplars", "source": "s"} for i in range(COUNT)]
    return plant(tmp_path / "s", chosen, maps, ((i, view) for i in used), records,
                 activations=answers)  # fmt: skip


def test_a_part_holds_its_exemplars_and_answers_to_all_but_the_others(tmp_path: Path) -> None:
    whole = store(tmp_path)
    kept = np.array([True, False, True, False])
    others = [int(i) for i in whole.images(LAYER)[1][~kept]]
    found = DividedStore(whole, LAYER, [Part(1, kept, others), Part(1, ~kept, [])])
    assert found.numbers == [3, 4]
    assert found.units(LAYER) == [(0, "+"), (1, "+"), (2, "+"), (3, "+"), (4, "+")]
    assert found.images(LAYER)[:3].tolist() == whole.images(LAYER).tolist()
    assert found.images(LAYER)[3].tolist() == [*np.where(kept, whole.images(LAYER)[1], -1)]
    assert np.isnan(found.activations(LAYER)[3]).tolist() == (~kept).tolist()
    assert (found.mask_weights(LAYER, [4], (7, 7)) == whole.mask_weights(LAYER, [1], (7, 7))).all()
    own = whole.maxima(LAYER)[:, 1].copy()
    assert (found.maxima(LAYER)[:, 4] == own).all()
    own[others] = own.min()
    column = found.column(LAYER, 3)
    assert (found.maxima(LAYER)[:, column] == own).all()
    assert (found.maxima(LAYER)[:, :3] == whole.maxima(LAYER)).all()
    assert found.status(LAYER) == ["alive"] * 5


def test_the_store_stays_as_it_was(tmp_path: Path) -> None:
    whole = store(tmp_path)
    before = [whole.images(LAYER).copy(), np.array(whole.maxima(LAYER)), whole.units(LAYER)]
    DividedStore(whole, LAYER, [Part(0, np.array([True, True, False, False]), [1, 2])])
    assert (before[0] == whole.images(LAYER)).all()
    assert (before[1] == whole.maxima(LAYER)).all()
    assert before[2] == whole.units(LAYER)
