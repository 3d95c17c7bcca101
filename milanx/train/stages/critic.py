"""Training of the critic: which of all texts does an exemplar set agree with?

Each step draws units and asks for their texts among all those that units of one meaning can have,
and among composed ones: those of the batch's units of two meanings, made-up ones that are true of
none ("dogs or bridges" for a unit of dogs), which teach that a second meaning must show, and right
ones under a wrong connective ("dogs without bridges" for "dogs or bridges").
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from milanx.describing.set_encoder import SetEncoder
from milanx.features.encoder import Encoder
from milanx.features.evidence import Evidence
from milanx.language.connectives import CONNECTIVES, join_features, split
from milanx.language.words import plural
from milanx.train.recipe import CriticSettings
from milanx.train.units.corpus import Corpus, Unit
from milanx.train.units.table import Table

WEIGHT_DECAY = 0.05
WARM_UP = 50  # steps
MADE_UP = 0.15  # made-up composed texts of a step, a unit
RIVALS = 0.5  # share of the joined texts whose parts are also offered under another connective
COMPOSED = 0.1  # share of the units that have a composed text: the composed texts' frequency
CHECKED = 1000  # units of the check
CHECK_EVERY = 100  # steps
ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class Texts:
    """All texts of units of one meaning.

    Attributes:
        texts: [t].
        vectors: [t, 2, 2 j + 3], what the critic is told of them as they stand and in the plural.
        frequency: [t], log of how often each is drawn.
        whole: phrases that are one thing (`milanx.language.connectives.split`).
    """

    texts: list[str]
    vectors: torch.Tensor
    frequency: torch.Tensor
    whole: frozenset[str]

    @cached_property
    def place(self) -> dict[str, int]:
        """Where each text is."""
        return {text: i for i, text in enumerate(self.texts)}


def read_table(set_encoder: SetEncoder, table: Table) -> Table:
    """Return the table with read features in place of pooled ones, in memory."""
    device = set_encoder.mean.device

    def read(rows: np.ndarray) -> np.ndarray:
        parts = []
        for i in range(0, len(rows), ROWS_AT_ONCE):
            pooled = torch.from_numpy(rows[i : i + ROWS_AT_ONCE].astype(np.float32)).to(device)
            parts.append(set_encoder.read(pooled).half().cpu())
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
    log = torch.tensor([math.log(frequencies[t]) for t in texts], device=both.device)
    whole = frozenset(corpus.vocabulary())
    joins = join_features(texts, encoder.texts, whole)[:, None].expand(-1, 2, -1)
    return Texts(texts, set_encoder.told_texts(both, joins), log, whole)


def scores(set_encoder: SetEncoder, evidence: Evidence, texts: torch.Tensor) -> torch.Tensor:
    """Agreement of units, given by read features, and told texts [t, 2 j + 3]: [u, t]."""
    evidence = evidence.to(texts.device)
    inputs = set_encoder.critic_inputs(evidence, evidence.features, evidence.contrast)
    found: torch.Tensor = set_encoder.critic(*inputs, texts)
    return found


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


def _composed(units: Sequence[Unit], known: Texts, rng: np.random.Generator) -> dict[str, int]:
    """The composed texts of units, made-up ones and rivals, and their places."""
    texts = known.texts
    found = [unit.text for unit in units if len(unit.senses) > 1]
    single = [unit for unit in units if len(unit.senses) == 1]
    for unit in single[: round(MADE_UP * len(units))]:
        between = str(rng.choice([" or ", " and ", " without "]))
        other = str(rng.choice(texts))
        pair = [unit.text, other] if between == " without " or rng.random() < 0.5 else []
        found.append(between.join(pair or [other, unit.text]))
    for unit in units:
        parts = split(unit.text, known.whole)
        if parts and rng.random() < RIVALS:
            first, connective, second = parts
            other = str(rng.choice([c for c in CONNECTIVES if c != connective]))
            found.append(f"{first} {other} {second}")
    distinct = dict.fromkeys(text for text in found if text not in known.place)
    return {text: i for i, text in enumerate(distinct)}


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

    It is trained where ``encoder`` is, and is on the CPU afterwards. The weights that are kept are
    those of the least loss on the check.

    Args:
        set_encoder: whose critic is trained.
        encoder: embeds texts.
        corpus: draws units.
        check: draws the units of the check.
        settings: of the training.
        seed: of all randomness.
        advance: told each step and its loss.

    Returns:
        The loss and, on the check, the loss in nats a unit by step, that of the kept weights, and
        the share of the units whose first text is right, by kind of meaning.
    """
    torch.manual_seed(seed)
    set_encoder.to(encoder.device)
    critic = set_encoder.critic.requires_grad_(True)
    critic.train()
    read = read_table(set_encoder, corpus.table)
    corpus, check = copy.copy(corpus), copy.copy(check)
    corpus.table = check.table = read
    known = all_texts(set_encoder, encoder, corpus)
    place = known.place
    optimiser = torch.optim.AdamW(
        critic.parameters(), settings.learning_rate, weight_decay=WEIGHT_DECAY
    )
    losses = []
    checked = _Check(set_encoder, encoder, check, known, seed) if check.kinds else None
    for step in range(settings.steps):
        rng = np.random.default_rng([seed, 6, step])
        rate = 0.5 * (1 + math.cos(math.pi * step / settings.steps)) * min(1, (step + 1) / WARM_UP)
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * rate
        units = [corpus.unit(rng) for _ in range(settings.batch_size)]
        composed = _composed(units, known, rng)
        form = torch.from_numpy(rng.integers(0, 2, len(known.texts)))
        vectors = [known.vectors[torch.arange(len(form)), form]]
        frequency = [known.frequency]
        if composed:
            joins = join_features(list(composed), encoder.texts, known.whole)
            vectors.append(set_encoder.told_texts(encoder.texts(list(composed)), joins))
            log = math.log(COMPOSED / len(composed))
            frequency.append(known.frequency.new_full((len(composed),), log))
        logits = scores(set_encoder, corpus.evidence(units), torch.cat(vectors))
        share = targets(units, place, composed).to(logits)
        loss = -(share * (logits + torch.cat(frequency)).log_softmax(1)).sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
        advance(step, losses[-1])
        if checked and ((step + 1) % CHECK_EVERY == 0 or step + 1 == settings.steps):
            checked.take(step + 1)
    critic.eval().requires_grad_(False)
    facts: dict[str, Any] = {"loss": round(float(np.mean(losses[-50:])), 4)}
    if checked:
        facts |= checked.finish()
    set_encoder.cpu()
    return facts


class _Check:
    """Loss and first texts of units that no training saw, among texts of one meaning.

    Keeps the critic's weights of the least loss.
    """

    def __init__(
        self, set_encoder: SetEncoder, encoder: Encoder, check: Corpus, known: Texts, seed: int
    ) -> None:
        if not check.frequencies().keys() <= known.place.keys():
            known = all_texts(set_encoder, encoder, check)  # of real units each has its own texts
        rng = np.random.default_rng([seed, 7])
        self.units = [check.unit(rng) for _ in range(CHECKED)]
        self.evidence = check.evidence(self.units)
        self.set_encoder, self.known = set_encoder, known
        self.share = targets(self.units, known.place, {}).to(known.frequency)
        self.history: list[list[float]] = []
        self.best: dict[str, torch.Tensor] = {}

    @torch.inference_mode()
    def _logits(self) -> torch.Tensor:
        critic, training = self.set_encoder.critic, self.set_encoder.critic.training
        critic.eval()
        found = scores(self.set_encoder, self.evidence, self.known.vectors[:, 0])
        critic.train(training)
        return found

    def take(self, step: int) -> None:
        """Check after ``step`` steps."""
        chance = (self._logits() + self.known.frequency).log_softmax(1)
        loss = round(float(-(self.share * chance).sum(1).mean()), 4)
        if all(loss < before for _, before in self.history):
            state = self.set_encoder.critic.state_dict()
            self.best = {k: v.detach().clone() for k, v in state.items()}
        self.history.append([step, loss])

    def finish(self) -> dict[str, Any]:
        """Bring back the best weights and return what was found."""
        if self.best:
            self.set_encoder.critic.load_state_dict(self.best)
        often = self.set_encoder.spec.frequency * self.known.frequency
        first = (self._logits() + often).argmax(1)
        right = (self.share.gather(1, first[:, None])[:, 0] > 0).float().cpu()
        kinds = np.array([u.kind if len(u.senses) == 1 else "two senses" for u in self.units])
        by_kind = {
            str(kind): [round(float(right[kinds == kind].mean()), 3), int((kinds == kind).sum())]
            for kind in sorted(set(kinds))
        }
        least = min((loss for _, loss in self.history), default=math.nan)
        return {"checked_loss": least, "checked": self.history, "first_right": by_kind}
