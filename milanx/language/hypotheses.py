"""Hypotheses of p(d|E): beam search, diverse beam search, nucleus sampling.

All three read one token of every hypothesis at a time through one machine: a batch of units at
once, the keys and values of a unit's prefix computed once and shared by its hypotheses, and only
hypotheses that can still win are carried on. Log-probabilities are those of the whole text with
its end token, whatever a strategy bans or prefers on the way.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from milanx.language.incremental import CHUNK, Incremental
from milanx.language.settings import HypothesisSettings

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

SHORTLIST = 256  # likeliest tokens that mostly hold a nucleus; the rest is sorted when not

Found = list[tuple[tuple[int, ...], float]]


class _Pool:
    """The best finished texts of every unit and group: [units, groups, size]."""

    def __init__(self, units: int, groups: int, size: int, longest: int, like: torch.Tensor):
        self.ranks = like.new_full((units, groups, size), -math.inf)
        self.scores = self.ranks.clone()
        self.texts = torch.full((units, groups, size, longest), -1, device=like.device)

    def add(
        self, units: torch.Tensor, ranks: torch.Tensor, scores: torch.Tensor, texts: torch.Tensor
    ) -> None:
        """Add texts [u, groups, b, t] with what they are ranked by and their log p [u, groups, b].

        Of equals the shorter, then the one whose beginning was likelier, stays first.
        """
        size, longest = self.texts.shape[2:]
        padded = F.pad(texts, (0, longest - texts.shape[3]), value=-1)
        ranks = torch.cat([self.ranks[units], ranks], 2)
        order = ranks.argsort(dim=2, descending=True, stable=True)[..., :size]
        self.ranks[units] = ranks.gather(2, order)
        self.scores[units] = torch.cat([self.scores[units], scores], 2).gather(2, order)
        index = order[..., None].expand(-1, -1, -1, longest)
        self.texts[units] = torch.cat([self.texts[units], padded], 2).gather(2, index)

    def best(self) -> list[Found]:
        """Return each unit's distinct texts, of all groups, best first."""
        made = []
        ranks, scores, texts = (part.flatten(1, 2).tolist() for part in
                                (self.ranks, self.scores, self.texts))  # fmt: skip
        for places, log_p, rows in zip(ranks, scores, texts, strict=True):
            known = {
                tuple(token for token in row if token >= 0): (rank, score)
                for rank, score, row in zip(places, log_p, rows, strict=True)
                if rank > -math.inf
            }
            ordered = sorted(known.items(), key=lambda item: (-item[1][0], item[0]))
            made.append([(text, score) for text, (_, score) in ordered])
        return made


class _Beam:
    """One beam search of a batch of units; its state is [u, groups, b] for the live ones.

    The groups are those of diverse beam search (Vijayakumar et al. 2016, "Diverse Beam Search",
    algorithm 1) with Hamming diversity: a group's next words are chosen by the log-probability
    of the text less ``diversity`` for each hypothesis of earlier groups that took the word at
    this step. The penalty takes part in the choice alone and is not carried along.
    """

    def __init__(
        self,
        model: GPT2LMHeadModel,
        prefixes: torch.Tensor,
        settings: HypothesisSettings,
        prior: GPT2LMHeadModel | None,
    ) -> None:
        self.settings = settings
        self.groups = settings.groups if settings.strategy == "diverse" else 1
        self.size = -(-settings.beam // self.groups)
        self.machine = Incremental(model)
        self.cache, logits = self.machine.start(prefixes)
        self.logits = logits[:, None, None].repeat(1, self.groups, 1, 1)  # [u, groups, b, v]
        if settings.stepwise:
            if prior is None:
                raise ValueError("a stepwise search needs the prior model")
            self.other = Incremental(prior)
            nothing = prefixes[:, :0, : prior.config.n_embd]
            self.other_cache, logits = self.other.start(nothing)
            self.other_logits = logits[:, None, None].repeat(1, self.groups, 1, 1)
        units = len(prefixes)
        self.units = torch.arange(units, device=prefixes.device)  # which unit each row is
        self.texts = self.units.new_zeros(units, self.groups, 1, 0)
        self.scores = logits.new_zeros(units, self.groups, 1)  # log p(d|E) so far
        self.priors = self.scores.clone()  # log p(d) so far
        self.pool = _Pool(units, self.groups, self.size, settings.max_tokens, logits)

    def run(self) -> list[Found]:
        """Search to the end."""
        for length in range(self.settings.max_tokens):
            self._weigh()
            if length >= self.settings.min_tokens:
                self._finish()
            if length + 1 == self.settings.max_tokens or not self._grow():
                break
        return self.pool.best()

    def _weigh(self) -> None:
        """Make what turns this step's logits into log p of texts [u, groups, b], and ranks."""
        self.offset = self.scores - self.logits.logsumexp(-1)
        self.ranking, self.rank_offset = self.logits, self.offset
        if self.settings.stepwise:
            weight = self.settings.stepwise
            self.other_offset = self.priors - self.other_logits.logsumexp(-1)
            self.ranking = torch.sub(self.logits, self.other_logits, alpha=weight)
            self.ranking[..., self.machine.words :] = -math.inf
            self.rank_offset = self.offset - weight * self.other_offset

    def _finish(self) -> None:
        """Let every live text end here."""
        end = self.machine.end
        ranks = self.ranking[..., end] + self.rank_offset
        self.pool.add(self.units, ranks, self.logits[..., end] + self.offset, self.texts)

    def _grow(self) -> bool:
        """Carry the best texts on by one word; False when none can still win."""
        self.ranking[..., self.machine.end] = -math.inf
        ban_repeats(self.ranking, self.texts, self.settings.no_repeat)
        parents, tokens, alive = self._choose()
        keep = alive.any(2).any(1).nonzero().squeeze(1)
        if not len(keep):
            return False
        # Live ones to the front, so that the batch is no wider than they are.
        order = alive[keep].to(torch.uint8).argsort(dim=2, descending=True, stable=True)
        order = order[..., : int(alive[keep].sum(2).max())]
        alive, parents, tokens = (part[keep].gather(2, order) for part in (alive, parents, tokens))
        self.units = self.units[keep]
        rows, group = keep[:, None, None], torch.arange(self.groups, device=keep.device)[:, None]
        place = (rows, group, parents, tokens)
        if self.settings.stepwise:
            self.priors = self.other_logits[place] + self.other_offset[place[:3]]
        self.scores = self.logits[place] + self.offset[place[:3]]
        self.scores.masked_fill_(~alive, -math.inf)
        self.texts = torch.cat([self.texts[place[:3]], tokens[..., None]], 3)
        flat = (parents + group * self.logits.shape[2]).flatten(1)
        shape = (self.groups, tokens.shape[2])
        self.cache.select(keep, flat)
        self.logits = self.machine.step(self.cache, tokens.flatten(1)).unflatten(1, shape)
        if self.settings.stepwise:
            self.other_cache.select(keep, flat)
            logits = self.other.step(self.other_cache, tokens.flatten(1))
            self.other_logits = logits.unflatten(1, shape)
        return True

    def _choose(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Choose each group's next: parents, tokens, and which can still win [u, groups, size]."""
        taken = self.logits.new_zeros(len(self.units), self.logits.shape[3])
        floor = torch.full_like(self.pool.ranks[self.units, :, -1], -math.inf)
        if not self.settings.stepwise:
            # A text's log p only falls: what lies below a full pool's last cannot come into it.
            floor = self.pool.ranks[self.units, :, -1]
        chosen = []
        for group in range(self.groups):
            ranking, offset = self.ranking[:, group], self.rank_offset[:, group]
            if group:
                ranking = ranking - self.settings.diversity * taken[:, None]
            ranks, parents, tokens = largest(ranking, offset, self.size)
            pure = ranks + (self.settings.diversity * taken.gather(1, tokens) if group else 0)
            alive = pure > floor[:, group, None]
            taken.scatter_add_(1, tokens, alive.to(taken))
            chosen.append((parents, tokens, alive))
        parents, tokens, alive = (torch.stack(parts, 1) for parts in zip(*chosen, strict=True))
        return parents, tokens, alive


def largest(
    logits: torch.Tensor, offset: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Find the k largest of ``logits + offset`` of each row.

    The k largest numbers lie in the k chunks whose own largest is largest, so that most of the
    vocabulary is looked at only once, and nothing of its size is written.

    Args:
        logits: [u, b, v], v in whole chunks.
        offset: [u, b], added to each beam's logits.
        k: how many; fewer where there are no more.

    Returns:
        Sums, beams and tokens [u, k], the largest first.
    """
    chunks = logits.unflatten(2, (-1, CHUNK))  # [u, b, c, CHUNK]
    count = chunks.shape[2]
    peaks = (chunks.amax(3) + offset[..., None]).flatten(1)
    best = peaks.topk(min(k, peaks.shape[1]), dim=1).indices
    beams = best // count
    inside = chunks.flatten(1, 2).gather(1, best[..., None].expand(-1, -1, CHUNK))
    sums = (inside + offset.gather(1, beams)[..., None]).flatten(1)
    sums, place = sums.topk(min(k, sums.shape[1]), dim=1)
    chunk = place // CHUNK
    tokens = best.gather(1, chunk) % count * CHUNK + place % CHUNK
    return sums, beams.gather(1, chunk), tokens


def ban_repeats(logits: torch.Tensor, texts: torch.Tensor, size: int) -> None:
    """Give the tokens that would end an n-gram for the second time the logit minus infinity.

    Args:
        logits: [..., v], changed in place.
        texts: [..., t], what each hypothesis says so far.
        size: n; 0 bans nothing.
    """
    if not size or texts.shape[-1] < size:
        return
    grams = texts.unfold(-1, size, 1)  # [..., t - n + 1, n]
    last = texts[..., texts.shape[-1] - size + 1 :].unsqueeze(-2)
    again = (grams[..., :-1] == last).all(-1)
    *rows, gram = again.nonzero(as_tuple=True)
    logits[(*rows, grams[..., -1][(*rows, gram)])] = -math.inf


def hypotheses(
    model: GPT2LMHeadModel,
    prefixes: torch.Tensor,
    settings: HypothesisSettings,
    prior: GPT2LMHeadModel | None = None,
) -> list[Found]:
    """Find texts of each unit by the settings' strategy.

    Args:
        model: p(d|E).
        prefixes: [u, p, width].
        settings: strategy and its numbers.
        prior: p(d), needed when ``stepwise`` is not 0.

    Returns:
        For each unit (token ids without the end token, log p of the whole text with its end
        token, in nats), best first.
    """
    if settings.strategy == "nucleus":
        return nucleus_search(model, prefixes, settings)
    return beam_search(model, prefixes, settings, prior)


@torch.inference_mode()
def beam_search(
    model: GPT2LMHeadModel,
    prefixes: torch.Tensor,
    settings: HypothesisSettings,
    prior: GPT2LMHeadModel | None = None,
) -> list[Found]:
    """Find the likeliest texts of each unit, in groups when the settings say ``diverse``.

    Args:
        model: p(d|E).
        prefixes: [u, p, width].
        settings: beam, groups, longest text, what is banned.
        prior: p(d), needed when ``stepwise`` is not 0.

    Returns:
        For each unit at most ``beam`` (token ids without the end token, log p of the whole text
        with its end token, in nats), best first by what the search ranks by. Groups may find the
        same text, which is given once; where the groups do not divide the beam there may be up
        to a group less one more.
    """
    return _Beam(model, prefixes, settings, prior).run()


@torch.inference_mode()
def nucleus_search(
    model: GPT2LMHeadModel, prefixes: torch.Tensor, settings: HypothesisSettings
) -> list[Found]:
    """Draw texts of each unit by nucleus sampling (Holtzman et al. 2020, section 3.1).

    Args:
        model: p(d|E).
        prefixes: [u, p, width].
        settings: nucleus, samples, seed, longest text, what is banned. A text that has not ended
            at its longest ends there.

    Returns:
        For each unit its distinct texts (token ids without the end token, log p of the whole
        text under the model itself, in nats), the likeliest first.
    """
    machine, count = Incremental(model), settings.samples
    cache, logits = machine.start(prefixes)
    logits = logits[:, None].repeat(1, count, 1)
    generator = torch.Generator().manual_seed(settings.seed)
    draws = torch.rand(settings.max_tokens, count, generator=generator).to(logits.device)
    units = torch.arange(len(prefixes), device=logits.device)
    which = torch.arange(count, device=logits.device).expand(len(units), -1)
    scores, texts = logits.new_zeros(len(units), count), which.new_zeros(len(units), count, 0)
    alive = torch.ones_like(which, dtype=torch.bool)
    found: list[dict[tuple[int, ...], float]] = [{} for _ in prefixes]
    for length in range(settings.max_tokens):
        log_p = logits.log_softmax(-1)
        if length + 1 == settings.max_tokens:
            tokens = torch.full_like(which, machine.end)
        else:
            allowed = log_p.clone()
            if length < settings.min_tokens:
                allowed[..., machine.end] = -math.inf
            ban_repeats(allowed, texts, settings.no_repeat)
            tokens = draw(allowed.softmax(-1), draws[length][which], settings.top_p)
        scores = scores + log_p.gather(2, tokens[..., None]).squeeze(2)
        ended = alive & (tokens == machine.end)
        for row, place in ended.nonzero().tolist():
            found[int(units[row])][tuple(texts[row, place].tolist())] = float(scores[row, place])
        alive = alive & ~ended
        keep = alive.any(1).nonzero().squeeze(1)
        if not len(keep):
            break
        order = alive[keep].to(torch.uint8).argsort(dim=1, descending=True, stable=True)
        order = order[:, : int(alive[keep].sum(1).max())]
        tokens, which, alive, scores = (
            part[keep].gather(1, order) for part in (tokens, which, alive, scores)
        )
        units, texts = units[keep], torch.cat([texts[keep[:, None], order], tokens[..., None]], 2)
        cache.select(keep, order)
        logits = machine.step(cache, tokens)
    return [sorted(known.items(), key=lambda pair: (-pair[1], pair[0])) for known in found]


def draw(probabilities: torch.Tensor, draws: torch.Tensor, top_p: float) -> torch.Tensor:
    """Draw from the nucleus: the fewest likeliest tokens that together have ``top_p``.

    Args:
        probabilities: [..., v].
        draws: [...] in 0..1, which part of the nucleus' mass is meant.
        top_p: mass.

    Returns:
        Tokens int64 [...].
    """
    for size in (min(SHORTLIST, probabilities.shape[-1]), probabilities.shape[-1]):
        mass, tokens = probabilities.topk(size, dim=-1)
        total = mass.cumsum(-1)
        if bool((total[..., -1] >= top_p).all()):
            break
    inside = total - mass < top_p
    target = draws * (mass * inside).sum(-1)
    place = ((total <= target[..., None]) & inside).sum(-1)
    place = torch.minimum(place, inside.sum(-1) - 1)
    return tokens.gather(-1, place[..., None]).squeeze(-1)
