"""Log-probabilities of given texts: each beginning that texts share is read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from milanx.language.incremental import Incremental

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

Tokens = Sequence[int]


@dataclass(frozen=True)
class _Level:
    """What is read at one place of all texts.

    Attributes:
        keep: places among the rows of the level before of those of which texts go on this far.
        parents: int64 [rows, b], of each beginning, the one of the level before that it goes on.
        tokens: int64 [rows, b], the token that it ends with.
        asked: row, beginning, next token (or the end) and text, int64 [4, texts]: whose
            log-probability is wanted here.
    """

    keep: torch.Tensor
    parents: torch.Tensor
    tokens: torch.Tensor
    asked: torch.Tensor


@torch.inference_mode()
def score_texts(
    model: GPT2LMHeadModel, prefixes: torch.Tensor, texts: Sequence[Sequence[Tokens]]
) -> list[list[float]]:
    """Compute the log-probability of whole texts behind their unit's prefix, in nats.

    The sequence that the model reads is prefix, beginning token, text, end token. A unit's texts
    are a tree: what several begin with is read once.

    Args:
        model: p(d|E).
        prefixes: [u, p, width]; p may be 0.
        texts: of each unit, the token ids of its texts without the end token.

    Returns:
        Of each unit, a number a text, in their order.
    """
    machine, device = Incremental(model), prefixes.device
    sums = torch.zeros(sum(map(len, texts)), device=device)
    cache, first = machine.start(prefixes)
    logits = first[:, None]
    for place, level in enumerate(_levels(texts, machine.end)):
        if place:
            keep = level.keep.to(device)
            cache.select(keep, level.parents.to(device))
            logits = machine.step(cache, level.tokens.to(device))
        rows, beginnings, wanted, which = level.asked.to(device)
        sums[which] += logits[rows, beginnings, wanted] - logits.logsumexp(2)[rows, beginnings]
    found = iter(sums.tolist())
    return [[next(found) for _ in unit] for unit in texts]


def _levels(texts: Sequence[Sequence[Tokens]], end: int) -> list[_Level]:
    """Lay out the trees of units' texts, place after place."""
    rows = list(range(len(texts)))
    numbers = iter(range(sum(map(len, texts))))
    alive = [[(next(numbers), text) for text in unit] for unit in texts]
    at = {number: 0 for unit in alive for number, _ in unit}  # which beginning each text has
    made: list[_Level] = []
    grown = [[(0, end)] for _ in rows]  # of each row, the parent and token of each beginning
    keep = rows
    while any(alive):
        asked = [
            (row, at[number], text[len(made)] if len(made) < len(text) else end, number)
            for row, unit in enumerate(alive) for number, text in unit
        ]  # fmt: skip
        width = max(map(len, grown))
        padded = torch.tensor([row + [(0, end)] * (width - len(row)) for row in grown])
        made.append(_Level(torch.tensor(keep), padded[..., 0], padded[..., 1],
                           torch.tensor(asked).T))  # fmt: skip
        longer = [[(n, text) for n, text in unit if len(text) >= len(made)] for unit in alive]
        keep = [row for row, unit in enumerate(longer) if unit]
        alive, grown = [longer[row] for row in keep], []
        for unit in alive:
            known: dict[tuple[int, int], int] = {}
            for number, text in unit:
                step = (at[number], text[len(made) - 1])
                at[number] = known.setdefault(step, len(known))
            grown.append(list(known))
    return made
