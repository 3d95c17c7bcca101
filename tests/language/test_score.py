"""log p of given texts behind prefixes, and behind nothing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from milanx.language.gpt2 import build_gpt2
from milanx.language.incremental import Cache, Incremental
from milanx.language.score import score_texts
from tests.oracles import log_p


def test_texts_score_as_they_do_each_behind_its_own_prefix() -> None:
    torch.manual_seed(0)
    model = build_gpt2(70, width=16, layers=2, heads=2, positions=24)
    texts = [[[5, 6, 7], [5], [], [9, 9, 9, 9, 1]], [], [[3, 4]], [[2], [6, 1]]]
    prefixes = torch.randn(4, 3, 16)
    found = score_texts(model, prefixes, texts)
    assert [len(row) for row in found] == [4, 0, 1, 2]
    for unit, row in enumerate(texts):
        for text, score in zip(row, found[unit], strict=True):
            assert score == pytest.approx(log_p(model, text, prefixes[unit]), abs=1e-4)
    assert score_texts(model, prefixes[:1], [[]]) == [[]]


TEXTS = st.lists(st.lists(st.integers(1, 3), max_size=5), max_size=8)


@settings(max_examples=25, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=3), st.integers(0, 2))
def test_texts_that_begin_alike_score_as_each_does_alone(
    texts: list[list[list[int]]], prefix: int
) -> None:
    """Trees of any shape, the same text twice and one that begins another among them."""
    torch.manual_seed(1)
    model = build_gpt2(5, width=8, layers=1, heads=2, positions=12)
    prefixes = torch.randn(len(texts), prefix, 8)
    found = score_texts(model, prefixes, texts)
    for unit, row in enumerate(texts):
        expected = [log_p(model, text, prefixes[unit] if prefix else None) for text in row]
        assert found[unit] == pytest.approx(expected, abs=1e-4)


def test_what_texts_begin_with_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_gpt2(9, width=8, layers=1, heads=2, positions=12)
    read: list[tuple[int, ...]] = []
    step = Incremental.step

    def counted(self: Incremental, cache: Cache, tokens: torch.Tensor) -> torch.Tensor:
        read.append(tuple(tokens.shape))
        return step(self, cache, tokens)

    monkeypatch.setattr(Incremental, "step", counted)
    score_texts(model, torch.randn(1, 2, 8), [[[3, 4, 5], [3, 4, 6], [3, 4], [3, 4, 5]]])
    assert read == [(1, 1), (1, 1), (1, 2)]
