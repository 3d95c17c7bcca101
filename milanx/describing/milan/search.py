"""MILAN's search: a beam under p(d|E), whose texts are then ranked by weighted PMI."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from milanx.describing.candidates import Candidate, Term
from milanx.describing.milan.network import AttentionDecoder, LanguageModel, Seen
from milanx.describing.milan.words import BEGIN, END, SPECIAL, Vocabulary, padded
from milanx.errors import InputError
from milanx.language.people import says_colour_of_people

if TYPE_CHECKING:
    from milanx.describing.settings import SearchSettings

TEXTS_AT_ONCE = 1024  # texts whose log p(d) is read together
Found = list[tuple[tuple[int, ...], float]]  # words of a text, and its log p(d|E)


@dataclass(frozen=True)
class MilanSearch:
    """How texts are found and ranked; the numbers of Hernandez et al. 2022.

    Attributes:
        beam: hypotheses kept under p(d|E).
        lam: lambda of log p(d|E) - lambda log p(d), by which they are ranked.
        candidates: how many are kept beside the description.

    Raises:
        InputError: values without meaning.
    """

    beam: int = 50
    lam: float = 0.2
    candidates: int = 10

    def __post_init__(self) -> None:
        if min(self.beam, self.candidates) < 1 or not math.isfinite(self.lam):
            raise InputError(
                f"beam {self.beam}, candidates {self.candidates}, lam {self.lam}",
                "the first two count something and are at least 1, the last is a number",
                "leave them at 50, 10 and 0.2",
            )


def as_milan(settings: MilanSearch | SearchSettings) -> MilanSearch:
    """Return what of a describer's search is one of MILAN's."""
    if isinstance(settings, MilanSearch):
        return settings
    return MilanSearch(settings.beam, settings.lam, settings.candidates)


@torch.inference_mode()
def beam_search(decoder: AttentionDecoder, seen: Seen, size: int) -> list[Found]:
    """Find the likeliest texts of units, all units at once.

    A beam carries ``size`` unfinished texts; finished ones stand beside it. It ends where no
    unfinished text can become one of the ``size`` best: log-probabilities only fall.

    Returns:
        Of each unit at most ``size`` texts of at least one word, the likeliest first.
    """
    units, longest = len(seen), decoder.spec.longest
    device = seen.vectors.device
    state = decoder.start(seen)
    tokens = torch.full((units, 1), BEGIN, device=device)
    texts = tokens.new_zeros(units, 1, 0)
    scores = seen.vectors.new_zeros(units, 1)
    done = seen.vectors.new_full((units, size), -math.inf)
    kept = tokens.new_full((units, size, longest), END)
    for length in range(longest):
        state, _ = decoder.step(seen, state, tokens)
        total = scores[..., None] + decoder.log_p(state)
        if length:  # nothing is no description
            done, kept = _with_ended(done, kept, total[..., END], texts)
        if length + 1 == longest or bool((done[:, -1] >= scores.amax(1)).all()):
            break
        total[..., :SPECIAL] = -math.inf
        words = total.shape[2]
        scores, flat = total.flatten(1).topk(min(size, total.shape[1] * (words - SPECIAL)))
        parents, tokens = flat // words, flat % words
        state = tuple(_at(part, parents) for part in state)  # type: ignore[assignment]
        texts = torch.cat([_at(texts, parents), tokens[..., None]], 2)
    return [
        [(tuple(token for token in text if token != END), log_p)
         for text, log_p in zip(rows, values, strict=True) if log_p > -math.inf]
        for rows, values in zip(kept.tolist(), done.tolist(), strict=True)
    ]  # fmt: skip


def _with_ended(
    done: torch.Tensor, kept: torch.Tensor, scores: torch.Tensor, texts: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Put texts that end here [u, b, t] among the best finished ones; of equals those stay."""
    room = kept.shape[2] - texts.shape[2]
    wide = torch.nn.functional.pad(texts, (0, room), value=END)
    both = torch.cat([done, scores], 1)
    order = both.argsort(dim=1, descending=True, stable=True)[:, : done.shape[1]]
    return both.gather(1, order), _at(torch.cat([kept, wide], 1), order)


def _at(part: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return the rows [u, b] of each unit of a part [u, n, w]: [u, b, w]."""
    return part.gather(1, rows[..., None].expand(-1, -1, part.shape[2]))


@torch.inference_mode()
def ranked(
    found: Sequence[Found], prior: LanguageModel, vocabulary: Vocabulary, how: MilanSearch
) -> list[tuple[Candidate, ...]]:
    """Rank the texts of units by log p(d|E) - lambda log p(d), best first.

    Nobody is called by a colour, where anything else was found.
    """
    distinct = sorted({text for row in found for text, _ in row}, key=lambda t: (len(t), t))
    before: dict[tuple[int, ...], float] = {}
    device = prior.embed.weight.device
    for start in range(0, len(distinct), TEXTS_AT_ONCE):
        part = distinct[start : start + TEXTS_AT_ONCE]
        ids, mask = padded(part)
        scores = prior.score(ids.to(device), mask.to(device))
        before.update(zip(part, scores.tolist(), strict=True))
    made = []
    for row in found:
        candidates = []
        for text, log_p in row:
            pmi = log_p - how.lam * before[text]
            candidates.append(
                Candidate(vocabulary.decode(text), pmi, log_p, before[text], rank=pmi,
                          terms=(Term("pmi", pmi, pmi),))
            )  # fmt: skip
        candidates = [c for c in candidates if not says_colour_of_people(c.text)] or candidates
        candidates.sort(key=lambda c: -(c.rank or 0.0))
        made.append(tuple(candidates[: how.candidates]))
    return made
