"""log p of given texts behind prefixes that are read once."""

import pytest
import torch

from milanx.language.gpt2 import build_gpt2
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
