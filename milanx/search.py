"""Candidates by beam search under p(d|E), ranked by weighted PMI.

The beam is our own: a batch of units at a time, the keys and values of a unit's prefix computed
once and shared by its beams, and only beams that can still win are carried on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from milanx.language import normalise_text

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

    from milanx.prior import Prior

UNITS_AT_ONCE = 48  # units of one beam search: their logits fit in some 50 MB


@dataclass(frozen=True)
class SearchSettings:
    """How descriptions are searched.

    Attributes:
        beam: hypotheses kept.
        max_tokens: of a description, its end token included.
        lam: lambda of log p(d|E) - lambda log p(d).
        candidates: how many are kept beside the description.
        method: ``pmi``, or ``argmax`` for log p(d|E) alone.
    """

    beam: int = 50
    max_tokens: int = 16
    lam: float = 0.2
    candidates: int = 10
    method: str = "pmi"


@dataclass(frozen=True)
class Candidate:
    """One text for a unit, with its figures in nats."""

    text: str
    pmi: float
    log_p_given_exemplars: float
    log_p_prior: float


@dataclass
class _Cache:
    """Keys and values of every block: prefixes [u, heads, p, d] and beams [u, b, heads, t, d]."""

    prefix: list[tuple[torch.Tensor, torch.Tensor]]
    beams: list[tuple[torch.Tensor, torch.Tensor]] | None = None

    def select(self, units: torch.Tensor, parents: torch.Tensor) -> None:
        """Keep some units, and of each the beams ``parents`` [u, b] (repeats allowed)."""
        self.prefix = [(k[units], v[units]) for k, v in self.prefix]
        if self.beams is not None:
            rows = units[:, None]
            self.beams = [(k[rows, parents], v[rows, parents]) for k, v in self.beams]


class _Incremental:
    """A GPT-2 that reads one token of every beam at a time, over transformers' own weights."""

    def __init__(self, model: GPT2LMHeadModel) -> None:
        self.model, self.body = model, model.transformer
        config = model.config
        self.heads = config.n_head
        self.scale = 1 / math.sqrt(config.n_embd // config.n_head)

    def start(self, prefixes: torch.Tensor) -> tuple[_Cache, torch.Tensor]:
        """Read prefixes [u, p, width] and the beginning token; logits of the first token [u, v]."""
        bos = self.body.wte.weight[self.model.config.bos_token_id]
        inputs = torch.cat([prefixes, bos.expand(len(prefixes), 1, -1)], 1)
        hidden = inputs + self.body.wpe.weight[: inputs.shape[1]]
        cache = []
        for block in self.body.h:
            q, k, v = self._qkv(block, hidden)
            read = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            cache.append((k, v))
            hidden = self._finish(block, hidden, read.transpose(1, 2).flatten(2))
        return _Cache(cache), self._logits(hidden[:, -1])

    def step(self, cache: _Cache, tokens: torch.Tensor) -> torch.Tensor:
        """Read the next token of every beam [u, b]; logits [u, b, v]."""
        own = 0 if cache.beams is None else cache.beams[0][0].shape[3]
        position = cache.prefix[0][0].shape[2] + own
        hidden = self.body.wte.weight[tokens] + self.body.wpe.weight[position]
        beams = []
        for i, block in enumerate(self.body.h):
            q, k, v = (part.unsqueeze(3) for part in self._qkv_one(block, hidden))
            if cache.beams is not None:
                k = torch.cat([cache.beams[i][0], k], 3)
                v = torch.cat([cache.beams[i][1], v], 3)
            beams.append((k, v))
            hidden = self._finish(block, hidden, self._attend(q, cache.prefix[i], (k, v)))
        cache.beams = beams
        return self._logits(hidden)

    def _qkv(self, block: Any, hidden: torch.Tensor) -> list[torch.Tensor]:
        """Queries, keys, values [u, heads, p, d] of hidden [u, p, width]."""
        parts = block.attn.c_attn(block.ln_1(hidden)).chunk(3, -1)
        return [part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts]

    def _qkv_one(self, block: Any, hidden: torch.Tensor) -> list[torch.Tensor]:
        """Queries, keys, values [u, b, heads, d] of hidden [u, b, width]."""
        parts = block.attn.c_attn(block.ln_1(hidden)).chunk(3, -1)
        return [part.unflatten(-1, (self.heads, -1)) for part in parts]

    def _attend(
        self,
        q: torch.Tensor,
        prefix: tuple[torch.Tensor, torch.Tensor],
        own: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """Attend over the unit's prefix, shared by its beams, and over the beam's own tokens."""
        query = q.squeeze(3).transpose(1, 2)  # [u, heads, b, d]
        shared = query @ prefix[0].transpose(2, 3)  # [u, heads, b, p]
        alone = (own[0] @ q.transpose(3, 4)).squeeze(4).transpose(1, 2)  # [u, heads, b, t]
        weights = (torch.cat([shared, alone], -1) * self.scale).softmax(-1)
        size = shared.shape[-1]
        read = weights[..., :size] @ prefix[1]  # [u, heads, b, d]
        mine = (weights[..., size:].transpose(1, 2).unsqueeze(3) @ own[1]).squeeze(3)
        return (read.transpose(1, 2) + mine).flatten(2)

    def _finish(self, block: Any, hidden: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        hidden = hidden + block.attn.c_proj(read)
        return hidden + block.mlp(block.ln_2(hidden))

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.model.lm_head(self.body.ln_f(hidden)).float()


@torch.inference_mode()
def beam_search(
    model: GPT2LMHeadModel, prefixes: torch.Tensor, settings: SearchSettings
) -> list[list[tuple[tuple[int, ...], float]]]:
    """Find the likeliest texts of each unit.

    Args:
        model: p(d|E).
        prefixes: [u, p, width].
        settings: beam and longest text.

    Returns:
        For each unit at most ``beam`` (token ids without the end token, log p of the whole text
        with its end token, in nats), the likeliest first.
    """
    machine = _Incremental(model)
    cache, logits = machine.start(prefixes)
    end, beam = model.config.eos_token_id, settings.beam
    finished: list[list[tuple[float, tuple[int, ...]]]] = [[] for _ in prefixes]
    units = list(range(len(prefixes)))  # which unit each row of the batch is
    texts: list[list[tuple[int, ...]]] = [[()] for _ in prefixes]
    scores = prefixes.new_zeros(len(prefixes), 1)
    logits = logits[:, None]
    for length in range(1, settings.max_tokens + 1):
        logits.add_((scores - logits.logsumexp(-1))[..., None])
        ended = logits[..., end].tolist()
        logits[..., end] = -math.inf
        for row, unit in enumerate(units):
            pool = finished[unit]
            pool += [(s, t) for s, t in zip(ended[row], texts[row], strict=False) if s > -math.inf]
            pool.sort(key=lambda pair: (-pair[0], pair[1]))
            del pool[beam:]
        if length == settings.max_tokens:
            break
        flat = logits.flatten(1)
        scores, place = flat.topk(min(beam, flat.shape[1]), dim=1)
        # A text's log p only falls: what lies below a full pool's last cannot come into it.
        floor = scores.new_tensor([
            finished[unit][-1][0] if len(finished[unit]) == beam else -math.inf for unit in units
        ])  # fmt: skip
        alive = scores > floor[:, None]
        keep = alive.any(1).nonzero().squeeze(1)
        if not len(keep):
            break
        width = int(alive[keep].sum(1).max())
        scores = scores[keep, :width].masked_fill(~alive[keep, :width], -math.inf)
        parents, tokens = (
            place[keep, :width] // logits.shape[2],
            place[keep, :width] % logits.shape[2],
        )
        grown = []
        for row, (beams, words) in enumerate(zip(parents.tolist(), tokens.tolist(), strict=True)):
            before = texts[int(keep[row])]
            grown.append([(*before[b], w) for b, w in zip(beams, words, strict=True)])
        texts = grown
        units = [units[int(row)] for row in keep]
        cache.select(keep, parents)
        logits = machine.step(cache, tokens)
    return [[(tokens, score) for score, tokens in pool] for pool in finished]


def rerank(
    found: Sequence[tuple[str, float]],
    prior: Callable[[Sequence[str]], Sequence[float]],
    settings: SearchSettings,
) -> tuple[Candidate, ...]:
    """Merge texts that are the same after normalisation, and rank what is left.

    Args:
        found: (text, log p(d|E)), any order.
        prior: log p(d) of texts.
        settings: lambda, method, how many are kept.

    Returns:
        At least the best by weighted PMI, best first by the settings' method; beside the best
        ``candidates`` of that method the likeliest by log p(d|E) is always among them.
    """
    spellings: dict[str, dict[str, float]] = {}
    for text, score in found:
        folded = normalise_text(text)
        if folded:
            known = spellings.setdefault(folded, {})
            known[text] = _log_add(known[text], score) if text in known else score
    if not spellings:
        return ()
    flat = [text for known in spellings.values() for text in known]
    before = dict(zip(flat, prior(flat), strict=True))
    made = []
    for known in spellings.values():
        shown = max(known, key=lambda text: (known[text], text))
        likelihood = _log_sum(known.values())
        unconditioned = _log_sum(before[text] for text in known)
        pmi = likelihood - settings.lam * unconditioned
        made.append(Candidate(shown, pmi, likelihood, unconditioned))
    by_likelihood = sorted(made, key=lambda c: (-c.log_p_given_exemplars, c.text))
    by_pmi = sorted(made, key=lambda c: (-c.pmi, c.text))
    first, second = (by_pmi, by_likelihood) if settings.method == "pmi" else (by_likelihood, by_pmi)
    kept = first[: settings.candidates]
    return tuple(kept if second[0] in kept else [*kept, second[0]])


def _log_add(a: float, b: float) -> float:
    return max(a, b) + math.log1p(math.exp(-abs(a - b)))


def _log_sum(values: Any) -> float:
    numbers = list(values)
    top = max(numbers)
    return top + math.log(sum(math.exp(v - top) for v in numbers))


def search(
    model: GPT2LMHeadModel,
    prior: Prior,
    tokenizer: PreTrainedTokenizerFast,
    prefixes: torch.Tensor,
    settings: SearchSettings,
    *,
    words: frozenset[str] = frozenset(),
    advance: Callable[[int], None] = lambda n: None,
) -> list[tuple[Candidate, ...]]:
    """Search and rank the texts of each unit.

    Args:
        model: p(d|E).
        prior: log p(d).
        tokenizer: of both.
        prefixes: [u, p, width].
        settings: how.
        words: the words that a text may hold, folded; any when empty. A small language model
            spells words that do not exist, and PMI favours what p(d) finds unlikely.
        advance: told how many units are done.

    Returns:
        The candidates of each unit, best first.
    """
    made = []
    for start in range(0, len(prefixes), UNITS_AT_ONCE):
        batch = beam_search(model, prefixes[start : start + UNITS_AT_ONCE], settings)
        named = [
            list(zip(_decode(tokenizer, [t for t, _ in found]), (s for _, s in found), strict=True))
            for found in batch
        ]
        named = [_spelled(found, words) for found in named]
        prior([text for found in named for text, _ in found if normalise_text(text)])
        made += [rerank(found, prior, settings) for found in named]
        advance(len(batch))
    return made


def _spelled(found: list[tuple[str, float]], words: frozenset[str]) -> list[tuple[str, float]]:
    """Keep the texts whose words all exist; all of them if none does."""
    kept = [pair for pair in found if set(normalise_text(pair[0]).split()) <= words]
    return kept if words and kept else found


def _decode(tokenizer: PreTrainedTokenizerFast, rows: Sequence[Sequence[int]]) -> list[str]:
    return [text.strip() for text in tokenizer.batch_decode([list(r) for r in rows])]
