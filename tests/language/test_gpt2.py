"""The tokenizer, and log-probabilities of whole texts against the plainest version."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from milanx.language import gpt2
from milanx.language.gpt2 import build_gpt2, encode_texts, log_probabilities, train_tokenizer
from milanx.language.prior import Prior
from tests.oracles import log_p

TEXTS = ["red dogs", "a red dog", "blue sky over water", "dogs and cats", "striped cats"] * 4


@pytest.mark.parametrize("budget", [8192, 1])
def test_log_probabilities_are_exact_and_independent_of_padding(
    monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    monkeypatch.setitem(gpt2.BATCH_TOKENS, "cpu", budget)
    torch.manual_seed(0)
    model = build_gpt2(7, layers=2, width=16, heads=2, positions=16).eval()
    rows = [[1, 2], [3], [4, 5, 6, 1, 2], []]
    ids, mask = torch.zeros(4, 6, dtype=torch.long), torch.zeros(4, 6, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row) + 1] = True
    found = log_probabilities(model, ids, mask)
    assert found.tolist() == pytest.approx([log_p(model, row) for row in rows], abs=1e-4)


def test_tokenizer_round_trip(tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = train_tokenizer(TEXTS, 300)
    assert len(tokenizer) <= 300
    tokenizer.save_pretrained(tmp_path)
    again = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    ids, mask = encode_texts(again, ["red dogs", "cats"], 8)
    assert again.decode(ids[0][mask[0]][:-1]).strip() == "red dogs"
    assert ids[0][mask[0]][-1] == again.eos_token_id


def test_the_prior_reads_as_much_of_a_text_as_its_model_can() -> None:
    tokenizer = train_tokenizer(TEXTS, 300)
    torch.manual_seed(0)
    model = build_gpt2(len(tokenizer), layers=1, width=16, heads=2, positions=12).eval()
    long = " or ".join(["blue sky over water"] * 6)
    ids = tokenizer([long, "red dogs"], add_special_tokens=False)["input_ids"]
    assert len(ids[0]) > 12
    expected = [log_p(model, ids[0][:11]), log_p(model, ids[1])]
    assert Prior(model, tokenizer)([long, "red dogs"]) == pytest.approx(expected, abs=1e-4)


def test_a_vocabulary_above_the_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="8000"):
        train_tokenizer(TEXTS, 9000)
