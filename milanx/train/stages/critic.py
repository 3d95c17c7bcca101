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
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from milanx.describing.set_encoder import SetEncoder, SetEncoderSpec
from milanx.features.encoder import Encoder, read_pixels, read_width
from milanx.features.evidence import Evidence
from milanx.language.connectives import CONNECTIVES, join_features, split
from milanx.language.words import plural
from milanx.train.engine.fit import share
from milanx.train.engine.schedule import small_network
from milanx.train.recipe import Recipe
from milanx.train.stages.desk import Desk, step_rng
from milanx.train.units.corpus import Corpus, Unit
from milanx.train.units.table import Table

SAMPLE = 512  # units from which the features' usual values are learned
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


def told_sets(set_encoder: SetEncoder, evidence: Evidence) -> tuple[torch.Tensor, torch.Tensor]:
    """What the critic is told of units, given by read features."""
    evidence = evidence.to(set_encoder.mean.device)
    return set_encoder.critic_inputs(evidence, evidence.features, evidence.contrast)


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


def new_set_encoder(
    recipe: Recipe, encoder: Encoder, corpus: Corpus, vocabulary: Sequence[str]
) -> SetEncoder:
    """Build a set encoder that knows the features' usual values and the vocabulary."""
    spec = SetEncoderSpec(
        read_width(encoder), encoder.spec.joint, recipe.base.width, recipe.decoder.prefix,
        layers=recipe.decoder.layers, vocabulary=len(vocabulary),
        pixels=read_pixels(encoder), critic=recipe.critic.width,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        set_encoder = SetEncoder(spec)
    sample = corpus.batch(SAMPLE, step_rng(recipe.seed, 0, 0)).evidence
    set_encoder.learn_usual(sample, encoder.texts(vocabulary).cpu())
    often = corpus.frequencies()
    set_encoder.frequency.copy_(torch.tensor([often.get(t, min(often.values()))
                                              for t in vocabulary]).log())  # fmt: skip
    return set_encoder


def make_critic(desk: Desk) -> dict[str, Any]:
    """Train the critic of a new set encoder; write the set encoder."""
    course = desk.course
    set_encoder = new_set_encoder(desk.recipe, course.encoder, course.corpus(), course.vocabulary)
    facts = train_critic(desk, set_encoder, course.corpus(), course.corpus(check=True))
    save_file(set_encoder.state_dict(), desk.folder / "set_encoder.safetensors")
    return {**facts, "set_encoder": asdict(set_encoder.spec)}


def train_critic(
    desk: Desk, set_encoder: SetEncoder, corpus: Corpus, check: Corpus
) -> dict[str, Any]:
    """Fit ``set_encoder.critic`` in place; the other parts must know the usual values.

    The set encoder is on the CPU afterwards. The weights that are kept are those of the least loss
    on the check.

    Args:
        desk: where it is trained.
        set_encoder: whose critic is trained.
        corpus: draws units.
        check: draws the units of the check.

    Returns:
        What the training was like, its check's loss in nats a unit, and the share of the checked
        units whose first text is right, by kind of meaning.
    """
    encoder, settings, seed = desk.course.encoder, desk.recipe.critic, desk.recipe.seed
    set_encoder.to(desk.accelerator.device)
    read = read_table(set_encoder, corpus.table)
    corpus, check = copy.copy(corpus), copy.copy(check)
    corpus.table = check.table = read
    known = all_texts(set_encoder, encoder, corpus)

    def loss_of(critic: nn.Module, step: int) -> tuple[torch.Tensor, float]:
        rng = step_rng(seed, 6, step)
        units = [corpus.unit(rng) for _ in range(settings.batch_size)]
        composed = _composed(units, known, rng)
        offered, frequency = _offered(set_encoder, encoder, known, composed, rng)
        own = units[share(len(units), desk.accelerator)]
        logits = critic(*told_sets(set_encoder, corpus.evidence(own)), offered)
        right = targets(own, known.place, composed).to(logits)
        chance = (logits + frequency).log_softmax(1)
        return -(right * chance).sum(), float(len(own))

    checked = _Check(desk, set_encoder, check, known) if check.kinds else None
    chosen = small_network(
        settings.steps, settings.learning_rate, warmup=WARM_UP,
        check_every=CHECK_EVERY if checked else 0,
    )  # fmt: skip
    critic = set_encoder.critic.requires_grad_(True)
    facts = desk.fit(critic, loss_of, chosen, checked.loss if checked else None)
    critic.requires_grad_(False)
    if checked:
        facts["first_right"] = checked.first_right(critic)
    set_encoder.cpu()
    return facts


def _offered(
    set_encoder: SetEncoder,
    encoder: Encoder,
    known: Texts,
    composed: dict[str, int],
    rng: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tell all texts, each in the singular or the plural, and the composed ones of a step.

    Returns:
        [t + c, 2 j + 3], and [t + c], log of how often each is drawn.
    """
    form = torch.from_numpy(rng.integers(0, 2, len(known.texts)))
    vectors = known.vectors[torch.arange(len(form)), form]
    if not composed:
        return vectors, known.frequency
    joins = join_features(list(composed), encoder.texts, known.whole)
    more = set_encoder.told_texts(encoder.texts(list(composed)), joins)
    often = known.frequency.new_full((len(composed),), math.log(COMPOSED / len(composed)))
    return torch.cat([vectors, more]), torch.cat([known.frequency, often])


class _Check:
    """Loss and first texts of units that no training saw, among texts of one meaning."""

    def __init__(self, desk: Desk, set_encoder: SetEncoder, check: Corpus, known: Texts) -> None:
        if not check.frequencies().keys() <= known.place.keys():
            # Of real units each has its own texts.
            known = all_texts(set_encoder, desk.course.encoder, check)
        rng = step_rng(desk.recipe.seed, 7, 0)
        self.units = [check.unit(rng) for _ in range(CHECKED)]
        self.told = told_sets(set_encoder, check.evidence(self.units))
        self.own = share(CHECKED, desk.accelerator)
        self.known, self.often = known, set_encoder.spec.frequency * known.frequency
        self.right = targets(self.units, known.place, {}).to(known.frequency)

    def loss(self, critic: nn.Module) -> tuple[float, float]:
        """Return the loss of this process's part of the units, and how many these are."""
        logits = critic(*(told[self.own] for told in self.told), self.known.vectors[:, 0])
        chance = (logits + self.known.frequency).log_softmax(1)
        return -float((self.right[self.own] * chance).sum()), float(len(chance))

    @torch.inference_mode()
    def first_right(self, critic: Callable[..., torch.Tensor]) -> dict[str, list[float]]:
        """Return the share of the units whose first text is right, and their number, by kind."""
        logits = critic(*self.told, self.known.vectors[:, 0])
        first = (logits + self.often).argmax(1)
        right = (self.right.gather(1, first[:, None])[:, 0] > 0).float().cpu()
        kinds = np.array([u.kind if len(u.senses) == 1 else "two senses" for u in self.units])
        return {
            str(kind): [round(float(right[kinds == kind].mean()), 3), int((kinds == kind).sum())]
            for kind in sorted(set(kinds))
        }
