"""Senses are kept where images kept aside bear all of them out, and no single text does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from milanx.describing.senses import Proposal, mean_the_same
from milanx.exemplars.planted import LAYER, MAP, plant
from milanx.exemplars.store import ExemplarStore
from milanx.scoring.column import Opened, Sides
from milanx.scoring.senses import joined_by_or, keep_senses

COUNT, EXEMPLARS = 400, 6
CONCEPTS = ("dogs", "boats", "lamps", "animals")
KEY = (LAYER, 0, "+")


class Told:
    """Says how much images show texts by what they show: features are columns of `CONCEPTS`."""

    name, fingerprint, shared, tower = "told", "0", (), None

    def similarity(self, texts: list[str], features: np.ndarray) -> np.ndarray:
        """Cosines as a simulator's: dim, and with an offset of each text's own."""
        return np.stack([0.1 * len(t) + 0.05 * features[:, CONCEPTS.index(t)] for t in texts])


def shown(seed: int = 0) -> np.ndarray:
    """What each image shows, with what a simulator gets wrong: [COUNT, concepts]."""
    rng = np.random.default_rng(seed)
    what = rng.integers(0, 10, COUNT)  # 0 dogs, 1 boats, 2 lamps, 3 and 4 other animals
    is_ = np.stack([what == 0, what == 1, what == 2, np.isin(what, (0, 3, 4))], 1)
    return is_ + rng.normal(0, 0.5, (COUNT, 4))


def opened(
    answers: np.ndarray, tmp_path: Path, features: np.ndarray
) -> tuple[ExemplarStore, Opened]:
    """A store of one unit with half of the images kept aside, and what compares texts with them."""
    records: list[dict[str, Any]] = [
        {"index": i, "split": "aside" if i >= COUNT // 2 else "exemplars", "source": "s",
         "group": f"g{i}"} for i in range(COUNT)
    ]  # fmt: skip
    images = np.argsort(-answers[: COUNT // 2], kind="stable")[:EXEMPLARS]
    view = np.zeros((224, 224, 3), np.uint8)
    store = plant(tmp_path / "store", [images], [np.ones((EXEMPLARS, MAP, MAP))],
                  ((int(i), view) for i in np.sort(images)), records,
                  activations=answers[:, None].astype(np.float32))  # fmt: skip
    judge: Any = Told()
    return store, Opened(Sides.of(store, 0), judge, lambda indices: features[indices], 0)


def proposals(*texts: str) -> tuple[Proposal, ...]:
    return tuple(Proposal(text, (i,), 1 / len(texts)) for i, text in enumerate(texts))


def answering(features: np.ndarray, *concepts: str) -> np.ndarray:
    """What a unit does that answers to any of some concepts."""
    columns = [CONCEPTS.index(c) for c in concepts]
    noise = np.random.default_rng(9).normal(0, 0.2, len(features))
    return np.maximum.reduce([features[:, c] > 0.6 for c in columns]) + noise


def test_two_things_that_a_unit_answers_to_are_kept(tmp_path: Path) -> None:
    features = shown()
    store, seen = opened(answering(features, "dogs", "boats"), tmp_path, features)
    kept = keep_senses({KEY: proposals("dogs", "boats")}, {KEY: ["animals", "dogs"]}, store, seen)
    assert [s.text for s in kept[KEY]] == ["dogs", "boats"]
    for sense in kept[KEY]:
        low, high = sense.score_interval
        assert 0 < low < sense.score < high
        assert sense.share == 0.5
        middle, upper, highest = sense.bands
        assert upper is not None
        assert middle is not None
        assert upper > 2 * 0.1 > middle + 0.05  # by chance a tenth meet a text
        assert highest is None or highest >= middle


def test_a_sense_that_adds_nothing_is_dropped(tmp_path: Path) -> None:
    features = shown()
    store, seen = opened(answering(features, "dogs", "boats"), tmp_path, features)
    three = {KEY: proposals("dogs", "lamps", "boats")}
    kept = keep_senses(three, {KEY: ["dogs"]}, store, seen)
    assert [s.text for s in kept[KEY]] == ["dogs", "boats"]
    store, seen = opened(answering(features, "dogs"), tmp_path / "one", features)
    assert keep_senses(three, {KEY: ["dogs"]}, store, seen) == {}


def test_one_text_that_says_it_all_leaves_one_sense(tmp_path: Path) -> None:
    features = shown()
    store, seen = opened(answering(features, "animals"), tmp_path, features)
    two = {KEY: proposals("dogs", "animals")}
    assert keep_senses(two, {KEY: ["dogs", "animals"]}, store, seen) == {}
    store, seen = opened(answering(features, "dogs", "boats"), tmp_path / "two", features)
    assert keep_senses({KEY: proposals("dogs", "boats")}, {KEY: ["dogs"]}, store, seen)


@pytest.mark.parametrize("seed", range(8))
def test_a_single_meaning_is_seldom_split_by_what_fits_it_by_chance(
    seed: int, tmp_path: Path
) -> None:
    features = shown(seed)
    store, seen = opened(answering(features, "dogs"), tmp_path, features)
    two = {KEY: proposals("dogs", "lamps" if seed % 2 else "boats")}
    assert keep_senses(two, {KEY: ["dogs"]}, store, seen) == {}


def test_a_unit_of_one_value_has_one_sense(tmp_path: Path) -> None:
    features = shown()
    answers = answering(features, "dogs")
    answers[COUNT // 2 :] = 0
    store, seen = opened(answers, tmp_path, features)
    assert keep_senses({KEY: proposals("dogs", "boats")}, {KEY: ["dogs"]}, store, seen) == {}
    assert keep_senses({}, {}, store, seen) == {}


def test_texts_that_mean_the_same_are_told() -> None:
    apart, near = np.eye(2), np.array([[1, 0], [0.9, 0.19**0.5]])
    assert not mean_the_same(["dogs", "boats"], apart, 0.7)
    assert mean_the_same(["dogs", "puppies"], near, 0.7)
    assert mean_the_same(["black dogs", "dog"], apart, 0.7)
    assert joined_by_or("dogs or boats")
    assert not joined_by_or("dogs and boats")
