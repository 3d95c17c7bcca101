"""log p(d|E) of given texts: each unit's prefix is read once, however many texts it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from milanx.language.incremental import Incremental

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel


@torch.inference_mode()
def score_texts(
    model: GPT2LMHeadModel, prefixes: torch.Tensor, texts: Sequence[Sequence[Sequence[int]]]
) -> list[list[float]]:
    """Compute the log-probability of whole texts behind their unit's prefix, in nats.

    The sequence that the model reads is prefix, beginning token, text, end token.

    Args:
        model: p(d|E).
        prefixes: [u, p, width].
        texts: of each unit, the token ids of its texts without the end token.

    Returns:
        Of each unit, a number a text, in their order.
    """
    machine = Incremental(model)
    # The longest first, so that the texts that go on are the first ones.
    orders = [sorted(range(len(unit)), key=lambda i: -len(unit[i])) for unit in texts]
    ended = [[[*unit[i], machine.end] for i in order]
             for unit, order in zip(texts, orders, strict=True)]  # fmt: skip
    lengths = torch.zeros(len(texts), max(map(len, texts), default=0), dtype=torch.long)
    tokens = lengths.new_full((*lengths.shape, max((len(t[0]) for t in ended if t), default=1)),
                              machine.end)  # fmt: skip
    for row, unit in enumerate(ended):
        for column, text in enumerate(unit):
            lengths[row, column] = len(text)
            tokens[row, column, : len(text)] = torch.tensor(text)
    tokens, lengths = tokens.to(prefixes.device), lengths.to(prefixes.device)
    sums = torch.zeros(lengths.shape, device=prefixes.device)
    units = torch.arange(len(texts), device=prefixes.device)
    cache, first = machine.start(prefixes)
    logits = first[:, None].expand(-1, lengths.shape[1], -1)
    for place in range(tokens.shape[2]):
        width = logits.shape[1]
        said = tokens[units, :width, place]
        log_p = logits.gather(2, said[..., None]).squeeze(2) - logits.logsumexp(2)
        sums[units, :width] += log_p * (lengths[units, :width] > place)
        alive = lengths[units, :width] > place + 1
        keep = alive.any(1).nonzero().squeeze(1)
        if not len(keep):
            break
        width = int(alive.sum(1).max())
        cache.select(keep, torch.arange(width, device=keep.device).expand(len(keep), -1))
        units = units[keep]
        logits = machine.step(cache, said[keep, :width])
    found = sums.tolist()
    return [
        [row[order.index(i)] for i in range(len(order))]
        for row, order in zip(found, orders, strict=True)
    ]
