"""Training of the critic: which of all texts does an exemplar set agree with?

Each step draws units and asks for their texts among all those that units of one meaning can have,
and among composed ones: those of the batch's units of two meanings, and made-up ones that are true
of none ("dogs or bridges" for a unit of dogs), which teach that a second meaning must show.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from milanx.decode import FREQUENCY, Evidence, SetEncoder
from milanx.encode import Encoder
from milanx.train.corpus import Corpus, Unit
from milanx.train.phrases import plural
from milanx.train.recipe import CriticSettings
from milanx.train.table import Table

WEIGHT_DECAY = 0.05
WARM_UP = 50  # steps
MADE_UP = 0.15  # made-up composed texts of a step, a unit
COMPOSED = 0.1  # share of the units that have a composed text: the composed texts' frequency
CHECKED = 1000  # units of the check
ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class Texts:
    """All texts of units of one meaning.

    Attributes:
        texts: [t].
        vectors: [t, 2, j], centred, as they stand and in the plural.
        frequency: [t], log of how often each is drawn.
    """

    texts: list[str]
    vectors: torch.Tensor
    frequency: torch.Tensor


def read_table(set_encoder: SetEncoder, table: Table) -> Table:
    """Return the table with read features in place of pooled ones, in memory."""

    def read(rows: np.ndarray) -> np.ndarray:
        parts = [
            set_encoder.read(torch.from_numpy(rows[i : i + ROWS_AT_ONCE].astype(np.float32))).half()
            for i in range(0, len(rows), ROWS_AT_ONCE)
        ]
        return torch.cat(parts).numpy()

    made = copy.copy(table)
    made.masked, made.whole = read(table.masked), read(table.whole)
    made.masked_joint = np.array(table.masked_joint)
    made.whole_joint = np.array(table.whole_joint)
    return made


def all_texts(set_encoder: SetEncoder, encoder: Encoder, corpus: Corpus) -> Texts:
    """Embed the texts of a corpus."""
    frequencies = corpus.frequencies()
    texts = sorted(frequencies)
    single = encoder.texts(texts)
    many = encoder.texts([plural(t) for t in texts]) if corpus.varied else single
    both = torch.stack([single, many], 1)
    log = torch.tensor([math.log(frequencies[t]) for t in texts])
    return Texts(texts, set_encoder.centred_texts(both), log)


def scores(set_encoder: SetEncoder, evidence: Evidence, texts: torch.Tensor) -> torch.Tensor:
    """Agreement of units, given by read features, and centred texts [t, j]: [u, t]."""
    inputs = set_encoder.critic_inputs(evidence, evidence.features, evidence.contrast)
    return set_encoder.critic(*inputs, texts)


def targets(units: Sequence[Unit], place: dict[str, int], composed: dict[str, int]) -> torch.Tensor:
    """Share of each text among those that are right, [u, t + c]; rows sum to one.

    A unit of two meanings has its composed text for one half, its meanings' texts for the other.
    """
    found = torch.zeros(len(units), len(place) + len(composed))
    for row, unit in enumerate(units):
        column = composed.get(unit.text)
        if column is not None:
            found[row, len(place) + column] += 0.5
        known = [[place[t] for t in texts if t in place] for texts in unit.senses]
        for columns in filter(None, known):
            share = (1.0 if column is None else 0.5) / len(unit.senses) / len(columns)
            found[row, columns] += share
    return found / found.sum(1, keepdim=True)


def _composed(units: Sequence[Unit], texts: list[str], rng: np.random.Generator) -> dict[str, int]:
    """The composed texts of units and made-up ones, and their places."""
    found = [unit.text for unit in units if len(unit.senses) > 1]
    single = [unit for unit in units if len(unit.senses) == 1]
    for unit in single[: round(MADE_UP * len(units))]:
        between = str(rng.choice([" or ", " and ", " without "]))
        other = str(rng.choice(texts))
        pair = [unit.text, other] if between == " without " or rng.random() < 0.5 else []
        found.append(between.join(pair or [other, unit.text]))
    return {text: i for i, text in enumerate(dict.fromkeys(found))}


def train_critic(
    set_encoder: SetEncoder,
    encoder: Encoder,
    corpus: Corpus,
    check: Corpus,
    settings: CriticSettings,
    seed: int,
    advance: Callable[[int, float], None] = lambda step, loss: None,
) -> dict[str, Any]:
    """Fit ``set_encoder.critic`` in place; the other parts must know the usual values.

    Args:
        set_encoder: whose critic is trained.
        encoder: embeds texts.
        corpus: draws units.
        check: draws the units of the check.
        settings: of the training.
        seed: of all randomness.
        advance: told each step and its loss.

    Returns:
        The loss and, on the check, the loss in nats a unit and the share of the units whose first
        text is right, by kind of meaning.
    """
    torch.manual_seed(seed)
    critic = set_encoder.critic.requires_grad_(True)
    critic.train()
    read = read_table(set_encoder, corpus.table)
    corpus, check = copy.copy(corpus), copy.copy(check)
    corpus.table = check.table = read
    known = all_texts(set_encoder, encoder, corpus)
    place = {text: i for i, text in enumerate(known.texts)}
    optimiser = torch.optim.AdamW(
        critic.parameters(), settings.learning_rate, weight_decay=WEIGHT_DECAY
    )
    losses = []
    for step in range(settings.steps):
        rng = np.random.default_rng([seed, 6, step])
        rate = 0.5 * (1 + math.cos(math.pi * step / settings.steps)) * min(1, (step + 1) / WARM_UP)
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * rate
        units = [corpus.unit(rng) for _ in range(settings.batch_size)]
        composed = _composed(units, known.texts, rng)
        form = torch.from_numpy(rng.integers(0, 2, len(known.texts)))
        vectors = [known.vectors[torch.arange(len(form)), form]]
        frequency = [known.frequency]
        if composed:
            vectors.append(set_encoder.centred_texts(encoder.texts(list(composed))))
            log = math.log(COMPOSED / len(composed))
            frequency.append(torch.full((len(composed),), log))
        logits = scores(set_encoder, corpus.evidence(units), torch.cat(vectors))
        share = targets(units, place, composed)
        loss = -(share * (logits + torch.cat(frequency)).log_softmax(1)).sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
        advance(step, losses[-1])
    critic.eval().requires_grad_(False)
    facts: dict[str, Any] = {"loss": round(float(np.mean(losses[-50:])), 4)}
    if check.kinds:
        if not check.frequencies().keys() <= place.keys():  # of real units each has its own texts
            known = all_texts(set_encoder, encoder, check)
        facts |= _check(set_encoder, check, known, seed)
    return facts


@torch.inference_mode()
def _check(set_encoder: SetEncoder, check: Corpus, known: Texts, seed: int) -> dict[str, Any]:
    """Loss and first texts of units that no training saw, among texts of one meaning."""
    place = {text: i for i, text in enumerate(known.texts)}
    rng = np.random.default_rng([seed, 7])
    units = [check.unit(rng) for _ in range(CHECKED)]
    share = targets(units, place, {})
    logits = scores(set_encoder, check.evidence(units), known.vectors[:, 0])
    loss = -(share * (logits + known.frequency).log_softmax(1)).sum(1)
    first = (logits + FREQUENCY * known.frequency).argmax(1)
    right = (share[torch.arange(len(units)), first] > 0).float()
    kinds = np.array([u.kind if len(u.senses) == 1 else "two senses" for u in units])
    by_kind = {
        str(kind): [round(float(right[kinds == kind].mean()), 3), int((kinds == kind).sum())]
        for kind in sorted(set(kinds))
    }
    return {"checked_loss": round(float(loss.mean()), 4), "first_right": by_kind}
