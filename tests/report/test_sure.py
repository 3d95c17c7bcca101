"""In which order units are shown, and who is like whom."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import milanx
from milanx.errors import InputError
from milanx.language.compare import Sentences
from milanx.language.meanings import parts, vocabulary
from milanx.report.meaning import DIMENSIONS, page_vectors
from milanx.report.neighbours import neighbours
from milanx.report.page import FEWEST, MOST_VIEWS, SHOWN, shown_views
from milanx.report.sure import check_sort, ordered, sureness


def row(text: str, *figures: float | None, low: float | None = None) -> dict[str, Any]:
    agreement, response, score = (*figures, None, None, None)[:3]
    return {"description": text, "agreement": agreement, "response": response, "rank": score,
            "score": None if low is None else low + 0.1,
            "score_interval": None if low is None else [low, low + 0.2]}  # fmt: skip


def test_units_are_placed_by_their_mean_place_in_all_checks() -> None:
    rows = [row("a", 5.0, 0.3, low=0.4), row("b", 1.0, 0.1, low=-0.2), row(""),
            row("c", 3.0, 0.2, low=0.1), row("d", 4.0, 0.05, low=0.5)]  # fmt: skip
    # places of a, b, c, d: agreement 1, 0, 1/3, 2/3; response 1, 1/3, 2/3, 0; low 2/3, 0, 1/3, 1
    assert sureness(rows) == pytest.approx([1, 0, None, 1 / 3, 2 / 3])
    assert ordered(rows, "sure") == [0, 4, 3, 1, 2]
    assert ordered(rows, "score") == [4, 0, 3, 1, 2]
    assert ordered(rows, "number") == [0, 1, 3, 4, 2]


def test_what_was_not_measured_takes_no_part() -> None:
    assert sureness([row("a", 2.0, 0.1), row("b", 1.0, 0.1), row("c", 3.0, None)]) == pytest.approx(
        [0.5, 0.0, 1.0]
    )
    by_rank = [row("a", None, None, 0.1), row("b", None, None, 0.3)]
    assert sureness(by_rank) == [0.0, 1.0]
    assert sureness([row("a"), row("")]) == [None, None]
    assert sureness([row("a", 1.0, 0.2)]) == [0.5]
    assert sureness([]) == []


def test_a_confidence_says_how_sure_a_unit_is() -> None:
    rows = [row("a", 5.0, 0.3), row("b", 1.0, 0.1), row(""), row("c", 3.0, 0.2)]
    for made, confidence in zip(rows, (0.2, 0.9, None, None), strict=True):
        made["confidence"] = confidence
    assert sureness(rows) == [0.2, 0.9, None, None]
    assert ordered(rows, "sure") == [1, 0, 3, 2]


def test_a_text_comes_again_when_every_text_was_there() -> None:
    texts = ("top", "top", "dogs", "top", "cats", "", "dogs")
    rows = [row(text, 1.0, 0.1) for text in texts]
    for made, confidence in zip(rows, (0.9, 0.8, 0.7, 0.6, 0.3, None, 0.2), strict=True):
        made |= {"confidence": confidence,
                 "status": "unclear" if (confidence or 0) < 0.5 else "described"}  # fmt: skip
    assert ordered(rows, "sure") == [0, 2, 1, 3, 4, 6, 5]
    assert ordered(rows, "number") == [0, 1, 2, 3, 4, 6, 5]


def test_an_order_that_there_is_not_is_refused() -> None:
    rows = [row("a", 1.0, 0.2)]
    assert check_sort("sure", rows) == "sure"
    with pytest.raises(InputError, match="cannot be sorted by 'surest'"):
        check_sort("surest", rows)
    with pytest.raises(InputError, match="cannot be sorted by score"):
        check_sort("score", rows)


def test_neighbours_are_those_that_the_same_images_excite(planted: milanx.Run) -> None:
    found = neighbours(planted)
    layer = planted.store.layers[0]
    maxima = np.array(planted.store.maxima(layer), np.float64)
    expected = np.asarray(np.corrcoef(maxima.T))
    assert sum(map(len, found)) > 10
    for place, near in enumerate(found):
        own = planted.rows[place]
        told = [n.correlation or 0.0 for n in near]
        assert told == sorted(told, reverse=True)
        for n in near:
            other = planted.rows[n.place]
            assert n.place != place
            columns = (planted.store.column(layer, own["unit"]),
                       planted.store.column(layer, other["unit"]))  # fmt: skip
            assert n.correlation == pytest.approx(expected[columns], abs=1e-4)
            assert n.shared == len(set(own["images"]) & set(other["images"]))


def test_words_have_the_vectors_of_sentences() -> None:
    known, embed = vocabulary(), Sentences()
    assert len(known.words) == len(known.vectors) > 5000
    assert known.vectors.shape[1] == DIMENSIONS
    sample = [*known.words[::400], "sea", "water", "dog"]
    places = [known.words.index(word) for word in sample]
    again = known.project(embed(sample)).astype(int)
    assert np.abs(again - known.vectors[places]).max() <= 1
    small = again @ again.T * known.step**2
    assert (
        np.abs(small - embed(sample) @ embed(sample).T)[~np.eye(len(sample), dtype=bool)].max()
        < 0.1
    )


def test_joined_texts_are_searched_by_their_parts() -> None:
    assert parts("cats or wet dogs") == ["cats", "wet dogs"]
    assert parts("grass without dogs") == ["grass"]
    assert parts("") == []
    made = page_vectors(["cats or dogs", "dogs", ""])
    assert made["texts"] == ["cats", "dogs"]


def test_a_page_of_many_pictures_shows_fewer_of_each_unit() -> None:
    few = [list(range(unit, unit + SHOWN)) for unit in range(100)]
    assert shown_views(few) == (SHOWN, list(range(100 + SHOWN - 1)))
    many = [list(range(unit * SHOWN, (unit + 1) * SHOWN)) for unit in range(1000)]
    count, shown = shown_views(many)
    assert count * 1000 == len(shown) == MOST_VIEWS
    most = [list(range(unit * SHOWN, (unit + 1) * SHOWN)) for unit in range(4000)]
    assert shown_views(most)[0] == FEWEST
