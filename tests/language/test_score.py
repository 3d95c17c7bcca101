"""log p of given texts behind prefixes that are read once."""

import pytest
import torch

from milanx.language.gpt2 import build_gpt2, log_probabilities
from milanx.language.score import score_texts


def test_texts_score_as_they_do_each_behind_its_own_prefix() -> None:
    torch.manual_seed(0)
    model = build_gpt2(70, width=16, layers=2, heads=2, positions=24)
    end = model.config.eos_token_id
    texts = [[[5, 6, 7], [5], [], [9, 9, 9, 9, 1]], [], [[3, 4]], [[2], [6, 1]]]
    prefixes = torch.randn(4, 3, 16)
    found = score_texts(model, prefixes, texts)
    assert [len(row) for row in found] == [4, 0, 1, 2]
    for unit, row in enumerate(texts):
        for text, score in zip(row, found[unit], strict=True):
            ids = torch.tensor([[*text, end]])
            expected = log_probabilities(
                model, ids, torch.ones_like(ids, dtype=torch.bool), prefixes[unit : unit + 1]
            )
            assert score == pytest.approx(float(expected), abs=1e-4)
    assert score_texts(model, prefixes[:1], [[]]) == [[]]
